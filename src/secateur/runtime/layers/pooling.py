"""Pooling, over everything or over windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Value


def _spatial_axes(site: Site, x: Value) -> tuple[int, ...]:
    if site.config.get("data_format") == "channels_first":
        return tuple(range(2, x.ndim))
    return tuple(range(1, x.ndim - 1))


@layer("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
def global_average(site: Site, x: Value, mask: Value | None = None) -> Value:
    """Means over space; over unmasked steps where there is a mask (1D)."""
    axes = _spatial_axes(site, x)
    keep = bool(site.config.get("keepdims"))
    shape = _pooled_shape(x, axes, keep)
    mask = x.mask if mask is None else mask
    if mask is not None and x.ndim == 3:

        def masked(out: Array, array: Array, kept: Array) -> None:
            weights = kept.astype(np.float32)
            rows = array if axes == (1,) else array.swapaxes(1, 2)
            means = out.reshape(out.shape[0], 1, rows.shape[2])
            np.matmul(weights[:, None, :], rows, out=means)
            np.divide(means, weights.sum(axis=1)[:, None, None], out=means)

        return site.builder.apply(masked, [x, mask], shape)
    return site.builder.apply(
        lambda out, array: np.mean(array, axis=axes, out=out, keepdims=keep), [x], shape
    )


@layer("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
def global_max(site: Site, x: Value) -> Value:
    """Maxima over space. Keras does not look at masks here."""
    axes = _spatial_axes(site, x)
    keep = bool(site.config.get("keepdims"))
    return site.builder.apply(
        lambda out, array: np.max(array, axis=axes, out=out, keepdims=keep),
        [x],
        _pooled_shape(x, axes, keep),
    )


def _pooled_shape(x: Value, axes: Sequence[int], keep: bool) -> list[int]:
    return [
        1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes
    ]


@layer("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
def window(site: Site, x: Value) -> Value:
    """Maxima or means over windows; padding does not count."""
    if site.config.get("data_format") == "channels_first":
        raise site.refuse("channels_first is not supported")
    dims = x.ndim - 2
    sizes = pair(site.config["pool_size"], dims)
    strides = pair(site.config.get("strides") or sizes, dims)
    same = site.config.get("padding") == "same"
    is_max = site.kind.startswith("Max")
    out_sizes, before = [], []
    for extent, size, stride in zip(x.shape[1:-1], sizes, strides, strict=True):
        count, left, _ = window_counts(extent, size, stride, 1, same)
        out_sizes.append(count)
        before.append(left)
    shape = (x.shape[0], *out_sizes, x.shape[-1])
    counts = np.zeros((1, *out_sizes, 1), np.float32)
    spots = list(np.ndindex(*sizes))
    moves = [_overlap(spot, before, strides, out_sizes, x.shape[1:-1]) for spot in spots]
    for target, _ in moves:
        counts[(slice(None), *target)] += 1

    def run(out: Array, array: Array) -> None:
        out.fill(-np.inf if is_max else 0)
        function: Any = np.maximum if is_max else np.add
        for target, source in moves:
            part = out[(slice(None), *target)]
            function(part, array[(slice(None), *source)], out=part)
        if not is_max:
            np.divide(out, counts, out=out)

    return site.builder.apply(run, [x], shape)


def pair(value: Any, dims: int) -> list[int]:
    """One number per spatial axis."""
    return [int(value)] * dims if isinstance(value, int) else [int(n) for n in value]


def window_counts(
    extent: int, size: int, stride: int, dilation: int, same: bool
) -> tuple[int, int, int]:
    """(windows, padding before, padding after) along an axis, as TensorFlow counts them."""
    reach = (size - 1) * dilation + 1
    if not same:
        return max(0, (extent - reach) // stride + 1), 0, 0
    count = -(-extent // stride)
    padding = max(0, (count - 1) * stride + reach - extent)
    return count, padding // 2, padding - padding // 2


def _overlap(
    spot: Sequence[int],
    before: Sequence[int],
    strides: Sequence[int],
    counts: Sequence[int],
    extents: Sequence[int],
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Which windows have this spot inside the data, and where it lies for them."""
    targets, sources = [], []
    for offset, left, stride, count, extent in zip(
        spot, before, strides, counts, extents, strict=True
    ):
        first = max(0, -(-(left - offset) // stride))
        last = min(count, (extent - 1 + left - offset) // stride + 1)
        start = first * stride + offset - left
        targets.append(slice(first, max(first, last)))
        sources.append(slice(start, start + max(0, last - first) * stride, stride))
    # A slice that starts in the data and ends beyond it is cut to as many as there are.
    return tuple(targets), tuple(sources)
