"""Writes `arrays_v1.safetensors`: run once, by hand, when format version 1 was made.

    python tests/golden/make.py

The file must be readable for ever, and `save_arrays` must go on writing the same bytes as long as
the format version is 1. A new format version gets a new file beside it; this one stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from secateur.storage import save_arrays

GOLDEN = Path(__file__).with_name("arrays_v1.safetensors")
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


if __name__ == "__main__":
    save_arrays(GOLDEN, arrays(), metadata=METADATA)
