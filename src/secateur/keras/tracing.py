"""From a subclassed model to a functional one over the same layers, by calling it symbolically."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
from keras.src.models.functional import Functional

from secateur.errors import UnsupportedModelError
from secateur.keras.anchoring import constants_anchored
from secateur.keras.symbolic import integer_inputs
from secateur.keras.walk import named_variables, walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer, Model


_PLAIN = (bool, int, float, str, type(None))


def needs_tracing(model: Model) -> bool:
    """Whether a model is more than its graph: it has a `call` of its own."""
    if isinstance(model, keras.Sequential):
        # One whose layers Keras cannot follow symbolically calls them one after the other.
        return type(model).call is not keras.Sequential.call or model._functional is None
    return not (isinstance(model, Functional) and type(model).call is Functional.call)


def trace(model: Model, inputs: Any) -> Model:
    """A functional model over the layers of `model`, made by calling it on symbolic `inputs`.

    Args:
        model: A built model with a `call` of its own.
        inputs: `keras.Input` tensors in the structure that `call` takes as its first argument.

    Raises:
        UnsupportedModelError: `call` fails on symbolic inputs, or does what a graph of layers
            cannot show: it uses weights outside of layers, or branches on `training`.
    """
    graph = _call(model, inputs, training=None)
    if any(is_int and "float" in old.dtype for is_int, old in _with_use(graph)):
        graph, inputs = _call_with_integers(model, inputs, graph)
    check_weights(model, graph)
    _check_training(model, inputs, graph)
    _check_constants(model, inputs, graph)
    return graph


def open_layers(graph: Model, must_open: Callable[[Layer], bool]) -> Model:
    """Put the inner layers of some layers in their place, again and again until none is left.

    Args:
        graph: A functional or sequential model.
        must_open: Whether a layer cannot stay as it is.

    Raises:
        UnsupportedModelError: Such a layer has weights of its own, takes a mask, or cannot be
            traced.
    """
    while closed := [layer for layer in _graph_layers(graph) if must_open(layer)]:
        marked = {id(layer) for layer in closed}
        inputs = keras.tree.map_structure(copy_input, input_structure(graph))
        functional: Any = graph._functional if isinstance(graph, keras.Sequential) else graph
        with constants_anchored(graph, inputs):
            outputs = functional._run_through_graph(
                inputs,
                operation_fn=lambda op: _opened(op) if id(op) in marked else op,  # noqa: B023
            )
        known = {id(constant) for constant in _constants(graph)}
        graph = keras.Model(inputs, outputs, name=graph.name)
        _check_opened(closed, [found for found in _constants(graph) if id(found) not in known])
    return graph


def copy_input(tensor: Any) -> Any:
    """A new symbolic input like one of a model's own."""
    layer = tensor._keras_history.operation
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        name=layer.name,
        optional=getattr(layer, "optional", False),
    )


def input_structure(graph: Any) -> Any:
    """A functional or sequential model's inputs, nested as its caller gives them."""
    return graph.inputs[0] if isinstance(graph, keras.Sequential) else graph.input


@contextmanager
def nodes_restored(model: Model) -> Iterator[None]:
    """Forget the calls that are made of a model's layers within the block.

    Each symbolic call adds to its layer's list of calls, which `layer.output` and the like read.
    """
    kept = [
        (nodes, list(nodes))
        for place in walk_layers(model)
        for nodes in (place.layer._inbound_nodes, place.layer._outbound_nodes)
    ]
    try:
        yield
    finally:
        for nodes, before in kept:
            nodes[:] = before


def _call(model: Model, inputs: Any, training: bool | None) -> Model:
    parameters = inspect.signature(model.call).parameters
    flags = {"training": training} if "training" in parameters else {}
    try:
        with constants_anchored(model, inputs):
            outputs = model.call(inputs, **flags)
        graph: Model = keras.Model(inputs, outputs, name=model.name)
    except Exception as error:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) cannot be traced: call() on symbolic "
            "inputs "
            f"fails with {type(error).__name__}: {_first_line(error)}. It must be made of Keras "
            "layers "
            "and keras.ops; or use inplace=True, which needs no tracing."
        ) from error
    return graph


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300] if lines else "no message"


def _with_use(graph: Model) -> list[tuple[bool, Any]]:
    return list(zip(integer_inputs(graph), graph.inputs, strict=True))


def _call_with_integers(model: Model, inputs: Any, graph: Model) -> tuple[Model, Any]:
    """Trace again, with integers for those inputs that turned out to be indices."""
    for is_free in (True, False):
        flat = [
            _integer_input(tensor, is_free) if is_int else tensor
            for is_int, tensor in _with_use(graph)
        ]
        inputs = keras.tree.pack_sequence_as(inputs, flat)
        try:
            return _call(model, inputs, training=None), inputs
        except UnsupportedModelError:
            if not is_free:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _integer_input(tensor: Any, is_free: bool) -> Any:
    shape = (None,) * len(tensor.shape) if is_free else tensor.shape
    return keras.Input(batch_shape=shape, dtype="int32", name=tensor._keras_history.operation.name)


