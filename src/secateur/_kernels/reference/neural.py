"""Oracle of attention: float64, the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def attend(
    query: NDArray[Any],
    key: NDArray[Any],
    value: NDArray[Any],
    mask: NDArray[np.bool_] | None,
    masked: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """softmax(Q K^T) V and the softmax, (batch, time, heads, width) and (batch, heads, q, k)."""
    scores = np.einsum("bqhw,bkhw->bhqk", query.astype(np.float64), key.astype(np.float64))
    if mask is not None:
        scores = np.where(mask, scores, masked)
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = e / e.sum(axis=-1, keepdims=True)
    return np.einsum("bhqk,bkhw->bqhw", weights, value.astype(np.float64)), weights
