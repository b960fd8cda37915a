"""Times of several functions side by side.

One after the other in every round, so that what slows one slows all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

_FEWEST_ROUNDS = 3


def median_times(
    functions: Sequence[Callable[[], Any]],
    *,
    rounds: int = 20,
    warmup: int = 3,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median time of each function, in seconds.

    Args:
        functions: What is timed; called without arguments.
        rounds: How often each is called.
        warmup: Calls of each that are not counted.
        seconds: No round begins after so long, but three are always made.
        clock: Tells the time.

    Example:
        >>> ticks = iter(range(100))
        >>> median_times([int, str], rounds=3, clock=lambda: next(ticks))
        [1, 1]
    """
    start = clock()
    for function in functions:
        for _ in range(warmup):
            function()
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds):
        if number >= _FEWEST_ROUNDS and clock() - start > seconds:
            break
        for function, own in zip(functions, times, strict=True):
            begun = clock()
            function()
            own.append(clock() - begun)
    return [median(own) for own in times]
