"""Which variables of a model can be pruned, and how each is seen as a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

from secateur.errors import ArgumentTypeError, InvalidArgumentError, UnsupportedModelError
from secateur.keras.layouts import Array, MatrixView, view_as_matrix
from secateur.keras.rules import LayerRule, find_rule
from secateur.keras.variables import variable_dtype, variable_shape
from secateur.keras.walk import NamedVariable, Place, named_variables, walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer, Model, Variable

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_NAMED_ONLY = ("bias", "normalisation", "other")


@dataclass(frozen=True)
class WeightTensor:
    """One variable that can be pruned.

    Attributes:
        name: Unique within the model, stable across saving and cloning, such as "dense_1/kernel".
        layer_name: Name of the layer that owns it.
        layer: The layer that owns it.
        variable: The `keras.Variable`.
        role: What it is to its layer: the variable's name for weight matrices ("kernel",
            "recurrent_kernel", "depthwise_kernel", ...) and custom weights, else "embedding",
            "bias", "normalisation" or "other".
        default: Whether it is pruned unless excluded.
        why_not: Empty, or why it is not pruned by default.
        view: How its array is seen as a matrix.
        places: The layers it lies in, outermost first, the model itself left out.
    """

    name: str
    layer_name: str
    layer: Layer
    variable: Variable
    role: str
    default: bool
    why_not: str
    view: MatrixView
    places: tuple[Place, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the variable."""
        return variable_shape(self.variable)

    @property
    def dtype(self) -> str:
        """Dtype of the variable, one of float16, bfloat16, float32 and float64."""
        return variable_dtype(self.variable)

    @property
    def needs_own_name(self) -> bool:
        """Whether only its own name selects it, and its layer's does not: biases, normalisation."""
        return self.role in _NAMED_ONLY

    def to_matrix(self, array: Array) -> Array:
        """View an array of the variable's shape, such as its values or a mask, as (out, in)."""
        return self.view.to_matrix(array)


@dataclass(frozen=True)
class FoundTensors:
    """What `find_tensors` found.

    Attributes:
        tensors: Everything that can be pruned, by default or on request, in the order of the
            layers.
        left: (name of a layer or weight, reason) for what is not pruned by default but might be
            expected to be. Biases and normalisation are not listed.
    """

    tensors: tuple[WeightTensor, ...]
    left: tuple[tuple[str, str], ...]


def find_tensors(model: Model) -> FoundTensors:
    """Find every weight of a model that can be pruned.

    Nested models, wrappers, recurrent cells and layers made of layers are opened; a variable that
    several layers share is found once. Nothing is read or changed.

    Args:
        model: A built Keras model of any kind.

    Raises:
        ArgumentTypeError: Not a Keras model or layer.
        UnsupportedModelError: The model has no weights yet.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> [(t.name, t.role, t.default) for t in find_tensors(model).tensors]
        [('out/kernel', 'kernel', True), ('out/bias', 'bias', False)]
    """
    require_built(model)
    tensors: list[WeightTensor] = []
    left = list(_never_built(model))
    for named in named_variables(model):
        if named.is_seed:
            continue
        found = _examine(named)
        if isinstance(found, WeightTensor):
            tensors.append(found)
        if (reason := _worth_telling(found)) is not None:
            left.append((named.name, reason))
    return FoundTensors(tuple(tensors), tuple(left))


def require_built(model: Model) -> None:
    """Raise unless `model` is a Keras model whose weights exist.

    Raises:
        ArgumentTypeError: Not a Keras model or layer.
        UnsupportedModelError: It has layers that hold weights, but none of them is built.
    """
    if not isinstance(model, keras.Layer):
        raise ArgumentTypeError(f"Expected a keras.Model, got {type(model).__name__}.")
    if model.built and any(not named.is_seed for named in named_variables(model)):
        return
    if model.built and not list(_never_built(model)):
        return
    raise UnsupportedModelError(
        f"Model {model.name!r} is not built: it has no weights yet. Call "
        "model.build(input_shape), or "
        "call it once on a batch of data, first."
    )


