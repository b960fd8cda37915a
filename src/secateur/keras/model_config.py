"""The Keras side of our files: a model as a JSON text and named arrays, and back.

What is read back is taken to be hostile until it is checked: see `safe_config` for what may be
named, and `deferred` for how a model is built that takes no memory before it is known to fit the
file's tensors.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras.src.models.functional import Functional
from keras.src.saving import serialization_lib

from secateur.errors import FileFormatError, SecateurWarning, UnsupportedModelError
from secateur.keras.cloning import copy_trainable, keeps_assets
from secateur.keras.compiling import keeps_settings
from secateur.keras.deferred import deferred_variables, is_deferred, set_value
from secateur.keras.model_arrays import check_shapes, finish_loading, model_arrays
from secateur.keras.rebuilding import (
    Rebuilt,
    cannot_be_copied,
    is_stock,
    rebuild,
    uses_variables_directly,
)
from secateur.keras.safe_config import MAX_TEXT, check_compile_config, check_model_config
from secateur.keras.tensors import require_built
from secateur.keras.tracing import nodes_restored
from secateur.keras.variables import variable_dtype, variable_shape
from secateur.keras.walk import named_variables, walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer, Model

_FORMAT = 1


@dataclass(frozen=True)
class ModelDescription:
    """A model, taken apart for a file.

    Attributes:
        config: JSON text, for `model_from_config`.
        arrays: Name -> array of every variable; shares the model's memory where the backend can.
    """

    config: str
    arrays: Mapping[str, np.ndarray[Any, Any]]


def describe_model(
    model: Model, *, input_spec: Any = None, custom_objects: Mapping[str, Any] | None = None
) -> ModelDescription:
    """Take a model apart into a JSON text and arrays, from which it can be built again.

    A subclassed model is traced and stored as a functional one. Custom layers that are neither
    registered nor in `custom_objects` are replaced by the layers they are made of. That the text
    can be read back is tried out before it is returned. The optimizer's state is not stored.

    Args:
        model: A built model. It is not changed.
        input_spec: See `clone_model`.
        custom_objects: Class name -> class, for custom classes that are not registered with Keras;
            the same have to be given when the model is read.

    Raises:
        UnsupportedModelError: The model cannot be traced, or holds what cannot be stored: a Lambda,
            an unknown custom layer with weights, a stateful layer, a vocabulary; the message says
            where.

    Warns:
        SecateurWarning: The loss, metrics or optimizer cannot be stored; the model is stored
            without.
    """
    require_built(model)
    custom = dict(custom_objects or {})
    with nodes_restored(model):
        rebuilt = rebuild(model, input_spec, lambda layer: _must_open(layer, custom))
        copy_trainable(rebuilt.graph, rebuilt.skeleton)
        _check_storable(rebuilt)
        parts = {
            "format": _FORMAT,
            "model": _serialised(rebuilt.skeleton, custom),
            "compile": _compile_config(model, custom),
        }
    arrays = model_arrays(rebuilt.graph)
    text = json.dumps(parts)
    shapes = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    try:
        _build(_parsed(text)["model"], shapes, custom)
    except FileFormatError as error:
        raise UnsupportedModelError(
            f"Model {model.name!r} cannot be stored, as it could not be read back: {error}"
        ) from error
    return ModelDescription(text, arrays)


def model_to_config(
    model: Model, *, input_spec: Any = None, custom_objects: Mapping[str, Any] | None = None
) -> str:
    """The JSON text of `describe_model` alone."""
    return describe_model(model, input_spec=input_spec, custom_objects=custom_objects).config


def model_from_config(
    text: str,
    shapes: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    custom_objects: Mapping[str, Any] | None = None,
    values: Callable[[str], np.ndarray[Any, Any]] | None = None,
) -> Model:
    """Build a model from a JSON text that may be hostile.

    No code is run and no module imported for it, and memory for weights is taken only after all
    names, shapes and dtypes are found to be those of `shapes`.

    Args:
        text: What `describe_model` gave, or anything else.
        shapes: Name -> (shape, dtype name) of every tensor that the file holds for the model.
        custom_objects: Name -> class or function, besides those registered with Keras.
        values: Called once per name, after everything is checked, for the array of that name; None
            leaves all variables zero, for `set_model_arrays`.

    Returns:
        The model, compiled if it was.

    Raises:
        FileFormatError: The text is not a model of ours, names what it may not, or does not fit.
    """
    custom = dict(custom_objects or {})
    parts = _parsed(text)
    model = _build(parts["model"], shapes, custom)
    for named in named_variables(model):
        shape, dtype = variable_shape(named.variable), variable_dtype(named.variable)
        value = keras.ops.zeros(shape, dtype) if values is None else values(named.name)
        set_value(named.variable, value)
    finish_loading(model)
    if parts["compile"] is not None:
        _compile(model, parts["compile"], custom)
    return model


def _must_open(layer: Layer, custom: Mapping[str, Any]) -> bool:
    kind = type(layer)
    if is_stock(kind):
        return False
    name = keras.saving.get_registered_name(kind)
    is_known = keras.saving.get_registered_object(name, custom_objects=custom) is kind
    return not is_known or cannot_be_copied(layer)


def _check_storable(rebuilt: Rebuilt) -> None:
    for place in walk_layers(rebuilt.graph):
        layer: Any = place.layer
        reason = ""
        if isinstance(layer, keras.layers.Lambda):
            reason = (
                "holds Python code, which is never read from files; make it a keras.layers.Layer "
                "subclass and register it with @keras.saving.register_keras_serializable()"
            )
        elif keeps_assets(layer):
            reason = (
                "keeps a vocabulary outside of its weights; take it out and apply it to the data"
            )
        elif getattr(layer, "stateful", False):
            reason = "is stateful; make the model anew with stateful=False"
        if reason:
            raise UnsupportedModelError(
                f"Layer {place.path!r} ({type(layer).__name__}) cannot be stored: it {reason}."
            )
    if direct := uses_variables_directly(rebuilt.graph):
        raise UnsupportedModelError(
            f"Model {rebuilt.graph.name!r} cannot be stored: it uses {', '.join(direct)} outside "
            "of the "
            "layer that owns it. Do that in a layer of its own."
        )


def _serialised(skeleton: Any, custom: Mapping[str, Any]) -> Any:
    kind = type(skeleton)
    is_known = is_stock(kind) or not _must_open(skeleton, custom)
    if not is_known and isinstance(skeleton, Functional):
        skeleton = keras.Model(skeleton.input, skeleton.output, name=skeleton.name)
    elif not is_known:
        skeleton = keras.Sequential([skeleton.inputs[0], *skeleton.layers], name=skeleton.name)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*includes a `lambda`")
            return _without_builds(keras.saving.serialize_keras_object(skeleton))
    except Exception as error:
        raise UnsupportedModelError(
            f"Model {skeleton.name!r} cannot be stored: Keras cannot write down "
            f"{_culprit(skeleton)}: "
            f"{error}. Functions, such as activations, have to be named and registered with "
            "@keras.saving.register_keras_serializable()."
        ) from error


def _culprit(model: Model) -> str:
    """The innermost layer that Keras cannot serialise."""
    for place in reversed(list(walk_layers(model))):
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*includes a `lambda`")
                keras.saving.serialize_keras_object(place.layer)
        except Exception:
            return f"layer {place.path!r} ({type(place.layer).__name__})"
    return "the graph between its layers"


def _without_builds(config: Any) -> Any:
    """Leave out how inner models were compiled and what layers were built with.

    The outer model trains the inner ones, and calling a layer builds it; built from its config, it
    would be built once more by wrappers, for copies that they throw away.
    """
    if isinstance(config, dict):
        dropped = ("compile_config", "build_config") if "class_name" in config else ()
        return {key: _without_builds(inner) for key, inner in config.items() if key not in dropped}
    if isinstance(config, (list, tuple)):
        return [_without_builds(inner) for inner in config]
    return config


def _compile_config(model: Model, custom: Mapping[str, Any]) -> Any:
    if not model.compiled or not hasattr(model, "_compile_config"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*includes a `lambda`")
            config = json.loads(json.dumps(model._compile_config.serialize()))
            _check_settings(model._compile_config.config)
        check_compile_config(config, custom)
    except Exception as error:
        warnings.warn(
            f"Model {model.name!r} is stored without its optimizer, loss and metrics, so compile "
            "it "
            f"again after loading: {error}",
            SecateurWarning,
            stacklevel=4,
        )
        return None
    return config


def _check_settings(config: Any) -> None:
    losses_and_metrics = (keras.Loss, keras.Metric)
    for leaf in keras.tree.flatten(config):
        if isinstance(leaf, losses_and_metrics) and not keeps_settings(leaf):
            raise UnsupportedModelError(
                f"the config that Keras writes of {leaf.name!r} ({type(leaf).__name__}) leaves out "
                "some of its settings"
            )


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT:
        raise FileFormatError(
            f"The model's configuration has {len(text)} characters, more than {MAX_TEXT}."
        )
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"The model's configuration is not JSON: {error}.") from error
    if not isinstance(parts, dict) or set(parts) != {"format", "model", "compile"}:
        raise FileFormatError("The model's configuration is not one that secateur wrote.")
    if parts["format"] != _FORMAT:
        raise FileFormatError(
            f"The model's configuration is of format {parts['format']!r}; this version of secateur "
            f"reads format {_FORMAT}. A newer version may read it."
        )
    return parts


def _build(
    config: Any, shapes: Mapping[str, tuple[tuple[int, ...], str]], custom: dict[str, Any]
) -> Model:
    """A model without values, checked against the tensors that are there to fill it."""
    check_model_config(config, custom)
    # A wrapper may make a layer twice; what is left over at the end is compared exactly.
    budget = 2 * sum(prod(shape) for shape, _ in shapes.values())
    try:
        with deferred_variables(budget) as deferred, serialization_lib.SafeModeScope(True):
            model = keras.saving.deserialize_keras_object(
                config, custom_objects=custom, safe_mode=True
            )
    except FileFormatError:
        raise
    except Exception as error:
        raise FileFormatError(
            f"Keras cannot build a model from the configuration: {type(error).__name__}: "
            f"{str(error)[:500]}"
        ) from error
    if not isinstance(model, (Functional, keras.Sequential)):
        raise FileFormatError(f"The configuration describes a {type(model).__name__}, not a model.")
    built: Model = model
    check_shapes(built, shapes)
    _fill_others(built, deferred)
    return built


def _fill_others(model: Model, deferred: list[Any]) -> None:
    """Variables that are no state of the model, as a custom layer's metrics, start as usual."""
    own = {id(named.variable) for named in named_variables(model)}
    for variable in deferred:
        if id(variable) not in own and is_deferred(variable):
            variable._deferred_initialize()


def _compile(model: Model, config: Any, custom: dict[str, Any]) -> None:
    check_compile_config(config, custom)
    try:
        with serialization_lib.SafeModeScope(True):
            arguments = keras.saving.deserialize_keras_object(
                config, custom_objects=custom, safe_mode=True
            )
            model.compile(**arguments)
    except Exception as error:
        raise FileFormatError(
            f"Keras cannot compile the model as the file says: {type(error).__name__}: "
            f"{str(error)[:500]}"
        ) from error
