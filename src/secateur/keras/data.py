"""Calibration data as Keras and TensorFlow users hold it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import tree

from secateur.calibration import GENERATOR_SAMPLES, BatchSource, CalibrationData
from secateur.errors import ArgumentTypeError, UnsupportedModelError
from secateur.keras.flatten import Graph
from secateur.signature import InputSignature, InputSpec


@dataclass(frozen=True, eq=False)
class Batches:
    """Calibration batches, which of their positions are real, and word of each that was read.

    Attributes:
        data: The batches; can be iterated more than once.
        mask: As `secateur.keras.padding.Padding` takes it.
        seen: Called with the number of a batch, from 1, after it was dealt with.
    """

    data: Iterable[Any]
    mask: Any = None
    seen: Callable[[int], None] | None = None

    @property
    def num_batches(self) -> int | None:
        """How many there are, where that is known."""
        return self.data.num_batches if isinstance(self.data, CalibrationData) else None

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(self.data, 1):
            yield batch
            if self.seen is not None:
                self.seen(number)


def mask_of(batches: Iterable[Any]) -> Any:
    """The mask that comes with batches; None with others than `Batches`."""
    return batches.mask if isinstance(batches, Batches) else None


def calibration_data(
    model: keras.Model | InputSignature,
    data: object,
    batch_size: int = 32,
    *,
    max_samples: int | None = None,
) -> CalibrationData:
    """Read data for a model: checked batches of NumPy arrays, as often as they are needed.

    Args:
        model: A model with symbolic inputs, or its signature.
        data: An array, a list or tuple or dict of arrays, a generator, a tf.data.Dataset, a
            keras.utils.PyDataset; with or without labels and weights, by Keras's convention.
        batch_size: For arrays; streams keep their own batches.
        max_samples: Read no more than so many samples.

    Returns:
        An iterable of what `model(batch)` takes.

    Raises:
        ArgumentTypeError: Data of a kind that cannot be read.
        InvalidArgumentError: Data that does not fit the model, or holds no samples.
        UnsupportedModelError: The model has no symbolic inputs.
    """
    signature = model if isinstance(model, InputSignature) else input_signature(model)
    return CalibrationData(
        as_source(data), batch_size, signature=signature, max_samples=max_samples
    )


def input_signature(model: Any) -> InputSignature:
    """Say what a model takes: names, shapes, dtypes, and in which collection.

    Args:
        model: A functional model, or a Sequential model that is built.

    Raises:
        UnsupportedModelError: Not built, subclassed (trace it first), or of nested inputs.
    """
    tensors = getattr(model, "inputs", None)
    if not tensors:
        raise UnsupportedModelError(
            f"Model {model.name!r} has no symbolic inputs: build a Sequential model first; make a "
            "subclassed one functional by keras.Model(i, model.call(i)), i = keras.Input(...)."
        )
    structure = tensors if isinstance(model, keras.Sequential) else model.input
    if isinstance(structure, Mapping):
        specs = tuple(_spec(tensor, str(key)) for key, tensor in structure.items())
        return InputSignature(specs, "dict")
    if isinstance(structure, Sequence):
        if any(isinstance(tensor, (Mapping, Sequence)) for tensor in structure):
            raise UnsupportedModelError(
                f"Model {model.name!r} takes nested collections of inputs; wrap it in a functional "
                "model that takes a flat list or dict."
            )
        specs = tuple(_spec(tensor) for tensor in structure)
        return InputSignature(specs, "single" if len(specs) == 1 else "list")
    return InputSignature((_spec(structure),), "single")


def graph_signature(graph: Graph) -> InputSignature:
    """Say what a model takes, from its flat graph: subclassed models tell no other way.

    Raises:
        UnsupportedModelError: Its inputs are nested.
    """
    structure = graph.input_structure
    traced = SimpleNamespace(name=graph.model.name, input=structure, inputs=tree.flatten(structure))
    return input_signature(graph.model if getattr(graph.model, "inputs", None) else traced)


def first_batch(data: object) -> Any:
    """A batch of raw data, to learn the shapes that a subclassed model takes.

    Returns:
        Inputs without labels; None where looking would use the data up.
    """
    if hasattr(data, "shape") or isinstance(data, (list, dict)):
        return tree.map_structure(np.asarray, data)
    if isinstance(data, tuple):
        return tree.map_structure(np.asarray, data[0])
    if isinstance(data, keras.utils.PyDataset):
        first = data[0]
    elif hasattr(data, "__next__") or not isinstance(data, Iterable):
        return None
    else:
        first = next(iter(data))
    return first[0] if isinstance(first, tuple) else first


def kept_stream(data: object, max_samples: int | None = None) -> object:
    """Data that can be read by more than one, labels and all: what a generator yields is kept.

    Args:
        data: Of any kind; nothing but a generator is changed. It is read when it is first asked for.
        max_samples: Keep the batches that hold the first so many samples; None for 4096.
    """
    if not isinstance(data, Iterator):
        return data
    limit = GENERATOR_SAMPLES if max_samples is None else max_samples
    kept: list[Any] = []

    def read() -> list[Any]:
        seen = 0
        for element in () if kept else data:
            kept.append(element)
            # One batch more than is wanted tells that the generator was not read to its end.
            if seen >= limit:
                break
            seen += _num_rows(element)
        return kept

    return BatchSource("The generator", read, repeatable=False)


def _num_rows(element: object) -> int:
    shape = getattr(next(iter(tree.flatten(element)), None), "shape", ())
    return int(shape[0]) if shape else 0


def as_source(data: object) -> object:
    """Wrap a tf.data.Dataset or a PyDataset as a `BatchSource`; hand back anything else as it is.

    Raises:
        ArgumentTypeError: A dataset of ragged or sparse tensors.
    """
    if isinstance(data, keras.utils.PyDataset):
        return _from_py_dataset(data)
    # Whoever holds an object of TensorFlow has imported it; nobody else should have to.
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and isinstance(data, tensorflow.data.Dataset):
        return _from_tf_dataset(data, tensorflow)
    return data


def _spec(tensor: Any, key: str | None = None) -> InputSpec:
    return InputSpec(key or tensor.name, tuple(tensor.shape), str(tensor.dtype))


def _from_py_dataset(dataset: keras.utils.PyDataset) -> BatchSource:
    what = f"The PyDataset {type(dataset).__name__}"
    # The hooks of an epoch are not called: they may shuffle, and every pass must see the same.
    return BatchSource(what, lambda: iter(dataset), endless=dataset.num_batches is None)


def _from_tf_dataset(dataset: Any, tensorflow: Any) -> BatchSource:
    for spec in tensorflow.nest.flatten(dataset.element_spec):
        if not isinstance(spec, tensorflow.TensorSpec):
            raise ArgumentTypeError(
                f"The dataset yields {type(spec).__name__.removesuffix('Spec')}s; make them dense "
                "with dataset.map(lambda x: x.to_tensor()) or tf.sparse.to_dense."
            )
    endless = int(dataset.cardinality()) == tensorflow.data.INFINITE_CARDINALITY
    return BatchSource("The tf.data.Dataset", dataset.as_numpy_iterator, endless=endless)
