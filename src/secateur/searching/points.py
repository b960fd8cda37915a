"""Points of a search: options that were tried, and how they scored fold by fold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.compression.quality import Mode
from secateur.errors import InvalidArgumentError

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One set of options and what came of it.

    Attributes:
        options: What `prune` or `cut` was called with.
        scores: The metric on each fold's held-out part, in the order of the folds tried.
        costs: The goal's figure of each fold's model, such as bytes; empty without a goal.
    """

    options: Options
    scores: tuple[float, ...]
    costs: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Mean score over the folds."""
        return float(np.mean(self.scores))

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; 0 for a single fold."""
        count = len(self.scores)
        return float(np.std(self.scores, ddof=1) / math.sqrt(count)) if count > 1 else 0.0

    @property
    def cost(self) -> float | None:
        """Mean cost, None where none was measured."""
        return float(np.mean(self.costs)) if self.costs else None

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of the mean score, by Student's t over the folds.

        Args:
            confidence: Between 0 and 1.

        Returns:
            Lower and upper end; infinitely wide for a single fold, which says nothing of spread.
        """
        if not 0 < confidence < 1:
            raise InvalidArgumentError(f"confidence must be between 0 and 1, got {confidence!r}.")
        if len(self.scores) < 2:
            return -math.inf, math.inf
        from scipy import stats

        half = stats.t.ppf((1 + confidence) / 2, len(self.scores) - 1) * self.standard_error
        return self.mean - float(half), self.mean + float(half)

    def __str__(self) -> str:
        low, high = self.interval()
        cost = "" if self.cost is None else f", cost {self.cost:,.6g}"
        spread = "" if math.isinf(low) else f" [{low:.4f}, {high:.4f}]"
        return f"{dict(self.options)}: {self.mean:.4f}{spread}{cost} ({len(self.scores)} folds)"


@dataclass(frozen=True)
class SearchResult:
    """All points of a search.

    Attributes:
        metric: What the scores are.
        mode: "max" if more is better, "min" if less is.
        goal: What the costs are, "" if none was measured.
        points: In the order in which they were tried.
    """

    metric: str
    mode: Mode
    goal: str
    points: tuple[Point, ...]

    @property
    def best(self) -> Point:
        """The best mean score among the points with the most folds; of equals, the cheapest."""
        return min(self._full(), key=lambda p: (-self._sign() * p.mean, self._cost(p)))

    @property
    def chosen(self) -> Point:
        """The cheapest point that is within one standard error of the best one.

        References:
            Breiman et al., "Classification and Regression Trees" (1984), section 3.4.3.
        """
        best = self.best
        worst = self._sign() * best.mean - best.standard_error
        good = [p for p in self._full() if self._sign() * p.mean >= worst]
        return min(good, key=lambda p: (self._cost(p), -self._sign() * p.mean))

    def front(self) -> tuple[Point, ...]:
        """Points that no other beats in score and cost both, cheapest first."""
        found: list[Point] = []
        ordered = sorted(self._full(), key=lambda p: (self._cost(p), -self._sign() * p.mean))
        for point in ordered:
            if not found or self._sign() * point.mean > self._sign() * found[-1].mean:
                found.append(point)
        return tuple(found)

    def _full(self) -> Sequence[Point]:
        most = max(len(point.scores) for point in self.points)
        return [point for point in self.points if len(point.scores) == most]

    def _sign(self) -> float:
        return 1.0 if self.mode == "max" else -1.0

    def _cost(self, point: Point) -> float:
        """What is to be small: the measured cost; without one, how much stays by the options."""
        if point.cost is not None:
            return point.cost
        numbers = [value for value in point.options.values() if isinstance(value, (int, float))]
        return -float(sum(numbers))

    def __str__(self) -> str:
        lines = [f"{self.metric} over {self.goal or 'options'}:"]
        chosen, best = self.chosen, self.best
        for point in self.points:
            mark = (" <- chosen" if point is chosen else "") + (" <- best" if point is best else "")
            lines.append(f"  {point}{mark}")
        return "\n".join(lines)
