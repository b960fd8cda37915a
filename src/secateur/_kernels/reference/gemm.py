"""Oracle of the dense products: float64, entry by entry of the definition."""

from __future__ import annotations

from typing import Any

import numpy as np


def matmul(a: Any, b: Any) -> Any:
    """Product a @ b, (m, n) float64, of a (m, k) and b (k, n): sum over k of a_ik b_kj."""
    return np.einsum("ik,kj->ij", np.asarray(a, np.float64), np.asarray(b, np.float64))


def gram(rows: Any) -> Any:
    """rows^T rows, (width, width) float64, of rows (n, width)."""
    return matmul(np.asarray(rows).T, rows)


def mirror_upper(matrix: Any) -> Any:
    """The symmetric matrix that has the upper triangle of this one."""
    return np.triu(matrix) + np.triu(matrix, 1).T
