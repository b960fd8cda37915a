"""What goes into every weight matrix on data: one tap for each matrix at each call of its layer.

A layer computes rows @ matrix.T, the matrix being its weight as `tensors` views it, (out, in). A tap
makes those rows from the arguments of the call: patches for a convolution, the states before each
step for a recurrent kernel. Statistics of them tell what a weight does on data.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers, ops

from secateur.arrays import Array
from secateur.keras.cut_rules import is_leaf, opener_of
from secateur.keras.cut_rules.linear import split_equation
from secateur.keras.flatten import Call, Graph, Nest, Tensor, flatten
from secateur.keras.patches import Window, patches, window_of
from secateur.keras.states import previous_states, reset_states

Rows = Callable[[tuple[Any, ...], dict[str, Any]], Array]
TapsOf: TypeAlias = Callable[[Any, Tensor], "list[Tap]"]


@dataclass(frozen=True, eq=False)
class Bias:
    """The bias that is added to what a matrix puts out.

    Attributes:
        variable: The variable.
        part: Index of the part of it that belongs to this matrix, one number per row of the matrix
            when flattened; None where that is all of it.
    """

    variable: Any
    part: int | None = None


@dataclass(frozen=True, eq=False)
class Tap:
    """What goes into one weight matrix at one call.

    Attributes:
        variable: The weight.
        rows: From the values of the call's arguments to the rows, float: (lead..., in), or with
            more than one group (groups, lead..., in). The columns are those of the (out, in) view
            of the weight; the leading axes are batch first, then time or space as they stand in the
            layer's input or output.
        origin: Taps of one origin have the same rows, so those need to be looked at once only.
        groups: The matrix has so many runs of rows of equal length, each fed by rows of its own.
        bias: The bias that is added, if there is one.
        feeds_back: Whether the rows hang on what the matrix itself puts out: states of a recurrent layer.
    """

    variable: Any
    rows: Rows
    origin: Hashable
    groups: int = 1
    bias: Bias | None = None
    feeds_back: bool = False


def open_graph(model: keras.Model, sample: Nest = None) -> Graph:
    """Flatten a model down to layers that own their weights: attention is opened, too.

    Args:
        model: A built model of any kind.
        sample: Data as a subclassed model takes it, where it does not tell.

    Raises:
        UnsupportedModelError: The model is not built or cannot be traced.
    """
    return flatten(model, _owns_its_weights, opener_of, sample)


def _owns_its_weights(layer: Any) -> bool:
    wraps = isinstance(layer, (layers.RNN, layers.Wrapper))
    return is_leaf(layer) and (wraps or not any(inner.weights for inner in layer._layers))


def taps_of(call: Call) -> list[Tap]:
    """The taps of a call of a stock layer; none where the layer has no weight matrices or is unknown.

    Args:
        call: A call of `open_graph`'s graph.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="out")])
        >>> (call,) = open_graph(model).calls
        >>> (tap,) = taps_of(call)
        >>> tap.rows((np.ones((4, 3), "float32"),), {}).shape
        (4, 3)
    """
    if not isinstance(call.operation, keras.layers.Layer) or not call.inputs:
        return []
    return _taps(call.operation, call.inputs[0])


def _taps(layer: Any, tensor: Tensor) -> list[Tap]:
    for base in type(layer).__mro__:
        if base in _TABLE:
            return _TABLE[base](layer, tensor)
    return []


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


def _array(value: Any) -> Array:
    return np.asarray(ops.convert_to_numpy(value))


def _dense(layer: Any, tensor: Tensor) -> list[Tap]:
    bias = None if layer.bias is None else Bias(layer.bias)
    return [Tap(layer._kernel, lambda a, k: _array(_first(a, k)), (id(tensor), "last"), 1, bias)]


def _einsum_dense(layer: Any, tensor: Tensor) -> list[Tap]:
    x, kernel, out = split_equation(layer.equation, len(tensor.shape))
    if set(x) & set(kernel) & set(out):
        return []  # every position has a matrix of its own
    summed = [letter for letter in kernel if letter in x]
    order = [x.index(letter) for letter in x if letter not in kernel]
    lead = len(order)
    order += [x.index(letter) for letter in summed]

    def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        moved = np.transpose(_array(_first(args, kwargs)), order)
        return moved.reshape(*moved.shape[:lead], -1)

    last = order == list(range(len(x))) and len(summed) == 1
    origin = (id(tensor), "last" if last else tuple(order))
    return [Tap(layer._kernel, rows, origin, 1, _einsum_bias(layer, kernel, out))]


def _einsum_bias(layer: Any, kernel: str, out: str) -> Bias | None:
    made = "".join(letter for letter in kernel if letter in out)
    added = "".join(letter for letter in out if letter in (layer.bias_axes or ""))
    return Bias(layer.bias) if layer.bias is not None and added == made else None


def _convolution(layer: Any, tensor: Tensor) -> list[Tap]:
    window = window_of(layer)

    def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        found = patches(_array(_first(args, kwargs)), window)  # (batch, space..., taps, in)
        return _grouped(found, layer.groups)

    bias = None if layer.bias is None else Bias(layer.bias)
    return [Tap(layer._kernel, rows, (id(tensor), window, layer.groups), layer.groups, bias)]


def _grouped(found: Array, groups: int) -> Array:
    if groups == 1:
        return found.reshape(*found.shape[:-2], -1)
    *lead, taps, channels = found.shape
    parted = found.reshape(*lead, taps, groups, channels // groups)
    moved = np.moveaxis(parted, -2, 0)
    return moved.reshape(groups, *lead, -1)


def _depthwise_rows(window: Window) -> Rows:
    def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        found = patches(_array(_first(args, kwargs)), window)  # (batch, space..., taps, in)
        return np.moveaxis(found, -1, 0)  # (in, batch, space..., taps)

    return rows


def _channels(layer: Any, tensor: Tensor) -> int:
    axis = 1 if layer.data_format == "channels_first" else -1
    size = tensor.shape[axis]
    assert size is not None
    return size


def _depthwise(layer: Any, tensor: Tensor) -> list[Tap]:
    window = window_of(layer)
    bias = None if layer.bias is None else Bias(layer.bias)
    origin = (id(tensor), window, "depthwise")
    groups = _channels(layer, tensor)
    return [Tap(layer.kernel, _depthwise_rows(window), origin, groups, bias)]


def _separable(layer: Any, tensor: Tensor) -> list[Tap]:
    window = window_of(layer)
    origin = (id(tensor), window, "depthwise")
    groups = _channels(layer, tensor)

    def between(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        value = ops.depthwise_conv(
            _first(args, kwargs),
            layer.depthwise_kernel,
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
        array = _array(value)
        return np.moveaxis(array, 1, -1) if layer.data_format == "channels_first" else array

    bias = None if layer.bias is None else Bias(layer.bias)
    inner = (id(layer), id(tensor), "between")
    return [
        Tap(layer.depthwise_kernel, _depthwise_rows(window), origin, groups),
        Tap(layer.pointwise_kernel, between, inner, 1, bias),
    ]


def _transposed(layer: Any, tensor: Tensor) -> list[Tap]:
    """Rows of the matrix are (taps, out): each is fed by the input itself, and its output scattered."""

    def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        array = _array(_first(args, kwargs))
        return np.moveaxis(array, 1, -1) if layer.data_format == "channels_first" else array

    kernel = layer._kernel if hasattr(layer, "_kernel") else layer.kernel
    return [Tap(kernel, rows, (id(tensor), "last", layer.data_format))]


def _recurrent(layer: Any, tensor: Tensor) -> list[Tap]:
    cell = layer.cell
    if type(cell) not in (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell):
        return []
    split = isinstance(cell, layers.GRUCell) and cell.reset_after and cell.bias is not None
    biases = [None if cell.bias is None else Bias(cell.bias, p if split else None) for p in (0, 1)]

    def states(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        before = previous_states(layer, args, kwargs)  # (batch, time, units)
        if isinstance(cell, layers.GRUCell) and not cell.reset_after:
            return np.stack(
                [before, before, reset_states(cell, _array(_first(args, kwargs)), before)]
            )
        return before

    groups = 3 if isinstance(cell, layers.GRUCell) and not cell.reset_after else 1
    origin = (id(layer), id(tensor), "states")
    return [
        Tap(cell.kernel, lambda a, k: _array(_first(a, k)), (id(tensor), "last"), 1, biases[0]),
        Tap(cell.recurrent_kernel, states, origin, groups, biases[1], feeds_back=True),
    ]


def _bidirectional(layer: Any, tensor: Tensor) -> list[Tap]:
    found = []
    for number, inner in enumerate((layer.forward_layer, layer.backward_layer)):
        for tap in _taps(inner, tensor):
            found.append(replace(tap, rows=_of_half(tap.rows, number)))
    return found


def _of_half(rows: Rows, number: int) -> Rows:
    """Rows of one direction, which takes its half of the initial states."""

    def half(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        given = kwargs.get("initial_state", args[1] if len(args) > 1 else None)
        own = {name: value for name, value in kwargs.items() if name == "mask"}
        if given is not None:
            size = len(given) // 2
            own["initial_state"] = given[number * size : (number + 1) * size]
        return rows((_first(args, kwargs),), own)

    return half


def _time_distributed(layer: Any, tensor: Tensor) -> list[Tap]:
    batch, _, *rest = tensor.shape
    inside = Tensor((batch, *rest), tensor.dtype)
    return [
        replace(tap, rows=_over_time(tap), origin=(id(tensor), id(layer), number))
        for number, tap in enumerate(_taps(layer.layer, inside))
    ]


def _over_time(tap: Tap) -> Rows:
    def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        value = _array(_first(args, kwargs))
        batch, time, *rest = value.shape
        inner = tap.rows((value.reshape(batch * time, *rest),), {})
        if tap.groups == 1:
            return inner.reshape(batch, time, *inner.shape[1:])
        return inner.reshape(tap.groups, batch, time, *inner.shape[2:])

    return rows


def _convolutional_lstm(layer: Any, tensor: Tensor) -> list[Tap]:
    cell = layer.cell
    outer = window_of(cell)
    inner = replace(outer, padding="same", strides=(1,) * len(outer.strides))

    def rows_of(read: Callable[..., Array], window: Window) -> Rows:
        def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
            value = read(args, kwargs)  # (batch, time, ...)
            found = patches(value.reshape(-1, *value.shape[2:]), window)
            return found.reshape(*value.shape[:2], *found.shape[1:-2], -1)

        return rows

    first = rows_of(lambda a, k: _array(_first(a, k)), outer)
    states = rows_of(lambda a, k: previous_states(layer, a, k), inner)
    bias = None if cell.bias is None else Bias(cell.bias)
    return [
        Tap(cell.kernel, first, (id(layer), id(tensor), "inputs"), 1, bias),
        Tap(cell.recurrent_kernel, states, (id(layer), id(tensor), "states"), feeds_back=True),
    ]


_TABLE: dict[type, TapsOf] = {
    layers.Dense: _dense,
    layers.EinsumDense: _einsum_dense,
    layers.Conv1D: _convolution,
    layers.Conv2D: _convolution,
    layers.Conv3D: _convolution,
    layers.DepthwiseConv1D: _depthwise,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv1D: _separable,
    layers.SeparableConv2D: _separable,
    layers.Conv1DTranspose: _transposed,
    layers.Conv2DTranspose: _transposed,
    layers.Conv3DTranspose: _transposed,
    layers.ConvLSTM1D: _convolutional_lstm,
    layers.ConvLSTM2D: _convolutional_lstm,
    layers.ConvLSTM3D: _convolutional_lstm,
    layers.RNN: _recurrent,
    layers.Bidirectional: _bidirectional,
    layers.TimeDistributed: _time_distributed,
}
