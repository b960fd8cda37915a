"""How each layer and operation becomes steps, by family.

A function is called as `lower(site, *args, **kwargs)` with the call's arguments, in which tensors are
`Value`s with shapes that are known. It returns values; masks travel on them as they do in Keras.
"""

from __future__ import annotations

from secateur.runtime.layers import (
    attention,
    convolution,
    elementwise,
    linear,
    merging,
    normalization,
    operations,
    pooling,
    recurrent,
    shaping,
    wrappers,
)

__all__ = [
    "attention",
    "convolution",
    "elementwise",
    "linear",
    "merging",
    "normalization",
    "operations",
    "pooling",
    "recurrent",
    "shaping",
    "wrappers",
]
