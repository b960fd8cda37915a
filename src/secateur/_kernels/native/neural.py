"""What a network does along rows besides products."""

from __future__ import annotations

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
