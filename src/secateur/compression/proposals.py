"""How far the next step goes: what a loop knows of steps that held and steps that did not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

_LEAST = 1e-4
_RETRY = 1.35
"""A density that failed is tried again from a model that is so many times as dense, at the most."""


@dataclass(frozen=True)
class Densities:
    """Proposals of densities for pruning: aim at the goal; on failure bisect, and try it again.

    Where the density needed is not known, densities are halved.

    Attributes:
        held: Smallest density at which quality held.
        failed: Largest at which it did not; None so far.
        failures: Steps that failed.
        improved: Whether a step held since the last that failed: a failed density may be reached
            from there, since it has been trained longer on the way.
        patience: Failures after which the search ends.
        shrink: Factor from one step to the next while nothing else is known.
    """

    held: float = 1.0
    failed: float | None = None
    failures: int = 0
    improved: bool = False
    patience: int = 3
    shrink: float = 0.5

    def next(self, needed: float | None = None) -> float | None:
        """The next density to try, or None if there is nothing left to learn.

        Args:
            needed: Density at which the goal is expected to be reached, if that is known.

        Example:
            >>> Densities().next(), Densities().next(needed=0.1)
            (0.5, 0.1)
            >>> Densities(held=0.25, failed=0.0625).next()
            0.125
        """
        if self.failed is not None:
            return self._between(self.failed)
        if self.held <= _LEAST:
            return None
        proposal = self.held * self.shrink
        if needed is not None and needed < self.held:
            proposal = needed
        return max(proposal, _LEAST)

    def _between(self, failed: float) -> float | None:
        if self.failures > self.patience:
            return None
        if self.improved and self.held <= _RETRY * failed:
            return failed
        return None if failed > 0.95 * self.held else math.sqrt(failed * self.held)

    def after(self, density: float, held: bool) -> Densities:
        """What is known after a step."""
        if not held:
            return replace(self, failed=density, failures=self.failures + 1, improved=False)
        failed = None if self.failed is None or density <= self.failed else self.failed
        return replace(self, held=density, failed=failed, improved=True)


@dataclass(frozen=True)
class Ratios:
    """Proposals of fractions of units to cut from the last model that held: halved on failure.

    Attributes:
        ratio: Fraction to try next.
        failures: Steps that failed since one held.
        patience: Failures in a row after which the search ends.
    """

    ratio: float = 0.25
    failures: int = 0
    patience: int = 2

    def next(self, needed: float | None = None) -> float | None:
        """The next fraction to try, or None if even small ones fail.

        Args:
            needed: Fraction at which the goal is expected to be reached, if that is known.
        """
        if self.failures > self.patience:
            return None
        return self.ratio if needed is None else min(self.ratio, max(needed, 0.02))

    def after(self, ratio: float, held: bool) -> Ratios:
        """What is known after a step."""
        if held:
            return replace(self, failures=0)
        return replace(self, ratio=ratio / 2, failures=self.failures + 1)


def density_needed(points: list[tuple[float, float]], limit: float) -> float | None:
    """Density at which a figure will fall to a limit, by the line through its last two points.

    Args:
        points: (density, figure) of steps so far, in order.
        limit: What the figure is to come down to.

    Returns:
        None where the points do not tell (fewer than two, or the figure does not fall).

    Example:
        >>> round(density_needed([(1.0, 110.0), (0.5, 60.0)], 30.0), 3)
        0.196
    """
    if len(points) < 2:
        return None
    (one, first), (two, second) = points[-2:]
    if one == two or (first - second) / (one - two) <= 0:
        return None
    slope = (first - second) / (one - two)
    needed = two + (limit - second) / slope
    # A little less, since the line is only nearly one.
    return needed * 0.98 if 0 < needed < two else None


def density_for(figure: Callable[[float], float], limit: float, rounds: int = 12) -> float | None:
    """Density at which a figure that falls with it comes down to a limit.

    Args:
        figure: Of a model at a density, without training.
        limit: What the figure is to come down to.
        rounds: How often the figure is measured at the most; three or four times are usual.

    Returns:
        A density at which the figure is at most the limit, and within 1 % of it unless the rounds
        were too few; None where even the least density does not do.

    Example:
        >>> round(density_for(lambda density: 10 + 100 * density, 30.0), 4)
        0.1991
    """
    low, high = (_LEAST, figure(_LEAST)), (1.0, figure(1.0))
    if low[1] > limit:
        return None
    halve = False
    for _ in range(rounds - 2):
        if low[1] >= 0.99 * limit or high[1] <= limit:
            break
        share = (0.997 * limit - low[1]) / (high[1] - low[1])
        middle = math.sqrt(low[0] * high[0]) if halve else low[0] + share * (high[0] - low[0])
        found = (middle, figure(middle))
        halve = not halve  # a line alone closes in from one side only
        if found[1] > limit:
            high = found
        else:
            low = found
    return low[0] if high[1] > limit else high[0]
