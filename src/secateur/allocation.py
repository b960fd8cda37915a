"""One target over all layers -> how many weights go from each; the total is met exactly.

Pure functions over sizes, saliencies or measured losses: each gives, by layer, a whole number of weights
to remove, and these add up to `round(sparsity * total size)`.

`uniform` is the default: it needs nothing and is never far off. `by_loss` with losses of the *model*,
measured one layer at a time, is the strong one. Feeding `by_loss` with the layers' own relative errors is
worse than uniform on encoders (a layer's error says nothing of how much its output matters), so that
nothing here does it by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.interpolate import PchipInterpolator

from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.selection import select

Counts: TypeAlias = dict[str, int]
Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

# Into how many steps the dynamic programme divides the weights that go.
_BUCKETS = 4000


def uniform(sizes: Mapping[str, int], sparsity: float) -> Counts:
    """The same fraction from every layer.

    Args:
        sizes: Layer -> number of weights.
        sparsity: Fraction that goes, 0 to 1, over all layers.

    Returns:
        Layer -> how many weights go.

    Raises:
        InvalidArgumentError: No layers, or a sparsity out of range.

    Example:
        >>> uniform({"a": 10, "b": 5}, 0.5)
        {'a': 5, 'b': 3}
    """
    total = _total(sizes, sparsity)
    return _rounded({name: sparsity * size for name, size in sizes.items()}, sizes, total)


def erk(shapes: Mapping[str, Sequence[int]], sparsity: float) -> Counts:
    """Erdos-Renyi-Kernel: density in proportion to (sum of the dimensions) / (their product).

    Layers that would get a density above 1 stay dense, and the others share what is left.

    Args:
        shapes: Layer -> shape of its weight, in any order of axes.
        sparsity: As for `uniform`.

    References:
        Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery" (ICML 2020; arXiv 1911.11134), section 3.
        Differs from the paper: rounded so that the total is exact.

    Example:
        >>> erk({"wide": (100, 100), "narrow": (10, 10)}, 0.5)
        {'wide': 5050, 'narrow': 0}
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = _total(sizes, sparsity)
    raw = {name: float(sum(shapes[name])) for name in shapes}  # density * size, up to one factor
    kept = _filled(raw, sizes, sum(sizes.values()) - total)
    return _rounded({name: sizes[name] - kept[name] for name in sizes}, sizes, total)


def lamp(weights: Mapping[str, Array], sparsity: float) -> Counts:
    """Layer-adaptive magnitudes: w^2 over the sum of those of its layer that are no smaller.

    Args:
        weights: Layer -> its weights, any shape.
        sparsity: As for `uniform`.

    References:
        Lee, Park, Mo, Ahn, Shin, "Layer-adaptive Sparsity for the Magnitude-based Pruning" (ICLR 2021;
        arXiv 2010.07611), equation 4.

    Example:
        >>> lamp({"a": np.array([1.0, 2.0]), "b": np.array([10.0, 10.0])}, 0.25)
        {'a': 1, 'b': 0}
    """
    scores = {}
    for name, weight in weights.items():
        squares = np.square(weight.astype(np.float64).reshape(-1))
        order = np.argsort(squares, kind="stable")
        above = np.cumsum(squares[order][::-1])[::-1]
        score = np.empty_like(squares)
        score[order] = np.divide(squares[order], above, out=np.zeros_like(above), where=above > 0)
        scores[name] = score
    return ranked(scores, sparsity)


def owl(
    saliencies: Mapping[str, Array],
    sparsity: float,
    *,
    outlier: float = 5.0,
    spread: float = 0.08,
) -> Counts:
    """Outlier-weighed: layers with more outlying saliencies keep more.

    Args:
        saliencies: Layer -> Wanda saliencies, (out, in).
        sparsity: As for `uniform`.
        outlier: M: a saliency above M times its layer's mean is an outlier.
        spread: lambda: sparsities lie within +-lambda of the target.

    References:
        Yin et al., "Outlier Weighed Layerwise Sparsity (OWL)" (ICML 2024; arXiv 2310.05175),
        equations 1 and 2.
        Differs from the paper: a value per weight matrix, not per block of layers; weighed by size, so
        that the total is exact where layers differ in size.

    Example:
        >>> flat, spiky = np.ones((10, 10)), np.ones((10, 10))
        >>> spiky[0, 0] = 100.0
        >>> owl({"flat": flat, "spiky": spiky}, 0.5)
        {'flat': 58, 'spiky': 42}
    """
    if not spread >= 0 or not outlier > 0:
        raise InvalidArgumentError(
            f"outlier must be > 0 and spread >= 0, got {outlier} and {spread}."
        )
    sizes = {name: score.size for name, score in saliencies.items()}
    total = _total(sizes, sparsity)
    shares = np.array([np.mean(score > outlier * score.mean()) for score in saliencies.values()])
    span = np.ptp(shares)
    unit = (shares - shares.min()) / span if span > 0 else np.full(len(shares), 0.5)
    weighed = np.array(list(sizes.values()), np.float64)
    # In [-spread, spread], and zero on average over the weights.
    extra = spread * (2 * unit - 1)
    extra -= np.average(extra, weights=weighed)
    wanted = dict(zip(sizes, (sparsity - extra) * weighed, strict=True))
    return _rounded(wanted, sizes, total)


