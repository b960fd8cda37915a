"""Convolutions, as products over windows laid out side by side."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from secateur.runtime.layers.elementwise import apply_activation, parse_activation
from secateur.runtime.layers.linear import dense_product
from secateur.runtime.layers.pooling import pair, window_counts
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Value


def _padded(site: Site, x: Value, before: list[int], after: list[int]) -> Value:
    if not any(before) and not any(after):
        return site.builder.contiguous(x, np.float32)
    sizes = [n + b + a for n, b, a in zip(x.shape[1:-1], before, after, strict=True)]
    inner = tuple(slice(b, b + n) for b, n in zip(before, x.shape[1:-1], strict=True))

    def run(out: Array, array: Array) -> None:
        out.fill(0)
        out[(slice(None), *inner)] = array

    return site.builder.apply(run, [x], (x.shape[0], *sizes, x.shape[-1]))


def windows(site: Site, x: Value, sizes: list[int]) -> tuple[Value, list[int]]:
    """(batch, *windows, *sizes, channels) as a view of the padded x, and how many windows."""
    config = site.config
    if config.get("data_format") == "channels_first":
        raise site.refuse("channels_first is not supported")
    dims = x.ndim - 2
    strides = pair(config.get("strides", 1), dims)
    dilation = pair(config.get("dilation_rate", 1), dims)
    padding = config.get("padding", "valid")
    counts, before, after = [], [], []
    for extent, size, stride, step in zip(x.shape[1:-1], sizes, strides, dilation, strict=True):
        if padding == "causal":
            left, right = (size - 1) * step, 0
            count = window_counts(extent + left, size, stride, step, False)[0]
        else:
            count, left, right = window_counts(extent, size, stride, step, padding == "same")
        counts.append(count)
        before.append(left)
        after.append(right)
    padded = _padded(site, x, before, after)

    def view(array: Array) -> Array:
        batch, *moves, channel = array.strides
        shape = (array.shape[0], *counts, *sizes, array.shape[-1])
        jumps = [move * stride for move, stride in zip(moves, strides, strict=True)]
        steps = [move * step for move, step in zip(moves, dilation, strict=True)]
        return np.lib.stride_tricks.as_strided(
            array, shape, (batch, *jumps, *steps, channel), writeable=False
        )

    return site.builder.view(padded, view), counts


def _channels(array: Array, part: slice) -> Array:
    return array[..., part]


@layer("Conv1D", "Conv2D")
def convolution(site: Site, x: Value) -> Value:
    """`Conv1D`, `Conv2D`: one product per group."""
    kernel = site.weights.need("kernel")
    sizes = list(kernel.shape[:-2])
    groups = int(site.config.get("groups", 1))
    seen, counts = windows(site, x, sizes)
    bias = site.weights.get("bias")
    inputs, outputs = kernel.shape[-2], kernel.shape[-1] // groups
    parts = []
    for group in range(groups):
        part = slice(group * inputs, (group + 1) * inputs)
        own = slice(group * outputs, (group + 1) * outputs)
        mine = site.builder.view(seen, partial(_channels, part=part))
        flat = site.builder.reshape(mine, (x.shape[0], *counts, prod(sizes) * inputs))
        parts.append(
            dense_product(
                site,
                flat,
                f"kernel{group}",
                kernel[..., own].reshape(-1, outputs),
                None if bias is None else bias[own],
                site.config.get("activation"),
            )
        )
    if groups == 1:
        return parts[0]
    from secateur.runtime.layers.merging import concatenate

    return concatenate(site, parts, -1)


@layer("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(site: Site, x: Value) -> Value:
    """`DepthwiseConv1D`, `DepthwiseConv2D`."""
    y = _depthwise(site, x, site.weights.need("kernel"), site.weights.get("bias"))
    found = parse_activation(site, site.config.get("activation"))
    return apply_activation(site, y, found)


@layer("SeparableConv1D", "SeparableConv2D")
def separable(site: Site, x: Value) -> Value:
    """`SeparableConv1D`, `SeparableConv2D`: depthwise, then a product over the channels."""
    between = _depthwise(site, x, site.weights.need("depthwise_kernel"), None)
    point = site.weights.need("pointwise_kernel")
    return dense_product(
        site,
        between,
        "pointwise",
        point.reshape(point.shape[-2:]),
        site.weights.get("bias"),
        site.config.get("activation"),
    )


def _depthwise(site: Site, x: Value, kernel: Any, bias: Any) -> Value:
    """One pass over the data for every weight of a window that is not zero throughout."""
    sizes = list(kernel.shape[:-2])
    seen, counts = windows(site, x, sizes)
    channels, multiplier = kernel.shape[-2:]
    shape = (x.shape[0], *counts, channels, multiplier)
    spots = [spot for spot in np.ndindex(*sizes) if kernel[spot].any()]
    axes = (slice(None),) * (1 + len(counts))

    def run(out: Array, array: Array) -> None:
        out.fill(0)
        for spot in spots:
            out += array[(*axes, *spot)][..., None] * kernel[spot]
        if bias is not None:
            out += bias.reshape(channels, multiplier)

    result = site.builder.apply(run, [seen], shape)
    return site.builder.reshape(result, (*shape[:-2], channels * multiplier))


@layer("ZeroPadding1D", "ZeroPadding2D")
def zero_padding(site: Site, x: Value) -> Value:
    """Zeros around the data."""
    dims = x.ndim - 2
    padding = site.config["padding"]
    if isinstance(padding, int):
        padding = [[padding, padding]] * dims
    elif dims == 1:
        padding = [padding]
    pairs = [[p, p] if isinstance(p, int) else list(p) for p in padding]
    return _padded(site, x, [p[0] for p in pairs], [p[1] for p in pairs])
