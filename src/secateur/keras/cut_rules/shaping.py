"""Rules that move axes and positions: reshape, flatten, permute, repeat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.cut_rules.table import layer, op
from secateur.network import Labels, MaybeLabels, spread

_DYNAMIC = (2_147_483_647, 2_147_483_629, 2_147_483_587, 2_147_483_579)
"""Primes that stand for sizes which only the data tells, so that such axes match each other alone."""


def _stand_in(shape: Sequence[int | None]) -> list[int]:
    unknown = iter(_DYNAMIC)
    return [next(unknown) if size is None else size for size in shape]


def blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes of equal product, in order.

    Example:
        >>> blocks((5, 6, 4), (5, 2, 12))
        [([0], [0]), ([1, 2], [1, 2])]
    """
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = [i] if i < len(before) else [], [j] if j < len(after) else []
        one = before[i] if left else 1
        two = after[j] if right else 1
        i, j = i + len(left), j + len(right)
        while one != two:
            if one < two and i < len(before):
                one *= before[i]
                left.append(i)
                i += 1
            elif two < one and j < len(after):
                two *= after[j]
                right.append(j)
                j += 1
            else:
                return [*found, ([*left, *range(i, len(before))], [*right, *range(j, len(after))])]
        found.append((left, right))
    return found


def reshaped(site: Site) -> list[MaybeLabels]:
    """Labels of the output of a reshape."""
    before, after = _stand_in(site.x.shape), _stand_in(site.call.outputs[0].shape)
    axes = site.axes()
    result: list[MaybeLabels] = [None] * len(after)
    runs = blocks(before, after)
    lead = _unknown_lead(site.x.shape, site.call.outputs[0].shape)
    if lead is not None:
        one, two = lead
        tails = blocks(before[one:], after[two:])
        runs = [
            (list(range(one)), list(range(two))),
            *(([one + a for a in left], [two + b for b in right]) for left, right in tails),
        ]
    for left, right in runs:
        labels = [axes[axis] for axis in left]
        if all(own is None for own in labels):
            continue
        sizes = [before[axis] for axis in left]
        if any(size in _DYNAMIC for size in sizes) and len(left) + len(right) > 2:
            for own in labels:
                site.freeze(own, f"{site.name} merges it with an axis of unknown size")
            continue
        if math.prod(sizes) != math.prod(after[axis] for axis in right):
            for own in labels:
                site.freeze(own)
            continue
        whole = _merge(site, sizes, labels)
        for axis, own in zip(right, _divide(site, whole, [after[a] for a in right]), strict=True):
            result[axis] = own
    return result


def _unknown_lead(
    before: Sequence[int | None], after: Sequence[int | None]
) -> tuple[int, int] | None:
    """How many axes of unknown sizes and between them are merged, in front of ones that stay apart.

    As where (batch, time, features) become (rows, features). None where every unknown axis stays.
    """
    unknown = [[axis for axis, size in enumerate(s) if size is None] for s in (before, after)]
    known = [math.prod(size for size in s if size is not None) for s in (before, after)]
    stay = len(unknown[0]) == len(unknown[1]) and known[0] == known[1]
    if stay or not (unknown[0] and unknown[1]):
        return None
    for one in range(unknown[0][-1] + 1, len(before)):
        for two in range(unknown[1][-1] + 1, len(after)):
            tails = [math.prod(size or 1 for size in s) for s in (before[one:], after[two:])]
            if tails[0] == tails[1]:
                return one, two
    return None


def _merge(site: Site, sizes: Sequence[int], labels: Sequence[MaybeLabels]) -> Labels:
    known = [(axis, own) for axis, own in enumerate(labels) if own is not None]
    if len(known) == 1:
        axis, own = known[0]
        return spread(sizes, axis, own)
    whole = site.network.fresh(math.prod(sizes), site.name, "factor")
    site.network.product(sizes, labels, whole)
    return whole


def _divide(site: Site, whole: Labels, sizes: Sequence[int]) -> list[MaybeLabels]:
    """Labels of the factors that an axis is split into.

    Where labels already repeat along all other factors (channels that were flattened), that factor
    has them. Else every factor gets slots, and `groups.solve` chooses the one that is cut.
    """
    real = [axis for axis, size in enumerate(sizes) if size > 1]
    result: list[MaybeLabels] = [None] * len(sizes)
    if len(real) <= 1:
        if real:
            result[real[0]] = whole
        return result
    for axis in real:
        own = whole.reshape(sizes).swapaxes(0, axis).reshape(sizes[axis], -1)[:, 0]
        if np.array_equal(spread(sizes, axis, own), whole):
            result[axis] = own
            return result
    for axis in real:
        result[axis] = site.network.fresh(sizes[axis], site.name, "factor")
    site.network.product(sizes, result, whole)
    return result


