"""A few samples of all, chosen by what they hold, so that neither order nor batches matter."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import numpy as np
from keras import tree

from secateur.arrays import Array

# So much of every input tells samples apart.
_BYTES_HASHED = 4096


def num_samples(batch: Any) -> int:
    """Samples of a batch."""
    return int(tree.flatten(batch)[0].shape[0])


def some_samples(
    batches: Iterable[Any], wanted: int, batch_size: int = 32
) -> tuple[list[Any], Array]:
    """So many samples, as good as drawn at random, but the same ones in whatever order they come.

    Args:
        batches: Can be iterated more than once.
        wanted: How many samples; all there are, if those are fewer.
        batch_size: Of the batches that come back, at most; samples of one shape share a batch.

    Returns:
        Their batches, and the numbers of the samples in the data.

    Example:
        >>> found, rows = some_samples([np.arange(8), np.arange(8, 16)], 4)
        >>> again, _ = some_samples([np.arange(16)[::-1]], 4)
        >>> np.array_equal(found, again), np.array_equal(found[0], rows)
        (True, True)
    """
    keys = [key for batch in batches for key in _keys(batch)]
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


def _keys(batch: Any) -> list[bytes]:
    leaves = [np.asarray(leaf) for leaf in tree.flatten(batch)]
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
