"""What a network does besides products with its weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur import _core
from secateur._kernels.native.spmm import Floats


def softmax_rows(x: Floats, y: Floats) -> None:
    """Y = softmax of each row of x; both (rows, width), C-contiguous; y may be x."""
    _core.softmax_rows(x, y)


def normalize_rows(
    x: Floats,
    y: Floats,
    scale: Floats | None,
    offset: Floats | None,
    epsilon: float,
    *,
    rms: bool = False,
) -> None:
    """Layer or root-mean-square normalisation of each row.

    Args:
        x: (rows, width), C-contiguous.
        y: The same shape, written; may be x.
        scale: (width,) or None.
        offset: (width,) or None.
        epsilon: Added to the variance.
        rms: Divide by the root of the mean square instead, with nothing subtracted.
    """
    _core.normalize_rows(x, y, rms, scale, offset, epsilon)


def attend(
    query: Floats,
    key: Floats,
    value: Floats,
    out: Floats,
    mask: NDArray[np.bool_] | None,
    masked: float,
    weights: Floats | None = None,
) -> None:
    """Out = softmax(Q K^T) V for every head (Vaswani et al. 2017, eq. 1, the scale in Q already).

    Any strides will do, but the last axes are contiguous.

    Args:
        query: (batch, queries, heads, width).
        key: (batch, keys, heads, width), at least one key.
        value: (batch, keys, heads, value width).
        out: (batch, queries, heads, value width), written.
        mask: (batch, heads, queries, keys), false where a query may not look, or None.
        masked: The score of what a query may not look at.
        weights: (batch, heads, queries, keys), C-contiguous, written, or None.
    """
    _core.attend(query, key, value, out, mask, masked, weights)