def _never_built(model: Model) -> Iterator[tuple[str, str]]:
    for place in walk_layers(model):
        if not place.layer.built and find_rule(place.layer).matrices:
            yield place.path, "the layer was never called, so it has no weights"


def _examine(named: NamedVariable) -> WeightTensor | str | None:
    """The tensor of a variable; or why it cannot be pruned; or None where nobody expects it."""
    layer, variable = named.place.layer, named.variable
    rule = find_rule(layer)
    shape, dtype = variable_shape(variable), variable_dtype(variable)
    key = _matrix_key(rule, layer, variable)
    role = _role(rule, key, variable)
    if (reason := why_altered(layer)) and role != "bias":
        return reason
    if dtype not in _FLOATS:
        return None if rule.rest and key is None else f"its dtype is {dtype}, not a float"
    if not shape:
        return None if rule.rest else "it is a single number"
    try:
        view = _view(named, key, role)
    except InvalidArgumentError as error:
        return str(error)
    default, why_not = _default(rule, key, role, layer)
    places = (*named.place.parents, named.place)[1:]
    return WeightTensor(
        named.name, layer.name, layer, variable, role, default, why_not, view, places
    )


def _worth_telling(found: WeightTensor | str | None) -> str | None:
    if isinstance(found, WeightTensor):
        return None if found.default or found.needs_own_name else found.why_not
    return found


def why_altered(layer: Layer) -> str:
    """Why the stored kernel is not what the layer multiplies with, if it is not."""
    if mode := getattr(layer, "quantization_mode", None):
        return f"the layer is quantised ({mode}); prune before quantising"
    if getattr(layer, "lora_enabled", False):
        return (
            "LoRA is enabled, so zeros in the stored kernel are not zeros of the layer; merge the "
            "adapter into the kernel first"
        )
    return ""


def layout_of(layer: Layer, variable: Variable) -> str | None:
    """The layout of one of a layer's own weights; None where it is no weight matrix.

    Example:
        >>> layer = keras.layers.Dense(2)
        >>> layer.build((None, 3))
        >>> layout_of(layer, layer.kernel), layout_of(layer, layer.bias)
        ('io', None)
    """
    rule = find_rule(layer)
    key = _matrix_key(rule, layer, variable)
    if key is None:
        return None
    layout = rule.matrices[key]
    return layout if isinstance(layout, str) else layout(layer)


def _matrix_key(rule: LayerRule, layer: Layer, variable: Variable) -> str | None:
    for key in rule.matrices:
        if variable.name == key or getattr(layer, key, None) is variable:
            return key
    return None


def _role(rule: LayerRule, key: str | None, variable: Variable) -> str:
    if key is not None:
        return "embedding" if "embeddings" in key else key
    if "bias" in variable.name:
        return "bias"
    if rule.rest:
        return "normalisation" if rule.rest == "normalisation" else "other"
    return variable.name


def _view(named: NamedVariable, key: str | None, role: str) -> MatrixView:
    shape = variable_shape(named.variable)
    if key is not None:
        layout = layout_of(named.place.layer, named.variable)
        assert layout is not None
    elif role in _NAMED_ONLY or len(shape) == 1:
        layout = "o*"
    else:
        # The last axis of a matrix nobody described is taken for its outputs, as in stock kernels.
        layout = "i*o"
    return view_as_matrix(layout, shape)


def _default(rule: LayerRule, key: str | None, role: str, layer: Layer) -> tuple[bool, str]:
    if key is not None:
        return rule.default, rule.why_not
    if role == "bias":
        return False, "biases are pruned only when named"
    if rule.rest:
        return False, f"{rule.rest}: pruned only when named"
    return False, (
        f"layers of type {type(layer).__name__} are unknown; name the weight in include, or "
        "describe "
        "the type with register_layer"
    )
