"""Dense matrices to CSR and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secateur import _core
from secateur._kernels.native.packing import index_dtype, nonzero_offsets, raw_view
from secateur.errors import InvalidArgumentError

_FAULTS = {
    1: "indptr must start at 0, never decrease and end at most at the number of indices",
    2: "the indices of a row must strictly increase, be at least 0 and below the number of columns",
}


def _raw_matrix(matrix: NDArray[Any]) -> NDArray[Any]:
    if matrix.ndim != 2 or matrix.dtype.itemsize == 1:
        raise InvalidArgumentError(
            "CSR kernels take matrices of 16, 32 or 64-bit floats, got "
            f"shape {matrix.shape} and dtype {matrix.dtype}."
        )
    return raw_view(matrix).reshape(matrix.shape)


def dense_to_csr(
    matrix: NDArray[Any], index: DTypeLike | None = None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The non-zeros of a matrix in CSR. -0.0 is zero, NaN is not.

    Args:
        matrix: Shape (rows, cols), C-contiguous, a float dtype of 2, 4 or 8 bytes.
        index: int32 or int64; if not given int32, or int64 where shape or non-zeros need it.

    Returns:
        data, indices, indptr; columns increase within each row.

    Raises:
        InvalidArgumentError: Not such a matrix.

    Example:
        >>> dense_to_csr(np.array([[0, 2], [3, 0]], np.float32))[1].tolist()
        [1, 0]
    """
    raw = _raw_matrix(matrix)
    offsets = nonzero_offsets(matrix, by_value=True)
    count = int(offsets[-1])
    rows, cols = matrix.shape
    chosen = index_dtype(rows, cols, count) if index is None else np.dtype(index)
    values = np.empty(count, raw.dtype)
    indices, indptr = np.empty(count, chosen), np.empty(rows + 1, chosen)
    kernel = _core.dense_to_csr32 if chosen.itemsize == 4 else _core.dense_to_csr64
    kernel(raw, offsets, values, indices, indptr)
    return values.view(matrix.dtype), indices, indptr


def csr_to_dense(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    shape: tuple[int, int],
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The dense matrix of a CSR one. Columns must strictly increase within each row.

    Args:
        data: Shape (entries,), items of 2, 4 or 8 bytes.
        indices: Columns, int32 or int64, shape (entries,).
        indptr: Starts of the rows, of the same dtype, shape (rows + 1,).
        shape: (rows, cols).
        out: Where to write, of that shape and data's dtype, C-contiguous. Writing to memory in use
            is about twice as fast as to new memory. After an error its content is undefined.

    Raises:
        InvalidArgumentError: indptr or indices are out of range or out of order.

    Example:
        >>> one = np.array([1], np.int32)
        >>> csr_to_dense(np.array([5.0]), one, np.array([0, 0, 1], np.int32), (2, 2))
        array([[0., 0.],
               [0., 5.]])
    """
    zeros = out is None
    dense = np.zeros(shape, data.dtype) if out is None else out
    kernel = _core.csr_to_dense32 if indices.itemsize == 4 else _core.csr_to_dense64
    fault = kernel(raw_view(data), indices, indptr, _raw_matrix(dense), zeros)
    if fault:
        raise InvalidArgumentError(f"Not a CSR matrix of shape {shape}: {_FAULTS[fault]}.")
    return dense
