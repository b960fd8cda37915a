"""Oracle of `native.sparse`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.reference.packing import places_to_csr


def dense_to_csr(
    matrix: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """data, indices, indptr of the values that do not equal 0."""
    kept = matrix != 0
    indices, indptr = places_to_csr(np.flatnonzero(kept), (matrix.shape[0], matrix.shape[1]))
    return matrix[kept], indices, indptr


def csr_to_dense(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], shape: tuple[int, int]
) -> NDArray[Any]:
    """The dense matrix."""
    out = np.zeros(shape, data.dtype)
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    entries = slice(int(indptr[-1]))
    out[rows, indices[entries]] = data[entries]
    return out
