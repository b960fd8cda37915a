"""What `keras.ops` do with sizes that only the data tells, while layers are opened.

Where a `Size` stands, these functions make the same result from the tensor that has that size.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.src import ops as source_ops

from secateur.keras.replacing import replaced_here
from secateur.keras.sizes import Size, any_pending, counted, is_pending

_NATIVE: dict[str, Callable[..., Any]] = {
    name: getattr(ops, name)
    for name in (
        "shape", "broadcast_to", "arange", "reshape", "tile", "repeat", "slice", "zeros", "ones", "full",
        "empty", "fft2",
    )
}  # fmt: skip
_GET_ITEM = source_ops.GetItem
_TAKING_NUMBERS = ("cast", "convert_to_tensor", "minimum", "maximum", "sqrt", "rsqrt", "log")
"""Functions that may be asked for the tensor of a number; those of tensors get it when read back."""


@contextlib.contextmanager
def sizes_understood() -> Iterator[None]:
    """Let `keras.ops` work with sizes that only the data tells, while this lasts."""
    replaced: dict[str, Any] = {
        "shape": _shape,
        "broadcast_to": _broadcast_to,
        "arange": _arange,
        "reshape": _reshape,
        "tile": _tile,
        "repeat": _repeat,
        "slice": _slice,
        "zeros": _filler(0),
        "ones": _filler(1),
        "full": _full,
        "empty": _filler(0),
        "fft2": _fft2,
    }
    replaced.update({name: _with_numbers(name) for name in _TAKING_NUMBERS})
    with replaced_here(ops, replaced), replaced_here(source_ops, {"GetItem": _GetItem}):
        yield


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


def _shape(x: Any) -> Any:
    if not _is_symbolic(x):
        return _NATIVE["shape"](x)
    return tuple(Size(x, axis) if size is None else size for axis, size in enumerate(x.shape))


def _zeros_of(shape: Sequence[Any], dtype: str) -> Any:
    """Zeros of (n, ...) with n at every place of a `Size` and 1 elsewhere."""
    total = None
    for axis, size in enumerate(shape):
        if isinstance(size, Size):
            line = size.ones() - 1
            view = [1] * len(shape)
            view[axis] = -1
            line = _NATIVE["reshape"](line, view)
            total = line if total is None else total + line
    return ops.cast(total, dtype)


def _broadcast_to(x: Any, shape: Any) -> Any:
    if not any_pending(shape):
        return _NATIVE["broadcast_to"](x, shape)
    rank = len(x.shape)
    known = [1 if isinstance(size, Size) else size for size in shape]
    offset = len(shape) - rank
    new = [
        size
        if isinstance(size, Size) and not (axis >= offset and x.shape[axis - offset] is None)
        else 1
        for axis, size in enumerate(shape)
    ]
    own = [
        x.shape[axis - offset] if axis >= offset and isinstance(size, Size) else known[axis]
        for axis, size in enumerate(shape)
    ]
    if all(size is not None for size in own):
        x = _NATIVE["broadcast_to"](x, own)
    if not any_pending(new):
        return x
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype == "bool":
        return ops.logical_or(x, _zeros_of(new, "bool"))
    # Not a sum: ops.add takes (n, 1, 1) for a bias of n channels where n happens to fit.
    return ops.subtract(x, _zeros_of(new, dtype))


def _arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    first, last = (0, start) if stop is None else (start, stop)
    if not (is_pending(first) or is_pending(last)):
        return _NATIVE["arange"](start, stop, step, dtype)
    if step not in (None, 1, -1):
        raise TypeError("it counts by steps to a size that only the data tells")
    down = step == -1
    length: Any = first - last if down else last - first
    own = counted(length) if is_pending(length) else _NATIVE["arange"](length)
    begin: Any = first.scalar() if is_pending(first) else first
    return ops.cast(begin - own if down else own + begin, dtype or "int32")


def _reshape(x: Any, newshape: Any, **kwargs: Any) -> Any:
    if not _is_symbolic(x) or not any_pending(newshape):
        return _NATIVE["reshape"](x, newshape, **kwargs)
    target = _spelled_out(x, list(newshape))
    if sum(is_pending(size) or size == -1 for size in target) == 1:
        return _NATIVE["reshape"](x, [-1 if is_pending(size) else size for size in target])
    rest = [-1 if is_pending(size) else size for size in target[1:]]
    if _is_batch(target[0]) and keeps_batch(x) and rest.count(-1) == 1:
        return keras.layers.Reshape(rest)(x)
    return _reshape_by_rows(x, target)


def _spelled_out(x: Any, target: list[Any]) -> list[Any]:
    """A target with the number for -1, where the sizes that are known tell it."""
    open_axes = [axis for axis, size in enumerate(target) if size == -1 and not is_pending(size)]
    pending = sum(map(is_pending, target))
    if len(open_axes) != 1 or not pending or sum(size is None for size in x.shape) != pending:
        return target
    known = math.prod(size for size in x.shape if size is not None)
    rest = math.prod(size for size in target if size != -1)
    target[open_axes[0]] = known // rest
    return target


def _reshape_by_rows(x: Any, target: list[Any]) -> Any:
    """Several unknown sizes: flatten to rows of known shape, and pick them in their new places.

    A row is what stands behind the last unknown axis; row (i, j) of sizes (n, m) is number i * m + j.
    """
    last = max(axis for axis, size in enumerate(target) if is_pending(size) or size == -1)
    lead, row = target[: last + 1], target[last + 1 :]
    if -1 in [size for size in target if not is_pending(size)]:
        raise TypeError("it reshapes to several sizes that only the data tells")
    number: Any = 0
    step: Any = 1
    for axis in reversed(range(len(lead))):
        size = lead[axis]
        line = counted(size) if is_pending(size) else np.arange(size, dtype="int32")
        view = [1] * len(lead)
        view[axis] = -1
        number = number + _NATIVE["reshape"](line, view) * step
        step = step * (size.scalar() if is_pending(size) else size)
    result = ops.take(_NATIVE["reshape"](x, [-1, *row]), number, axis=0)
    result._secateur_batch = _is_batch(target[0])
    return result


def _is_batch(size: Any) -> bool:
    return is_pending(size) and size.plain and size.axis == 0 and keeps_batch(size.tensor)


_SHUFFLES_BATCH: dict[str, Callable[[Any, Any], bool]] = {
    "Transpose": lambda op, x: op.axes is None or op.axes[0] % len(x.shape) != 0,
    "Swapaxes": lambda op, x: 0 in (op.axis1 % len(x.shape), op.axis2 % len(x.shape)),
    "Moveaxis": lambda op, x: not _all_behind([op.source, op.destination], x),
    "Reshape": lambda _op, x: any(size is None for size in x.shape[1:]),
    "Take": lambda op, x: op.axis is None or op.axis % len(x.shape) == 0,
    "Concatenate": lambda op, x: op.axis % len(x.shape) == 0,
    "Repeat": lambda op, x: op.axis is None or op.axis % len(x.shape) == 0,
    "Squeeze": lambda op, x: op.axis is None or not _all_behind([op.axis], x),
    "Einsum": lambda op, _x: not _einsum_keeps_first(op.subscripts.replace(" ", "")),
}


def _all_behind(given: Sequence[Any], x: Any) -> bool:
    return all(int(axis) % len(x.shape) != 0 for own in given for axis in np.atleast_1d(own))


def _einsum_keeps_first(equation: str) -> bool:
    left, _, out = equation.partition("->")
    return bool(out) and all(names[0] == out[0] for names in left.split(",") if out[0] in names)


def keeps_batch(x: Any) -> bool:
    """Whether the first axis of a symbolic tensor is the batch of the model's inputs, as far as is known.

    Layers keep it by Keras's contract; of ops, those that may move it are looked at.
    """
    kept = _traces_to_batch(x)
    x._secateur_batch = kept  # so that the walks of one trace are as long as the graph, together
    return kept


def _traces_to_batch(x: Any) -> bool:
    while True:
        if x.shape[0] is not None:
            return False
        if hasattr(x, "_secateur_batch"):
            return bool(x._secateur_batch)
        history = getattr(x, "_keras_history", None)
        if history is None or history.operation is None:
            return True
        operation = history.operation
        node = operation._inbound_nodes[history.node_index]
        taken = [t for t in node.arguments.keras_tensors if t.shape and t.shape[0] is None]
        if not taken:
            return False
        shuffles = _SHUFFLES_BATCH.get(type(operation).__name__)
        is_op = not isinstance(operation, keras.layers.Layer)
        if is_op and shuffles is not None and shuffles(operation, taken[0]):
            return False
        x = taken[0]


def _with_numbers(name: str) -> Callable[..., Any]:
    native = getattr(ops, name)

    def apply(*args: Any, **kwargs: Any) -> Any:
        return native(*(x.scalar() if is_pending(x) else x for x in args), **kwargs)

    return apply


class _GetItem:
    """`x[key]`, with slices that end where the data tells."""

    def symbolic_call(self, x: Any, key: Any) -> Any:
        entries = list(key) if isinstance(key, (tuple, list)) else [key]
        if isinstance(key, list) and any(e is None or isinstance(e, slice) for e in key):
            key = tuple(key)
        if not any(isinstance(e, slice) and any_pending((e.start, e.stop)) for e in entries):
            return _GET_ITEM().symbolic_call(x, key)
        if Ellipsis in entries or None in entries:
            raise TypeError("it slices up to a size that only the data tells, with an ellipsis")
        for axis, entry in enumerate(entries):
            if isinstance(entry, slice) and any_pending((entry.start, entry.stop)):
                if entry.stop is None or entry.step not in (None, 1):
                    raise TypeError("it slices from a size that only the data tells")
                x = ops.take(x, _arange(entry.start or 0, entry.stop), axis=axis)
                entries[axis] = slice(None)
        if all(entry == slice(None) for entry in entries):
            return x
        return _GET_ITEM().symbolic_call(x, tuple(entries))


def _fft2(x: Any) -> Any:
    """Over a length that the data tells: a transform of the last axis, then the matrix of the other.

    Y = F_n X F_m, F_n[j, k] = exp(-2 pi i j k / n) (as FNet itself does, arXiv 2105.03824, section 3).
    """
    if not _is_symbolic(x[0]) or x[0].shape[-2] is not None:
        return _NATIVE["fft2"](x)
    real, imaginary = ops.fft(x)
    length = Size(x[0], len(x[0].shape) - 2)
    line = counted(length)
    turns = (ops.expand_dims(line, 1) * ops.expand_dims(line, 0)) % length.scalar()
    angles = ops.cast(turns, "float32") * (2 * np.pi) / ops.cast(length.scalar(), "float32")
    cos, sin = ops.cos(angles), ops.sin(angles)
    return (
        ops.matmul(cos, real) + ops.matmul(sin, imaginary),
        ops.matmul(cos, imaginary) - ops.matmul(sin, real),
    )


def _tile(x: Any, repeats: Any) -> Any:
    if not any_pending(repeats):
        return _NATIVE["tile"](x, repeats)
    if len(repeats) != len(x.shape):
        raise TypeError("it tiles by a size that only the data tells")
    target = [
        size if isinstance(size, Size) and x.shape[axis] == 1 else x.shape[axis]
        for axis, size in enumerate(repeats)
    ]
    wide = _broadcast_to(x, target)
    rest = [1 if isinstance(size, Size) else size for size in repeats]
    return wide if all(size == 1 for size in rest) else _NATIVE["tile"](wide, rest)


def _repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    if not is_pending(repeats):
        return _NATIVE["repeat"](x, repeats, axis)
    if axis is None or x.shape[axis] != 1:
        raise TypeError("it repeats by a size that only the data tells")
    target = list(x.shape)
    target[axis] = repeats
    return _broadcast_to(x, target)


def _slice(inputs: Any, start_indices: Any, shape: Any) -> Any:
    if not any_pending(shape):
        return _NATIVE["slice"](inputs, start_indices, shape)
    result = inputs
    for axis, (start, size) in enumerate(zip(start_indices, shape, strict=True)):
        if isinstance(size, Size):
            if result.shape[axis] is not None or start != 0:
                result = ops.take(result, _arange(size) + start, axis=axis)
        elif start != 0 or size != result.shape[axis]:
            key = [slice(None)] * axis + [slice(start, start + size)]
            result = result[tuple(key)]
    return result


def _filler(value: int) -> Callable[..., Any]:
    name = "ones" if value else "zeros"

    def fill(shape: Any, dtype: Any = None) -> Any:
        if not any_pending(shape):
            return _NATIVE[name](shape, dtype)
        return _full(shape, value, dtype)

    return fill


def _full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    if not any_pending(shape):
        return _NATIVE["full"](shape, fill_value, dtype)
    dtype = dtype or keras.config.floatx()
    known = [1 if isinstance(size, Size) else size for size in shape]
    return ops.subtract(_NATIVE["full"](known, fill_value, dtype), _zeros_of(shape, dtype))
