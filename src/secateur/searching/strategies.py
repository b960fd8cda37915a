"""Which points are tried: all of a grid, the better half again and again, or a bisection."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from secateur.compression.quality import Quality
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.searching.points import Options, Point
from secateur.searching.trials import Runner

Told = Callable[[], None] | None


def expand(space: Any) -> list[Options]:
    """All sets of options of a space.

    Args:
        space: A mapping of option -> values to try (all combinations), or a list of mappings of
            option -> value.

    Raises:
        InvalidArgumentError: Nothing to try.
        ArgumentTypeError: Neither of the two.

    Example:
        >>> expand({"sparsity": [0.5, 0.9]})
        [{'sparsity': 0.5}, {'sparsity': 0.9}]
    """
    if isinstance(space, Mapping):
        listed = {k: v if isinstance(v, (list, tuple)) else [v] for k, v in space.items()}
        found: list[Options] = [
            dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values())
        ]
    elif isinstance(space, Sequence) and all(isinstance(entry, Mapping) for entry in space):
        found = [dict(entry) for entry in space]
    else:
        raise ArgumentTypeError(
            "space must be a mapping of option -> values, or a list of mappings of option -> value; "
            f"got {space!r}."
        )
    if not found or not all(found):
        raise InvalidArgumentError("space holds nothing to try.")
    return found


def grid(runner: Runner, candidates: Sequence[Options], num_folds: int, told: Told) -> list[Point]:
    """Every candidate on every fold."""
    return _points(runner, candidates, range(num_folds), told)


def halving(
    runner: Runner,
    candidates: Sequence[Options],
    num_folds: int,
    told: Told,
    sign: float,
) -> list[Point]:
    """All on one fold, the better half on two, its better half on four, and so on.

    References:
        Jamieson & Talwalkar, "Non-stochastic Best Arm Identification" (arXiv 1502.07943).
    """
    alive, folds = list(candidates), 1
    done: dict[str, Point] = {}
    while True:
        points = _points(runner, alive, range(min(folds, num_folds)), told)
        done.update((repr(point.options), point) for point in points)
        if folds >= num_folds:
            return list(done.values())
        points.sort(key=lambda point: -sign * point.mean)
        alive = [point.options for point in points[: max(1, (len(points) + 1) // 2)]]
        folds *= 2


def bisection(
    runner: Runner,
    option: str,
    low: float,
    high: float,
    fixed: Options,
    num_folds: int,
    told: Told,
    holds: Callable[[float], bool],
    tolerance: float,
) -> list[Point]:
    """The largest value of one option at which quality holds, to a tolerance.

    Args:
        runner: Runs trials.
        option: "sparsity", "threshold", "ratio", ...
        low: A value at which quality is expected to hold.
        high: A value at which it may not.
        fixed: The other options.
        num_folds: Folds of each trial.
        told: Called after each trial.
        holds: Whether a mean score is good enough.
        tolerance: Width of the interval at which the search ends.
    """
    if not low < high or not tolerance > 0:
        raise InvalidArgumentError(
            f"Bisection needs low < high and tolerance > 0, got {low}, {high}, {tolerance}."
        )

    def at(value: float) -> Point:
        (point,) = _points(runner, [{**fixed, option: value}], range(num_folds), told)
        points.append(point)
        return point

    points: list[Point] = []
    if holds(at(high).mean) or not holds(at(low).mean):
        return points
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(at(middle).mean) else (low, middle)
    return points


def _points(runner: Runner, candidates: Sequence[Options], folds: range, told: Told) -> list[Point]:
    jobs = [(options, fold) for options in candidates for fold in folds]
    results = runner.run(jobs, told)
    points = []
    for number, options in enumerate(candidates):
        own = results[number * len(folds) : (number + 1) * len(folds)]
        costs = tuple(cost for _, cost in own if cost is not None)
        points.append(Point(options, tuple(score for score, _ in own), costs))
    return points


def good_enough(quality: Quality, before: float, max_drop: float) -> Callable[[float], bool]:
    """Whether a score is no more than `max_drop` worse than `before`."""
    return lambda score: quality.drop(before, score) <= max_drop + 1e-9
