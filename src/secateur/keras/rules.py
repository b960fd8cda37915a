"""Which variables of which layer type are weight matrices: one row per type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
from keras import layers
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from secateur.errors import ArgumentTypeError
from secateur.keras.layouts import check_layout

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer

Layout: TypeAlias = "str | Callable[[Layer], str]"


@dataclass(frozen=True)
class LayerRule:
    """What is known of the variables that a layer type owns itself.

    Attributes:
        matrices: Name of a variable (or of the attribute that holds it) -> its layout, see
            `layouts`.
        default: Whether the matrices are pruned unless excluded.
        why_not: Why not, where `default` is False.
        rest: What the layer's other variables are, in words; empty for a layer we know nothing of.
    """

    matrices: Mapping[str, Layout] = field(default_factory=dict)
    default: bool = True
    why_not: str = ""
    rest: str = "not a weight matrix"


def _einsum_layout(layer: Any) -> str:
    """Axes of an EinsumDense kernel: those of the output are `o`, the summed ones `i`."""
    operands, output = layer.equation.replace(" ", "").split("->")
    _, kernel = operands.split(",")
    return "".join("o" if letter in output else "i" for letter in kernel)


_MATMUL = LayerRule({"kernel": "io"})
_CONVOLUTION = LayerRule({"kernel": "i*o"})
_TRANSPOSED = LayerRule({"kernel": "i*oi"})
_DEPTHWISE = LayerRule({"kernel": "i*oo"})
_SEPARABLE = LayerRule({"depthwise_kernel": "i*oo", "pointwise_kernel": "i*o"})
_CELL = LayerRule({"kernel": "io", "recurrent_kernel": "io"})
_EMBEDDING = LayerRule(
    {"embeddings": "io", "reverse_embeddings": "io"},
    default=False,
    why_not="embeddings are pruned on request only: name the layer in include",
)
_NORMALISATION = LayerRule(rest="normalisation")

_RULES: dict[type, LayerRule] = {
    layers.Dense: _MATMUL,
    layers.EinsumDense: LayerRule({"kernel": _einsum_layout}),
    layers.Conv1D: _CONVOLUTION,
    layers.Conv2D: _CONVOLUTION,
    layers.Conv3D: _CONVOLUTION,
    layers.Conv1DTranspose: _TRANSPOSED,
    layers.Conv2DTranspose: _TRANSPOSED,
    layers.Conv3DTranspose: _TRANSPOSED,
    layers.DepthwiseConv1D: _DEPTHWISE,
    layers.DepthwiseConv2D: _DEPTHWISE,
    layers.SeparableConv1D: _SEPARABLE,
    layers.SeparableConv2D: _SEPARABLE,
    layers.SimpleRNNCell: _CELL,
    layers.LSTMCell: _CELL,
    layers.GRUCell: _CELL,
    ConvLSTMCell: LayerRule({"kernel": "i*o", "recurrent_kernel": "i*o"}),
    layers.Embedding: _EMBEDDING,
    layers.BatchNormalization: _NORMALISATION,
    layers.LayerNormalization: _NORMALISATION,
    layers.GroupNormalization: _NORMALISATION,
    layers.RMSNormalization: _NORMALISATION,
    layers.SpectralNormalization: _NORMALISATION,
    layers.Normalization: _NORMALISATION,
}


def register_layer(
    layer_class: type, matrices: Mapping[str, Layout], *, default: bool = True
) -> None:
    """Say which variables of a layer type are weight matrices; subclasses follow suit.

    Only the variables that the layer owns itself are meant: layers inside it speak for themselves.
    A later call for the same class replaces the earlier one, stock classes included.

    Args:
        layer_class: The `keras.Layer` subclass.
        matrices: Name of a variable, or of the attribute that holds it -> layout: one letter per
            axis, `i` for inputs (summed over) and `o` for outputs, `*` repeating the letter before
            it; or a function of the layer that returns one.
        default: Whether they are pruned unless excluded, or only when named.

    Raises:
        ArgumentTypeError: `layer_class` is not a layer class.
        InvalidArgumentError: A layout is not well formed.

    Example:
        >>> class Mix(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.mixer = self.add_weight(shape=(shape[-1], 4), name="mixer")
        >>> register_layer(Mix, {"mixer": "io"})
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise ArgumentTypeError(
            f"register_layer takes a keras.Layer subclass, got {layer_class!r}."
        )
    for layout in matrices.values():
        if isinstance(layout, str):
            check_layout(layout)
    why_not = "" if default else f"{layer_class.__name__} is registered as pruned on request only"
    _RULES[layer_class] = LayerRule(dict(matrices), default, why_not)


def find_rule(layer: Layer) -> LayerRule:
    """The rule of the nearest class a layer inherits from; one without matrices if none has any."""
    for base in type(layer).__mro__:
        if base in _RULES:
            return _RULES[base]
    is_stock = type(layer).__module__.split(".")[0] == "keras"
    return LayerRule(rest="not a weight matrix" if is_stock else "")
