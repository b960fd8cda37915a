"""Operations of `keras.ops` that stand in a graph by themselves. They drop masks, as in Keras."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.activations import Activation
from secateur.runtime.layers import elementwise, merging
from secateur.runtime.lowering import Site, operation
from secateur.runtime.planning import Array, Value, check_size

_BINARY: dict[str, Any] = {
    "Subtract": np.subtract,
    "Multiply": np.multiply,
    "Divide": np.divide,
    "TrueDivide": np.true_divide,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Power": np.power,
}
_COMPARE: dict[str, Any] = {
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
}
_UNARY: dict[str, Any] = {
    "Negative": np.negative,
    "Absolute": np.abs,
    "Abs": np.abs,
    "Square": np.square,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Sin": np.sin,
    "Cos": np.cos,
    "Floor": np.floor,
}
_REDUCE: dict[str, Any] = {
    "Mean": np.mean,
    "Sum": np.sum,
    "Max": np.max,
    "Min": np.min,
    "Any": np.any,
    "All": np.all,
}
_ACTIVATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Silu": "silu",
    "Elu": "elu",
    "Selu": "selu",
    "Softplus": "softplus",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
}


def value_of(site: Site, operand: Any, like: Value | None = None) -> Value:
    """An operand as a value; Python numbers take the dtype of what they meet."""
    if isinstance(operand, Value):
        return operand
    if isinstance(operand, float) and (like is None or like.dtype.kind != "f"):
        return site.builder.constant(np.float32(operand))
    if isinstance(operand, (bool, int, float)) and like is not None and like.dtype.kind != "b":
        return site.builder.constant(np.asarray(operand, like.dtype))
    return site.builder.constant(np.asarray(operand))


def pair_of(site: Site, one: Any, two: Any) -> tuple[Value, Value]:
    """Two operands as values."""
    first = value_of(site, one, two if isinstance(two, Value) else None)
    return first, value_of(site, two, one if isinstance(one, Value) else None)


def _float32(kind: np.dtype[Any]) -> np.dtype[Any]:
    # NumPy's float64 for mixed integers and floats; Keras stays at float32.
    return np.dtype(np.float32) if kind == np.float64 else kind


@operation("Add")
def add(site: Site, x1: Any, x2: Any) -> Value:
    """`keras.ops.add`."""
    one, two = pair_of(site, x1, x2)
    return merging.add(site, one, two)


@operation(*_BINARY)
def binary(site: Site, x1: Any, x2: Any) -> Value:
    """Arithmetic of two tensors."""
    one, two = pair_of(site, x1, x2)
    kind = np.result_type(one.dtype, two.dtype)
    if "Divide" in site.kind and kind.kind != "f":
        kind = np.dtype(np.float32)
    return site.builder.ufunc(_BINARY[site.kind], [one, two], _float32(kind))


@operation(*_COMPARE)
def compare(site: Site, x1: Any, x2: Any) -> Value:
    """Comparisons and logic."""
    return site.builder.ufunc(_COMPARE[site.kind], list(pair_of(site, x1, x2)), bool)


@operation("LogicalNot")
def logical_not(site: Site, x: Value) -> Value:
    """`keras.ops.logical_not`."""
    return site.builder.ufunc(np.logical_not, [x], bool)


@operation(*_UNARY)
def unary(site: Site, x: Any) -> Value:
    """Functions of one tensor, element by element."""
    value = value_of(site, x)
    keeps = site.kind in ("Negative", "Absolute", "Abs", "Square") or value.dtype.kind == "f"
    return site.builder.ufunc(_UNARY[site.kind], [value], value.dtype if keeps else np.float32)


@operation("Rsqrt")
def rsqrt(site: Site, x: Value) -> Value:
    """`keras.ops.rsqrt`."""
    return site.builder.apply(
        lambda out, array: np.divide(np.float32(1), np.sqrt(array), out=out), [x], x.shape
    )


@operation(*_ACTIVATIONS)
def activation(site: Site, x: Value) -> Value:
    """Activations without parameters."""
    result = elementwise.apply_activation(site, x, Activation(_ACTIVATIONS[site.kind]))
    result.mask = None
    return result


@operation("Gelu")
def gelu(site: Site, x: Value) -> Value:
    """`keras.ops.gelu`."""
    approximate = bool(site.config.get("approximate", True))
    return elementwise.apply_activation(site, x, Activation("gelu", {"approximate": approximate}))


@operation("LeakyRelu")
def leaky_relu(site: Site, x: Value) -> Value:
    """`keras.ops.leaky_relu`."""
    slope = float(site.config.get("negative_slope", 0.2))
    return elementwise.apply_activation(site, x, Activation("relu", {"negative_slope": slope}))


@operation("Softmax")
def softmax(site: Site, x: Value) -> Value:
    """`keras.ops.softmax`."""
    return elementwise.softmax(site, x, site.config.get("axis", -1))


@operation(*_REDUCE)
def reduce(site: Site, x: Value) -> Value:
    """Sums, means and extremes along axes."""
    axis = site.config.get("axis")
    axes = tuple(range(x.ndim)) if axis is None else axis
    axes = tuple(axes) if isinstance(axes, (list, tuple)) else (axes,)
    keep = bool(site.config.get("keepdims"))
    chosen = {a % x.ndim for a in axes}
    shape = [1 if i in chosen else n for i, n in enumerate(x.shape) if keep or i not in chosen]
    kind = {"Any": np.dtype(bool), "All": np.dtype(bool)}.get(site.kind, x.dtype)
    if site.kind == "Mean" and kind.kind != "f":
        kind = np.dtype(np.float32)
    if site.kind == "Sum" and kind.kind == "b":
        kind = np.dtype(np.int32)
    function = _REDUCE[site.kind]

    def run(out: Array, array: Array) -> None:
        np.copyto(out, function(array, axis=axes, keepdims=keep), casting="unsafe")

    return site.builder.apply(run, [x], shape, kind)


@operation("Matmul")
def matmul(site: Site, x1: Any, x2: Any) -> Value:
    """`keras.ops.matmul`."""
    return merging.matmul(site, *pair_of(site, x1, x2))


@operation("Reshape")
def reshape(site: Site, x: Value, newshape: Any = None) -> Value:
    """`keras.ops.reshape`; the batch's extent is the first of x where it is left open."""
    target = site.config.get("newshape") if newshape is None else newshape
    if target is None:
        raise site.refuse("it does not say to which shape")
    solved = [x.shape[0] if n is None else n for n in target]
    return site.builder.reshape(x, solved)


