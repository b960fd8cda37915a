"""Sums, products and concatenations of several values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secateur.runtime.layers.normalization import unit_rows
from secateur.runtime.linear import Product
from secateur.runtime.lowering import Site, layer, operation
from secateur.runtime.planning import Array, Value


def add(site: Site, one: Value, two: Value) -> Value:
    """One + two, within the product that makes one of them if nothing else reads that."""
    for first, second in ((one, two), (two, one)):
        product = first.producer
        alone = isinstance(product, Product) and not first.is_shared
        if alone and first.shape == second.shape and product.take_in(second):
            return site.builder.view(first, lambda array: array)
    return site.builder.ufunc(np.add, [one, two], np.result_type(one.dtype, two.dtype))


def _all_masks(site: Site, values: Sequence[Value]) -> Value | None:
    masks = [value.mask for value in values]
    if any(mask is None for mask in masks):
        return None
    result = masks[0]
    for mask in masks[1:]:
        if result is not None and mask is not None and mask is not result:
            result = site.builder.ufunc(np.logical_and, [result, mask], bool)
    return result


_FOLDS: dict[str, Any] = {
    "Multiply": np.multiply,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Subtract": np.subtract,
}


@layer("Add", "Average", "Multiply", "Maximum", "Minimum", "Subtract")
def fold(site: Site, values: list[Value]) -> Value:
    """Layers that merge values element by element."""
    deepest = max(value.ndim for value in values)
    wide = [_widened(site, value, deepest) for value in values]
    result = wide[0]
    for value in wide[1:]:
        if site.kind in ("Add", "Average"):
            result = add(site, result, value)
        else:
            kind = np.result_type(result.dtype, value.dtype)
            result = site.builder.ufunc(_FOLDS[site.kind], [result, value], kind)
    if site.kind == "Average":
        share = site.builder.constant(np.float32(1 / len(values)))
        result = site.builder.ufunc(np.multiply, [result, share], np.float32)
    result.mask = _all_masks(site, values)
    return result


def _widened(site: Site, value: Value, ndim: int) -> Value:
    """Axes of extent 1 after the batch, as Keras's merging layers add them."""
    missing = ndim - value.ndim
    if missing == 0:
        return value
    shape = (value.shape[0], *([1] * missing), *value.shape[1:])
    return site.builder.reshape(value, shape)


@layer("Concatenate")
def concatenate_layer(site: Site, values: list[Value]) -> Value:
    """`Concatenate`; masked where any part with a mask is."""
    axis = site.config.get("axis", -1)
    result = concatenate(site, values, axis)
    if any(value.mask is not None for value in values) and axis in (-1, result.ndim - 1):
        for value in values:
            if value.mask is not None and result.mask is not None:
                result.mask = site.builder.ufunc(np.logical_and, [result.mask, value.mask], bool)
            elif value.mask is not None:
                result.mask = value.mask
    elif any(value.mask is not None for value in values):
        masks = [
            value.mask
            if value.mask is not None
            else site.builder.constant(np.ones(value.shape[:2], bool))
            for value in values
        ]
        result.mask = concatenate(site, masks, axis, bool) if axis == 1 else None
    return result


def concatenate(site: Site, values: Sequence[Value], axis: int, dtype: Any = None) -> Value:
    """Values one after another along an axis."""
    shape = list(values[0].shape)
    axis %= len(shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    kind = np.result_type(*(value.dtype for value in values)) if dtype is None else dtype

    def run(out: Array, *arrays: Array) -> None:
        np.concatenate(arrays, axis=axis, out=out, casting="unsafe")

    return site.builder.apply(run, values, shape, kind)


@operation("Concatenate")
def concatenate_operation(site: Site, values: list[Value], axis: int | None = None) -> Value:
    """`keras.ops.concatenate`."""
    chosen = site.config.get("axis", 0) if axis is None else axis
    return concatenate(site, values, -1 if chosen is None else chosen)


@layer("Dot")
def dot(site: Site, values: list[Value]) -> Value:
    """`Dot`: the sum over one axis of each, batch by batch."""
    axes = site.config["axes"]
    one_axis, two_axis = (axes, axes) if isinstance(axes, int) else axes
    one, two = values
    if site.config.get("normalize"):
        one, two = unit_rows(site, one, one_axis), unit_rows(site, two, two_axis)
    if one.ndim == 2 and two.ndim == 2:
        return site.builder.apply(
            lambda out, a, b: np.einsum("bi,bi->b", a, b, out=out[:, 0]),
            [one, two],
            (one.shape[0], 1),
        )
    if one.ndim != 3 or two.ndim != 3:
        raise site.refuse(f"inputs of shapes {one.shape} and {two.shape} are not supported")
    left = site.builder.view(one, lambda a: np.moveaxis(a, one_axis, -1))
    right = site.builder.view(two, lambda b: np.moveaxis(b, two_axis, 1))
    return matmul(site, left, right)


def matmul(site: Site, one: Value, two: Value) -> Value:
    """The matrix product of the last two axes."""
    if one.ndim < 2 or two.ndim < 2:
        raise site.refuse("products of vectors are not supported")
    lead = np.broadcast_shapes(one.shape[:-2], two.shape[:-2])
    shape = (*lead, one.shape[-2], two.shape[-1])
    return site.builder.apply(lambda out, a, b: np.matmul(a, b, out=out), [one, two], shape)
