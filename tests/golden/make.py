"""Writes the golden files: each run once, by hand, when its format version was made.

    python tests/golden/make.py arrays_v2.safetensors

`arrays_v1.safetensors` came from version 1 (the profile "fast"), `arrays_v2.safetensors` from version
2 (the profile "small"). The files must be readable for ever, and `save_arrays` must go on writing the
same bytes as long as the format version is the same. A new format version gets a new file beside
them; these stay.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from secateur.storage import save_arrays

GOLDEN = Path(__file__).with_name("arrays_v1.safetensors")
GOLDEN_SMALL = Path(__file__).with_name("arrays_v2.safetensors")
METADATA = {"config": '{"class_name": "Sequential"}', "note": "für Rosen"}


def sparse(shape: tuple[int, ...], dtype: Any, every: int) -> NDArray[Any]:
    """Every so many elements are not zero; no random generator, whose stream could change."""
    flat = np.zeros(int(np.prod(shape)), dtype)
    places = np.arange(every // 2, flat.size, every)
    flat[places] = ((places * 37) % 101 - 50.25).astype(dtype)
    return flat.reshape(shape)


def arrays() -> dict[str, NDArray[Any]]:
    """One array of every encoding, with the values that are easily lost."""
    special = sparse((40, 70), np.float32, 100)
    special.reshape(-1)[:4] = np.array([0x80000000, 0x7FC12345, 0xFF800000, 1], np.uint32).view(
        "f4"
    )
    return {
        "dense/kernel": sparse((12, 5), np.float32, 1),
        "dense/bias": np.arange(5, dtype=ml_dtypes.bfloat16),
        "bitmask/kernel": sparse((60, 33), np.float16, 5),
        "bitmask/wide": sparse((9, 50), np.float64, 3),
        "csr16/kernel": special,
        "csr16/two chunks": sparse((3, 30000), np.float32, 1000),
        "empty": np.zeros((0, 4), np.float32),
        "step": np.array(12345, np.int64),
        "flag": np.array([True, False, True]),
    }


def scattered(shape: tuple[int, ...], dtype: Any, one_in: int) -> NDArray[Any]:
    """One in so many is not zero, in no order; again without a random generator."""
    places = np.arange(int(np.prod(shape)), dtype=np.uint64)
    mixed = (places * np.uint64(2654435761) % np.uint64(2**32)) >> np.uint64(5)
    values = ((mixed // np.uint64(one_in)).astype(np.int64) % 20011 - 10005) / 1024 + 1e-4
    kept = mixed % np.uint64(one_in) == 0
    if np.dtype(dtype).kind in "iu":
        values = np.round(values * 10) % 100 + 1
    return np.where(kept, values, 0).astype(dtype).reshape(shape)


def small_arrays() -> dict[str, NDArray[Any]]:
    """Every form that chunks of a coded array take, every kind of number, tables shared and own."""
    several = scattered((2, 65000), np.float32, 61)
    several[1, :20000] = 0
    noise = (np.arange(1, 201, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.uint32)
    noise[100] = 0
    half = scattered((50, 80), np.float16, 6)
    half[:, ::2] = 0
    return {
        "shared tables": several,
        "gaps": sparse((40000,), np.float32, 1999),
        "full": scattered((300,), np.float32, 1),
        "mask": scattered((61,), np.float64, 2),
        "raw": np.concatenate([np.tile(np.float32(0), 65536), noise.view(np.float32)]),
        "special": arrays()["csr16/kernel"],
        "half": half,
        "brain": scattered((50, 80), ml_dtypes.bfloat16, 9),
        "signed": scattered((2000,), np.int32, 3),
        "bytes": scattered((2000,), np.uint8, 3),
        "flags": np.tile(np.array([True, False, False, True]), 2000),
        "quantised": (np.arange(20000) * 7 % 61 - 30).astype(np.float32) * np.float32(0.0123),
        "complex": scattered((500,), np.float32, 5).astype(np.complex64),
        "empty": np.zeros((0, 4), np.float32),
        "step": np.array(12345, np.int64),
    }


if __name__ == "__main__":
    if GOLDEN.name in sys.argv:
        save_arrays(GOLDEN, arrays(), metadata=METADATA)
    if GOLDEN_SMALL.name in sys.argv:
        save_arrays(GOLDEN_SMALL, small_arrays(), metadata=METADATA, profile="small")
