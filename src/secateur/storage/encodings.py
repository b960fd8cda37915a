"""How one array is stored: dense, bit mask and values, or 16-bit CSR.

All are lossless by bits. Which one is taken depends on the number of non-zeros alone, so sizes are
known before anything is encoded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native import packing

Encoding: TypeAlias = Literal["dense", "bitmask", "csr16"]
Arrays: TypeAlias = dict[str, NDArray[Any]]

ROLES: dict[Encoding, tuple[str, ...]] = {
    "dense": ("data",),
    "bitmask": ("bits", "values"),
    "csr16": ("counts", "positions", "values"),
}
"""The arrays that an encoding stores, in order."""

_PART_COST = 256
"""Bytes that one more stored array costs in the two headers, about; small arrays stay dense for
it."""


def part_layout(
    encoding: Encoding, shape: tuple[int, ...], dtype: np.dtype[Any], nonzeros: int
) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of the arrays that an encoding stores, in the order of `ROLES`."""
    size = math.prod(shape)
    values = ((nonzeros,), dtype)
    if encoding == "dense":
        return [(shape, dtype)]
    if encoding == "bitmask":
        return [((-(-size // 8),), np.dtype(np.uint8)), values]
    counts = ((packing.num_chunks(size),), np.dtype(np.uint32))
    return [counts, ((nonzeros,), np.dtype(np.uint16)), values]


def encoded_bytes(
    encoding: Encoding, shape: tuple[int, ...], dtype: np.dtype[Any], nonzeros: int
) -> int:
    """Bytes of data that an encoding takes, without headers.

    Example:
        >>> encoded_bytes("bitmask", (80,), np.dtype(np.float32), 8)
        42
    """
    layout = part_layout(encoding, shape, dtype, nonzeros)
    return sum(math.prod(extents) * kind.itemsize for extents, kind in layout)


def smallest_encoding(shape: tuple[int, ...], dtype: np.dtype[Any], nonzeros: int) -> Encoding:
    """The encoding that takes least room in the file; of equals the simplest.

    Example:
        >>> smallest_encoding((1000, 1000), np.dtype(np.float32), 50_000)
        'csr16'
    """

    def cost(encoding: Encoding) -> int:
        headers = _PART_COST * len(ROLES[encoding])
        return encoded_bytes(encoding, shape, dtype, nonzeros) + headers

    return min(ROLES, key=cost)


def encode(
    encoding: Encoding, array: NDArray[Any], offsets: NDArray[np.uint64]
) -> list[NDArray[Any]]:
    """The arrays to store, in the order of `ROLES`. Dense is the array itself, not a copy.

    Args:
        encoding: One that fits the array.
        array: C-contiguous, items of 1, 2, 4 or 8 bytes.
        offsets: `packing.nonzero_offsets(array)`.
    """
    if encoding == "dense":
        return [array]
    if encoding == "bitmask":
        return list(packing.bitmask_pack(array, offsets))
    return list(packing.csr16_pack(array, offsets))


def decode(
    encoding: Encoding, shape: tuple[int, ...], parts: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """The dense array.

    Raises:
        InvalidArgumentError: The parts contradict each other or the shape.
    """
    if encoding == "dense":
        return parts["data"]
    size = math.prod(shape)
    if encoding == "bitmask":
        flat = packing.bitmask_unpack(parts["bits"], parts["values"], size)
    else:
        flat = packing.csr16_unpack(parts["counts"], parts["positions"], parts["values"], size)
    return flat.reshape(shape)


def decode_csr(
    encoding: Encoding, shape: tuple[int, int], parts: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """data, indices, indptr of a matrix that is stored sparse; a dense one is never made.

    Raises:
        InvalidArgumentError: The parts contradict each other or the shape.
    """
    values = parts["values"]
    if encoding == "bitmask":
        indices, indptr = packing.bitmask_to_csr(parts["bits"], values.size, shape)
    else:
        indices, indptr = packing.csr16_to_csr(parts["counts"], parts["positions"], shape)
    return values, indices, indptr