@layer("Flatten", "Reshape")
@op("Reshape", "Ravel")
def reshape(site: Site) -> None:
    """Positions are renumbered; a target shape follows what is kept."""
    if getattr(site.operation, "data_format", None) == "channels_first" and site.rank > 2:
        site.wall("flattens channels first")
        return
    axes = reshaped(site)
    site.output(*axes)
    site.passes = True
    layer_target = getattr(site.operation, "target_shape", None)
    op_target = getattr(site.operation, "newshape", None)
    if layer_target is not None:
        site.resize(lambda kept: {"target_shape": _target(layer_target, axes[1:], kept)})
    elif op_target is not None:
        site.resize(lambda kept: {"newshape": _target(op_target, axes, kept)})


def _target(target: Any, axes: Sequence[MaybeLabels], kept: Kept) -> tuple[Any, ...]:
    given = tuple(target) if isinstance(target, (list, tuple)) else (target,)
    return tuple(
        size if size is None or size == -1 else kept.count(labels, size)
        for size, labels in zip(given, axes, strict=True)
    )


@layer("Permute")
def permute(site: Site) -> None:
    """Axes change places."""
    axes = site.axes()
    site.output(axes[0], *(axes[axis] for axis in site.operation.dims))


@op("Transpose")
def transpose(site: Site) -> None:
    """Axes change places."""
    axes = site.axes()
    order = site.operation.axes
    site.output(*(axes[axis] for axis in (reversed(range(site.rank)) if order is None else order)))


@op("Swapaxes")
def swapaxes(site: Site) -> None:
    """Two axes change places."""
    axes = site.axes()
    one, two = site.operation.axis1, site.operation.axis2
    axes[one], axes[two] = axes[two], axes[one]
    site.output(*axes)


@op("Moveaxis")
def moveaxis(site: Site) -> None:
    """Axes change places."""
    source = np.atleast_1d(site.operation.source) % site.rank
    target = np.atleast_1d(site.operation.destination) % site.rank
    rest = [axis for axis in range(site.rank) if axis not in source]
    placed = dict(zip(target.tolist(), source.tolist(), strict=True))
    axes = site.axes()
    site.output(*(axes[placed[i]] if i in placed else axes[rest.pop(0)] for i in range(site.rank)))


@op("ExpandDims", "Squeeze")
def dimensions(site: Site) -> None:
    """Axes of one position come or go."""
    before, after = site.axes(), site.call.outputs[0].shape
    given = site.operation.axis
    if type(site.operation).__name__ == "ExpandDims":
        new = {
            axis % len(after) for axis in (given if isinstance(given, (list, tuple)) else [given])
        }
        rest = iter(before)
        site.output(*(None if axis in new else next(rest) for axis in range(len(after))))
        return
    if given is None:
        gone = {axis for axis, size in enumerate(site.x.shape) if size == 1}
    else:
        gone = {
            axis % site.rank for axis in (given if isinstance(given, (list, tuple)) else [given])
        }
    site.output(*(labels for axis, labels in enumerate(before) if axis not in gone))


@layer("RepeatVector")
def repeat_vector(site: Site) -> None:
    """A new axis of time."""
    site.output(None, None, site.axes()[-1])


@op("Repeat", "Tile")
def repeat(site: Site) -> None:
    """Labels are repeated like the positions."""
    axes = site.axes()
    operation = site.operation
    after = site.call.outputs[0].shape
    if type(operation).__name__ == "Repeat":
        axis = operation.axis
        if axis is None or not isinstance(operation.repeats, int):
            site.wall("repeats by a list")
            return
        labels = axes[axis]
        axes[axis] = None if labels is None else np.repeat(labels, operation.repeats)
        site.output(*axes)
        return
    times = operation.repeats
    times = [times] if isinstance(times, int) else list(times)
    padded = [None] * (len(after) - len(axes)) + axes
    times = [1] * (len(after) - len(times)) + times
    site.output(
        *(
            None if own is None else np.tile(own, count)
            for own, count in zip(padded, times, strict=True)
        )
    )


@op("BroadcastTo")
def broadcast_to(site: Site) -> None:
    """Axes of equal size keep their labels; a target shape follows."""
    after = site.call.outputs[0].shape
    offset = len(after) - site.rank
    axes = site.axes()
    result: list[MaybeLabels] = [
        axes[axis - offset] if axis >= offset and site.x.shape[axis - offset] == size else None
        for axis, size in enumerate(after)
    ]
    site.output(*result)
    target = site.operation.shape
    site.resize(
        lambda kept: {
            "shape": tuple(kept.count(own, size) for own, size in zip(result, target, strict=True))
        }
    )


@op("Pad")
def pad(site: Site) -> None:
    """Padded axes stay whole; the others keep their labels."""
    axes = site.axes()
    width = np.broadcast_to(np.asarray(site.operation.pad_width), (site.rank, 2))
    for axis in range(site.rank):
        if width[axis].any():
            site.freeze(axes[axis])
            axes[axis] = None
    site.output(*axes)
