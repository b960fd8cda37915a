"""What a model costs: multiplications, time of a call, bytes of its `.keras` file."""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops, tree

from secateur.keras.calling import compiled
from secateur.keras.flatten import Call
from secateur.keras.running import run_graph
from secateur.keras.taps import open_graph, taps_of
from secateur.keras.variables import read_array
from secateur.timing import median_times

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


@dataclass(frozen=True)
class Macs:
    """Multiplications (each with an addition) that a model makes for one sample.

    Attributes:
        dense: Those that a dense runtime makes.
        nonzero: Those whose weight is not zero: what a sparse runtime has to make.
    """

    dense: int
    nonzero: int


def count_macs(model: Model, sample: Any) -> Macs:
    """Count the multiplications of weight matrices and of attention for one sample.

    Args:
        model: A built Keras model.
        sample: A batch of data as the model takes it; its sizes are what is counted for.

    Raises:
        UnsupportedModelError: The model cannot be traced.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        >>> count_macs(model, np.ones((2, 5), "float32"))
        Macs(dense=15, nonzero=15)
    """
    uses, attention = _weight_uses(model, sample)
    dense = nonzero = attention
    for variable, positions in uses:
        weight = read_array(variable)
        dense += positions * weight.size
        nonzero += positions * int(np.count_nonzero(weight))
    return Macs(round(dense), round(nonzero))


def weight_uses(model: Model, sample: Any) -> dict[int, float]:
    """How often each weight of a matrix is multiplied with something, for one sample.

    Args:
        model: A built Keras model.
        sample: As for `count_macs`.

    Returns:
        `id` of the model's variable -> multiplications of each of its weights. Variables that are no
        weight matrices, and embeddings, which are looked up, are not in it.

    Raises:
        UnsupportedModelError: The model cannot be traced.
    """
    uses: dict[int, float] = {}
    for variable, positions in _weight_uses(model, sample)[0]:
        uses[id(variable)] = uses.get(id(variable), 0.0) + positions
    return uses


def _weight_uses(model: Model, sample: Any) -> tuple[list[tuple[Any, float]], float]:
    """Per call of a weight matrix the positions it is used at; multiplications without weights."""
    batch = tree.map_structure(np.asarray, sample)
    rows = int(tree.flatten(batch)[0].shape[0])
    uses: list[tuple[Any, float]] = []
    attention = 0

    def visit(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal attention
        for tap in taps_of(call):
            positions = int(np.prod(tap.rows(args, kwargs).shape[:-1])) // tap.groups
            uses.append((tap.variable, positions / rows))
        attention += _attention_macs(call, args, kwargs)

    run_graph(open_graph(model, batch), batch, visit)
    return uses, attention / rows


def _attention_macs(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Products of queries with keys and of scores with values."""
    if type(call.operation).__name__ != "DotProductAttention":
        return 0
    named = {**dict(zip(("query", "key", "value"), args, strict=False)), **kwargs}
    batch, queries, heads, width = named["query"].shape
    keys, own = named["value"].shape[1], named["value"].shape[3]
    return int(batch) * int(heads) * int(queries) * int(keys) * (int(width) + int(own))


def gzipped_keras_bytes(model: Any) -> int:
    """Bytes of the model's `.keras` file after gzip: what it takes without any of our means.

    Args:
        model: A Keras model; it is saved without its optimizer's state.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        optimizer = getattr(model, "optimizer", None)
        compiled = model.compiled
        try:
            model.compiled, model.optimizer = False, None
            model.save(path)
        finally:
            model.compiled, model.optimizer = compiled, optimizer
        return len(gzip.compress(path.read_bytes(), 9))


def latencies(models: Sequence[Any], batch: Any, repeats: int = 15) -> list[float]:
    """Seconds of one call of each model, compiled, measured in turn.

    Args:
        models: Keras models that take the batch.
        batch: What goes in, nested as the models take it.
        repeats: Rounds; in each, every model is called once.

    Returns:
        Median per model, in seconds.
    """
    inputs = tree.map_structure(ops.convert_to_tensor, batch)

    def called(model: Any) -> Any:
        return compiled(lambda x: model(x, training=False), inputs)

    return median_times([called(model) for model in models], rounds=repeats)
