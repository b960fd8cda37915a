"""Search for thresholds, sparsities and ratios, scored on data that was held out."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras

from secateur.compression.checking import as_data, check_data
from secateur.compression.checkpoint import fingerprint
from secateur.compression.finetuning import FineTuning
from secateur.compression.goals import Goal
from secateur.compression.quality import Mode, Quality, mode_of
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.searching.folds import Fold, make_folds, part
from secateur.searching.points import Options, Point, SearchResult
from secateur.searching.strategies import bisection, expand, good_enough, grid, halving
from secateur.searching.trials import Runner, Trials

__all__ = ["Fold", "Options", "Point", "SearchResult", "make_folds", "search"]

STRATEGIES = ("grid", "halving", "bisection")


def search(
    model: keras.Model,
    data: Any,
    space: Any,
    *,
    action: str = "prune",
    strategy: str = "grid",
    splitter: Any = 5,
    groups: Any = None,
    metric: str,
    mode: Mode | None = None,
    cost: Goal | None = None,
    max_drop: float = 0.01,
    tolerance: float = 0.02,
    tuning: FineTuning | None = None,
    cache: str | os.PathLike[str] | None = None,
    num_workers: int = 1,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
) -> SearchResult:
    """Try options of `prune` or `cut` and score each on folds of the data.

    Args:
        model: A trained and compiled Keras model; it is not changed.
        data: (x, y) or (x, y, sample_weight) arrays that the model was *not* trained on, unless the
            fine-tuning is meant to be part of what is scored.
        space: Option -> values to try (all combinations): {"threshold": [0.01, 0.02]}; or a list of
            sets of options, also per layer: [{"sparsity": {"dense": 0.5, "out": 0.1}}]. For
            "bisection", one option with its ends: {"sparsity": (0.3, 0.99)}.
        action: "prune" or "cut".
        strategy: "grid", "halving" (successive halving over folds) or "bisection" (the largest value
            that keeps `max_drop`).
        splitter: See `make_folds`: 5 for five (stratified) folds, 0.2 for one held-out part, or a
            splitter of scikit-learn.
        groups: One label per sample; samples of a group stay on one side.
        metric: Name of a compiled metric, or "loss".
        mode: "max" or "min", where the name does not tell.
        cost: What a model costs: `Size(ratio=1)`, `Macs(ratio=1)`, `Latency(ratio=1)`; its figure is
            recorded, its limit ignored.
        max_drop: For "bisection", against the given model on the same folds.
        tolerance: For "bisection", the width at which it ends.
        tuning: Fine-tune each candidate on the fold's training part.
        cache: A folder; trials found there are not run again, so a search that was broken off goes on.
        num_workers: Processes to run trials in.
        seed: Of splits and fine-tuning.
        progress: Called after every trial.

    Returns:
        All points with means and confidence intervals; `.best`, `.chosen` (one-standard-error rule:
        the cheapest that is as good as the best) and `.front()`.

    Raises:
        InvalidArgumentError: Options out of range, a metric that is not there, data that does not fit.
        MissingDependencyError: scikit-learn is needed for the splits and not installed.

    Example:
        >>> import numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> data = np.random.rand(40, 4), np.random.rand(40)
        >>> found = search(model, data, {"sparsity": [0.25, 0.5]}, metric="loss", splitter=2)
        >>> len(found.points)
        2
    """
    _check(model, action, strategy, num_workers)
    data = as_data(data, "data")
    check_data(model, data, "data")
    folds = make_folds(data, splitter, groups, seed)
    mode = mode or mode_of(metric)
    trials = Trials(model, data, folds, action, metric, mode, cost, tuning, seed=seed)
    quality = Quality(data, metric, mode)
    quality.of(model)  # a metric that is not there is told before anything is tried
    rows = [(fold.train, fold.held_out) for fold in folds]
    digest = fingerprint(model, (data, rows), (action, metric, cost, tuning, seed))
    runner = Runner(trials, cache, digest, num_workers)
    sign = 1.0 if mode == "max" else -1.0
    if strategy == "bisection":
        option, low, high, fixed = _ends(space)
        holds = good_enough(quality, _mean_quality(trials), max_drop)
        points = bisection(runner, option, low, high, fixed, len(folds), progress, holds, tolerance)
    elif strategy == "halving":
        points = halving(runner, expand(space), len(folds), progress, sign)
    else:
        points = grid(runner, expand(space), len(folds), progress)
    goal = "" if cost is None else f"{cost.name} in {cost.unit}"
    return SearchResult(metric, mode, goal, tuple(points))


def _check(model: Any, action: str, strategy: str, num_workers: int) -> None:
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError(f"search needs a keras.Model, got {type(model).__name__}.")
    if not model.compiled:
        raise InvalidArgumentError(
            f"Model {model.name!r} is not compiled; compile it with a metric."
        )
    if action not in ("prune", "cut"):
        raise InvalidArgumentError(f"action must be 'prune' or 'cut', got {action!r}.")
    if strategy not in STRATEGIES:
        raise InvalidArgumentError(f"strategy must be one of {STRATEGIES}, got {strategy!r}.")
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 1:
        raise InvalidArgumentError(f"num_workers must be at least 1, got {num_workers!r}.")


def _mean_quality(trials: Trials) -> float:
    """The given model's mean score on the held-out parts."""
    parts = [part(trials.data, fold.held_out) for fold in trials.folds]
    scores = [Quality(held, trials.metric, trials.mode).of(trials.model) for held in parts]
    return sum(scores) / len(scores)


def _ends(space: Any) -> tuple[str, float, float, dict[str, Any]]:
    """The option that is bisected, its ends, and the others."""
    ranged = [name for name, value in space.items() if isinstance(value, (tuple, list))]
    if len(ranged) != 1 or len(space[ranged[0]]) != 2:
        raise InvalidArgumentError(
            "Bisection takes one option with its two ends, and others with one value each, such as "
            f"{{'sparsity': (0.3, 0.99)}}; got {space!r}."
        )
    name = ranged[0]
    low, high = (float(end) for end in space[name])
    return name, low, high, {key: value for key, value in space.items() if key != name}
