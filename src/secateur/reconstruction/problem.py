"""One layer's pruning problem: keep its output on data while most of its weights go.

With inputs X (N, in), weights W (out, in) and H = X^T X / N + a ridge, every solver here minimises
tr((W* - V) H (W* - V)^T) over sparse V. Which output is kept is a matter of W* alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from secateur._kernels.native.gemm import matmul
from secateur.arrays import Array, check_float_array
from secateur.errors import InvalidArgumentError, NonFiniteError, warn_calibration
from secateur.factors import cholesky_solve, upper_factor
from secateur.statistics import InputStatistics

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

T = TypeVar("T")

# A variance that is this small a part of the mean square is what rounding leaves of a constant.
_CONSTANT = 1e-12

# Least ridge of an input that hardly varies, as a part of what the mean input gets.
_FLOOR = 0.02

# With at least this damping H is far enough from singular to be factored in float32, at half the time.
_FLOAT32_DAMPING = 1e-3

Ridge: TypeAlias = Literal["input", "mean"]


@dataclass(frozen=True)
class LayerSolution:
    """What a solver made of a layer.

    Attributes:
        weight: (out, in) float32, zero where the mask is False.
        mask: (out, in) bool, True = keep.
        error: tr((W* - V) G (W* - V)^T) as a part of the layer's output energy tr(W G W^T), G being the
            undamped Gram matrix (or covariance) of the inputs; 0 = nothing lost.
        bias_shift: (out,) float64 to add to the bias; None without intercept.
        method: Name of the solver.
    """

    weight: Float32
    mask: Array
    error: float
    bias_shift: Float64 | None
    method: str


class LayerProblem:
    """A weight matrix and what is known of its inputs; several solvers can be run on it.

    Args:
        weight: W, (out, in); float16, bfloat16, float32 or float64.
        statistics: Of the layer's inputs, in the network as it is now. With `cross`, also of the dense
            network's: then the dense layer's output is what is to be kept (asymmetric target).
        damping: > 0. Keeps H positive definite, and W* near W where the data says little.
        ridge: What damping is a part of: "input" adds damping * (G_jj + mean / 50) to G_jj, so that
            inputs of all sizes are held alike, as if noise of that part of their variance were added;
            "mean" adds damping * mean to all, as SparseGPT does.
        intercept: Whether the layer's bias may change too: inputs are then centred, and the solution
            says by how much the bias shifts.
        asymmetric: Use the dense network's inputs; default: if the statistics have them.
        output_weights: (out,) > 0: how much each output matters. Only how a target is shared out between
            outputs depends on it.
        outputs: The statistics' companion rows are the wanted *outputs* (N, out) (less the bias), not the
            dense inputs.

    Raises:
        InvalidArgumentError: Shapes that do not fit, or a damping that is not positive.
        NonFiniteError: A weight is not finite.
        FactorisationError: H is not positive definite; the message names the remedy.

    Warns:
        CalibrationWarning: Fewer rows than inputs were counted: the Gram matrix is singular but for its
            damping.

    References:
        Asymmetric target: W* = (Xp^T Xp + lambda I)^-1 (Xp^T X W + lambda W), Xp being the inputs in the
        network as compressed so far (with W as (in, out) here). It is the ridge solution of fitting the
        dense layer's output from Xp; sparse V that minimise ||X W - Xp V||^2 + lambda ||V - W||^2 are
        those nearest W* under H, so each solver runs on W* unchanged. GPTAQ (arXiv 2504.02692) names
        the same asymmetry for quantisation.

    Example:
        >>> statistics = InputStatistics(2)
        >>> statistics.update(np.eye(2, dtype=np.float32))
        >>> LayerProblem(np.ones((1, 2), np.float32), statistics).error(np.array([[1.0, 0.0]]))
        0.5
    """

    def __init__(
        self,
        weight: Array,
        statistics: InputStatistics,
        *,
        damping: float = 0.15,
        ridge: Ridge = "input",
        intercept: bool = False,
        asymmetric: bool | None = None,
        outputs: bool = False,
        output_weights: Array | None = None,
    ) -> None:
        self.name = statistics.name
        self.weight = _checked_weight(weight, statistics)
        self.damping = float(damping)
        self.ridge_kind = ridge
        self.intercept = intercept
        if not 0 < self.damping < np.inf:
            raise InvalidArgumentError(
                f"damping must be a positive number, got {damping}; 0.15 is the usual one."
            )
        if ridge not in ("input", "mean"):
            raise InvalidArgumentError(f"ridge must be 'input' or 'mean', got {ridge!r}.")
        self._statistics = statistics
        self.asymmetric = statistics.has_cross if asymmetric is None else asymmetric
        self.outputs = outputs
        self.output_weights = _checked_output_weights(output_weights, self.weight)
        wanted = self.weight.shape[0] if outputs else statistics.inputs
        if (self.asymmetric or outputs) and statistics.cross_inputs != wanted:
            raise InvalidArgumentError(
                f"The statistics of layer {self.name!r} hold companion rows of width "
                f"{statistics.cross_inputs}; expected {wanted}."
            )
        if statistics.count < statistics.inputs:
            warn_calibration(
                f"Layer {self.name!r} has {statistics.inputs} inputs but saw only {statistics.count} "
                "rows, so its Gram matrix rests on the damping. Calibrate with more data, or raise "
                f"damping (now {self.damping:g})."
            )

    @cached_property
    def gram(self) -> Float64:
        """X^T X / N, centred with `intercept`, (in, in) float64; not damped."""
        return self._shared(
            "gram",
            lambda: self._statistics.covariance if self.intercept else self._statistics.gram,
        )

    @cached_property
    def dead(self) -> Array:
        """(in,) bool: inputs that are always zero (with `intercept`: constant). They go first."""
        return np.diagonal(self.gram) <= _CONSTANT * self._statistics.norms**2

    @cached_property
    def ridge(self) -> Float64:
        """What is added to the diagonal of the Gram matrix, (in,) float64, > 0."""
        diagonal = np.where(self.dead, 0.0, np.diagonal(self.gram))
        live = int((~self.dead).sum())
        mean = float(diagonal.sum()) / live if live else 1.0
        if self.ridge_kind == "mean":
            return np.full(len(diagonal), self.damping * mean)
        return np.asarray(self.damping * (diagonal + mean * _FLOOR))

    @cached_property
    def diagonal(self) -> Float64:
        """H_jj, (in,) float64, > 0."""
        return np.where(self.dead, 0.0, np.diagonal(self.gram)) + self.ridge

    @property
    def hessian(self) -> Float64:
        """H = Gram + diag(ridge), (in, in) float64; positive definite. Made anew: it is the caller's."""
        hessian = self.gram.copy()
        hessian[self.dead, :] = 0.0
        hessian[:, self.dead] = 0.0
        np.einsum("ii->i", hessian)[...] = self.diagonal
        return hessian

    @cached_property
    def upper_factor(self) -> Array:
        """R, (in, in) float32 or float64, upper triangular with R R^T = H; a view.

        Raises:
            FactorisationError: H is not positive definite in this precision.
        """
        precise = np.float32 if self.damping >= _FLOAT32_DAMPING else np.float64
        return self._shared("factor", lambda: upper_factor(self.hessian, self.name, precise))

    def _shared(self, what: Hashable, make: Callable[[], T]) -> T:
        """What does not depend on the weight is made once for all that are fed alike."""
        key = (what, self.damping, self.ridge_kind, self.intercept)
        return self._statistics.remember(key, make)

    @cached_property
    def target(self) -> Float32:
        """W*, (out, in) float32; zero for dead inputs."""
        fitted = self.asymmetric or self.outputs
        target = self._dense_fit() if fitted else self.weight.copy()
        target[:, self.dead] = 0.0
        return target

    @cached_property
    def energy(self) -> float:
        """tr(W G W^T): mean square of the layer's output, summed over outputs."""
        return self._mean_square(self.weight)

    def error(self, weight: Array) -> float:
        """tr((W* - V) G (W* - V)^T) / tr(W G W^T) of a weight matrix V, (out, in)."""
        lost = self.target - weight.astype(np.float32, copy=False)  # (out, in)
        return max(self._mean_square(lost), 0.0) / self.energy if self.energy > 0 else 0.0

    def bias_shift(self, weight: Array) -> Float64 | None:
        """What to add to the bias if V takes the place of W, (out,); None without intercept."""
        if not self.intercept:
            return None
        now = weight.astype(np.float64) @ self._statistics.mean
        if self.outputs:
            return np.asarray(self._statistics.dense_mean - now)
        mean = self._statistics.dense_mean if self.asymmetric else self._statistics.mean
        return np.asarray(self.weight.astype(np.float64) @ mean - now)

    def solution(
        self, weight: Array, mask: Array, method: str, lost: float | None = None
    ) -> LayerSolution:
        """Wrap up what a solver found; kept weights of dead inputs stay as they were.

        Args:
            weight: (out, in).
            mask: (out, in) bool, True = keep.
            method: Name of the solver.
            lost: tr((W* - V) H (W* - V)^T), where the solver knows it: it takes as long as the solving.
        """
        final = np.where(mask, weight, np.float32(0)).astype(np.float32, copy=False)
        error = self.error(final) if lost is None else self._undamped(final, lost)
        final[:, self.dead] = np.where(mask[:, self.dead], self.weight[:, self.dead], 0)
        return LayerSolution(final, mask, error, self.bias_shift(final), method)

    def _undamped(self, weight: Float32, lost: float) -> float:
        ridge = self.ridge @ np.square(self.target - weight).sum(axis=0, dtype=np.float64)
        return max(lost - float(ridge), 0.0) / self.energy if self.energy > 0 else 0.0

    def _mean_square(self, weight: Float32) -> float:
        """tr(V G V^T) = sum of G * (V^T V): the product is symmetric, so it takes half the work."""
        return float(np.einsum("ij,ij->", self.gram, matmul(weight.T, weight)))

    def _dense_fit(self) -> Float32:
        statistics = self._statistics
        cross = statistics.cross_covariance if self.intercept else statistics.cross
        weight = self.weight.astype(np.float64)
        right = cross.T if self.outputs else weight @ cross.T  # (out, in)
        # Each of these is as large as the Gram matrix, so they go as soon as they can.
        del cross
        weight *= self.ridge
        right += weight
        del weight
        fit = cholesky_solve(self.hessian, right.T, self.name, overwrite=True)
        return np.ascontiguousarray(fit.T, np.float32)


def _checked_output_weights(weights: Array | None, weight: Float32) -> Float32:
    if weights is None:
        return np.ones(len(weight), np.float32)
    checked = np.asarray(weights, np.float32)
    if checked.shape != weight.shape[:1] or not (np.isfinite(checked) & (checked > 0)).all():
        raise InvalidArgumentError(
            f"output_weights must be {len(weight)} finite numbers > 0, one an output; got shape "
            f"{checked.shape}."
        )
    return checked


def _checked_weight(weight: Array, statistics: InputStatistics) -> Float32:
    what = f"The weight of layer {statistics.name!r}"
    check_float_array(weight, what)
    if weight.ndim != 2 or weight.shape[1] != statistics.inputs or not weight.size:
        raise InvalidArgumentError(
            f"{what} has shape {weight.shape}; expected (out, {statistics.inputs}), as the statistics "
            "count rows of that width."
        )
    checked = np.ascontiguousarray(weight, np.float32)
    if not np.isfinite(checked).all():
        raise NonFiniteError(f"{what} holds NaN or infinite values; mend or exclude it.")
    return checked
