"""A call's arguments on a batch, cut into parts of fewer samples so that its rows take bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import tree
from keras.src import backend

from secateur.keras.staging import Inlet

# Rows of convolutions are many times their input; a batch whose rows take more is looked at in parts.
_ROWS_BYTES = 1 << 27


def call_parts(inlet: Inlet, size: int, now: Any, *beside: Any) -> Iterator[tuple[Any, ...]]:
    """Cut a call's arguments, and what goes with them, into parts whose rows take bounded memory."""
    values = tree.flatten(now)
    first = next((leaf for leaf in values if backend.is_tensor(leaf)), None)
    step = size
    if first is not None and size > 1 and len(first.shape) > 2:
        width = max(_width(inlet), int(first.shape[-1]))
        rows = int(np.prod([int(extent) for extent in first.shape[:-1]]))
        step = max(1, min(size, size * _ROWS_BYTES // max(4 * rows * width, 1)))
    if step >= size:
        yield now, *beside
        return
    for start in range(0, size, step):
        yield tuple(_slice(nest, start, step, size) for nest in (now, *beside))


def _width(inlet: Inlet) -> int:
    shape = [int(extent) for extent in inlet.tap.variable.shape]
    return int(np.prod(shape[:-1]))


def _slice(nest: Any, start: int, step: int, size: int) -> Any:
    def cut(leaf: Any) -> Any:
        shape: Any = getattr(leaf, "shape", ())
        if not len(shape) or shape[0] != size:
            return leaf
        piece = leaf[start : start + step]
        mask = backend.get_keras_mask(leaf) if backend.is_tensor(leaf) else None
        if mask is not None:
            backend.set_keras_mask(piece, mask[start : start + step])
        return piece

    return tree.map_structure(cut, nest)
