"""Packing of arrays with many zeros, by bits, and its reversal.

A number is dropped only if all its bits are 0: -0.0 and the payloads of NaNs survive. Items of 1,
2, 4 and 8 bytes of any dtype; arrays are C-contiguous and read flat.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secateur import _core
from secateur.errors import InvalidArgumentError

CHUNK = _core.PACKING_CHUNK
"""Elements per chunk; all chunks but the last are full."""

_INT32_MAX = np.iinfo(np.int32).max


def raw_view(array: NDArray[Any]) -> NDArray[Any]:
    """The memory of an array as flat unsigned integers, without a copy.

    Raises:
        InvalidArgumentError: Not C-contiguous, or items are not of 1, 2, 4 or 8 bytes.
    """
    if array.dtype.itemsize not in (1, 2, 4, 8) or not array.flags.c_contiguous:
        raise InvalidArgumentError(
            "Kernels take C-contiguous arrays with items of 1, 2, 4 or 8 bytes, got dtype "
            f"{array.dtype} and strides {array.strides}; numpy.ascontiguousarray makes a copy "
            "that fits."
        )
    return array.reshape(-1).view(f"u{array.dtype.itemsize}")


def num_chunks(size: int) -> int:
    """How many chunks an array of `size` elements has."""
    return -(-size // CHUNK)


def nonzero_offsets(array: NDArray[Any], *, by_value: bool = False) -> NDArray[np.uint64]:
    """Number of non-zeros before each chunk, and at the end of them all.

    Args:
        array: Any shape.
        by_value: Count -0.0 as zero. For floats only.

    Returns:
        Running totals, shape (chunks + 1,). The other functions take them to save a second count.
    """
    raw = raw_view(array)
    offsets = np.empty(num_chunks(raw.size) + 1, np.uint64)
    _core.nonzero_offsets(raw, by_value, offsets)
    return offsets


def count_nonzero_bits(array: NDArray[Any]) -> int:
    """How many elements have any bit set.

    Example:
        >>> count_nonzero_bits(np.array([0.0, -0.0, 1.0], np.float32))
        2
    """
    return int(nonzero_offsets(array)[-1])


def bitmask_pack(
    array: NDArray[Any], offsets: NDArray[np.uint64] | None = None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Split an array into one bit per element and its non-zeros.

    Args:
        array: Any shape.
        offsets: `nonzero_offsets(array)`, if already known.

    Returns:
        Bits, shape (ceil(size / 8),), as `np.packbits(..., bitorder="little")`; and the non-zeros.

    Example:
        >>> bitmask_pack(np.array([0, 7, 0, 9], np.int32))
        (array([10], dtype=uint8), array([7, 9], dtype=int32))
    """
    raw = raw_view(array)
    table = nonzero_offsets(array) if offsets is None else offsets
    bits = np.empty(-(-raw.size // 8), np.uint8)
    values = np.empty(int(table[-1]), raw.dtype)
    _core.bitmask_pack(raw, table, bits, values)
    return bits, values.view(array.dtype)


def bitmask_offsets(bits: NDArray[np.uint8], num_values: int, size: int) -> NDArray[np.uint64]:
    """The running totals of a bit mask that came from outside.

    Raises:
        InvalidArgumentError: The mask has not ceil(size / 8) bytes, has bits set after the last
            element, or has not `num_values` bits set.
    """
    if bits.size != -(-size // 8):
        raise InvalidArgumentError(
            f"A bit mask of {size} elements has {-(-size // 8)} bytes, got {bits.size}."
        )
    offsets = np.empty(num_chunks(size) + 1, np.uint64)
    if not _core.bitmask_offsets(bits, size, offsets):
        raise InvalidArgumentError(f"The bit mask has bits set after its {size} elements.")
    if offsets[-1] != num_values:
        raise InvalidArgumentError(
            f"The bit mask marks {offsets[-1]} elements, but there are {num_values} values."
        )
    return offsets


def bitmask_unpack(bits: NDArray[np.uint8], values: NDArray[Any], size: int) -> NDArray[Any]:
    """The flat array of `size` elements that `bitmask_pack` took apart.

    Raises:
        InvalidArgumentError: Bits and values do not fit each other or the size.

    Example:
        >>> bitmask_unpack(np.array([10], np.uint8), np.array([7, 9], np.int32), 4)
        array([0, 7, 0, 9], dtype=int32)
    """
    raw = raw_view(values)
    offsets = bitmask_offsets(bits, raw.size, size)
    out = np.empty(size, raw.dtype)
    _core.bitmask_unpack(bits, offsets, raw, out)
    return out.view(values.dtype)


def csr16_pack(
    array: NDArray[Any], offsets: NDArray[np.uint64] | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[Any]]:
    """Split an array into the positions of its non-zeros and the non-zeros.

    Args:
        array: Any shape.
        offsets: `nonzero_offsets(array)`, if already known.

    Returns:
        Non-zeros per chunk of 65536 elements; their positions within the chunk; the non-zeros.

    Example:
        >>> csr16_pack(np.array([0, 7, 0, 9], np.int32))  # doctest: +NORMALIZE_WHITESPACE
        (array([2], dtype=uint32), array([1, 3], dtype=uint16), array([7, 9], dtype=int32))
    """
    raw = raw_view(array)
    table = nonzero_offsets(array) if offsets is None else offsets
    positions = np.empty(int(table[-1]), np.uint16)
    values = np.empty(int(table[-1]), raw.dtype)
    _core.csr16_pack(raw, table, positions, values)
    return np.diff(table).astype(np.uint32), positions, values.view(array.dtype)


def csr16_offsets(counts: NDArray[np.uint32], num_values: int, size: int) -> NDArray[np.uint64]:
    """The running totals of counts that came from outside.

    Raises:
        InvalidArgumentError: Counts are not one per chunk, exceed a chunk, or do not sum to
            `num_values`.
    """
    if counts.size != num_chunks(size):
        raise InvalidArgumentError(
            f"{size} elements make {num_chunks(size)} chunks of {CHUNK}, got {counts.size} counts."
        )
    offsets = np.zeros(counts.size + 1, np.uint64)
    np.cumsum(counts, dtype=np.uint64, out=offsets[1:])
    if counts.size and counts.max() > CHUNK:
        raise InvalidArgumentError(
            f"A chunk holds at most {CHUNK} non-zeros, got a count of {counts.max()}."
        )
    if offsets[-1] != num_values:
        raise InvalidArgumentError(
            f"The counts sum to {offsets[-1]}, but there are {num_values} values."
        )
    return offsets


def _positions_error() -> InvalidArgumentError:
    return InvalidArgumentError(
        "The positions of a chunk must strictly increase and stay inside the chunk."
    )


def csr16_unpack(
    counts: NDArray[np.uint32],
    positions: NDArray[np.uint16],
    values: NDArray[Any],
    size: int,
) -> NDArray[Any]:
    """The flat array of `size` elements that `csr16_pack` took apart.

    Raises:
        InvalidArgumentError: The three do not fit each other or the size, or positions of a chunk
            do not strictly increase inside it.

    Example:
        >>> one, two = np.array([2], np.uint32), np.array([1, 3], np.uint16)
        >>> csr16_unpack(one, two, np.array([7, 9], np.int32), 4)
        array([0, 7, 0, 9], dtype=int32)
    """
    raw = raw_view(values)
    offsets = csr16_offsets(counts, raw.size, size)
    out = np.empty(size, raw.dtype)
    if not _core.csr16_unpack(offsets, positions, raw, out):
        raise _positions_error()
    return out.view(values.dtype)


def index_dtype(rows: int, cols: int, num_nonzeros: int) -> np.dtype[Any]:
    """int32, or int64 where the shape or the number of non-zeros needs it."""
    return np.dtype(np.int32 if max(rows, cols, num_nonzeros) <= _INT32_MAX else np.int64)


def _empty_indices(
    shape: tuple[int, int], num_nonzeros: int, dtype: DTypeLike | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    chosen = index_dtype(*shape, num_nonzeros) if dtype is None else np.dtype(dtype)
    return np.empty(num_nonzeros, chosen), np.empty(shape[0] + 1, chosen)


def bitmask_to_csr(
    bits: NDArray[np.uint8],
    num_values: int,
    shape: tuple[int, int],
    index: DTypeLike | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """CSR indices and indptr of a packed matrix; its values are the CSR data as they stand.

    Args:
        bits: From `bitmask_pack` of a matrix of that shape.
        num_values: How many non-zeros were packed.
        shape: (rows, cols).
        index: int32 or int64; chosen by `index_dtype` if not given.

    Raises:
        InvalidArgumentError: As `bitmask_unpack`.
    """
    offsets = bitmask_offsets(bits, num_values, shape[0] * shape[1])
    indices, indptr = _empty_indices(shape, num_values, index)
    kernel = _core.bitmask_to_csr32 if indices.itemsize == 4 else _core.bitmask_to_csr64
    kernel(bits, offsets, shape[1], indices, indptr)
    return indices, indptr


def csr16_to_csr(
    counts: NDArray[np.uint32],
    positions: NDArray[np.uint16],
    shape: tuple[int, int],
    index: DTypeLike | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """CSR indices and indptr of a packed matrix; its values are the CSR data as they stand.

    Args:
        counts: Non-zeros per chunk.
        positions: Of the non-zeros within their chunk.
        shape: (rows, cols).
        index: int32 or int64; chosen by `index_dtype` if not given.

    Raises:
        InvalidArgumentError: As `csr16_unpack`.
    """
    offsets = csr16_offsets(counts, positions.size, shape[0] * shape[1])
    indices, indptr = _empty_indices(shape, positions.size, index)
    kernel = _core.csr16_to_csr32 if indices.itemsize == 4 else _core.csr16_to_csr64
    if not kernel(offsets, positions, shape[1], indices, indptr):
        raise _positions_error()
    return indices, indptr
