"""Normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur._kernels.native import neural
from secateur.errors import FileFormatError
from secateur.runtime.layers.elementwise import with_mask
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Value


def _last_axis_only(site: Site, x: Value) -> None:
    axis = site.config.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    if [a % x.ndim for a in axes] != [x.ndim - 1]:
        raise site.refuse(f"axis={axis} is not supported, only the last one")


@layer("LayerNormalization", "RMSNormalization")
def layer_normalization(site: Site, x: Value) -> Value:
    """`LayerNormalization` and `RMSNormalization` over the last axis."""
    _last_axis_only(site, x)
    rms = site.kind == "RMSNormalization" or bool(site.config.get("rms_scaling"))
    scale = site.weights.get("gamma", "scale")
    offset = site.weights.get("beta")
    epsilon = float(site.config["epsilon"])
    flat = site.builder.contiguous(x, np.float32)
    width = x.shape[-1]
    for array in (scale, offset):
        if array is not None and array.shape != (width,):
            raise FileFormatError(
                f"Layer {site.weights.path!r} has an array of shape {array.shape} for {width} features."
            )

    def run(out: Array, array: Array) -> None:
        neural.normalize_rows(
            array.reshape(-1, width), out.reshape(-1, width), scale, offset, epsilon, rms=rms
        )

    mask = None if site.kind == "RMSNormalization" else x.mask
    return with_mask(site.builder.apply(run, [flat], x.shape), mask)


@layer("BatchNormalization")
def batch_normalization(site: Site, x: Value, mask: Any = None) -> Value:
    """`BatchNormalization` with its moving statistics: one factor and one term per channel."""
    del mask
    axis = site.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    mean = site.weights.need("moving_mean").astype(np.float64)
    variance = site.weights.need("moving_variance").astype(np.float64)
    gamma, beta = site.weights.get("gamma"), site.weights.get("beta")
    factor = 1 / np.sqrt(variance + site.config["epsilon"])
    factor = factor if gamma is None else factor * gamma
    term = -mean * factor + (0 if beta is None else beta)
    shape = [1] * x.ndim
    shape[axis] = -1
    scales = factor.astype(np.float32).reshape(shape)
    terms = term.astype(np.float32).reshape(shape)

    def run(out: Array, array: Array) -> None:
        np.multiply(array, scales, out=out)
        np.add(out, terms, out=out)

    return with_mask(site.builder.apply(run, [x], x.shape), x.mask)


@layer("GroupNormalization")
def group_normalization(site: Site, x: Value) -> Value:
    """`GroupNormalization`: statistics of each group of channels, over all other axes."""
    axis = site.config.get("axis", -1) % x.ndim
    channels = x.shape[axis]
    groups = channels if site.config["groups"] == -1 else int(site.config["groups"])
    if groups < 1 or channels % groups:
        raise FileFormatError(
            f"Layer {site.weights.path!r} has {groups} groups for {channels} channels."
        )
    split = (*x.shape[:axis], groups, channels // groups, *x.shape[axis + 1 :])
    over = tuple(other for other in range(1, x.ndim + 1) if other != axis)
    epsilon = np.float32(site.config["epsilon"])
    along = [1] * x.ndim
    along[axis] = channels
    scale, offset = (
        None if array is None else np.asarray(array, np.float32).reshape(along)
        for array in (site.weights.get("gamma"), site.weights.get("beta"))
    )

    def run(out: Array, array: Array) -> None:
        parts, result = array.reshape(split), out.reshape(split)
        np.subtract(parts, parts.mean(axis=over, keepdims=True), out=result)
        variance = np.square(result).mean(axis=over, keepdims=True)
        np.multiply(result, 1 / np.sqrt(variance + epsilon), out=result)
        if scale is not None:
            np.multiply(out, scale, out=out)
        if offset is not None:
            np.add(out, offset, out=out)

    flat = site.builder.contiguous(x, np.float32)
    return with_mask(site.builder.apply(run, [flat], x.shape), x.mask)


@layer("UnitNormalization")
def unit_normalization(site: Site, x: Value) -> Value:
    """`UnitNormalization`: rows of length one."""
    axis = site.config.get("axis", -1)
    return with_mask(unit_rows(site, x, tuple(axis) if isinstance(axis, list) else axis), x.mask)


def unit_rows(site: Site, x: Value, axis: int | tuple[int, ...]) -> Value:
    """What lies along an axis, or along some together, brought to length one."""

    def run(out: Array, array: Array) -> None:
        square = np.sum(np.square(array), axis=axis, keepdims=True)
        np.divide(array, np.sqrt(np.maximum(square, np.float32(1e-12))), out=out)

    return site.builder.apply(run, [x], x.shape)


@layer("Normalization")
def feature_normalization(site: Site, x: Value) -> Value:
    """`Normalization` with the statistics it was adapted to."""
    mean, variance = site.weights.get("mean"), site.weights.get("variance")
    if mean is None or variance is None:
        raise site.refuse("statistics given as arguments are not supported, only adapted ones")
    if site.config.get("invert"):
        raise site.refuse("invert=True is not supported")
    _last_axis_only(site, x)
    deviation = np.maximum(np.sqrt(variance), np.float32(1e-7))

    def run(out: Array, array: Array) -> None:
        np.divide(np.subtract(array, mean), deviation, out=out)

    return site.builder.apply(run, [x], x.shape)
