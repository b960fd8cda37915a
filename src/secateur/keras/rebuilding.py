"""The same model over new layers, whose variables have no values yet."""

from __future__ import annotations

import copy
import inspect
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
from keras.src.models.functional import functional_like_constructor
from keras.src.saving import serialization_lib

from secateur.errors import UnsupportedModelError
from secateur.keras.deferred import deferred_variables
from secateur.keras.symbolic import symbolic_inputs
from secateur.keras.tracing import (
    check_weights,
    copy_input,
    graph_nodes,
    needs_tracing,
    node_leaves,
    open_layers,
    trace,
)
from secateur.keras.variables import variable_dtype, variable_shape
from secateur.keras.walk import named_variables, walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer, Model


@dataclass(frozen=True)
class Rebuilt:
    """A model as a graph over its own layers, and the same graph over new ones.

    Attributes:
        graph: Functional or sequential, over the layers of the model it was made from.
        skeleton: The same over new layers; its variables may have no values yet.
    """

    graph: Model
    skeleton: Model


def rebuild(
    model: Model, input_spec: Any = None, must_open: Callable[[Layer], bool] | None = None
) -> Rebuilt:
    """Make a model anew, layer by layer, without values.

    Args:
        model: A built model of any kind.
        input_spec: See `symbolic.symbolic_inputs`; only looked at where the model has to be traced.
        must_open: Layers to be replaced by those they are made of; by default those that cannot be
            made anew from their config.

    Raises:
        UnsupportedModelError: The model cannot be traced, or a layer cannot be made anew.
    """
    opens = must_open or cannot_be_copied
    if not needs_tracing(model):
        return _rebuild_opened(model, model, opens)
    failures: list[UnsupportedModelError] = []
    for inputs in symbolic_inputs(model, input_spec):
        try:
            return _rebuild_opened(model, trace(model, inputs), opens)
        except UnsupportedModelError as error:
            failures.append(error)
    # A model that is no graph can still be copied as what it is, if its class allows.
    for inputs in symbolic_inputs(model, input_spec) if must_open is None else ():
        if (copied := _copy_subclassed(model, inputs)) is not None:
            return Rebuilt(model, copied)
    raise failures[0]


def _rebuild_opened(model: Model, graph: Model, opens: Callable[[Layer], bool]) -> Rebuilt:
    opened = open_layers(graph, opens)
    check_weights(model, opened)
    return _rebuild_graph(opened)


def _copy_subclassed(model: Model, inputs: Any) -> Model | None:
    """A new object of the model's own class, if its config suffices to make one alike."""
    try:
        with deferred_variables(), copying_scope(model):
            copied: Model = _copy_layer(model)
            copied(inputs)
        _name_alike(model, copied)
        _check_variables(model, copied)
    except Exception:
        return None
    return copied


def cannot_be_copied(layer: Layer) -> bool:
    """Whether a custom layer cannot be made anew from its config."""
    if is_stock(type(layer)):
        return False
    try:
        with deferred_variables(), copying_scope(layer):
            _copy_layer(layer)
    except Exception:
        return True
    return False


def is_stock(layer_class: type) -> bool:
    """Whether a class is Keras's own."""
    return layer_class.__module__.split(".")[0] == "keras"


@contextmanager
def copying_scope(model: Layer) -> Iterator[None]:
    """Let the layers of `model` be made from their configs whatever classes they use."""
    custom = {
        type(place.layer).__name__: type(place.layer)
        for place in walk_layers(model)
        if not is_stock(type(place.layer))
    }
    # Lambdas are refused, and warned of, where configs come from outside; these come from objects
    # in this process.
    with (
        warnings.catch_warnings(),
        keras.saving.custom_object_scope(custom),
        serialization_lib.SafeModeScope(False),
    ):
        warnings.filterwarnings("ignore", message=".*includes a `lambda`")
        yield


def _rebuild_graph(graph: Model) -> Rebuilt:
    try:
        with deferred_variables(), copying_scope(graph):
            skeleton = _copy_graph(graph, {})
    except UnsupportedModelError:
        raise
    except Exception:
        # Some layers, such as stateful recurrent ones, insist on values while they are built.
        with copying_scope(graph):
            skeleton = _copy_graph(graph, {})
    _name_alike(graph, skeleton)
    _check_variables(graph, skeleton)
    return Rebuilt(graph, skeleton)


def _name_alike(model: Model, copied: Model) -> None:
    """Name the layers of a copy as those that they stand for: inside of custom ones a config may not."""
    places = list(walk_layers(model)), list(walk_layers(copied))
    if [type(place.layer) for place in places[0]] == [type(place.layer) for place in places[1]]:
        for old, new in zip(*places, strict=True):
            if new.layer.name != old.layer.name:
                new.layer.name = old.layer.name


