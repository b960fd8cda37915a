"""What `native.select` must do, said with a sort."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from secateur._kernels.native.select import Array, Cut, CutStatistics, Order


def keys_of(array: Array, order: Order) -> Array:
    """Unsigned integers that order like |x| or like x, of the array's shape."""
    num_bits = 8 * array.itemsize
    bits = array.view(f"u{array.itemsize}").astype(object)
    magnitude: Array = bits % 2 ** (num_bits - 1)
    if order == "magnitude":
        return magnitude
    keys: Array = 2 ** (num_bits - 1) + np.where(bits == magnitude, magnitude, -magnitude)
    return keys


def find_cut(arrays: Sequence[Array], k: int, order: Order = "magnitude") -> Cut:
    """Rank all numbers by a stable sort; the first that stays is the cut."""
    total = sum(array.size for array in arrays)
    if k == 0:
        return Cut(0, 0, 0)
    if k == total:
        infinity = np.array([np.inf], arrays[0].dtype)
        return Cut(int(keys_of(infinity, order)[0]), len(arrays), 0)
    numbers = _numbers(arrays, order)
    ranks = np.argsort(numbers, kind="stable")
    first_kept = int(ranks[k])
    segment = np.repeat(np.arange(len(arrays)), [array.size for array in arrays])[first_kept]
    position = first_kept - sum(array.size for array in arrays[:segment])
    key = int(keys_of(arrays[segment].reshape(-1)[position : position + 1], order)[0])
    if numbers[ranks[k - 1]] != numbers[first_kept]:
        return Cut(key, 0, 0)
    return Cut(key, int(segment), position)


def keep_mask(arrays: Sequence[Array], k: int, order: Order = "magnitude") -> list[Array]:
    """True for all but the first `k` numbers of a stable sort."""
    numbers = _numbers(arrays, order)
    mask = np.ones(numbers.size, np.bool_)
    mask[np.argsort(numbers, kind="stable")[:k]] = False
    ends = np.cumsum([array.size for array in arrays])
    return [
        part.reshape(a.shape) for part, a in zip(np.split(mask, ends[:-1]), arrays, strict=True)
    ]


def statistics(array: Array, mask: Array, order: Order) -> CutStatistics:
    """How many went, the largest of them, and the smallest that stayed."""
    numbers = _numbers([array], order)
    removed, kept = numbers[~mask.reshape(-1)], numbers[mask.reshape(-1)]
    return CutStatistics(
        removed.size,
        float(removed.max()) if removed.size else None,
        float(kept.min()) if kept.size else None,
    )


def _numbers(arrays: Sequence[Array], order: Order) -> np.ndarray[Any, np.dtype[np.float64]]:
    flat = np.concatenate([array.reshape(-1).astype(np.float64) for array in arrays])
    return np.abs(flat) if order == "magnitude" else flat + 0.0
