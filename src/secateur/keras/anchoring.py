"""Keeping layers that are called on constants in a traced graph.

A position embedding is called on `ops.arange(length)`, which is no symbolic tensor: Keras would
look the rows up at once, and the graph would hold them as a constant in place of the layer. While a
model is traced, such constants are tied to its first input, by adding zero times that input, so
that the call is recorded like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from secateur.keras.walk import walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


@contextmanager
def constants_anchored(model: Model, inputs: Any) -> Iterator[None]:
    """Within the block, calls of the model's layers on constants are recorded symbolically.

    Args:
        model: The model whose layers are meant; calls of other layers are left alone.
        inputs: Symbolic inputs; the first one is the anchor.
    """
    owned = {id(place.layer) for place in walk_layers(model) if place.layer is not model}
    anchor = keras.tree.flatten(inputs)[0]
    original = keras.Layer.__call__

    def recording_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in owned and not _is_symbolic((args, kwargs)):
            args = keras.tree.map_structure(lambda leaf: _anchored(leaf, anchor), args)
        return original(layer, *args, **kwargs)

    # __call__ is looked up on the class, so an attribute of the instances would not be seen.
    keras.Layer.__call__ = recording_call
    try:
        yield
    finally:
        keras.Layer.__call__ = original


def _is_symbolic(arguments: Any) -> bool:
    return any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(arguments))


def _anchored(leaf: Any, anchor: Any) -> Any:
    if not isinstance(leaf, np.ndarray) and not keras.ops.is_tensor(leaf):
        return leaf
    dtype = keras.backend.standardize_dtype(leaf.dtype)
    # Zeros made like the input, not the input times zero: infinite inputs would give NaN.
    zero = keras.ops.sum(keras.ops.cast(keras.ops.zeros_like(anchor), dtype))
    return keras.ops.cast(keras.ops.add(leaf, zero), dtype)