def ranked(saliencies: Mapping[str, Array], sparsity: float, *, normalise: bool = False) -> Counts:
    """Rank the weights of all layers together, and count how many each would lose.

    Args:
        saliencies: Layer -> saliencies >= 0, any shape; higher = keep.
        sparsity: As for `uniform`.
        normalise: Divide each layer's by their root mean square first, so that layers differ by the form
            of the distribution alone.

    Example:
        >>> ranked({"a": np.array([1.0, 2.0]), "b": np.array([3.0, 0.5])}, 0.5)
        {'a': 1, 'b': 1}
    """
    _total({name: score.size for name, score in saliencies.items()}, sparsity)
    scores = {}
    for name, saliency in saliencies.items():
        wide = saliency.astype(np.float64)
        scale = float(np.sqrt(np.mean(wide**2))) if normalise and wide.size else 1.0
        scores[name] = wide / scale if scale > 0 else wide
    masks = select(scores, sparsity=sparsity, scope="global")
    assert isinstance(masks, dict)
    return {name: int(mask.size - np.count_nonzero(mask)) for name, mask in masks.items()}


def by_loss(
    sizes: Mapping[str, int],
    losses: Mapping[str, Mapping[float, float]],
    sparsity: float,
) -> Counts:
    """Dynamic programme: the sparsities whose losses add up to the least.

    Args:
        sizes: Layer -> number of weights.
        losses: Layer -> {sparsity: loss if this layer alone is pruned to it}, at least one entry each;
            the best is the loss of the model. Losses of 0 at sparsity 0 need not be given. Between the
            measured sparsities losses are interpolated (Fritsch & Carlson's monotone cubics), beyond
            the largest nothing goes.
        sparsity: As for `uniform`.

    References:
        Frantar & Alistarh, "SPDY: Accurate Pruning with Speedup Guarantees" (ICML 2022; arXiv
        2201.13096), section 3.1.
        Differs from the paper: the budget is of zeros, not of run time, and losses are as measured, not
        scaled by a search over sensitivities.

    Raises:
        InvalidArgumentError: Losses missing, not finite, or of sparsities that cannot reach the target.

    Example:
        >>> steep, flat = {0.5: 1.0, 1.0: 9.0}, {0.5: 0.1, 1.0: 0.3}
        >>> by_loss({"a": 8, "b": 8}, {"a": steep, "b": flat}, 0.5)
        {'a': 0, 'b': 8}
    """
    total = _total(sizes, sparsity)
    names = list(sizes)
    curves = [_curve(name, losses, sizes[name]) for name in names]
    most = sum(curve.most for curve in curves)
    if most < total:
        raise InvalidArgumentError(
            f"The measured sparsities allow at most {most} zeros, but {total} are asked for; measure "
            "higher sparsities too."
        )
    bucket = max(1, -(-total // _BUCKETS))
    choices = [_choices(curve, bucket) for curve in curves]
    picks = _least([c // bucket for c, _ in choices], [v for _, v in choices], -(-total // bucket))
    removed = [int(counts[pick]) for (counts, _), pick in zip(choices, picks, strict=True)]
    return _trimmed(dict(zip(names, removed, strict=True)), curves, total)


def least_loss(
    costs: Mapping[str, Sequence[float]],
    losses: Mapping[str, Sequence[float]],
    budget: float,
) -> dict[str, int] | None:
    """Knapsack: one option for each layer, so that costs fit a budget and losses add up to the least.

    Solved by a dynamic programme over what is saved against each layer's dearest option, in 4,000 steps
    of the saving that is needed; savings are rounded down, so that the budget holds in any case.

    Args:
        costs: Layer -> what each of its options costs, >= 0, in any unit.
        losses: Layer -> what each option costs in quality; infinite for what is not to be chosen.
        budget: What the chosen options may cost together.

    Returns:
        Layer -> index of its option; None where even the cheapest options cost more than the budget.

    Raises:
        InvalidArgumentError: A layer without options, or not as many losses as costs.

    References:
        Frantar & Alistarh, "SPDY" (ICML 2022; arXiv 2201.13096), section 3.1.

    Example:
        >>> least_loss({"a": [9, 4], "b": [9, 4]}, {"a": [0, 5.0], "b": [0, 0.1]}, budget=13)
        {'a': 0, 'b': 1}
    """
    for name, own in costs.items():
        if not len(own) or len(own) != len(losses[name]):
            raise InvalidArgumentError(
                f"Layer {name!r} has {len(own)} costs and {len(losses[name])} losses; it needs as many "
                "of one as of the other, and at least one."
            )
    usable = {
        name: np.flatnonzero(np.isfinite(np.asarray(own, np.float64)))
        for name, own in losses.items()
    }
    prices = {name: np.asarray(costs[name], np.float64)[usable[name]] for name in costs}
    if any(not price.size for price in prices.values()):
        return None
    saved = {name: price.max() - price for name, price in prices.items()}
    needed = sum(float(price.max()) for price in prices.values()) - budget
    values = [np.asarray(losses[name], np.float64)[usable[name]] for name in costs]
    if needed <= 0:
        picks = [int(np.argmin(value)) for value in values]
    elif sum(float(own.max()) for own in saved.values()) < needed * (1 - 1e-9):
        return None
    else:
        steps = [np.floor(own / needed * _BUCKETS).astype(np.int64) for own in saved.values()]
        if sum(int(own.max()) for own in steps) < _BUCKETS:  # only the cheapest fit, just so
            picks = [int(np.argmin(price)) for price in prices.values()]
        else:
            picks = _least(steps, values, _BUCKETS)
    return {name: int(usable[name][pick]) for name, pick in zip(costs, picks, strict=True)}


def scaled_losses(
    errors: Mapping[str, Mapping[float, float]],
    measured: Mapping[str, tuple[float, float]],
) -> dict[str, dict[float, float]]:
    """Losses at several sparsities from a loss measured at one, in proportion to the layer's error.

    What a layer's relative error costs the model differs between layers by orders of magnitude, but for
    one layer the loss follows its error closely: so one evaluation of the model per layer is enough.

    Args:
        errors: Layer -> {sparsity: error of its own output}, as solvers give it.
        measured: Layer -> (one of those sparsities, loss of the model with this layer pruned to it).

    Returns:
        Layer -> {sparsity: loss}, for `by_loss`.

    Raises:
        InvalidArgumentError: No loss or no error at the sparsity that was measured.

    Example:
        >>> scaled_losses({"a": {0.5: 0.25, 0.9: 0.5}}, {"a": (0.5, 3.0)})
        {'a': {0.5: 3.0, 0.9: 6.0}}
    """
    losses = {}
    for name, curve in errors.items():
        if name not in measured or measured[name][0] not in curve:
            raise InvalidArgumentError(
                f"Layer {name!r} needs a loss measured at one of the sparsities {sorted(curve)}."
            )
        at, loss = measured[name]
        rate = loss / curve[at] if curve[at] > 0 else 0.0
        losses[name] = {sparsity: rate * error for sparsity, error in curve.items()}
    return losses


def _least(savings: Sequence[Array], losses: Sequence[Float64], goal: int) -> list[int]:
    """Pick one entry per layer so that the savings reach `goal` at the least summed loss.

    Args:
        savings: Per layer, whole numbers >= 0.
        losses: Per layer, a loss for each saving.
        goal: At most what the largest savings add up to.
    """
    best = np.full(goal + 1, np.inf)
    best[0] = 0.0
    picks = []
    for saving, loss in zip(savings, losses, strict=True):
        after = np.full(goal + 1, np.inf)
        pick = np.zeros(goal + 1, np.int64)
        for index, value in enumerate(loss):
            step = min(int(saving[index]), goal)
            # Reaching more than the goal counts as reaching it.
            reached = np.full(goal + 1, np.inf)
            reached[step:] = best[: goal + 1 - step] + value
            if step:
                reached[goal] = min(reached[goal], float(best[goal - step :].min()) + value)
            better = reached < after
            after[better], pick[better] = reached[better], index
        picks.append((pick, best))
        best = after
    chosen, here = [], goal
    for (pick, before), saving, loss in zip(
        reversed(picks), reversed(savings), reversed(losses), strict=True
    ):
        index = int(pick[here])
        chosen.append(index)
        step = min(int(saving[index]), goal)
        if here == goal:
            sources = np.arange(goal - step, goal + 1)
            here = int(sources[np.argmin(before[sources] + loss[index])])
        else:
            here -= step
    return chosen[::-1]


@dataclass(frozen=True)
class _Curve:
    """Loss of one layer by how many weights go, from 0 to `most`."""

    most: int
    loss: Callable[[Any], Any]


def _curve(name: str, losses: Mapping[str, Mapping[float, float]], size: int) -> _Curve:
    measured = losses.get(name)
    if not measured:
        raise InvalidArgumentError(f"There are no losses for layer {name!r}.")
    points = {0.0: 0.0, **{float(at): float(value) for at, value in measured.items()}}
    at = np.array(sorted(points))
    values = np.array([points[key] for key in sorted(points)])
    if at[0] < 0 or at[-1] > 1 or not np.isfinite(values).all():
        raise InvalidArgumentError(
            f"Losses of layer {name!r} must be finite, at sparsities from 0 to 1; got {dict(measured)}."
        )
    counts, first = np.unique(np.rint(at * size), return_index=True)
    if len(counts) == 1:
        return _Curve(int(counts[0]), np.zeros_like)
    # A smooth curve that keeps the order of its points: on straight lines every choice is a point.
    return _Curve(int(counts[-1]), PchipInterpolator(counts, values[first]))


def _choices(curve: _Curve, bucket: int) -> tuple[Array, Float64]:
    """What the programme may choose from: about 200 counts in whole buckets, and the last."""
    steps = min(200, max(1, curve.most // bucket))
    buckets = np.rint(np.linspace(0, curve.most // bucket, steps + 1)).astype(np.int64)
    at = np.unique(np.append(buckets * bucket, curve.most))
    return at, np.asarray(curve.loss(at.astype(np.float64)))


def _trimmed(removed: Counts, curves: Sequence[_Curve], total: int) -> Counts:
    """Make the sum exact: give back, or take, where that changes the loss least for the better."""
    difference = sum(removed.values()) - total
    while difference:
        step = -int(math.copysign(1, difference))
        slopes = {}
        for (name, count), curve in zip(removed.items(), curves, strict=True):
            room = curve.most - count if step > 0 else count
            if room > 0:
                amount = min(room, abs(difference))
                ends = curve.loss(np.array([count, count + step * amount], np.float64))
                slopes[name] = (float(ends[1] - ends[0]) / amount, amount)
        name = min(slopes, key=lambda key: slopes[key][0])
        removed[name] += step * slopes[name][1]
        difference += step * slopes[name][1]
    return removed


def _total(sizes: Mapping[str, int], sparsity: float) -> int:
    if not sizes:
        raise InvalidArgumentError("There is nothing to allot: no layers were given.")
    if not 0 <= sparsity <= 1:
        raise InvalidArgumentError(
            f"sparsity is the fraction of zeros, from 0 to 1; got {sparsity}."
        )
    return round(sparsity * sum(sizes.values()))


def _filled(raw: Mapping[str, float], sizes: Mapping[str, int], total: int) -> dict[str, float]:
    """Share `total` out in proportion to `raw`, none above its size."""
    filled: dict[str, float] = {}
    open_names = set(raw)
    while open_names:
        left = total - sum(filled.values())
        factor = left / sum(raw[name] for name in open_names) if left > 0 else 0.0
        full = {name for name in open_names if raw[name] * factor > sizes[name]}
        for name in full or open_names:
            filled[name] = float(sizes[name]) if full else raw[name] * factor
        open_names -= full or open_names
    return filled


def _rounded(wanted: Mapping[str, float], sizes: Mapping[str, int], total: int) -> Counts:
    """Whole numbers within [0, size] that add up to `total`, largest remainders first."""
    bounded = {name: min(max(value, 0.0), float(sizes[name])) for name, value in wanted.items()}
    counts = {name: math.floor(value) for name, value in bounded.items()}
    order = sorted(counts, key=lambda name: counts[name] - bounded[name])
    missing = total - sum(counts.values())
    while missing > 0:
        for name in order:
            take = min(
                1 if missing < len(order) else missing // len(order), sizes[name] - counts[name]
            )
            counts[name] += take
            missing -= take
            if not missing:
                break
    while missing < 0:
        for name in order:
            give = min(1 if -missing < len(order) else -missing // len(order), counts[name])
            counts[name] -= give
            missing += give
            if not missing:
                break
    return counts
