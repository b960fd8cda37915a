"""Dense float32 products by the compiled kernels, which know processors that NumPy's BLAS does not.

`multiply_into`, `add_product` and `add_upper_gram` always run the kernels. `matmul`, `add_gram` and
`add_cross` are for everybody else: they leave to NumPy what its BLAS does better. Which it is depends on
shapes and on the instruction set, never on data or threads.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateur import _core
from secateur._kernels.native import runtime
from secateur.errors import ArgumentTypeError, InvalidArgumentError

Float32: TypeAlias = NDArray[np.float32]
Float64: TypeAlias = NDArray[np.float64]
Update: TypeAlias = Literal["set", "add", "subtract"]

_UPDATES: dict[Update, int] = {"set": 0, "add": 1, "subtract": 2}

# A product with fewer rows, columns or terms reads its operands once for little work: packing them first
# would cost more than it saves.
_LEAST_EXTENT = 16


def multiply_into(a: Float32, b: Float32, out: Float32, update: Update = "set") -> None:
    """Put a @ b into a matrix, or add it to one, or take it from one.

    Args:
        a: (m, k) float32, of any forward strides; quick if one of them is contiguous.
        b: (k, n), likewise.
        out: (m, n) float32, C-contiguous, apart from both in memory.
        update: What becomes of what `out` holds.

    Raises:
        ArgumentTypeError: An array that is not float32.
        InvalidArgumentError: Shapes, strides or memory that do not fit; the message says how.

    Example:
        >>> out = np.ones((1, 2), np.float32)
        >>> multiply_into(np.float32([[2.0]]), np.float32([[3.0, 4.0]]), out, "subtract")
        >>> out
        array([[-5., -7.]], dtype=float32)
    """
    _check(out, np.float32, a, b)
    if update not in _UPDATES:
        raise InvalidArgumentError(f"update must be one of {[*_UPDATES]}, got {update!r}.")
    try:
        _core.gemm_multiply(a, b, out, _UPDATES[update])
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot multiply: {error}.") from error


def add_product(a: Float32, b: Float32, out: Float64) -> None:
    """Add a @ b to out, the sums of every 1,024 products being float32 and the sum of those float64.

    Args:
        a: (m, k) float32.
        b: (k, n) float32.
        out: (m, n) float64, C-contiguous, apart from both in memory.

    Raises:
        ArgumentTypeError: An array of another type.
        InvalidArgumentError: Shapes, strides or memory that do not fit.
    """
    _check(out, np.float64, a, b)
    try:
        _core.gemm_add_product(a, b, out)
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot multiply: {error}.") from error


def add_upper_gram(rows: Float32, out: Float64) -> None:
    """The upper triangle of out += that of rows^T rows; the lower is not touched.

    Args:
        rows: (n, width) float32.
        out: (width, width) float64, C-contiguous, apart from `rows` in memory.

    Raises:
        ArgumentTypeError: An array of another type.
        InvalidArgumentError: Shapes, strides or memory that do not fit.
    """
    _check(out, np.float64, rows)
    try:
        _core.gemm_add_gram(rows, out)
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot multiply: {error}.") from error


def mirror_upper(out: Float64) -> None:
    """What is below the diagonal becomes what is above it.

    Args:
        out: (width, width) float64, C-contiguous, changed in place.

    Raises:
        InvalidArgumentError: Another kind of array.

    Example:
        >>> out = np.array([[1.0, 2.0], [9.0, 3.0]])
        >>> mirror_upper(out)
        >>> out
        array([[1., 2.],
               [2., 3.]])
    """
    if out.dtype != np.float64:
        raise InvalidArgumentError(f"Expected a float64 matrix, got {out.dtype}.")
    try:
        _core.gemm_mirror_upper(out)
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot mirror: {error}.") from error


def matmul(a: Float32, b: Float32, out: Float32 | None = None) -> Float32:
    """Give a @ b of two float32 matrices.

    Args:
        a: (m, k) float32, of any forward strides.
        b: (k, n), likewise.
        out: Where it is put, (m, n) float32, C-contiguous, apart from both in memory; new if left out.

    Returns:
        (m, n) float32, C-contiguous.

    Raises:
        ArgumentTypeError: An array that is not float32.
        InvalidArgumentError: Shapes or strides that do not fit.

    Example:
        >>> matmul(np.float32([[1.0, 2.0]]), np.float32([[3.0], [4.0]]))
        array([[11.]], dtype=float32)
    """
    if out is None:
        out = np.empty((a.shape[0], b.shape[-1]), np.float32)
    if _left_to_blas(a.shape[0], a.shape[-1], b.shape[-1]):
        _check(out, np.float32, a, b)
        _check_depth(a, b)
        _check_out(out, (a.shape[0], b.shape[1]))
        return np.matmul(a, b, out=out)
    multiply_into(a, b, out)
    return out


def add_gram(rows: Float32, out: Float64) -> None:
    """Add rows^T rows to out in its upper triangle; `mirror_upper` makes the lower one of it.

    Args:
        rows: (n, width) float32, at most some thousands of rows (sums of that many may be float32).
        out: (width, width) float64, C-contiguous; below the diagonal anything may stand afterwards.

    Raises:
        ArgumentTypeError: An array of another type.
        InvalidArgumentError: Shapes, strides or memory that do not fit.

    Example:
        >>> out = np.zeros((2, 2))
        >>> add_gram(np.float32([[1.0, 2.0], [0.0, 1.0]]), out)
        >>> mirror_upper(out)
        >>> out
        array([[1., 2.],
               [2., 5.]])
    """
    width = rows.shape[-1]
    if _left_to_blas(width, len(rows), width):
        _check(out, np.float64, rows)
        _check_out(out, (width, width))
        out += rows.T @ rows
    else:
        add_upper_gram(rows, out)


def add_cross(rows: Float32, others: Float32, out: Float64) -> None:
    """Add rows^T others to out.

    Args:
        rows: (n, width) float32, at most some thousands of rows.
        others: (n, other width) float32.
        out: (width, other width) float64, C-contiguous.

    Raises:
        ArgumentTypeError: An array of another type.
        InvalidArgumentError: Shapes, strides or memory that do not fit.
    """
    if _left_to_blas(rows.shape[-1], len(rows), others.shape[-1]):
        _check(out, np.float64, rows, others)
        _check_depth(rows.T, others)
        _check_out(out, (rows.shape[1], others.shape[1]))
        out += rows.T @ others
    else:
        add_product(rows.T, others, out)


def _left_to_blas(rows: int, depth: int, cols: int) -> bool:
    # Where there is no AVX-512, OpenBLAS knows the processor, and its assembly is a third faster than
    # what the compiler makes of our AVX2 kernel (three times, of the scalar one). With AVX-512 it is
    # up to twice slower: on processors that it does not know, it takes its AVX2 kernels.
    return runtime.simd() != "avx512" or min(rows, depth, cols) < _LEAST_EXTENT


def _check(out: NDArray[Any], dtype: type, *operands: Float32) -> None:
    if out.dtype != dtype or any(operand.dtype != np.float32 for operand in operands):
        came = ", ".join(str(operand.dtype) for operand in operands)
        raise ArgumentTypeError(
            f"Expected float32 matrices and a {np.dtype(dtype)} result, got {came} and {out.dtype}. "
            "Convert them with .astype(np.float32)."
        )
    if any(operand.ndim != 2 for operand in operands):
        raise InvalidArgumentError(
            f"Expected matrices, got shapes {[operand.shape for operand in operands]}."
        )
    if any(np.may_share_memory(out, operand) for operand in operands):
        raise InvalidArgumentError("The result shares memory with an operand; give it its own.")


def _check_depth(a: Float32, b: Float32) -> None:
    if a.shape[1] != b.shape[0]:
        raise InvalidArgumentError(f"Cannot multiply matrices of shapes {a.shape} and {b.shape}.")


def _check_out(out: NDArray[Any], shape: tuple[int, int]) -> None:
    if out.shape != shape:
        raise InvalidArgumentError(f"The result has shape {shape}, `out` {out.shape}.")
