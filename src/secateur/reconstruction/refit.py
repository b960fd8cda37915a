"""The best weights on a given mask: least squares, one system per row of the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from secateur._kernels.native.gemm import matmul
from secateur.arrays import Array
from secateur.errors import InvalidArgumentError, warn_calibration
from secateur.factors import cholesky_solve
from secateur.reconstruction.problem import LayerProblem, LayerSolution
from secateur.reconstruction.target import LayerTarget

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
System: TypeAlias = Literal["auto", "cholesky", "cg"]

# Above about this many non-zeros a row, conjugate gradients over all rows at once are faster.
_CHOLESKY_NONZEROS = 1000

# Rows of the Hessian that are scaled at a time: float64 beside it would take twice its memory.
_SCALED_ROWS = 256


@dataclass(frozen=True)
class Refit:
    """Exact least-squares refit: per row, H_SS v = (H w*)_S on its support S.

    Without a mask in the target the weights with the largest |w*_j| sqrt(H_jj) stay.

    Attributes:
        system: "cholesky" factors H_SS once per distinct support, in float64; "cg" runs conjugate
            gradients over all rows at once in float32; "auto" takes Cholesky below about 1,000
            non-zeros a row.
        tolerance: Of "cg": residual left, as a part of the right-hand side.
        max_iterations: Of "cg".
    """

    name: ClassVar[str] = "refit"
    system: System = "auto"
    tolerance: float = 1e-5
    max_iterations: int = 500

    def __post_init__(self) -> None:
        if self.system not in ("auto", "cholesky", "cg"):
            raise InvalidArgumentError(
                f"system must be 'auto', 'cholesky' or 'cg', got {self.system!r}."
            )

    def solve(self, problem: LayerProblem, target: LayerTarget) -> LayerSolution:
        """See `secateur.reconstruction.solve`."""
        mask = target.mask_of(problem.target * scales(problem) * problem.output_weights[:, None])
        return problem.solution(self.weights(problem, mask), mask, self.name)

    def weights(self, problem: LayerProblem, mask: Array, start: Array | None = None) -> Float32:
        """The refitted weights, (out, in) float32, from a first guess if there is one."""
        system = self.system
        if system == "auto":
            most = int(mask.sum(axis=1).max(initial=0))
            system = "cholesky" if most < _CHOLESKY_NONZEROS else "cg"
        if system == "cholesky":
            return refit_cholesky(problem, mask)
        return refit_gradients(
            problem, mask, start, tolerance=self.tolerance, max_iterations=self.max_iterations
        )


def scales(problem: LayerProblem) -> Float32:
    """sqrt(H_jj), (in,): in units of these all inputs are alike."""
    return np.sqrt(problem.diagonal).astype(np.float32)


def scaled_hessian(problem: LayerProblem) -> Float32:
    """H with unit diagonal, (in, in) float32."""
    scale = 1 / np.sqrt(problem.diagonal)
    scaled = np.empty(problem.gram.shape, np.float32)
    for start in range(0, len(scale), _SCALED_ROWS):
        rows = slice(start, start + _SCALED_ROWS)
        scaled[rows] = problem.gram[rows] * (scale[rows, None] * scale)
    scaled[problem.dead, :] = 0.0
    scaled[:, problem.dead] = 0.0
    np.fill_diagonal(scaled, 1.0)
    return scaled


def refit_cholesky(problem: LayerProblem, mask: Array) -> Float32:
    """Least squares on a mask by one Cholesky factorisation per distinct support, float64."""
    hessian = problem.hessian
    right = problem.target.astype(np.float64) @ hessian  # (out, in)
    fitted = np.zeros(mask.shape, np.float32)
    for rows in rows_by_support(mask):
        support = np.flatnonzero(mask[rows[0]])
        if support.size:
            system = hessian[np.ix_(support, support)]  # (nonzeros, nonzeros)
            own = right[np.ix_(rows, support)].T
            values = cholesky_solve(system, own, problem.name, overwrite=True)
            fitted[np.ix_(rows, support)] = values.T
    return fitted


def rows_by_support(mask: Array) -> list[Array]:
    """Indices of the rows of a mask that have the same support, one array per support."""
    groups: dict[bytes, list[int]] = {}
    for row, bits in enumerate(np.packbits(mask, axis=1)):
        groups.setdefault(bits.tobytes(), []).append(row)
    return [np.array(rows) for rows in groups.values()]


def refit_gradients(
    problem: LayerProblem,
    mask: Array,
    start: Array | None = None,
    *,
    tolerance: float = 1e-5,
    max_iterations: int = 500,
) -> Float32:
    """Least squares on a mask by conjugate gradients over all rows at once, float32.

    Preconditioned by the diagonal of H.

    Warns:
        CalibrationWarning: `max_iterations` did not reach the tolerance.
    """
    scale = scales(problem)
    first = problem.target if start is None else start
    fitted, left = masked_gradients(
        scaled_hessian(problem), problem.target * scale, mask, first * scale,
        tolerance=tolerance, max_iterations=max_iterations,
    )  # fmt: skip
    if left > tolerance:
        warn_calibration(
            f"The refit of layer {problem.name!r} stopped after {max_iterations} iterations with a "
            f"residual of {left:.1e}; raise damping (now {problem.damping:g}) or max_iterations."
        )
    return fitted / scale


def masked_gradients(
    hessian: Float32,
    target: Float32,
    mask: Array,
    start: Float32,
    *,
    tolerance: float,
    max_iterations: int,
) -> tuple[Float32, float]:
    """Minimise tr((T - V) H (T - V)^T) over V that is zero off the mask, H of unit diagonal.

    Returns:
        V, and the largest residual of a row as a part of its right-hand side.
    """
    kept = mask.astype(np.float32)
    fitted = start * kept
    curved = matmul(target, hessian) * kept  # (out, in)
    limit = np.maximum(row_dots(curved, curved), np.finfo(np.float32).tiny)
    residual = matmul(target - fitted, hessian)
    residual *= kept
    step = residual.copy()
    square = row_dots(residual, residual)
    for _ in range(max_iterations):
        if float(np.max(square / limit, initial=0.0)) <= tolerance**2:
            break
        matmul(step, hessian, out=curved)
        curved *= kept
        bend = row_dots(step, curved)
        along = np.divide(square, bend, out=np.zeros_like(square), where=bend > 0)[:, None]
        curved *= along
        residual -= curved
        fitted += np.multiply(step, along, out=curved)
        before, square = square, row_dots(residual, residual)
        step *= np.divide(square, before, out=np.zeros_like(square), where=before > 0)[:, None]
        step += residual
    return fitted, float(np.sqrt(np.max(square / limit, initial=0.0)))


def row_dots(first: Array, second: Array) -> Array:
    """Dot product of every row with its counterpart, (out,)."""
    return np.asarray(np.einsum("oi,oi->o", first, second))
