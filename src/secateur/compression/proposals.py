"""How far the next step goes: what a loop knows of steps that held and steps that did not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Densities:
    """Proposals of densities for pruning: halve, aim at the goal when it is near, bisect on failure.

    Attributes:
        held: Smallest density at which quality held.
        failed: Largest at which it did not; None so far.
        failures: Steps that failed.
        patience: Failures after which the search ends.
        shrink: Factor from one step to the next while all goes well.
    """

    held: float = 1.0
    failed: float | None = None
    failures: int = 0
    patience: int = 3
    shrink: float = 0.5

    def next(self, needed: float | None = None) -> float | None:
        """The next density to try, or None if there is nothing left to learn.

        Args:
            needed: Density at which the goal is expected to be reached, if that is known.

        Example:
            >>> Densities().next()
            0.5
            >>> Densities(held=0.25, failed=0.0625).next()
            0.125
        """
        if self.failed is not None:
            if self.failures > self.patience or self.failed > 0.95 * self.held:
                return None
            return math.sqrt(self.failed * self.held)
        proposal = self.held * self.shrink
        if needed is not None and proposal < needed < self.held:
            proposal = needed
        return max(proposal, 1e-4) if self.held > 1e-4 else None

    def after(self, density: float, held: bool) -> Densities:
        """What is known after a step."""
        if held:
            return replace(self, held=density)
        return replace(self, failed=density, failures=self.failures + 1)


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
