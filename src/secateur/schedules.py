"""How the sparsity asked for grows with the steps of training, or of a compression loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from secateur.errors import ArgumentTypeError, InvalidArgumentError


@runtime_checkable
class Schedule(Protocol):
    """Step -> sparsity.

    Attributes:
        begin: First step at which anything is pruned.
        end: First step at which `final` holds; from there on nothing changes.
        final: The sparsity at the end.
    """

    @property
    def begin(self) -> int:
        """First step at which anything is pruned."""

    @property
    def end(self) -> int:
        """First step at which `final` holds."""

    @property
    def final(self) -> float:
        """The sparsity at the end, 0 to 1."""

    def at(self, step: int) -> float:
        """The sparsity asked for at a step; 0 before `begin`."""


@dataclass(frozen=True)
class Constant:
    """All at once: `final` from step `begin` on.

    Example:
        >>> [Constant(0.5, begin=2).at(step) for step in (1, 2)]
        [0.0, 0.5]
    """

    final: float
    begin: int = 0

    def __post_init__(self) -> None:
        _check(0.0, self.final, self.begin, self.begin)

    @property
    def end(self) -> int:
        """The step at which everything happens."""
        return self.begin

    def at(self, step: int) -> float:
        """The sparsity asked for at a step."""
        return self.final if step >= self.begin else 0.0


@dataclass(frozen=True)
class _Ramp(ABC):
    """From `initial` at step `begin` to `final` at step `end`.

    Attributes:
        final: Sparsity at the end, 0 to 1.
        end: Step at which it is reached.
        begin: Step of the first pruning.
        initial: Sparsity there.
    """

    final: float
    end: int
    begin: int = 0
    initial: float = 0.0

    def __post_init__(self) -> None:
        _check(self.initial, self.final, self.begin, self.end)

    def at(self, step: int) -> float:
        """The sparsity asked for at a step; 0 before `begin`."""
        if step < self.begin:
            return 0.0
        if step >= self.end:
            return self.final
        left = self._left(1 - (step - self.begin) / (self.end - self.begin))
        return self.final + (self.initial - self.final) * left

    @abstractmethod
    def _left(self, share: float) -> float:
        """What is left to go when `share` of the steps is left; 1 -> 1, 0 -> 0."""


@dataclass(frozen=True)
class Linear(_Ramp):
    """Grows evenly.

    Example:
        >>> Linear(0.5, end=4).at(2)
        0.25
    """

    def _left(self, share: float) -> float:
        return share


@dataclass(frozen=True)
class Cubic(_Ramp):
    """Grows fast at first and slowly at the end: s_f + (s_i - s_f) (1 - t)^3.

    References:
        Zhu & Gupta, "To prune, or not to prune" (arXiv 1710.01878), eq. 1.

    Example:
        >>> Cubic(0.5, end=2).at(1)
        0.4375
    """

    def _left(self, share: float) -> float:
        return share**3


@dataclass(frozen=True)
class Cosine(_Ramp):
    """Grows slowly at both ends: s_f + (s_i - s_f) (1 + cos(pi t)) / 2.

    References:
        The annealing of Loshchilov & Hutter, "SGDR" (arXiv 1608.03983), eq. 5, with sparsity in the
        place of the learning rate.

    Example:
        >>> round(Cosine(0.8, end=2).at(1), 3)
        0.4
    """

    def _left(self, share: float) -> float:
        return (1 + math.cos(math.pi * (1 - share))) / 2


SCHEDULES: dict[str, type[_Ramp]] = {"linear": Linear, "cubic": Cubic, "cosine": Cosine}


def _check(initial: float, final: float, begin: int, end: int) -> None:
    for name, value in (("initial", initial), ("final", final)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ArgumentTypeError(f"{name} must be a number from 0 to 1, got {value!r}.")
        if not 0 <= value <= 1:
            raise InvalidArgumentError(f"{name} is a fraction of zeros, 0 to 1; got {value}.")
    for name, step in (("begin", begin), ("end", end)):
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise InvalidArgumentError(f"{name} must be a whole step number >= 0, got {step!r}.")
    if initial > final:
        raise InvalidArgumentError(
            f"A schedule grows: initial={initial} must not be above final={final}."
        )
    if end < begin:
        raise InvalidArgumentError(f"end={end} lies before begin={begin}.")
