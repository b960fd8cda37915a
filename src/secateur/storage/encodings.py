"""How one array is stored: dense, bit mask and values, 16-bit CSR, or coded.

All are lossless by bits. Of the first three, which make up the profile "fast", sizes depend on the
number of non-zeros alone, so they are known before anything is encoded. "coded", of the profile
"small", is near the entropy of the array, and its size shows once it is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native import codec, packing

Encoding: TypeAlias = Literal["dense", "bitmask", "csr16", "coded"]
Profile: TypeAlias = Literal["fast", "small"]
Arrays: TypeAlias = dict[str, NDArray[Any]]

ROLES: dict[Encoding, tuple[str, ...]] = {
    "dense": ("data",),
    "bitmask": ("bits", "values"),
    "csr16": ("counts", "positions", "values"),
    "coded": ("coded",),
}
"""The arrays that an encoding stores, in order."""

FAST_ENCODINGS: tuple[Encoding, ...] = ("dense", "bitmask", "csr16")
"""Those of the profile "fast"."""

_PART_COST = 256
"""Bytes that one more stored array costs in the two headers, about; small arrays stay dense for
it."""


def part_layout(
    encoding: Encoding, shape: tuple[int, ...], dtype: np.dtype[Any], nonzeros: int
) -> list[tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of the arrays that a fast encoding stores, in the order of `ROLES`."""
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
    """Bytes of data that a fast encoding takes, without headers.

    Example:
        >>> encoded_bytes("bitmask", (80,), np.dtype(np.float32), 8)
        42
    """
    layout = part_layout(encoding, shape, dtype, nonzeros)
    return sum(math.prod(extents) * kind.itemsize for extents, kind in layout)


def smallest_encoding(shape: tuple[int, ...], dtype: np.dtype[Any], nonzeros: int) -> Encoding:
    """The fast encoding that takes least room in the file; of equals the simplest.

    Example:
        >>> smallest_encoding((1000, 1000), np.dtype(np.float32), 50_000)
        'csr16'
    """

    def cost(encoding: Encoding) -> int:
        headers = _PART_COST * len(ROLES[encoding])
        return encoded_bytes(encoding, shape, dtype, nonzeros) + headers

    return min(FAST_ENCODINGS, key=cost)


def encode(
    array: NDArray[Any], profile: Profile = "fast"
) -> tuple[Encoding, list[NDArray[Any]], int]:
    """Store an array in the encoding of the profile that takes least room.

    Args:
        array: C-contiguous, items of 1, 2, 4 or 8 bytes.
        profile: "fast" for parts that are read as they stand, "small" for coded ones.

    Returns:
        The encoding; the arrays to store, in the order of `ROLES`, of which a dense one is the
        array itself and not a copy; and the number of non-zeros.
    """
    offsets = packing.nonzero_offsets(array)
    nonzeros = int(offsets[-1])
    if profile == "small":
        coded = codec.encode(array)
        if array.size and coded.nbytes < array.nbytes:
            return "coded", [coded], nonzeros
        return "dense", [array], nonzeros
    encoding = smallest_encoding(array.shape, array.dtype, nonzeros)
    if encoding == "bitmask":
        return encoding, list(packing.bitmask_pack(array, offsets)), nonzeros
    if encoding == "csr16":
        return encoding, list(packing.csr16_pack(array, offsets)), nonzeros
    return encoding, [array], nonzeros


def is_stored_sparse(
    encoding: Encoding, shape: tuple[int, ...], dtype: np.dtype[Any], nonzeros: int
) -> bool:
    """Whether zeros are what an array was stored for: the same answer for either profile."""
    if encoding == "coded":
        return smallest_encoding(shape, dtype, nonzeros) != "dense"
    return encoding != "dense"


def count_nonzeros(
    encoding: Encoding,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    parts: Mapping[str, NDArray[Any]],
) -> int:
    """How many non-zeros the stored parts hold, before they are decoded.

    Raises:
        InvalidArgumentError: The parts contradict each other or the shape.
    """
    if encoding == "coded":
        return int(codec.nonzero_offsets(parts["coded"], math.prod(shape), dtype)[-1])
    return packing.count_nonzero_bits(parts["data" if encoding == "dense" else "values"])


def decode(
    encoding: Encoding,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    parts: Mapping[str, NDArray[Any]],
) -> NDArray[Any]:
    """The dense array.

    Raises:
        InvalidArgumentError: The parts contradict each other or the shape.
    """
    size = math.prod(shape)
    if encoding == "dense":
        return parts["data"]
    if encoding == "coded":
        flat = codec.decode(parts["coded"], size, dtype)
    elif encoding == "bitmask":
        flat = packing.bitmask_unpack(parts["bits"], parts["values"], size)
    else:
        flat = packing.csr16_unpack(parts["counts"], parts["positions"], parts["values"], size)
    return flat.reshape(shape)


def decode_csr(
    encoding: Encoding,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    parts: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """data, indices, indptr of a matrix that is stored sparse; a dense one is never made.

    Raises:
        InvalidArgumentError: The parts contradict each other or the shape.
    """
    if encoding == "coded":
        return codec.decode_csr(parts["coded"], shape, dtype)
    values = parts["values"]
    if encoding == "bitmask":
        indices, indptr = packing.bitmask_to_csr(parts["bits"], values.size, shape)
    else:
        indices, indptr = packing.csr16_to_csr(parts["counts"], parts["positions"], shape)
    return values, indices, indptr
