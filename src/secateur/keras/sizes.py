"""Sizes that only the data tells, as layers meet them while they are opened.

Layers ask `ops.shape` for a batch size or a length, calculate with it and put it into `arange`, `reshape`
and their like. On symbolic tensors there is no number yet: a `Size` stands for it.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import keras
from keras import ops


class Size(int):
    """A size that the data tells: `scale * n + offset`, n the size of an axis of a symbolic tensor.

    As a number -1, as targets of a reshape take it. What it cannot be written for (a product of two
    sizes, a quotient) is *opaque*: all that is known of it is that it is a size.

    Attributes:
        tensor: The symbolic tensor; None where opaque.
        axis: Its axis.
        scale: Multiples of its size.
        offset: Added to them.
    """

    tensor: Any
    axis: int
    scale: int
    offset: int

    def __new__(cls, tensor: Any, axis: int, scale: int = 1, offset: int = 0) -> Size:
        """The size of `tensor` along `axis`."""
        size = super().__new__(cls, -1)
        size.tensor, size.axis, size.scale, size.offset = tensor, axis, scale, offset
        return size

    @property
    def plain(self) -> bool:
        """Whether it is the size of an axis as it stands."""
        return self.tensor is not None and (self.scale, self.offset) == (1, 0)

    def like(self, other: Any) -> bool:
        """Whether both are written in the size of the same axis."""
        if not isinstance(other, Size) or self.tensor is None:
            return False
        return self.tensor is other.tensor and self.axis == other.axis

    def _affine(self, scale: int, offset: int) -> Any:
        return Size(self.tensor, self.axis, scale, offset) if scale else offset

    def __add__(self, other: Any) -> Any:
        if self.like(other):
            return self._affine(self.scale + other.scale, self.offset + other.offset)
        if type(other) is int and self.tensor is not None:
            return self._affine(self.scale, self.offset + other)
        return self._opaque(other)

    def __mul__(self, other: Any) -> Any:
        if type(other) is int and self.tensor is not None:
            return self._affine(self.scale * other, self.offset * other)
        return self._opaque(other)

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + (-other) if isinstance(other, int) else self._opaque(other)

    def __rsub__(self, other: Any) -> Any:
        return (-self) + other

    __radd__ = __add__
    __rmul__ = __mul__

    def _opaque(self, other: Any) -> Any:
        if isinstance(other, keras.KerasTensor):
            return NotImplemented
        return Size(None, 0) if isinstance(other, int) else self._refuse()

    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _opaque

    def _refuse(self, *_: Any) -> Any:
        raise TypeError("it decides or divides by a size that only the data tells")

    __truediv__ = __rtruediv__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def _need(self) -> Any:
        if self.tensor is None:
            raise TypeError(
                "it counts with a product or quotient of sizes that only the data tells"
            )
        return self.tensor

    def ones(self) -> Any:
        """int32 ones, as many as the size says: (n,)."""
        tensor = self._need()
        rest = [axis for axis in range(len(tensor.shape)) if axis != self.axis]
        zeros = ops.zeros_like(tensor, dtype="int32")
        line = (ops.sum(zeros, axis=rest) if rest else zeros) + 1
        if self.scale < 1:
            raise TypeError("it counts down a size that only the data tells")
        if self.scale > 1:
            line = ops.concatenate([line] * self.scale)
        if self.offset > 0:
            extra = ops.repeat(line[(slice(0, 1),)], self.offset)
            return ops.concatenate([line, extra])
        return line[(slice(-self.offset, None),)] if self.offset else line

    def scalar(self) -> Any:
        """The number itself, as an int32 tensor of no axes."""
        count = ops.sum(Size(self._need(), self.axis).ones())
        return count * self.scale + self.offset


def counted(size: Size) -> Any:
    """0, 1, 2, ... up to a size: (n,)."""
    return ops.cumsum(size.ones()) - 1


def is_pending(value: Any) -> TypeGuard[Size]:
    """Whether a value is a size that only the data tells."""
    return isinstance(value, Size)


def any_pending(values: Any) -> bool:
    """Whether a list or tuple holds such a size."""
    return isinstance(values, (list, tuple)) and any(map(is_pending, values))
