"""Times beside the yardstick T: one pass over the weights that only reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import Any

import numpy as np

from secateur._kernels.native.select import read_pass
from table import Entry, Rival

_SLOW_SECONDS = 2.0
_RIVAL_ROUNDS = 3


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


class Yardstick:
    """Times one step of ours, T before every round of it, and then others at the same job."""

    def __init__(
        self, benchmark: Any, weights: np.ndarray, entries: list[Entry], rounds: int, rivals: bool
    ) -> None:
        self._benchmark = benchmark
        self._weights = weights
        self._entries = entries
        self._rounds = rounds
        self._rivals = rivals

    def measure(
        self,
        step: str,
        function: Callable[[], Any],
        *,
        prepare: Callable[[], object] | None = None,
        bound: float | None = None,
    ) -> Any:
        """Run `function`, each time after `prepare` and a pass of T, and give its last result."""
        passes: list[float] = []

        def setup() -> None:
            if prepare is not None:
                prepare()
            passes.append(seconds(lambda: read_pass(self._weights))[0])

        result = self._benchmark.pedantic(
            function, setup=setup, rounds=self._rounds, warmup_rounds=1
        )
        if self._benchmark.disabled:
            self._entries.append(Entry(step))
            return result
        ours = self._benchmark.stats.stats.data
        beside = passes[-len(ours) :]
        ratio = median(mine / read for mine, read in zip(ours, beside, strict=True))
        self._entries.append(Entry(step, median(ours), median(beside), ratio, bound))
        return result

    def rival(
        self,
        name: str,
        function: Callable[[], Any],
        check: Callable[[Any], object],
        *,
        module: str = "numpy",
        at_least: float | None = None,
    ) -> None:
        """Run another tool at the step measured last; `check` asserts what it gives."""
        entry = self._entries[-1]
        if find_spec(module) is None:
            entry.rivals.append(Rival(name, None, at_least))
            return
        if not self._rivals:
            return
        best, result = seconds(function)
        for _ in range(_RIVAL_ROUNDS - 1):
            if best > _SLOW_SECONDS:
                break
            best = min(best, seconds(function)[0])
        check(result)
        entry.rivals.append(Rival(name, best, at_least))
