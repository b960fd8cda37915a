"""Open a Keras model down to the calls of layers and ops that the rule table knows.

`recording` runs the model on symbolic tensors, `reading` makes the `graph` of what it left.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
from keras import tree
from keras.src import backend

from secateur.errors import UnsupportedModelError
from secateur.keras.graph import Call, Constant, Graph, Nest, Source, Tensor
from secateur.keras.reading import read_graph
from secateur.keras.recording import FOLLOW_CALLER, Opener, Recording, Twins, twin

_BOLD = re.compile(r"\x1b\[[0-9;]*m")

__all__ = [
    "Call", "Constant", "Graph", "Nest", "Opener", "Source", "Tensor", "Twins", "flatten",
    "input_structure", "twin",
]  # fmt: skip


def flatten(
    model: Any,
    is_leaf: Callable[[Any], bool],
    opener_of: Callable[[Any], Opener | None],
    sample: Nest = None,
) -> Graph:
    """Trace a built model into flat calls.

    Args:
        model: Any Keras model: Sequential, functional, subclassed, nested.
        is_leaf: Whether a layer is to be taken whole.
        opener_of: What to call in place of a layer's own `call`, for layers that have such a thing.
        sample: Data as the model takes it; tells the inputs of a subclassed model.

    Raises:
        UnsupportedModelError: The model is not built, or its `call` cannot run on symbolic tensors.
    """
    structure = tree.map_structure(_fresh, input_structure(model, sample))
    trace = Recording(model, is_leaf, opener_of)
    with trace.recording():
        try:
            outputs = model(structure, training=FOLLOW_CALLER)
        except Exception as error:
            raise UnsupportedModelError(
                f"Model {model.name!r} cannot be traced: calling it on symbolic tensors of shapes "
                f"{[tuple(x.shape) for x in tree.flatten(structure)]} raised "
                f"{type(error).__name__}: {_plain(error)}"
            ) from error
        return read_graph(trace, structure, outputs)


def _plain(error: Exception) -> str:
    """A message of Keras as one line, without the codes that make it bold."""
    return " ".join(_BOLD.sub("", str(error)).split())


def _fresh(tensor: Any) -> Any:
    return keras.KerasTensor(tensor.shape, dtype=tensor.dtype, name=tensor.name)


def input_structure(model: Any, sample: Nest = None) -> Nest:
    """Symbolic tensors, nested as the model takes them."""
    if not model.built:
        raise UnsupportedModelError(
            f"Model {model.name!r} is not built, so its weights do not exist; call it on data first."
        )
    known = getattr(model, "_inputs_struct", None)
    if known is None and getattr(model, "_functional", None) is not None:
        known = model._functional._inputs_struct
    if known is not None:
        return tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, dtype=x.dtype, name=_input_name(x)), known
        )
    if sample is not None:
        return tree.map_structure(
            lambda x: keras.KerasTensor(
                (None, *x.shape[1:]), dtype=backend.standardize_dtype(x.dtype), name="input"
            ),
            sample,
        )
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise UnsupportedModelError(
            f"Model {model.name!r} does not tell the shapes of its inputs; pass data."
        )
    nested = next(iter(shapes.values())) if len(shapes) == 1 else list(shapes.values())
    return tree.map_shape_structure(
        lambda shape: keras.KerasTensor((None, *shape[1:]), dtype=model.input_dtype, name="input"),
        nested,
    )


def _input_name(tensor: Any) -> str:
    history = getattr(tensor, "_keras_history", None)
    operation = history.operation if history is not None else None
    return str(operation.name if operation is not None else tensor.name)
