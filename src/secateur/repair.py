"""Refit a layer that lost inputs to what it put out before: centred least squares with an intercept.

With Y the dense layer's output and X_K what still goes in, the weights V and the bias c of

    min || Y - (X_K V^T + c) ||^2 + N sum_j lambda_j || V_:j - W_K,:j ||^2

are those of a ridge regression towards the weights W_K that stayed, each input j held in proportion to
its own variance (see `secateur.reconstruction.LayerProblem`). No labels are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from secateur.arrays import Array
from secateur.outputs import OutputStatistics
from secateur.reconstruction.problem import LayerProblem
from secateur.statistics import InputStatistics

Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class LayerRepair:
    """What repairing one layer did to the error of its output.

    Attributes:
        before: Mean square of the difference to the dense layer's output with means folded only, as a
            part of the output's variance. Where the output is added to a residual stream, the
            difference is that of the sum.
        after: The same after the repair.
        positions: How many rows it rests on.
    """

    before: float
    after: float
    positions: int


@dataclass(frozen=True)
class Repair:
    """What was repaired after a cut.

    Attributes:
        layers: By the name of the layer and weight, its errors.
        norms: Normalisations that were estimated anew: the statistics of batch normalisations, scale and
            offset of layer normalisations.
        left: Layers that lost inputs and were not refit, and why.
    """

    layers: Mapping[str, LayerRepair] = field(default_factory=dict)
    norms: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"repaired {len(self.layers)} layers (error as a part of the output's variance):"]
        lines += [f"  {n}: {own.before:.4f} -> {own.after:.4f}" for n, own in self.layers.items()]
        if self.norms:
            lines.append(f"normalisations estimated anew: {len(self.norms)}")
        lines += [f"  {name}: not repaired, {why}" for name, why in self.left.items()]
        return "\n".join(lines)


class OutputFit:
    """Least squares from what still goes into a layer to what the dense layer put out.

    Args:
        weight: W_K, (out, kept inputs): the weights that stayed.
        name: The layer, for messages.
        damping: lambda_j as a part of the variance of input j; above 0.
        intercept: Whether the layer has a place for c.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
        >>> fit = OutputFit(np.ones((1, 2), np.float32), "dense", damping=1e-9)
        >>> fit.update(x, 3 * x[:, :1] + x[:, 1:] + 5)
        >>> weight, shift = fit.solve()
        >>> weight.round(3), shift.round(3)
        (array([[3., 1.]], dtype=float32), array([5.]))
    """

    def __init__(
        self, weight: Array, name: str, *, damping: float = 0.15, intercept: bool = True
    ) -> None:
        outputs, inputs = weight.shape
        self.weight = weight
        self.damping = damping
        self.intercept = intercept
        self.statistics = InputStatistics(inputs, name=name, cross=outputs)
        self.outputs = OutputStatistics(outputs, name=name)
        self.targets = OutputStatistics(outputs, name=name)

    def update(self, rows: Array, wanted: Array, missed: Array | None = None) -> None:
        """Count a batch in.

        Args:
            rows: X_K, (..., kept inputs).
            wanted: Y less its bias, (..., out), at the same positions.
            missed: What else the layer is to put out beside Y: what the tensor that its output is added
                to has lost already.
        """
        target = wanted if missed is None else wanted + missed
        self.statistics.update(rows, target)
        self.outputs.update(wanted)
        self.targets.update(target)

    def solve(self) -> tuple[Array, Float64]:
        """The weights V, (out, kept inputs) float32, and c, (out,); zeros without an intercept.

        Raises:
            FactorisationError: The damped covariance is not positive definite; names the remedy.
        """
        problem = LayerProblem(
            self.weight,
            self.statistics,
            damping=self.damping,
            intercept=self.intercept,
            outputs=True,
        )
        weight = problem.target
        shift = problem.bias_shift(weight)
        return weight, np.zeros(len(weight)) if shift is None else shift

    def lost(self, weight: Array, shift: Float64) -> float:
        """Mean square of what is wanted less (X_K V^T + c), summed over outputs."""
        known = self.statistics
        wide = weight.astype(np.float64)
        square = _variance(self.targets) - 2 * float(np.vdot(wide.T, known.cross_covariance))
        square += float(np.vdot(wide @ known.covariance, wide))
        residual = known.dense_mean - wide @ known.mean - shift
        return max(square, 0.0) + float(residual @ residual)

    @property
    def energy(self) -> float:
        """Variance of Y, summed over outputs."""
        return _variance(self.outputs)


def _variance(statistics: OutputStatistics) -> float:
    return float(np.square(statistics.measure("std")).sum())
