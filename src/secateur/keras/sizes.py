"""Sizes that only the data tells, while layers are opened.

Layers ask `ops.shape` for a batch size or a length and put it into `broadcast_to`, `arange`,
`reshape` and their like. On
symbolic tensors there is no number yet. While a model is traced these functions of `keras.ops`
understand a
`Size`: where one stands, they make the same result from the tensor that has that size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from secateur.keras.patching import replaced_here

_NATIVE: dict[str, Callable[..., Any]] = {
    name: getattr(ops, name)
    for name in (
        "shape", "broadcast_to", "arange", "reshape", "tile", "repeat", "slice", "zeros", "ones", "full",
    )
}  # fmt: skip


class Size(int):
    """The size of an axis of a symbolic tensor; as a number -1, as targets of a reshape take it."""

    tensor: Any
    axis: int

    def __new__(cls, tensor: Any, axis: int) -> Size:
        """The size of `tensor` along `axis`."""
        size = super().__new__(cls, -1)
        size.tensor, size.axis = tensor, axis
        return size

    def _refuse(self, *_: Any) -> Any:
        raise TypeError("it calculates with a size that only the data tells")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __truediv__ = __rtruediv__ = _refuse
    __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def same_as(self, tensor: Any, axis: int) -> bool:
        """Whether an axis of a tensor is of unknown size too, so presumably this one."""
        return tensor.shape[axis] is None


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
    }
    with replaced_here(ops, replaced):
        yield


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor)


def _unknown(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and any(isinstance(v, Size) for v in values)


def _shape(x: Any) -> Any:
    if not _is_symbolic(x):
        return _NATIVE["shape"](x)
    return tuple(Size(x, axis) if size is None else size for axis, size in enumerate(x.shape))


def ones_along(size: Size, dtype: str = "int32") -> Any:
    """Ones, as many as the size: (n,)."""
    rest = [axis for axis in range(len(size.tensor.shape)) if axis != size.axis]
    zeros = ops.zeros_like(size.tensor, dtype="int32")
    counted = ops.sum(zeros, axis=rest) if rest else zeros
    return ops.cast(counted + 1, dtype)


def _zeros_of(shape: Sequence[Any], dtype: str) -> Any:
    """Zeros of (n, ...) with n at every place of a `Size` and 1 elsewhere."""
    total = None
    for axis, size in enumerate(shape):
        if isinstance(size, Size):
            line = ones_along(size) - 1
            view = [1] * len(shape)
            view[axis] = -1
            line = _NATIVE["reshape"](line, view)
            total = line if total is None else total + line
    return ops.cast(total, dtype)


def _broadcast_to(x: Any, shape: Any) -> Any:
    if not _unknown(shape):
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
    if not _unknown(new):
        return x
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype == "bool":
        return ops.logical_or(x, _zeros_of(new, "bool"))
    return ops.add(x, _zeros_of(new, dtype))


def _arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Any:
    first, last = (0, start) if stop is None else (start, stop)
    if not isinstance(last, Size):
        return _NATIVE["arange"](start, stop, step, dtype)
    if isinstance(first, Size) or step not in (None, 1):
        raise TypeError("it counts by steps to a size that only the data tells")
    return ops.cast(ops.cumsum(ones_along(last)) - 1 + first, dtype or "int32")


def _reshape(x: Any, newshape: Any, **kwargs: Any) -> Any:
    if not _is_symbolic(x) or not _unknown(newshape):
        return _NATIVE["reshape"](x, newshape, **kwargs)
    target = list(newshape)
    if sum(isinstance(size, Size) or size == -1 for size in target) == 1:
        return _NATIVE["reshape"](x, [-1 if isinstance(size, Size) else size for size in target])
    if isinstance(target[0], Size) and x.shape[0] is None:
        rest = [-1 if isinstance(size, Size) else size for size in target[1:]]
        return keras.layers.Reshape(rest)(x)
    raise TypeError("it reshapes to several sizes that only the data tells")


def _tile(x: Any, repeats: Any) -> Any:
    if not _unknown(repeats):
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
    if not isinstance(repeats, Size):
        return _NATIVE["repeat"](x, repeats, axis)
    if axis is None or x.shape[axis] != 1:
        raise TypeError("it repeats by a size that only the data tells")
    target = list(x.shape)
    target[axis] = repeats
    return _broadcast_to(x, target)


def _slice(inputs: Any, start_indices: Any, shape: Any) -> Any:
    if not _unknown(shape):
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
        if not _unknown(shape):
            return _NATIVE[name](shape, dtype)
        return _full(shape, value, dtype)

    return fill


def _full(shape: Any, fill_value: Any, dtype: Any = None) -> Any:
    if not _unknown(shape):
        return _NATIVE["full"](shape, fill_value, dtype)
    dtype = dtype or keras.config.floatx()
    known = [1 if isinstance(size, Size) else size for size in shape]
    return ops.add(_NATIVE["full"](known, fill_value, dtype), _zeros_of(shape, dtype))
