"""Calls that put out the product with one matrix plus a bias, under an activation."""

from __future__ import annotations

from typing import Any

from keras import activations, layers

from secateur.keras.cut_rules.linear import split_equation
from secateur.keras.flatten import Call


def puts_out_rows(call: Call) -> bool:
    """Whether a call puts out one number for each row of its only matrix, positions first.

    Its outputs, flattened behind the axes of samples and positions, then stand in the order of the rows
    of the weight's (out, in) view.

    Args:
        call: Of a flat graph.
    """
    layer: Any = call.operation
    if isinstance(layer, layers.EinsumDense):
        x, kernel, out = split_equation(layer.equation, len(call.inputs[0].shape))
        positions = "".join(letter for letter in x if letter not in kernel)
        return out == positions + "".join(letter for letter in kernel if letter in out)
    if isinstance(layer, (layers.Conv1D, layers.Conv2D, layers.Conv3D)):
        return bool(layer.groups == 1 and layer.data_format == "channels_last")
    return isinstance(layer, layers.Dense)


def has_no_activation(call: Call) -> bool:
    """Whether a call of such a layer is linear."""
    return getattr(call.operation, "activation", None) is activations.linear
