"""Scores of units by what the layers that read them do with them on data.

A criterion says which statistics of a reader's input it needs (init), those are fed with rows
(accumulate), and from the readers of a group of units it scores each unit (decide): higher = keep.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.factors import inverse
from secateur.outputs import OutputStatistics
from secateur.reconstruction.problem import LayerProblem
from secateur.statistics import InputStatistics
from secateur.unit_removal import Readout, greedy_removal

Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
# What a Gram matrix of more inputs takes, 2 GiB and as much again for its inverse, is too much.
_WIDEST_GRAM = 1 << 14


class RowStatistics(Protocol):
    """Statistics of rows (..., inputs), fed batch by batch."""

    def update(self, rows: Array, /) -> None:
        """Count a batch of rows in."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A weight matrix that reads units, and what was counted of its input.

    Attributes:
        name: The layer, for messages.
        weights: W (out, in), one for each of its groups.
        units: (in,) the unit that each column reads; -1 where it reads none that could go.
        statistics: What the criterion asked for, one for each group.
        curvature: G, (out, out): what an error e of its outputs costs the model is e^T G e, see
            `secateur.keras.curvature`. None where that is not known: all outputs count alike.
        made: Where a criterion keeps what is costly to make of those, by group.
    """

    name: str
    weights: tuple[Array, ...]
    units: npt.NDArray[np.int64]
    statistics: tuple[Any, ...]
    curvature: Float64 | None = None
    made: dict[int, Any] = field(default_factory=dict)

    def columns_of(self, units: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """The columns of each unit, (units, span).

        Raises:
            InvalidArgumentError: Units take different numbers of columns, or none.

        Example:
            >>> reader = Reader("", (), np.array([4, 5, -1, 5, 4]), ())
            >>> reader.columns_of(np.array([5, 4]))
            array([[1, 3],
                   [0, 4]])
        """
        order = np.argsort(self.units, kind="stable")
        starts = np.searchsorted(self.units[order], units)
        ends = np.searchsorted(self.units[order], units, side="right")
        spans = np.unique(ends - starts)
        if spans.size != 1 or not spans[0]:
            raise InvalidArgumentError(
                f"Layer {self.name!r} reads units of one group by {spans.tolist()} columns each."
            )
        return np.asarray(order[starts[:, None] + np.arange(spans[0])])


class UnitCriterion(Protocol):
    """How units are scored by their readers."""

    name: ClassVar[str]
    curved: ClassVar[bool]
    """Whether readers are to tell what errors of their outputs cost the model."""

    def statistics(self, inputs: int, name: str) -> RowStatistics:
        """What is to be counted of a reader's input, of so many columns."""

    def size(self, inputs: int) -> int:
        """Bytes that these statistics, and what is made of them, take."""

    def scores(
        self, units: npt.NDArray[np.int64], readers: Sequence[Reader], most: int | None = None
    ) -> Float64:
        """Score the units of a group.

        Args:
            units: Their numbers.
            readers: The matrices that read them, at least one.
            most: No more than so many will go; None if that is not known.

        Returns:
            (units,) at least 0, higher = keep.
        """


class _ByColumns(ABC):
    """Criteria that price every column of a reader by itself; a unit costs what its columns do."""

    curved: ClassVar[bool] = False

    def statistics(self, inputs: int, name: str) -> OutputStatistics:
        """Moments of each input."""
        return OutputStatistics(inputs, name=name)

    def size(self, inputs: int) -> int:
        """See `UnitCriterion`."""
        return 80 * inputs

    def scores(
        self, units: npt.NDArray[np.int64], readers: Sequence[Reader], most: int | None = None
    ) -> Float64:
        """See `UnitCriterion`."""
        del most
        total = np.zeros(len(units))
        for reader in readers:
            columns = reader.columns_of(units)
            for weight, counted in zip(reader.weights, reader.statistics, strict=True):
                own = self.column_scores(np.asarray(weight, np.float64), counted)
                total += own[columns].sum(axis=1)
        return total

    @abstractmethod
    def column_scores(self, weight: Float64, counted: OutputStatistics) -> Float64:
        """The price of each column, (in,)."""


@dataclass(frozen=True)
class WandaSP(_ByColumns):
    """sum_j mean_i |W_ij| * ||X_j||_2 / sqrt(N) over a unit's columns j: Wanda for whole units.

    Wanda-sp of An et al. (arXiv 2312.11983), after Wanda (arXiv 2306.11695, eq. 1).

    Differs from the paper: a unit of several columns has their sum, as heads have there, and a unit
    that several layers read the sum over those.
    """

    name: ClassVar[str] = "wanda_sp"

    def column_scores(self, weight: Float64, counted: OutputStatistics) -> Float64:
        """mean_i |W_ij| * ||X_j||_2 / sqrt(N)."""
        return np.asarray(np.abs(weight).mean(axis=0) * counted.measure("rms"))


