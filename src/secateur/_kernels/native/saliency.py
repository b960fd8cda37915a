"""Saliencies that need no data, by the compiled kernels.

Every result is the same bit for bit on every instruction set and with any number of threads, and
does not depend on the memory order of the matrix.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secateur import _core
from secateur._kernels.native.matrices import memory_matrix, raise_non_finite
from secateur.errors import InvalidArgumentError

Norm = Literal["l1", "l2"]
Combine = Literal["product", "root_sum"]


def all_finite(matrix: NDArray[Any]) -> bool:
    """Whether no element is NaN or infinite, in one pass.

    Args:
        matrix: (out, in), C- or Fortran-contiguous; float16, bfloat16, float32 or float64.

    Example:
        >>> all_finite(np.array([[1.0, np.inf]]))
        False
    """
    memory = memory_matrix(matrix)
    return _core.all_finite(memory.bits, memory.dtype)


def squared_sums(
    matrix: NDArray[Any], axis: Literal[0, 1], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Sums of squares over one axis, in float64.

    The order of addition is fixed: chunks of 8192 along the reduced axis; in a chunk, element i
    goes to lane i % 16, and lanes are added as a tree (l and l + 8, then 4, 2, 1); chunks first to
    last.

    Args:
        matrix: (out, in), C- or Fortran-contiguous; float16, bfloat16, float32 or float64.
        axis: The axis summed over: 0 gives one sum per input, 1 one per output.
        weights: Optional float64 factors of the squares, one per element of the reduced axis.

    Returns:
        float64 vector of length `in` (axis 0) or `out` (axis 1).

    Raises:
        NonFiniteError: A sum is not finite.

    Example:
        >>> squared_sums(np.array([[3.0, 4.0], [0.0, 1.0]]), axis=1)
        array([25.,  1.])
    """
    if axis not in (0, 1):
        raise InvalidArgumentError(f"axis must be 0 or 1, got {axis!r}.")
    memory = memory_matrix(matrix)
    factors = _float64_vector(weights, matrix.shape[axis], "weights")
    sums = np.empty(matrix.shape[1 - axis], np.float64)
    reduce_inner = (axis == 1) != memory.transposed
    if not _core.squared_sums(memory.bits, memory.dtype, reduce_inner, factors, sums):
        raise_non_finite(matrix, "sums of squares")
    return sums


def scaled_magnitude(
    matrix: NDArray[Any],
    row_scale: NDArray[np.float64] | None = None,
    col_scale: NDArray[np.float64] | None = None,
    combine: Combine = "product",
) -> NDArray[Any]:
    """Magnitudes, each times what stands for its row and its column.

    Computed in float64, from left to right as written, and rounded once at the end.

    Args:
        matrix: W, (out, in), C- or Fortran-contiguous; float16, bfloat16, float32 or float64.
        row_scale: r, float64 vector of length `out`; None stands for 1 (product) or 0 (root_sum).
        col_scale: c, float64 vector of length `in`; None likewise.
        combine: "product": |W[o, i]| * r[o] * c[i]; "root_sum": |W[o, i]| * sqrt(r[o] + c[i]).

    Returns:
        (out, in) array in the memory order of the matrix; float64 for float64, else float32.

    Raises:
        NonFiniteError: A result is not finite.

    Example:
        >>> scaled_magnitude(np.array([[-1.0, 2.0]]), col_scale=np.array([3.0, 4.0]))
        array([[3., 8.]])
    """
    if combine not in ("product", "root_sum"):
        raise InvalidArgumentError(f"combine must be 'product' or 'root_sum', got {combine!r}.")
    memory = memory_matrix(matrix)
    rows = _float64_vector(row_scale, matrix.shape[0], "row_scale")
    cols = _float64_vector(col_scale, matrix.shape[1], "col_scale")
    out = memory.empty(memory.score_dtype)
    if not _core.scaled_magnitude(
        memory.bits, memory.dtype, memory.transposed, rows, cols, combine == "root_sum", out
    ):
        raise_non_finite(matrix, "scaled magnitudes")
    return memory.as_matrix(out)


def block_scores(matrix: NDArray[Any], rows: int, cols: int, norm: Norm = "l2") -> NDArray[Any]:
    """The norm of every block of `rows` outputs by `cols` inputs.

    Each column of a block is summed down its rows, then the columns from left to right, in float64;
    the norm is rounded once. Blocks at the far edges have fewer elements, as if padded with zeros.

    Args:
        matrix: (out, in), C- or Fortran-contiguous; float16, bfloat16, float32 or float64.
        rows: Outputs per block, at least 1.
        cols: Inputs per block, at least 1.
        norm: "l2", the root of the sum of squares, or "l1", the sum of magnitudes.

    Returns:
        (ceil(out / rows), ceil(in / cols)) in C order; float64 for float64, else float32.

    Raises:
        InvalidArgumentError: A block without elements, or an unknown norm.
        NonFiniteError: A norm is not finite.

    Example:
        >>> block_scores(np.array([[3.0, 1.0], [4.0, 0.0]]), rows=2, cols=1)
        array([[5., 1.]])
    """
    if norm not in ("l1", "l2"):
        raise InvalidArgumentError(f"norm must be 'l1' or 'l2', got {norm!r}.")
    if rows < 1 or cols < 1:
        raise InvalidArgumentError(f"A block needs at least 1 row and column, got {rows}x{cols}.")
    memory = memory_matrix(matrix)
    rows, cols = min(rows, max(1, matrix.shape[0])), min(cols, max(1, matrix.shape[1]))
    scores = np.empty(
        (-(-matrix.shape[0] // rows), -(-matrix.shape[1] // cols)), memory.score_dtype
    )
    if not _core.block_scores(
        memory.bits, memory.dtype, memory.transposed, rows, cols, norm == "l1", scores
    ):
        raise_non_finite(matrix, "block norms")
    return scores


def _float64_vector(
    vector: NDArray[np.float64] | None, size: int, name: str
) -> NDArray[np.float64] | None:
    if vector is None:
        return None
    if vector.dtype != np.float64 or vector.shape != (size,) or not vector.flags.c_contiguous:
        raise InvalidArgumentError(
            f"{name} must be a contiguous float64 vector of length {size}, got {vector.dtype} of "
            f"shape {vector.shape}."
        )
    return vector
