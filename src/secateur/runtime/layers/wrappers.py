"""Layers around layers."""

from __future__ import annotations

from typing import Any

from secateur.runtime.layers.elementwise import with_mask
from secateur.runtime.lowering import Site, call, layer
from secateur.runtime.planning import Value


@layer("TimeDistributed")
def time_distributed(site: Site, x: Value, mask: Value | None = None) -> Any:
    """`TimeDistributed`: the inner layer sees every step as a sample of its own."""
    mask = x.mask if mask is None else mask
    config = site.config["layer"]
    names = site.weights.children()
    weights = site.weights.child(names[0]) if names else site.weights
    inner = site.within(config, weights)
    steps = site.builder.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))
    y = call(inner, config, [steps], {})
    if not isinstance(y, Value):
        raise site.refuse("inner layers with several outputs are not supported")
    return with_mask(site.builder.reshape(y, (*x.shape[:2], *y.shape[1:])), mask)
