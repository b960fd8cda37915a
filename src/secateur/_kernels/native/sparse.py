"""Dense matrices to CSR and back."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secateur import _core
from secateur._kernels.native.packing import (
    CHUNK,
    index_dtype,
    nonzero_offsets,
    num_chunks,
    raw_view,
)
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


_Parts: TypeAlias = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]

_NUM_SAMPLES = 32
"""Chunks that are counted to guess the number of non-zeros; matrices of few more get no guess."""


def _guess(raw: NDArray[Any]) -> int:
    """How many non-zeros there are room for: some more than a sample says there are."""
    flat = raw.reshape(-1)
    step = num_chunks(flat.size) // _NUM_SAMPLES
    offsets = np.empty(2, np.uint64)
    found, seen = 0, 0
    for begin in range(0, flat.size, step * CHUNK):
        piece = flat[begin : begin + CHUNK]
        found += _core.nonzero_offsets(piece, True, offsets)
        seen += piece.size
    return min(flat.size, int(1.05 * found / seen * flat.size) + CHUNK)


def _two_passes(raw: NDArray[Any], offsets: NDArray[np.uint64], index: np.dtype[Any]) -> _Parts:
    count = int(offsets[-1])
    values = np.empty(count, raw.dtype)
    indices, indptr = np.empty(count, index), np.empty(raw.shape[0] + 1, index)
    kernel = _core.dense_to_csr32 if index.itemsize == 4 else _core.dense_to_csr64
    kernel(raw, offsets, values, indices, indptr)
    return values, indices, indptr


def _one_pass(raw: NDArray[Any], capacity: int) -> _Parts:
    offsets = np.empty(num_chunks(raw.size) + 1, np.uint64)
    values, indices = np.empty(capacity, raw.dtype), np.empty(capacity, np.int32)
    indptr = np.empty(raw.shape[0] + 1, np.int32)
    count = _core.dense_to_csr_once32(raw, offsets, values, indices, indptr)
    if count > capacity:
        return _two_passes(raw, offsets, index_dtype(raw.shape[0], raw.shape[1], count))
    # Nobody else holds them, and giving back the end of a block moves nothing.
    values.resize(count, refcheck=False)
    indices.resize(count, refcheck=False)
    return values, indices, indptr


def dense_to_csr(matrix: NDArray[Any], index: DTypeLike | None = None) -> _Parts:
    """The non-zeros of a matrix in CSR. -0.0 is zero, NaN is not.

    Large matrices are read once, with room for as many non-zeros as a sample promises and 5 % more;
    what is left over is given back. Where the sample was wrong, as for small ones, a second pass
    writes what the first has counted.

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
    rows, cols = raw.shape
    parts: _Parts | None = None
    if num_chunks(raw.size) >= 2 * _NUM_SAMPLES and (index is None or np.dtype(index) == np.int32):
        capacity = _guess(raw)
        if index_dtype(rows, cols, capacity) == np.int32:
            parts = _one_pass(raw, capacity)
    if parts is None:
        offsets = nonzero_offsets(matrix, by_value=True)
        chosen = index_dtype(rows, cols, int(offsets[-1])) if index is None else np.dtype(index)
        parts = _two_passes(raw, offsets, chosen)
    values, indices, indptr = parts
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
