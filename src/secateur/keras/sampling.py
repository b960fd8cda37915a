"""A few samples of all, chosen by what they hold, so that neither order, batches nor padding matter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
from keras import tree

from secateur.arrays import Array

Real: TypeAlias = Callable[[Any, int], "Array | None"]
"""From a batch and the number of its first sample to (samples, time) bool; None where all is real."""

# So much of every input tells samples apart.
_BYTES_HASHED = 4096


def num_samples(batch: Any) -> int:
    """Samples of a batch."""
    return int(tree.flatten(batch)[0].shape[0])


def some_samples(
    batches: Iterable[Any], wanted: int, batch_size: int = 32, real: Real | None = None
) -> tuple[list[Any], Array]:
    """So many samples, as good as drawn at random, but the same ones in whatever order they come.

    Args:
        batches: Can be iterated more than once.
        wanted: How many samples; all there are, if those are fewer.
        batch_size: Of the batches that come back, at most; samples of one shape share a batch.
        real: Tells positions from padding: what stands at padded ones has no say in the choice.

    Returns:
        Their batches, and the numbers of the samples in the data.

    Example:
        >>> found, rows = some_samples([np.arange(8), np.arange(8, 16)], 4)
        >>> again, _ = some_samples([np.arange(16)[::-1]], 4)
        >>> np.array_equal(found, again), np.array_equal(found[0], rows)
        (True, True)
    """
    keys: list[bytes] = []
    for batch in batches:
        keys += _keys(batch, None if real is None else real(batch, len(keys)))
    order = sorted(range(len(keys)), key=lambda row: keys[row])[:wanted]
    samples = _pick(batches, set(order))
    shapes = {row: _shape(samples[row]) for row in order}
    first = {shape: at for at, shape in reversed(list(enumerate(shapes.values())))}
    order.sort(key=lambda row: first[shapes[row]])  # stable: within a shape as drawn
    found = []
    for _, group in groupby(order, key=lambda row: shapes[row]):
        alike = [samples[row] for row in group]
        for start in range(0, len(alike), batch_size):
            part = alike[start : start + batch_size]
            found.append(tree.map_structure(lambda *leaves: np.stack(leaves), *part))
    return found, np.array(order)


def _keys(batch: Any, real: Array | None) -> list[bytes]:
    leaves = [np.asarray(leaf) for leaf in tree.flatten(batch)]
    if real is not None:
        leaves = [_blanked(leaf, real) for leaf in leaves]
    keys = []
    for row in range(num_samples(batch)):
        digest = hashlib.blake2b(digest_size=8)
        for leaf in leaves:
            own = leaf[row]
            text = leaf.dtype.kind == "O"
            data = repr(own).encode() if text else np.ascontiguousarray(own).tobytes()
            digest.update(data[:_BYTES_HASHED])
        keys.append(digest.digest())
    return keys


def _blanked(leaf: Array, real: Array) -> Array:
    """Zeros at padded positions, where an input has positions."""
    if leaf.dtype.kind == "O" or leaf.shape[:2] != real.shape:
        return leaf
    kept = real.reshape(*real.shape, *(1,) * (leaf.ndim - 2))
    return np.where(kept, leaf, np.zeros((), leaf.dtype))


def _pick(batches: Iterable[Any], rows: set[int]) -> dict[int, Any]:
    picked = {}
    start = 0
    for batch in batches:
        for row in range(num_samples(batch)):
            if start + row in rows:
                picked[start + row] = tree.map_structure(
                    lambda leaf, row=row: np.asarray(leaf)[row], batch
                )
        start += num_samples(batch)
    return picked


def _shape(sample: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(np.shape(leaf) for leaf in tree.flatten(sample))