def check_weights(model: Model, graph: Model) -> None:
    """Raise unless every weight of `model` is one of the graph that was made of it.

    Raises:
        UnsupportedModelError: Some weight was used outside of layers, or by a layer on a constant,
            so that the graph holds its effect but not itself.
    """
    reached = {id(named.variable) for named in named_variables(graph)}
    lost = [named.name for named in named_variables(model) if id(named.variable) not in reached]
    if lost:
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) has weights that no layer called on "
            "its inputs "
            f"holds: {', '.join(lost)}. Move them into layers of their own, with a get_config(); "
            "or use "
            "inplace=True, which needs no tracing."
        )


def _check_training(model: Model, inputs: Any, graph: Model) -> None:
    if "training" not in inspect.signature(model.call).parameters:
        return
    if _fingerprint(_call(model, inputs, training=True)) != _fingerprint(graph):
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) does different things in call() for "
            "training=True, which a graph of layers cannot follow. Hand the flag to the layers, "
            "as in "
            "self.dropout(x, training=training), instead of branching on it; or use inplace=True."
        )


def _check_constants(model: Model, inputs: Any, graph: Model) -> None:
    """Refuse weights that were read while tracing: the graph would hold their value for good."""
    if not _constants(graph):
        return
    changed = [
        (named.variable, keras.ops.add(named.variable.value, 1))
        for named in named_variables(model)
        if "float" in str(named.variable.dtype)
    ]
    with keras.StatelessScope(changed, initialize_variables=False):
        other = _constants(_call(model, inputs, training=None))
    if _values(_constants(graph)) != _values(other):
        raise UnsupportedModelError(
            f"Model {model.name!r} ({type(model).__name__}) computes with weight values outside of "
            "layers in call(), such as a transposed embedding table; a graph of layers would "
            "freeze "
            "them. Do it in a layer (keras.layers.ReversibleEmbedding for tied embeddings); or use "
            "inplace=True."
        )


def _check_opened(layers: list[Layer], constants: list[Any]) -> None:
    if any("float" in str(constant.dtype) for constant in constants):
        names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in layers)
        raise UnsupportedModelError(
            f"Of the custom layers that cannot be made anew by their configs, {names}, one "
            "computes with "
            "constants, which may stem from its weights, so it cannot be replaced by the layers "
            "it is "
            f"made of. {_MEND}"
        )


def _constants(graph: Any) -> list[Any]:
    return [
        leaf
        for node in graph_nodes(graph)
        for leaf in node_leaves(node)
        if keras.ops.is_tensor(leaf) and not isinstance(leaf, (keras.KerasTensor, keras.Variable))
    ]


def _values(constants: list[Any]) -> list[Any]:
    return [keras.ops.convert_to_numpy(constant).tolist() for constant in constants]


def _fingerprint(graph: Any) -> list[Any]:
    """What a graph does, but for the `training` flags its layers were given."""
    marks = []
    for node in graph_nodes(graph):
        operation = node.operation
        is_layer = isinstance(operation, keras.Layer) and not node.is_input
        what = id(operation) if is_layer else (type(operation).__name__, _settings(operation))
        kwargs = {key: value for key, value in node.arguments.kwargs.items() if key != "training"}
        leaves = keras.tree.flatten((node.arguments.args, kwargs))
        marks.append((what, [repr(leaf) for leaf in leaves if isinstance(leaf, _PLAIN)]))
    return marks


def _settings(operation: Any) -> str:
    kept = {
        key: value
        for key, value in vars(operation).items()
        if not key.startswith("_") and key != "name" and isinstance(value, (int, float, str, tuple))
    }
    return repr(sorted(kept.items()))


def graph_nodes(graph: Any) -> list[Any]:
    """The calls that make up a functional or sequential model, inputs first."""
    functional = graph._functional if isinstance(graph, keras.Sequential) else graph
    depths = sorted(functional._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in functional._nodes_by_depth[depth]]


def node_leaves(node: Any) -> list[Any]:
    """Everything a call was given, tensors and settings alike."""
    return list(keras.tree.flatten((node.arguments.args, node.arguments.kwargs)))


def _graph_layers(graph: Model) -> list[Layer]:
    layers = [
        node.operation for node in graph_nodes(graph) if isinstance(node.operation, keras.Layer)
    ]
    return list({id(layer): layer for layer in layers}.values())


def _opened(layer: Any) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if layer._trainable_variables or layer._non_trainable_variables or layer._seed_generators:
            raise UnsupportedModelError(
                f"{_custom(layer)} has weights of its own, so it cannot be replaced by the layers "
                "it is "
                f"made of. {_MEND}"
            )
        tensors = keras.tree.flatten((args, kwargs))
        if any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors):
            raise UnsupportedModelError(
                f"{_custom(layer)} is given a mask, so it cannot be replaced by the layers it is "
                "made "
                f"of. {_MEND}"
            )
        try:
            return layer.call(*args, **kwargs)
        except Exception as error:
            raise UnsupportedModelError(
                f"{_custom(layer)} its call() cannot be traced: {type(error).__name__}: "
                f"{_first_line(error)}. "
                f"{_MEND}"
            ) from error

    return call


_MEND = (
    "Give it a get_config() that returns the arguments of __init__ and register it with "
    "@keras.saving.register_keras_serializable(); or use inplace=True."
)


def _custom(layer: Layer) -> str:
    return (
        f"Layer {layer.name!r} of custom type {type(layer).__name__} cannot be made anew by its "
        "config, and"
    )
