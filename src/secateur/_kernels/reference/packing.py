"""Oracle of `native.packing`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 65536


def nonzero_bits(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which elements have any bit set, flat."""
    flat: NDArray[np.bool_] = array.reshape(-1).view(f"u{array.dtype.itemsize}") != 0
    return flat


def count_nonzero_bits(array: NDArray[Any]) -> int:
    """How many elements have any bit set."""
    return int(nonzero_bits(array).sum())


def bitmask_pack(array: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """One bit per element, and the non-zeros."""
    kept = nonzero_bits(array)
    return np.packbits(kept, bitorder="little"), array.reshape(-1)[kept]


def bitmask_unpack(bits: NDArray[np.uint8], values: NDArray[Any], size: int) -> NDArray[Any]:
    """The flat array."""
    out = np.zeros(size, values.dtype)
    out[np.unpackbits(bits, count=size, bitorder="little").astype(bool)] = values
    return out


def csr16_pack(
    array: NDArray[Any],
) -> tuple[NDArray[np.uint32], NDArray[np.uint16], NDArray[Any]]:
    """Non-zeros per chunk, their positions in it, and the non-zeros."""
    kept = nonzero_bits(array)
    places = np.flatnonzero(kept)
    counts = np.bincount(places // CHUNK, minlength=-(-kept.size // CHUNK))
    positions = (places % CHUNK).astype(np.uint16)
    return counts.astype(np.uint32), positions, array.reshape(-1)[kept]


def csr16_places(counts: NDArray[np.uint32], positions: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Flat positions of the non-zeros."""
    starts = np.repeat(np.arange(counts.size) * CHUNK, counts)
    return starts + positions.astype(np.int64)


def csr16_unpack(
    counts: NDArray[np.uint32],
    positions: NDArray[np.uint16],
    values: NDArray[Any],
    size: int,
) -> NDArray[Any]:
    """The flat array."""
    out = np.zeros(size, values.dtype)
    out[csr16_places(counts, positions)] = values
    return out


def places_to_csr(
    places: NDArray[np.int64], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """CSR indices and indptr of the flat positions of the non-zeros."""
    rows, cols = np.divmod(places, max(shape[1], 1))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=shape[0]))])
    return cols, indptr.astype(np.int64)
