"""Oracles of the saliency kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import NonFiniteError

_CHUNK, _LANES = 8192, 16


def score_dtype(matrix: NDArray[Any]) -> type[np.float32] | type[np.float64]:
    """What saliencies of `matrix` are made of."""
    return np.float64 if matrix.dtype == np.float64 else np.float32


def all_finite(matrix: NDArray[Any]) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(np.isfinite(matrix.astype(np.float64)).all())


def squared_sums(
    matrix: NDArray[Any], axis: int, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Sums of squares over `axis`, in the kernel's order of addition."""
    values = np.moveaxis(matrix.astype(np.float64), axis, 0)  # (reduced, kept)
    with np.errstate(over="ignore", invalid="ignore"):
        terms = values * values
        if weights is not None:
            terms = terms * weights[:, None]
        total = np.zeros(terms.shape[1])
        for start in range(0, len(terms), _CHUNK):
            total = total + _chunk_sum(terms[start : start + _CHUNK])
    return _checked(total, np.float64)


def scaled_magnitude(
    matrix: NDArray[Any],
    row_scale: NDArray[np.float64] | None = None,
    col_scale: NDArray[np.float64] | None = None,
    combine: str = "product",
) -> NDArray[Any]:
    """|W| * row * col, or |W| * sqrt(row + col)."""
    missing = 1.0 if combine == "product" else 0.0
    row = np.full(matrix.shape[0], missing) if row_scale is None else row_scale
    col = np.full(matrix.shape[1], missing) if col_scale is None else col_scale
    magnitude = np.abs(matrix.astype(np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        if combine == "product":
            scaled = magnitude * row[:, None] * col[None, :]
        else:
            scaled = magnitude * np.sqrt(row[:, None] + col[None, :])
        return _checked(scaled, score_dtype(matrix))


def block_scores(matrix: NDArray[Any], rows: int, cols: int, norm: str = "l2") -> NDArray[Any]:
    """Block norms: down the rows of each column, then across the columns."""
    values = matrix.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        terms = np.abs(values) if norm == "l1" else values * values
        scores = np.zeros((-(-matrix.shape[0] // rows), -(-matrix.shape[1] // cols)))
        for i, j in np.ndindex(scores.shape):
            block = terms[i * rows : (i + 1) * rows, j * cols : (j + 1) * cols]
            columns = _sum_in_order(block)
            scores[i, j] = _sum_in_order(columns)
        if norm == "l2":
            scores = np.sqrt(scores)
        return _checked(scores, score_dtype(matrix))


def _chunk_sum(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    padding = -len(terms) % _LANES
    padded = np.concatenate([terms, np.zeros((padding, terms.shape[1]))])
    rounds = len(padded) // _LANES
    lanes: NDArray[np.float64] = _sum_in_order(padded.reshape(rounds, _LANES, terms.shape[1]))
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    total: NDArray[np.float64] = lanes[0]
    return total


def _sum_in_order(terms: NDArray[np.float64]) -> Any:
    total: Any = np.zeros(terms.shape[1:])
    for term in terms:
        total = total + term
    return total


def _checked(values: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    rounded: NDArray[Any] = values.astype(dtype)
    if not np.isfinite(rounded).all():
        raise NonFiniteError("the result is not finite")
    return rounded