@dataclass(frozen=True)
class FLAP(_ByColumns):
    """sum_j Var(X_j) * ||W_:j||^2 over a unit's columns j: what is lost once means are folded.

    The weighted input feature variance of FLAP (arXiv 2312.11983, eq. 5), the exact squared error of
    removing one column and folding its mean into the bias.

    Differs from the paper: with scope "global" units are ranked relative to their layer's mean score,
    not by standardised scores.
    """

    name: ClassVar[str] = "flap"

    def column_scores(self, weight: Float64, counted: OutputStatistics) -> Float64:
        """Var(X_j) * ||W_:j||^2."""
        return np.asarray(np.square(weight).sum(axis=0) * counted.measure("std") ** 2)


@dataclass(frozen=True)
class UnitOBS:
    """The error of the layers that read a unit after it and all before it went, and the rest was refit.

    See `secateur.unit_removal`: greedy removal by OBS with the Gram matrix of the readers' inputs
    (ZipLM, arXiv 2302.04089). A score is the squared error of the readers' outputs as a part of their
    energy, so a threshold means the same in every layer. Readers' inputs are centred: their biases are
    refit too. Both error and energy are measured by what they cost the model (e^T G e for an error e of
    the outputs), where that is known.

    Differs from the paper, where errors of all outputs count alike.

    Attributes:
        damping: Added to the diagonal of the Gram matrix, as a part of its mean.
    """

    name: ClassVar[str] = "obs"
    curved: ClassVar[bool] = True
    damping: float = 0.01

    def statistics(self, inputs: int, name: str) -> InputStatistics:
        """The Gram matrix of the inputs.

        Raises:
            InvalidArgumentError: It would be too large.
        """
        if inputs > _WIDEST_GRAM:
            raise InvalidArgumentError(
                f"Layer {name!r} has {inputs:,} inputs, more than the {_WIDEST_GRAM:,} whose Gram "
                "matrix fits: exclude what it reads, or choose measure='flap'."
            )
        return InputStatistics(inputs, name=name)

    def size(self, inputs: int) -> int:
        """See `UnitCriterion`: a Gram matrix and its inverse, float64."""
        return 16 * inputs**2

    def scores(
        self, units: npt.NDArray[np.int64], readers: Sequence[Reader], most: int | None = None
    ) -> Float64:
        """See `UnitCriterion`."""
        readouts = [
            self._readout(reader, group, reader.columns_of(units))
            for reader in readers
            for group in range(len(reader.weights))
        ]
        order, errors = greedy_removal(readouts, most)
        scores = np.empty(len(units))
        scores[order] = _rising(errors)
        return scores

    def _readout(self, reader: Reader, group: int, columns: npt.NDArray[np.intp]) -> Readout:
        if group not in reader.made:
            statistics, weight = reader.statistics[group], reader.weights[group]
            problem = LayerProblem(
                weight, statistics, damping=self.damping, ridge="mean", intercept=True
            )
            reader.made[group] = (
                inverse(problem.hessian, reader.name),
                problem.target.astype(np.float64),
                *_costs(problem, reader.curvature),
            )
            statistics.forget()
        inverted, target, costs, energy = reader.made[group]
        used = columns.reshape(-1)
        products = target[:, used].T @ costs[:, used]  # W^T G W, (columns, columns)
        place = np.arange(used.size).reshape(columns.shape)
        return Readout(reader.name, inverted[np.ix_(used, used)], products, place, energy)


def _costs(problem: LayerProblem, curvature: Float64 | None) -> tuple[Float64, float]:
    """G W*, (out, in), and what the layer's output as a whole is worth: tr(G W C W^T)."""
    target = problem.target.astype(np.float64)
    if curvature is None:
        return target, problem.energy
    weight = problem.weight.astype(np.float64)
    return curvature @ target, float(np.vdot(curvature @ weight, weight @ problem.gram))


def _rising(errors: Float64) -> Float64:
    """The errors, each a bit above the one before, so that ranking them gives the order back."""
    rising = np.maximum.accumulate(errors)
    for number in range(1, rising.size):
        rising[number] = max(rising[number], np.nextafter(rising[number - 1], np.inf))
    return rising


UNIT_CRITERIA: dict[str, UnitCriterion] = {
    criterion.name: criterion for criterion in (UnitOBS(), FLAP(), WandaSP())
}