def _copy_graph(graph: Any, copies: dict[int, Any]) -> Any:
    """Copy a functional or sequential model; `copies` maps ids of old layers to new ones."""
    if isinstance(graph, keras.Sequential):
        layers = [_copy_operation(layer, copies) for layer in graph.layers]
        copied: Any = keras.Sequential([copy_input(graph.inputs[0]), *layers], name=graph.name)
    else:
        inputs = keras.tree.map_structure(copy_input, graph.input)
        outputs = graph._run_through_graph(
            inputs,
            operation_fn=lambda operation: _copy_operation(operation, copies),
            call_fn=lambda operation, *args, **kwargs: operation(
                *_retie(graph, copies, args), **_retie(graph, copies, kwargs)
            ),
        )
        kind = type(graph) if functional_like_constructor(type(graph)) else keras.Model
        copied = kind(inputs, outputs, name=graph.name)
    # Not part of a graph's config: it took the global policy of the time it was made.
    copied.dtype_policy = graph.dtype_policy
    return copied


def _copy_operation(operation: Any, copies: dict[int, Any]) -> Any:
    if id(operation) not in copies:
        if not isinstance(operation, keras.Layer):
            copied = copy.copy(operation)
            copied._inbound_nodes, copied._outbound_nodes = [], []
        elif isinstance(operation, (keras.Function, keras.Sequential)) and not needs_tracing(
            operation
        ):
            copied = _copy_graph(operation, copies)
        else:
            copied = _copy_layer(operation)
        copies[id(operation)] = copied
    return copies[id(operation)]


def _copy_layer(layer: Any) -> Any:
    if isinstance(layer, keras.layers.Lambda):
        return _copy_lambda(layer)
    try:
        config = _accepted(type(layer), _with_functions(layer, layer.get_config()))
        copied = type(layer).from_config(config)
    except Exception as error:
        raise UnsupportedModelError(
            f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied: "
            f"{type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]} Give it a get_config() that returns the "
            "arguments of "
            "__init__; or use inplace=True, which copies nothing."
        ) from error
    # A config may leave these out, as that of a class whose __init__ does not take a name.
    copied.name = layer.name
    if copied.dtype_policy != layer.dtype_policy:
        copied.dtype_policy = layer.dtype_policy
    return copied


def _accepted(layer_class: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Leave out those general settings that a custom class does not take; they are set after."""
    parameters = inspect.signature(layer_class.__init__).parameters
    takes_all = any(kind.kind is kind.VAR_KEYWORD for kind in parameters.values())
    if takes_all or is_stock(layer_class):
        return config
    dropped = {"name", "trainable", "dtype"} - set(parameters)
    return {key: value for key, value in config.items() if key not in dropped}


def _copy_lambda(layer: Any) -> Any:
    return type(layer)(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        name=layer.name,
        dtype=layer.dtype_policy,
    )


def _with_functions(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Put Python functions back into a config in place of their serialised form.

    Keras dumps a lambda's byte code and loses what it refers to; a copy in this process can share
    it.
    """
    for key in config:
        value = getattr(layer, key, None)
        if isinstance(value, types.FunctionType) and value.__module__.split(".")[0] != "keras":
            config[key] = value
    return config


def _retie(graph: Any, copies: dict[int, Any], arguments: Any) -> Any:
    """Replace variables that are handed to a call directly by those of the new layers."""

    def replace(leaf: Any) -> Any:
        return _find_copy(graph, copies, leaf) if isinstance(leaf, keras.Variable) else leaf

    return keras.tree.map_structure(replace, arguments)


def _find_copy(graph: Any, copies: dict[int, Any], variable: Any) -> Any:
    for place in walk_layers(graph):
        if id(place.layer) not in copies:
            continue
        old = [named.variable for named in named_variables(place.layer)]
        new = [named.variable for named in named_variables(copies[id(place.layer)])]
        if len(old) == len(new):
            for before, after in zip(old, new, strict=True):
                if before is variable:
                    return after
    raise UnsupportedModelError(
        f"Model {graph.name!r} uses weight {variable.path!r} outside of the layer that owns it, "
        "before "
        "that layer is called; call the layer first, or use inplace=True."
    )


def _check_variables(graph: Model, skeleton: Model) -> None:
    """Make sure that what came out of the configs has the weights that went in."""
    old = {named.name: named for named in named_variables(graph)}
    new = {named.name: named for named in named_variables(skeleton)}
    for name in [*old, *(name for name in new if name not in old)]:
        there = [
            "nothing"
            if side is None
            else f"shape {variable_shape(side.variable)} {variable_dtype(side.variable)}"
            for side in (old.get(name), new.get(name))
        ]
        if there[0] != there[1]:
            owner = (old.get(name) or new[name]).place
            raise UnsupportedModelError(
                f"Layer {owner.layer.name!r} ({type(owner.layer).__name__}), made anew from its "
                "config, "
                f"has {there[1]} for weight {name!r} instead of {there[0]}. Make its get_config() "
                "return all arguments of __init__; or use inplace=True."
            )


def uses_variables_directly(graph: Model) -> list[str]:
    """Paths of variables that a graph hands to a call directly, not through their layer."""
    return [
        leaf.path
        for node in graph_nodes(graph)
        for leaf in node_leaves(node)
        if isinstance(leaf, keras.Variable)
    ]
