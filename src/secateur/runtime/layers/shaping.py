"""Layers that move or repeat elements."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from secateur.runtime.layers.elementwise import with_mask
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Value


@layer("Flatten")
def flatten(site: Site, x: Value) -> Value:
    """`Flatten`: all but the batch on one axis."""
    if site.config.get("data_format") == "channels_first" and x.ndim > 1:
        x = site.builder.view(x, lambda array: np.moveaxis(array, 1, -1))
    return site.builder.reshape(x, (x.shape[0], prod(x.shape[1:])))


@layer("Reshape")
def reshape(site: Site, x: Value) -> Value:
    """`Reshape` of all but the batch."""
    target = list(site.config["target_shape"])
    return site.builder.reshape(x, (x.shape[0], *_solved(target, prod(x.shape[1:]))))


def _solved(target: list[Any], size: int) -> list[int]:
    known = prod(n for n in target if n is not None and n >= 0)
    return [size // max(1, known) if n is None or n < 0 else n for n in target]


@layer("Permute")
def permute(site: Site, x: Value) -> Value:
    """`Permute` of all but the batch."""
    order = (0, *site.config["dims"])
    return site.builder.view(x, lambda array: array.transpose(order))


@layer("RepeatVector")
def repeat_vector(site: Site, x: Value) -> Value:
    """`RepeatVector`: the same vector at every step."""
    steps = int(site.config["n"])
    shape = (x.shape[0], steps, x.shape[1])
    return site.builder.view(x, lambda array: np.broadcast_to(array[:, None], shape))


@layer("Cropping1D", "Cropping2D")
def cropping(site: Site, x: Value) -> Value:
    """`Cropping1D`, `Cropping2D`."""
    dims = x.ndim - 2
    cropping = site.config["cropping"]
    if isinstance(cropping, int):
        cropping = [[cropping, cropping]] * dims
    elif dims == 1:
        cropping = [cropping]
    cuts = [[c, c] if isinstance(c, int) else list(c) for c in cropping]
    kept = tuple(
        slice(first, size - last) for (first, last), size in zip(cuts, x.shape[1:-1], strict=True)
    )
    return site.builder.view(x, lambda array: array[(slice(None), *kept)])


@layer("UpSampling1D", "UpSampling2D")
def up_sampling(site: Site, x: Value) -> Value:
    """Nearest-neighbour `UpSampling1D`, `UpSampling2D`."""
    if site.config.get("interpolation", "nearest") != "nearest":
        raise site.refuse("only nearest-neighbour interpolation is supported")
    size = site.config["size"]
    sizes = [size] * (x.ndim - 2) if isinstance(size, int) else list(size)
    result = x
    for axis, count in enumerate(sizes, 1):
        shape = list(result.shape)
        shape[axis] *= count

        def run(out: Array, array: Array, axis: int = axis, count: int = count) -> None:
            out[...] = np.repeat(array, count, axis=axis)

        result = site.builder.apply(run, [result], shape)
    return with_mask(result, None)
