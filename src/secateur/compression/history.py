"""What a compression tried, step by step, and the front of quality against cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secateur.errors import InvalidArgumentError


@dataclass(frozen=True)
class Step:
    """One step of a compression.

    Attributes:
        number: 0 is the original.
        method: "prune", "cut", "auto" or "original".
        amount: Density asked for ("prune"), fraction of units cut from the step before ("cut"), or
            share of the original's figure asked for ("auto").
        quality: The metric on the validation data.
        figure: The goal's figure, such as bytes.
        accepted: Whether quality held.
        note: Why not, or what is to be known.
        seconds: What the step took.
        epochs: Of training.
    """

    number: int
    method: str
    amount: float
    quality: float
    figure: float
    accepted: bool
    note: str = ""
    seconds: float = 0.0
    epochs: int = 0


@dataclass(frozen=True)
class History:
    """All steps of a compression, in order.

    Attributes:
        metric: What `Step.quality` is.
        mode: "max" if more is better, "min" if less is.
        goal: What `Step.figure` is, such as "size in bytes".
        steps: The steps; the first is the original.
    """

    metric: str
    mode: str
    goal: str
    steps: tuple[Step, ...] = ()

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, number: int) -> Step:
        return self.steps[number]

    def front(self) -> tuple[Step, ...]:
        """Steps that no other step beats in quality and figure both, smallest figure first."""
        sign = 1.0 if self.mode == "max" else -1.0
        best = -float("inf")
        found = []
        for step in sorted(self.steps, key=lambda s: (s.figure, -sign * s.quality)):
            if sign * step.quality > best:
                best = sign * step.quality
                found.append(step)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> History:
        """Read what `to_dict` gave.

        Raises:
            InvalidArgumentError: It is no history.
        """
        try:
            steps: Sequence[Mapping[str, Any]] = data["steps"]
            found = tuple(Step(**step) for step in steps)
            return cls(str(data["metric"]), str(data["mode"]), str(data["goal"]), found)
        except (KeyError, TypeError) as error:
            raise InvalidArgumentError(f"Not a history of a compression: {error!r}.") from error

    def __str__(self) -> str:
        lines = [f"{'step':>4} {'method':8} {'amount':>8} {self.metric:>12} {self.goal:>20}"]
        for step in self.steps:
            mark = "" if step.accepted else "  not kept" + (f": {step.note}" if step.note else "")
            lines.append(
                f"{step.number:>4} {step.method:8} {step.amount:>8.4f} {step.quality:>12.4f} "
                f"{step.figure:>20,.6g}{mark}"
            )
        return "\n".join(lines)
