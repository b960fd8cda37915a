"""Rows as statistics count them: let in as finite float32 matrices, gathered into blocks of one size."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from secateur.arrays import Array, check_float_array
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

# Rows that are multiplied at a time. Fewer would spend the time on adding the products up in
# float64 (inputs^2 a block), more would not be faster.
_BLOCK_ROWS = 4096


def checked_rows(rows: Array, mask: Array | None, inputs: int, name: str) -> Float32:
    """Give the counted rows as a finite C-contiguous (n, inputs) float32 matrix.

    Raises:
        ArgumentTypeError: Not a float array, or a mask that is not boolean.
        InvalidArgumentError: A shape that does not fit.
        NonFiniteError: NaN or Inf among the counted, or too large to be squared in float32.
    """
    check_float_array(rows, f"The input of {whose(name)}")
    if not rows.ndim or rows.shape[-1] != inputs:
        raise InvalidArgumentError(
            f"The input of {whose(name)} has shape {rows.shape}; expected (..., {inputs})."
        )
    flat = rows.reshape(-1, inputs)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_:
            raise ArgumentTypeError(
                f"mask must be boolean (True = counted), got {mask.dtype}; use mask != 0."
            )
        if mask.shape != rows.shape[:-1]:
            raise InvalidArgumentError(
                f"mask has shape {mask.shape}; the leading axes of the input of {whose(name)} are "
                f"{rows.shape[:-1]}."
            )
        flat = flat[mask.reshape(-1)]
    with np.errstate(over="ignore", invalid="ignore"):
        kept = np.ascontiguousarray(flat, np.float32)
        run = kept.reshape(-1)
        # Not `run @ run`: BLAS's threads keep turning for a while, beside those of the products.
        finite = bool(np.isfinite(np.einsum("i,i->", run, run)))
    if not finite:
        bad = np.unique(np.flatnonzero(~(np.abs(kept) < 1e18)) % inputs)
        raise NonFiniteError(
            f"The input of {whose(name)} holds NaN or infinite values, or values too large to be "
            f"squared, in {len(bad)} of {inputs} inputs ({', '.join(map(str, bad[:5]))}"
            f"{', ...' if len(bad) > 5 else ''}). Check the calibration data and the weights of the "
            "layers before it."
        )
    return kept


class RowBuffer:
    """A block of float32 rows that is filled from the stream."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._block: Float32 | None = None
        self.filled = 0

    @property
    def is_full(self) -> bool:
        """Whether it takes no more rows before they are counted."""
        return self.filled == _BLOCK_ROWS

    def pieces(self, size: int) -> list[tuple[int, int]]:
        """How `size` new rows are split so that each piece ends where a block is full at the latest."""
        starts = [0, *range(_BLOCK_ROWS - self.filled, size, _BLOCK_ROWS)] if size else []
        return list(zip(starts, [*starts[1:], size], strict=True))

    def add(self, rows: Float32) -> None:
        """Copy rows in, no more than there is room for; see `pieces`."""
        if self._block is None:
            self._block = np.empty((_BLOCK_ROWS, self._width), np.float32)
        self._block[self.filled : self.filled + len(rows)] = rows
        self.filled += len(rows)

    def release(self) -> None:
        """Let go of the memory of an empty block until rows come again."""
        assert not self.filled
        self._block = None

    def take_centred(self) -> tuple[Float32, Float64, Float64]:
        """The rows less a float32 shift, their mean, and what of it the shift leaves."""
        assert self._block is not None
        rows = self._block[: self.filled]
        shift = rows.sum(axis=0) / np.float32(self.filled)
        rows -= shift
        rest = rows.sum(axis=0).astype(np.float64) / self.filled
        self.filled = 0
        return rows, shift.astype(np.float64) + rest, rest


def whose(name: str) -> str:
    """A layer as messages name it."""
    return f"layer {name!r}" if name else "the layer"
