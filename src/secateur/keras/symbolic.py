"""Symbolic inputs to call a subclassed model with, found from what it was built with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras

from secateur.errors import ArgumentTypeError, UnsupportedModelError
from secateur.keras.walk import walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer, Model

_INDEXING_OPS = frozenset({"Take", "TakeAlongAxis", "OneHot"})


def symbolic_inputs(model: Model, input_spec: Any = None) -> Iterator[Any]:
    """Input structures to try a model's `call` with, the most general one first.

    A batch of any size is always let in. Of float inputs all sizes but the last are left open
    first, of integer inputs all, since sequences vary in length; then the sizes that the model was
    built with are tried.

    Args:
        model: A built model.
        input_spec: Example batch, `keras.InputSpec` or symbolic tensor (anything with a shape and a
            dtype), or a list, tuple or dict of them; None to go by what the model was built with.

    Raises:
        UnsupportedModelError: It is not known what the model was built with.
        ArgumentTypeError: `input_spec` is none of these.
    """
    if input_spec is not None:
        yield from _without_repeats(_from_spec(input_spec))
    else:
        yield from _without_repeats(_from_build(model))


def integer_inputs(graph: Model) -> list[bool]:
    """For each input of a functional model, whether it is used as indices or token ids.

    Raises:
        UnsupportedModelError: An input goes into a layer that looks numbers up, and it cannot be
            seen whether it is that input.
    """
    return [_is_index(graph, tensor) for tensor in graph.inputs]


def map_shapes(function: Callable[[tuple[int | None, ...], str | None], Any], shapes: Any) -> Any:
    """Apply `function(shape, key)` to every shape in a nested structure; keys are of dicts."""

    def visit(node: Any, key: str | None) -> Any:
        if isinstance(node, Mapping):
            return {name: visit(inner, str(name)) for name, inner in node.items()}
        if all(size is None or isinstance(size, int) for size in node):
            return function(tuple(node), key)
        return [visit(inner, None) for inner in node]

    return visit(shapes, None)


def _from_build(model: Any) -> Iterator[Any]:
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes or len(shapes) != 1 or next(iter(shapes.values())) is None:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) has to be traced, but it is not "
            "recorded "
            "what inputs it was built with; pass input_spec=, such as one batch of data."
        )
    shape = next(iter(shapes.values()))
    for dtype in (model.compute_dtype, "int32"):
        for relax in (True, False):
            yield map_shapes(lambda size, key: _input(size, dtype, key, relax), shape)  # noqa: B023


def _from_spec(input_spec: Any) -> Iterator[Any]:
    for relax in (True, False):
        yield _map_spec(input_spec, None, relax)


def _map_spec(spec: Any, key: str | None, relax: bool) -> Any:
    if isinstance(spec, Mapping):
        return {name: _map_spec(inner, str(name), relax) for name, inner in spec.items()}
    if isinstance(spec, (list, tuple)):
        return [_map_spec(inner, None, relax) for inner in spec]
    shape, dtype = getattr(spec, "shape", None), getattr(spec, "dtype", None)
    if shape is None or dtype is None:
        raise ArgumentTypeError(
            "input_spec takes anything with a shape and a dtype, such as one batch of data or a "
            f"keras.InputSpec, or a list or dict of them; got {type(spec).__name__}."
        )
    dtype = keras.backend.standardize_dtype(dtype)
    # NumPy makes float64 batches, which models cast to float32 or less on entry.
    dtype = keras.config.floatx() if dtype == "float64" else dtype
    return _input(tuple(shape), dtype, key, relax)


def _input(shape: tuple[int | None, ...], dtype: str, name: str | None, relax: bool) -> Any:
    inner: tuple[int | None, ...] = shape[1:]
    if relax and dtype.startswith("int"):
        inner = (None,) * len(inner)
    elif relax:
        inner = (None,) * (len(inner) - 1) + inner[-1:]
    return keras.Input(shape=inner, dtype=dtype, name=name)


def _without_repeats(structures: Iterator[Any]) -> Iterator[Any]:
    seen = set()
    for structure in structures:
        mark = tuple((tensor.shape, tensor.dtype) for tensor in keras.tree.flatten(structure))
        if mark not in seen:
            seen.add(mark)
            yield structure


def _is_index(graph: Any, tensor: Any) -> bool:
    return any(
        _takes_index(node.operation, node, tensor)
        for nodes in graph._nodes_by_depth.values()
        for node in nodes
        if any(tensor is used for used in node.input_tensors)
    )


def _takes_index(operation: Any, node: Any, tensor: Any) -> bool:
    if isinstance(operation, keras.layers.Embedding):
        return not node.arguments.kwargs.get("reverse", False)
    if isinstance(operation, keras.Function):
        inner = operation.inputs[[used is tensor for used in node.input_tensors].index(True)]
        return "int" in inner.dtype or _is_index(operation, inner)
    if isinstance(operation, keras.Sequential) and operation._functional is not None:
        return "int" in operation.inputs[0].dtype or _is_index(
            operation._functional, operation.inputs[0]
        )
    if isinstance(operation, keras.Layer):
        return _inner_takes_index(operation, tensor)
    if type(operation).__name__ == "Cast":
        return "int" in str(operation.dtype)
    return type(operation).__name__ in _INDEXING_OPS


def _inner_takes_index(layer: Layer, tensor: Any) -> bool:
    """Whether a layer made of layers looks its input up, seen by opening it."""
    if not any(isinstance(place.layer, keras.layers.Embedding) for place in walk_layers(layer)):
        return False
    probe = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    try:
        return _is_index(keras.Model(probe, layer.call(probe)), probe)
    except Exception as error:
        raise UnsupportedModelError(
            f"It cannot be seen whether the input of layer {layer.name!r} ({type(layer).__name__}) "
            "holds integers or floats; pass input_spec=, such as one batch of data."
        ) from error
