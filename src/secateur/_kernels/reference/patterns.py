"""Oracles of the pattern kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.errors import NonFiniteError


def nm_mask(matrix: NDArray[Any], n: int, m: int, order: str = "magnitude") -> NDArray[np.bool_]:
    """Sort each group of m inputs; the n last stay. A stable sort keeps the later of equal ones."""
    values = matrix.astype(np.float64)
    keys = values if order == "value" else np.abs(values)
    if np.isnan(keys).any() or (order == "magnitude" and np.isinf(keys).any()):
        raise NonFiniteError("the matrix holds NaN, or by magnitude infinities")
    mask = np.zeros_like(keys, dtype=bool)  # the matrix's memory order
    for o, start in np.ndindex(keys.shape[0], -(-keys.shape[1] // m)):
        group = keys[o, start * m : (start + 1) * m]
        kept = np.argsort(group, kind="stable")[max(0, len(group) - n) :]
        mask[o, start * m + kept] = True
    return mask


def expand_block_mask(
    block_mask: NDArray[np.bool_], shape: tuple[int, int], rows: int, cols: int
) -> NDArray[np.bool_]:
    """Repeat each entry `rows` by `cols` times and cut to shape."""
    repeated: NDArray[np.bool_] = np.repeat(np.repeat(block_mask, rows, axis=0), cols, axis=1)
    return repeated[: shape[0], : shape[1]]
