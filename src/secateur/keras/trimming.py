"""Calibration batches without most of their padding, where a model gives the same without it.

Sentences fill less than half of what they are padded to, and every pass over the data computes the rest
for nothing. So samples of like length are put together, and what is padding in all of them is cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from keras import ops, tree
from keras.src.utils.module_utils import tensorflow

from secateur.arrays import Array
from secateur.keras.flatten import Call, Graph
from secateur.keras.padding import Padding
from secateur.keras.running import run_graph
from secateur.keras.sampling import num_samples
from secateur.keras.taps import taps_of

# So many batches are sorted together: more would have to be held in memory.
_WINDOW = 16

# Times are cut to multiples of this, so that few shapes are compiled for and windows still fit.
_STEP = 8

# Largest difference that rounding makes of sums in another order, as a part of the largest value.
_TOLERANCE = 1e-4

_SAMPLES_CHECKED = 32


@dataclass(frozen=True, eq=False)
class Trimmed:
    """The samples of some batches, those of like length together, less what is padding in all of a batch.

    Attributes:
        batches: Of the model; can be iterated more than once.
        padding: With the name of the input that is the mask.
    """

    batches: Iterable[Any]
    padding: Padding

    def __iter__(self) -> Iterator[Any]:
        pending = iter(self.batches)
        while window := list(islice(pending, _WINDOW)):
            for alike in _of_one_shape(window):
                yield from self._sorted(alike)

    def _sorted(self, window: list[Any]) -> Iterator[Any]:
        size = max(num_samples(batch) for batch in window)
        whole = tree.map_structure(lambda *leaves: np.concatenate(leaves), *window)
        real = self.padding.given(whole, 0)
        assert real is not None
        lengths = real_lengths(real)
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            longest = int(lengths[rows].max())
            yield cut_time(tree.map_structure(lambda leaf: leaf[rows], whole), real[rows], longest)  # noqa: B023


def _of_one_shape(window: list[Any]) -> list[list[Any]]:
    """Batches whose samples have the same shapes, in the order of the first of each."""
    found: dict[Any, list[Any]] = {}
    for batch in window:
        arrays = tree.map_structure(np.asarray, batch)
        shapes = tuple(leaf.shape[1:] for leaf in tree.flatten(arrays))
        found.setdefault(shapes, []).append(arrays)
    return list(found.values())


def real_lengths(real: Array) -> Array:
    """Positions up to the last real one of each sample, rounded up; never more than there are.

    Args:
        real: (samples, time) bool.

    Example:
        >>> real_lengths(np.arange(20) < np.array([[3], [9], [20]]))
        array([ 8, 16, 20])
    """
    last = np.where(real.any(axis=1), real.shape[1] - np.argmax(real[:, ::-1], axis=1), 0)
    steps = np.maximum(-(-last // _STEP), 1) * _STEP
    lengths: Array = np.minimum(steps, real.shape[1])
    return lengths


def cut_time(batch: Any, real: Array, length: int) -> Any:
    """A batch with only the first positions of all that has as many as the mask."""
    shape = real.shape

    def cut(leaf: Any) -> Any:
        return leaf[:, :length] if np.shape(leaf)[:2] == shape else leaf

    return tree.map_structure(cut, batch)


def trims(graph: Graph, batches: Iterable[Any], padding: Padding) -> bool:
    """Whether padding can be cut off: what goes into every weight, and the outputs, stay what they are.

    That is tried on the samples of a window that lose most. Only where an input is named as the mask,
    since then nothing at padded positions counts anywhere.

    Args:
        graph: What `open_graph` made of a model.
        batches: Calibration data; can be iterated more than once.
        padding: Which positions are real.
    """
    if padding.tensor is None or len(padding.tensor.shape) != 2:
        return False
    found = _shortest(batches, padding)
    if found is None:
        return False
    batch, real, length = found
    if not _may_be_cut(graph, batch, real):
        return False
    short = cut_time(batch, real, length)
    given = _looked_at(graph, batch)
    try:
        without = _looked_at(graph, short)
    except (ValueError, TypeError, tensorflow.errors.InvalidArgumentError):
        return False  # shapes that do not go together: a layer is not for times this short
    pairs = zip(given, without, strict=True)
    return all(_agree(own, other, real, length) for own, other in pairs)


def _shortest(batches: Iterable[Any], padding: Padding) -> tuple[Any, Array, int] | None:
    """The shortest samples of the first window, their mask, and to what they can be cut, if they can."""
    windows = _of_one_shape(list(islice(iter(batches), _WINDOW)))
    if not windows:
        return None
    whole = tree.map_structure(lambda *leaves: np.concatenate(leaves), *windows[0])
    real = padding.given(whole, 0)
    if real is None or real.ndim != 2:
        return None
    lengths = real_lengths(real)
    rows = np.argsort(lengths, kind="stable")[:_SAMPLES_CHECKED]
    longest = int(lengths[rows].max())
    if longest >= real.shape[1]:
        return None
    return tree.map_structure(lambda leaf: leaf[rows], whole), real[rows], longest


def _may_be_cut(graph: Graph, batch: Any, real: Array) -> bool:
    """Whether all inputs with as many positions as the mask take any number of them."""
    pairs = zip(tree.flatten(batch), graph.inputs, strict=True)
    return all(
        tensor.shape[1] is None for leaf, tensor in pairs if np.shape(leaf)[:2] == real.shape
    )


def _looked_at(graph: Graph, batch: Any) -> list[Array]:
    """What goes into calls with weight matrices, and the outputs."""
    seen: list[Array] = []

    def visit(call: Call, args: Any, kwargs: Any) -> None:
        if taps_of(call):
            leaves = (leaf for leaf in tree.flatten((args, kwargs)) if hasattr(leaf, "dtype"))
            seen.extend(np.asarray(ops.convert_to_numpy(leaf)) for leaf in islice(leaves, 1))

    outputs = tree.flatten(run_graph(graph, batch, visit))
    return [*seen, *(np.asarray(ops.convert_to_numpy(output)) for output in outputs)]


def _agree(given: Array, without: Array, real: Array, length: int) -> bool:
    if given.shape != without.shape:
        # Where time is no axis of its own it cannot be told which positions are padding.
        if given.shape[:2] != real.shape or without.shape[:2] != (len(real), length):
            return False
        kept = real[:, :length]
        given, without = given[:, :length][kept], without[kept]
    elif given.shape[:2] == real.shape:
        return False  # as many as the mask has, and yet they are not its positions
    if given.dtype.kind not in "f":
        return bool(np.array_equal(given, without))
    largest = float(np.max(np.abs(given), initial=0.0))
    return float(np.max(np.abs(given - without), initial=0.0)) <= _TOLERANCE * largest
