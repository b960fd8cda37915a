"""Patches of a convolution's input, one row of taps for each position of its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from secateur.arrays import Array


@dataclass(frozen=True)
class Window:
    """How a convolution looks at its input: one number per axis of space.

    Attributes:
        size: Extents of the kernel.
        strides: Steps between positions of the output.
        dilation: Steps between taps.
        padding: "valid", "same" or "causal" (one axis only).
        channels_first: Whether channels stand before space.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    channels_first: bool

    def reach(self, axis: int) -> int:
        """Extent of the dilated kernel."""
        return (self.size[axis] - 1) * self.dilation[axis] + 1

    def margins(self, axis: int, extent: int) -> tuple[int, int]:
        """Zeros that stand before and after an axis of this extent, as TensorFlow places them."""
        reach, stride = self.reach(axis), self.strides[axis]
        if self.padding == "valid":
            return 0, 0
        if self.padding == "causal":
            return reach - 1, 0
        total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
        return total // 2, total - total // 2


def window_of(layer: Any) -> Window:
    """The window of a convolutional layer or cell."""
    return Window(
        tuple(layer.kernel_size),
        tuple(layer.strides),
        tuple(layer.dilation_rate),
        layer.padding,
        layer.data_format == "channels_first",
    )


def patches(x: Array, window: Window) -> Array:
    """Cut the patches out.

    Args:
        x: (batch, space..., channels), or (batch, channels, space...) with `channels_first`.
        window: The convolution's.

    Returns:
        (batch, space of the output..., taps, channels), taps in C order of the kernel's axes; a
        view on padded memory where taps stand side by side.

    Example:
        >>> window = Window((2,), (1,), (1,), "valid", False)
        >>> patches(np.arange(3.0).reshape(1, 3, 1), window)[0, :, :, 0]
        array([[0., 1.],
               [1., 2.]])
    """
    if window.channels_first:
        x = np.moveaxis(x, 1, -1)
    rank = len(window.size)
    margins = [window.margins(axis, x.shape[1 + axis]) for axis in range(rank)]
    if any(map(any, margins)):
        x = np.pad(x, [(0, 0), *margins, (0, 0)])
    space = tuple(range(1, 1 + rank))
    reach = [window.reach(axis) for axis in range(rank)]
    seen = sliding_window_view(x, reach, axis=space)  # (batch, space..., channels, taps...)
    steps = [slice(None, None, stride) for stride in window.strides]
    taps = [slice(None, None, dilation) for dilation in window.dilation]
    seen = seen[(slice(None), *steps, slice(None), *taps)]
    seen = np.moveaxis(seen, 1 + rank, -1)  # (batch, space..., taps..., channels)
    return seen.reshape(*seen.shape[: 1 + rank], -1, seen.shape[-1])
