"""Rules for joining and taking apart: concatenation, stacking, splitting, slices."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import tree

from secateur.keras.cut_rules.site import Kept, Site, is_array
from secateur.keras.cut_rules.table import layer, op
from secateur.keras.flatten import Tensor
from secateur.network import Labels, MaybeLabels


@layer("Concatenate")
@op("Concatenate")
def concatenate(site: Site) -> None:
    """Labels one after the other on the axis; tied on all others."""
    parts = list(site.call.args[0] if site.call.args else site.call.kwargs["xs"])
    out = site.call.outputs[0]
    axis = site.operation.axis % len(out.shape)
    labels = [_part_axes(site, part) for part in parts]
    result: list[MaybeLabels] = []
    for other in range(len(out.shape)):
        meeting = [own[other] for own in labels]
        if other == axis:
            result.append(_joined(site, parts, axis, meeting))
            continue
        tied = meeting[0]
        for own in meeting[1:]:
            if tied is not None or own is not None:
                tied = site.tie(tied, own)
        result.append(tied)
    site.output(*result)


def _part_axes(site: Site, part: Any) -> list[MaybeLabels]:
    if isinstance(part, Tensor):
        return site.axes(part)
    return [None] * len(part.shape)


def _joined(site: Site, parts: list[Any], axis: int, labels: list[MaybeLabels]) -> MaybeLabels:
    """Labels of the joined axis; parts that are never cut get slots that are frozen."""
    if all(own is None for own in labels):
        return None
    if any(part.shape[axis] is None for part in parts):
        for own in labels:
            site.freeze(own)
        return None
    joined: list[Labels] = []
    for part, own in zip(parts, labels, strict=True):
        if own is None:
            own = site.network.fresh(part.shape[axis], site.name, "factor")
            site.freeze(own, f"{site.name}: this part of the concatenation cannot be cut")
        joined.append(own)
    return np.concatenate(joined)


@op("Stack")
def stack(site: Site) -> None:
    """Tied on all axes; the new one is never cut."""
    parts = list(site.call.args[0] if site.call.args else site.call.kwargs["x"])
    axes = [_part_axes(site, part) for part in parts]
    result = axes[0]
    for own in axes[1:]:
        result = [
            site.tie(one, two) if one is not None or two is not None else None
            for one, two in zip(result, own, strict=True)
        ]
    result.insert(site.operation.axis % len(site.call.outputs[0].shape), None)
    site.output(*result)


@op("Unstack")
def unstack(site: Site) -> None:
    """Takes an axis apart; the others keep their labels."""
    axes = site.axes()
    axis = site.operation.axis % site.rank
    site.freeze(axes[axis])
    for _ in site.call.outputs:
        site.output(*axes[:axis], *axes[axis + 1 :])


@op("ArraySplit")
def array_split(site: Site) -> None:
    """Parts as equal as can be: after a cut they would end elsewhere, so the axis stays whole."""
    axes = site.axes()
    axis = site.operation.axis % site.rank
    site.freeze(axes[axis])
    axes[axis] = None
    for _ in site.call.outputs:
        site.output(*axes)


@op("Split")
def split(site: Site) -> None:
    """Labels are split too; after a cut the parts end where their kept positions end."""
    axes = site.axes()
    axis = site.operation.axis % site.rank
    sizes = [tensor.shape[axis] for tensor in site.call.outputs]
    along = axes[axis]
    if along is None or any(size is None for size in sizes):
        site.freeze(along)
        for _ in sizes:
            site.output(*axes[:axis], None, *axes[axis + 1 :])
        return
    ends = np.cumsum([int(size) for size in sizes if size is not None])
    parts = np.split(along, ends[:-1])
    for part in parts:
        site.output(*axes[:axis], part, *axes[axis + 1 :])
    site.resize(
        lambda kept: {
            "indices_or_sections": [
                int(end) for end in np.cumsum([kept.count(p) for p in parts])[:-1]
            ]
        }
    )


@op("GetItem")
def get_item(site: Site) -> None:
    """Slices, indices, new axes: labels are sliced alike, and bounds follow what is kept."""
    key = site.argument("key", 1)
    entries = list(key) if isinstance(key, tuple) else [key]
    if any(is_array(entry) or isinstance(entry, (list, Tensor)) for entry in entries):
        site.wall("indexes by arrays")
        return
    plan = _expand(entries, site.rank)
    axes = site.axes()
    result: list[MaybeLabels] = []
    axis = 0
    for entry in plan:
        if entry is None:
            result.append(None)
            continue
        labels, size = axes[axis], site.x.shape[axis]
        axis += 1
        if isinstance(entry, slice):
            if any(isinstance(bound, Tensor) for bound in (entry.start, entry.stop, entry.step)):
                site.wall("slices by bounds that are computed")
                return
            if labels is not None and entry.step not in (None, 1, -1):
                _tie_strides(site, labels, abs(entry.step))
            part = None if labels is None or size is None else labels[entry]
            if part is not None and part.size == 1 and labels is not None and labels.size > 1:
                # An axis of one position is spread over what it meets; it must not become empty.
                site.freeze(part, f"{site.name} takes this position alone")
                part = None
            result.append(part)
        else:
            site.freeze(labels)
    site.output(*result)

    def rearranged(kept: Kept) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (site.x, tuple(_kept_entries(plan, axes, kept))), {}

    if any(labels is not None for labels in axes):
        site.rearrange(rearranged)


def _tie_strides(site: Site, labels: Labels, step: int) -> None:
    """Every `step` neighbours go together, so that a stepped slice of what is kept is one again."""
    if labels.size % step:
        site.freeze(labels)
        return
    site.tie(np.repeat(labels[::step], step), labels)


def _expand(entries: list[Any], rank: int) -> list[Any]:
    """Spell out the ellipsis, so that every axis has an entry."""
    taken = sum(1 for entry in entries if entry is not None and entry is not Ellipsis)
    fill = [slice(None)] * (rank - taken)
    if any(entry is Ellipsis for entry in entries):
        at = next(i for i, entry in enumerate(entries) if entry is Ellipsis)
        return [*entries[:at], *fill, *entries[at + 1 :]]
    return [*entries, *fill]


def _kept_entries(plan: list[Any], axes: list[MaybeLabels], kept: Kept) -> list[Any]:
    result: list[Any] = []
    axis = 0
    for entry in plan:
        if entry is None:
            result.append(None)
            continue
        labels = axes[axis]
        axis += 1
        if isinstance(entry, slice) and kept.cuts(labels) and entry != slice(None):
            assert labels is not None
            result.append(_kept_slice(entry, kept.mask(labels)))
        else:
            result.append(entry)
    return result


def _kept_slice(entry: slice, mask: Any) -> slice:
    """The slice, among kept positions, that takes the kept ones of `entry`.

    Labels of one unit stand at regular places, so what a stepped slice takes is again one.
    """
    old = np.arange(mask.size)[entry]
    new_position = np.cumsum(mask) - 1
    taken = new_position[old[mask[old]]]
    if taken.size == 0:
        return slice(0, 0)
    step = int(taken[1] - taken[0]) if taken.size > 1 else 1
    stop: int | None = int(taken[-1]) + (1 if step > 0 else -1)
    return slice(int(taken[0]), None if stop is not None and stop < 0 else stop, step)


@op("Slice")
def slice_op(site: Site) -> None:
    """`ops.slice`: start indices and a shape."""
    start = site.argument("start_indices", 1)
    shape = site.operation.shape
    axes = site.axes()
    static = not any(isinstance(leaf, Tensor) for leaf in tree.flatten((start, shape)))
    if not static or is_array(start):
        site.wall("slices by bounds that are computed")
        return
    result: list[MaybeLabels] = []
    for axis, labels in enumerate(axes):
        whole = start[axis] == 0 and shape[axis] in (-1, site.x.shape[axis])
        if labels is not None and not whole:
            site.freeze(labels)
        result.append(labels if whole else None)
    site.output(*result)
    site.resize(
        lambda kept: {
            "shape": tuple(
                kept.count(labels, size) if labels is not None else size
                for labels, size in zip(result, shape, strict=True)
            )
        }
    )


@op("Take")
def take(site: Site) -> None:
    """Indexes one axis, which stays whole (as the rows of a table do)."""
    indices = site.argument("indices", 1)
    given = site.operation.axis
    axes = site.axes()
    table_rank = site.rank
    if given is None:
        site.wall("takes from a flattened tensor")
        return
    axis = given % table_rank
    site.freeze(axes[axis])
    rank = len(getattr(indices, "shape", ()))
    site.output(*axes[:axis], *[None] * rank, *axes[axis + 1 :])


@op("TakeAlongAxis")
def take_along_axis(site: Site) -> None:
    """Picks along one axis, which stays whole; the others keep their labels."""
    axis = site.operation.axis
    if axis is None:
        site.wall("takes from a flattened tensor")
        return
    axes = site.axes()
    site.freeze(axes[axis])
    axes[axis] = None
    site.output(*axes)


@op("TopK")
def top_k(site: Site) -> None:
    """Chooses along the last axis, which stays whole; values and their places."""
    *lead, last = site.axes()
    site.freeze(last)
    for _ in site.call.outputs:
        site.output(*lead, None)


@op("OneHot", "MultiHot")
def one_hot(site: Site) -> None:
    """Integers to vectors: the axis of classes is new and stays whole."""
    axes = site.axes()
    if type(site.operation).__name__ == "MultiHot" or site.operation.axis not in (-1, site.rank):
        site.freeze_all(f"{site.name} puts classes between its axes")
        site.output(*[None] * len(site.call.outputs[0].shape))
        return
    site.output(*axes, None)


@op("FFT", "FFT2", "IFFT2")
def fourier(site: Site) -> None:
    """Transforms the last axis, or the last two, which stay whole; real and imaginary parts."""
    real, imaginary = site.inputs
    count = 1 if type(site.operation).__name__ == "FFT" else 2
    lead = len(real.shape) - count
    axes = [
        site.tie(one, two) if one is not None or two is not None else None
        for one, two in zip(site.axes(real), site.axes(imaginary), strict=True)
    ]
    for labels in axes[lead:]:
        site.freeze(labels)
    for _ in site.call.outputs:
        site.output(*axes[:lead], *[None] * count)


@op("Tril", "Triu")
def triangle(site: Site) -> None:
    """The last two axes stay whole."""
    axes = site.axes()
    site.freeze(axes[-1])
    site.freeze(axes[-2])
    site.output(*axes[:-2], None, None)
