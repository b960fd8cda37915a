"""The small encoding: arrays near the entropy of what is in them, by bits and without loss.

Arrays of any dtype with items of 1, 2, 4 or 8 bytes, C-contiguous and read flat. What comes out is
one array of bytes; what goes in to be decoded may be any bytes at all. The format is described in
`cpp/include/secateur/codec.hpp`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secateur import _core
from secateur._kernels.native.packing import index_dtype, num_chunks, raw_view
from secateur.errors import InvalidArgumentError

_UNSIGNED, _SIGNED, _FLOATS = range(3)

_FAULTS = {
    1: "its lengths do not add up",
    2: "a frequency table is not sound",
    3: "the header of a chunk contradicts itself",
    4: "the positions of a chunk do not decode",
    5: "the values of a chunk do not decode",
    6: "a chunk decodes to something else than was encoded: its checksum is wrong",
}


def _numbers(dtype: np.dtype[Any]) -> int:
    if dtype.kind == "f" or dtype.name == "bfloat16":
        return _FLOATS
    return _SIGNED if dtype.kind == "i" else _UNSIGNED


def _check(fault: int) -> None:
    if fault:
        raise InvalidArgumentError(f"The coded bytes are not sound: {_FAULTS[fault]}.")


def encode(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The coded bytes of an array; the same for every instruction set and number of threads.

    Args:
        array: Any shape. float16, bfloat16, float32 and float64 are split into planes as floats,
            signed integers as such, everything else by its bits.

    Returns:
        At most 12 bytes for every 65536 items, and one, more than the array itself has.

    Example:
        >>> weights = np.zeros(100_000, np.float32)
        >>> weights[::50] = 1.5
        >>> encode(weights).size < 1000
        True
    """
    return _core.codec_encode(raw_view(array), _numbers(array.dtype))


def least_bytes(size: int) -> int:
    """The fewest bytes that `size` items can be coded in: fewer need no memory set aside."""
    return _core.codec_least_bytes(size)


def nonzero_offsets(coded: NDArray[np.uint8], size: int, dtype: DTypeLike) -> NDArray[np.uint64]:
    """Number of non-zeros before each chunk, and at the end of them all, as the headers say.

    Args:
        coded: Shape (bytes,).
        size: Items that it should hold.
        dtype: Of the items.

    Raises:
        InvalidArgumentError: Lengths, tables or headers are not sound, or not those of `size`
            items. No memory in proportion to `size` is taken before that is known.
    """
    kind = np.dtype(dtype)
    if coded.size < least_bytes(size):
        raise InvalidArgumentError(
            f"{size} items take at least {least_bytes(size)} coded bytes, got {coded.size}."
        )
    offsets = np.empty(num_chunks(size) + 1, np.uint64)
    _check(_core.codec_offsets(coded, size, kind.itemsize, _numbers(kind), offsets))
    return offsets


def decode(coded: NDArray[np.uint8], size: int, dtype: DTypeLike) -> NDArray[Any]:
    """The flat array of `size` items that `encode` was given.

    Args:
        coded: Shape (bytes,).
        size: Items that it should hold.
        dtype: Of the items.

    Raises:
        InvalidArgumentError: The bytes are not those of such an array.

    Example:
        >>> decode(encode(np.array([0, 7, 0, 9], np.int32)), 4, np.int32)
        array([0, 7, 0, 9], dtype=int32)
    """
    kind = np.dtype(dtype)
    offsets = nonzero_offsets(coded, size, kind)
    out = np.empty(size, f"u{kind.itemsize}")
    _check(_core.codec_decode(coded, _numbers(kind), offsets, out))
    return out.view(kind)


def decode_csr(
    coded: NDArray[np.uint8],
    shape: tuple[int, int],
    dtype: DTypeLike,
    index: DTypeLike | None = None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """data, indices and indptr of a matrix in CSR; a dense one is never made.

    Args:
        coded: Shape (bytes,).
        shape: (rows, cols) of the matrix that was encoded.
        dtype: Of the items.
        index: int32 or int64; chosen by `index_dtype` if not given.

    Raises:
        InvalidArgumentError: The bytes are not those of such a matrix.

    Example:
        >>> decode_csr(encode(np.array([[0, 7], [9, 0]], np.int32)), (2, 2), np.int32)[0]
        array([7, 9], dtype=int32)
    """
    kind = np.dtype(dtype)
    rows, cols = shape
    offsets = nonzero_offsets(coded, rows * cols, kind)
    count = int(offsets[-1])
    chosen = index_dtype(rows, cols, count) if index is None else np.dtype(index)
    values = np.empty(count, f"u{kind.itemsize}")
    indices, indptr = np.empty(count, chosen), np.empty(rows + 1, chosen)
    kernel = _core.codec_to_csr32 if chosen.itemsize == 4 else _core.codec_to_csr64
    _check(kernel(coded, _numbers(kind), offsets, cols, values, indices, indptr))
    return values.view(kind), indices, indptr