@operation("Transpose")
def transpose(site: Site, x: Value) -> Value:
    """`keras.ops.transpose`."""
    axes = site.config.get("axes")
    order = None if axes is None else tuple(axes)
    return site.builder.view(x, lambda array: array.transpose(order))


@operation("SwapAxes", "Swapaxes")
def swap_axes(site: Site, x: Value) -> Value:
    """`keras.ops.swapaxes`."""
    one, two = site.config["axis1"], site.config["axis2"]
    return site.builder.view(x, lambda array: array.swapaxes(one, two))


@operation("ExpandDims")
def expand_dims(site: Site, x: Value) -> Value:
    """`keras.ops.expand_dims`."""
    axis = site.config["axis"]
    axes = tuple(axis) if isinstance(axis, list) else axis
    return site.builder.view(x, lambda array: np.expand_dims(array, axes))


@operation("Squeeze")
def squeeze(site: Site, x: Value) -> Value:
    """`keras.ops.squeeze`."""
    axis = site.config.get("axis")
    axes = tuple(axis) if isinstance(axis, list) else axis
    return site.builder.view(x, lambda array: np.squeeze(array, axes))


@operation("Cast")
def cast(site: Site, x: Any) -> Value:
    """`keras.ops.cast`; half and double precision stay at float32."""
    name = site.config["dtype"]
    kind = np.dtype("float32" if "float" in name else name)
    value = value_of(site, x)
    if value.dtype == kind:
        return value
    return site.builder.apply(
        lambda out, array: np.copyto(out, array, casting="unsafe"), [value], value.shape, kind
    )


@operation("GetItem")
def get_item(site: Site, x: Value, key: Any) -> Value:
    """Indexing by numbers, slices, None and an ellipsis."""
    parts = tuple(key) if isinstance(key, (list, tuple)) else (key,)
    for part in parts:
        if not (part is None or part is Ellipsis or isinstance(part, (int, slice))):
            raise site.refuse(f"indexing by {type(part).__name__} is not supported")
    return site.builder.view(x, lambda array: array[parts])


@operation("Arange")
def arange(site: Site, start: Any, stop: Any = None, step: Any = 1) -> Value:
    """`keras.ops.arange` of numbers."""
    numbers = [part for part in (start, stop, step) if part is not None]
    if not all(isinstance(part, (int, float)) for part in numbers):
        raise site.refuse("arange of tensors is not supported")
    first, last = (0, start) if stop is None else (start, stop)
    check_size((max(0, int((last - first) / step)),), np.float64)
    return site.builder.constant(
        np.arange(first, last, step).astype(site.config.get("dtype") or "int32")
    )


@operation("Where")
def where(site: Site, condition: Value, x1: Any, x2: Any) -> Value:
    """`keras.ops.where`."""
    one, two = pair_of(site, x1, x2)
    shape = np.broadcast_shapes(condition.shape, one.shape, two.shape)

    def run(out: Array, test: Array, a: Array, b: Array) -> None:
        np.copyto(out, b, casting="unsafe")
        np.copyto(out, a, where=test.astype(bool), casting="unsafe")

    kind = _float32(np.result_type(one.dtype, two.dtype))
    return site.builder.apply(run, [condition, one, two], shape, kind)


@operation("Cumsum")
def cumulative_sum(site: Site, x: Value) -> Value:
    """`keras.ops.cumsum`."""
    axis = site.config.get("axis")
    flat = x if axis is not None else site.builder.reshape(x, (-1,))
    kind = site.config.get("dtype") or ("int32" if x.dtype == np.bool_ else x.dtype)
    return site.builder.apply(
        lambda out, array: np.cumsum(array, axis=axis, out=out), [flat], flat.shape, kind
    )


@operation("Stack")
def stack(site: Site, values: list[Value]) -> Value:
    """`keras.ops.stack`."""
    axis = site.config.get("axis", 0)
    wide = [site.builder.view(value, lambda array: np.expand_dims(array, axis)) for value in values]
    return merging.concatenate(site, wide, axis)


@operation("ZerosLike", "OnesLike")
def filled_like(site: Site, x: Value) -> Value:
    """`keras.ops.zeros_like`, `ones_like`."""
    number = 0 if site.kind == "ZerosLike" else 1
    return site.builder.constant(np.full(x.shape, number, x.dtype))
