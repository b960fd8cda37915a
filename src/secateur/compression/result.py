"""What a compression came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateur.compression.explanation import Explanation
from secateur.compression.goals import Comparison
from secateur.compression.history import History


@dataclass(frozen=True)
class CompressionResult:
    """What a compression came to.

    Attributes:
        model: The smallest model whose quality held; compiled, and its zeros are kept.
        history: Every step, and the front of quality against cost.
        comparison: The goal's figure before and after, and its limit.
        quality: The metric before and after.
        reached: Whether the goal was reached.
        interrupted: Whether Ctrl-C ended it early.
        explanation: With `method="auto"`, what was measured, tried and chosen, and why.
    """

    model: Any
    history: History
    comparison: Comparison
    quality: tuple[float, float]
    reached: bool
    interrupted: bool = False
    explanation: Explanation | None = None

    def __str__(self) -> str:
        before, after = self.quality
        found = self.comparison
        state = "reached" if self.reached else "not reached"
        return (
            f"{self.history}\n{self.history.goal}: {found.before:,.6g} -> {found.after:,.6g} "
            f"({found.ratio:.2f} times smaller; the goal was {state}), "
            f"{self.history.metric}: {before:.4f} -> {after:.4f}"
            + (f"\n{self.explanation}" if self.explanation is not None else "")
        )
