"""Gradients of a model's loss on labelled data, sample by sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops, tree
from keras.src.utils.module_utils import tensorflow

from secateur.calibration import BatchSource
from secateur.errors import ArgumentTypeError, InvalidArgumentError, UnsupportedModelError
from secateur.gradient_statistics import GradientStatistics
from secateur.keras.data import as_source, calibration_data, input_signature
from secateur.keras.tensors import WeightTensor
from secateur.signature import describe

if TYPE_CHECKING:
    from secateur.keras.protocols import Model

_LABELS = (
    "this criterion looks at the gradients of the loss, so the data must come with labels: "
    "data=(x, y), or a stream of such pairs"
)


def gradient_statistics(
    model: Model,
    tensors: Sequence[WeightTensor],
    data: Any,
    *,
    batch_size: int = 32,
    max_samples: int | None = None,
) -> dict[str, GradientStatistics]:
    """Gather the gradients of a compiled model's loss for some of its weights.

    Each sample has a gradient of its own, so that neither the size nor the order of batches matters.

    Args:
        model: A compiled model with symbolic inputs.
        tensors: The weights.
        data: (x, y) or (x, y, sample_weight) of arrays, or a stream of such batches.
        batch_size: For data given as arrays.
        max_samples: Read no more than so many.

    Returns:
        Weight name -> statistics of gradients, as (out, in) matrices.

    Raises:
        InvalidArgumentError: The model has no loss, or the data no labels.
        NonFiniteError: A gradient is NaN or infinite; names the weight.
        UnsupportedModelError: The backend is not TensorFlow.
    """
    _check_loss(model)
    found = {
        tensor.name: GradientStatistics(
            tensor.to_matrix(np.empty(tensor.shape, np.int8)).shape, name=tensor.name
        )
        for tensor in tensors
    }
    variables = [tensor.variable for tensor in tensors]
    gradients = _gradient_function(model, variables)
    for inputs, labels, weights in labelled_samples(model, data, batch_size, max_samples):
        try:
            slopes = gradients(inputs, labels, weights)
        except (ValueError, tensorflow.errors.InvalidArgumentError) as error:
            raise _misfit(model, labels, error) from error
        for tensor, gradient in zip(tensors, slopes, strict=True):
            array = np.asarray(ops.convert_to_numpy(gradient), np.float32)
            found[tensor.name].update(np.ascontiguousarray(tensor.to_matrix(array)))
    return found


def _misfit(model: Any, labels: Any, error: Exception) -> InvalidArgumentError:
    """Labels that the loss cannot be computed of: what Keras says of it, without its call stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # TensorFlow says what is wrong last, before the names of the nodes of its graph.
    said = [line for line in lines if not line.startswith(("[[", "File ", "Detected at"))][-1]
    return InvalidArgumentError(
        f"The loss of model {model.name!r} cannot be computed of a sample with labels "
        f"{describe(labels)}: {said} Pass labels as for model.fit."
    )


def _check_loss(model: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedModelError(
            f"Gradients are taken by TensorFlow, but Keras runs on {keras.backend.backend()}; set "
            "KERAS_BACKEND=tensorflow, or choose a criterion without gradients."
        )
    if not getattr(model, "compiled", False) or getattr(model, "_compile_loss", None) is None:
        raise InvalidArgumentError(
            f"Model {model.name!r} has no loss: this criterion looks at the loss's gradients; compile "
            "the model first, model.compile(loss=...)."
        )


def _gradient_function(model: Any, variables: Sequence[Any]) -> Any:
    values = [variable.value for variable in variables]

    def gradients(inputs: Any, labels: Any, weights: Any) -> Any:
        with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            outputs = model(inputs, training=False)
            loss = model.compute_loss(
                x=inputs, y=labels, y_pred=outputs, sample_weight=weights, training=False
            )
        found = tape.gradient(loss, values, unconnected_gradients="zero")
        return [tensorflow.convert_to_tensor(gradient) for gradient in found]

    return tensorflow.function(gradients, reduce_retracing=True, autograph=False)


def labelled_samples(
    model: Any, data: Any, batch_size: int, max_samples: int | None
) -> Iterator[tuple[Any, Any, Any]]:
    """Single samples (x, y, sample_weight), each with a batch axis of one; weights may be None.

    Raises:
        InvalidArgumentError: There are no labels, or not as many as samples.
    """
    left = max_samples
    for inputs, *rest in _labelled_batches(input_signature(model), data, batch_size):
        size = len(tree.flatten(inputs)[0])
        labels, weights = (rest + [None])[:2]
        for leaf in tree.flatten(rest):
            if leaf is not None and len(leaf) != size:
                raise InvalidArgumentError(
                    f"There are {size} samples but {len(leaf)} labels or sample weights in a batch."
                )
        for number in range(size):
            if left == 0:
                return
            left = None if left is None else left - 1
            row = slice(number, number + 1)
            yield tuple(  # type: ignore[misc]
                None if nest is None else tree.map_structure(lambda x, row=row: x[row], nest)
                for nest in (inputs, labels, weights)
            )


def _labelled_batches(signature: Any, data: Any, batch_size: int) -> Iterator[tuple[Any, ...]]:
    source = as_source(data)
    if isinstance(source, tuple):
        yield from _cut(signature, source, batch_size)
        return
    if isinstance(source, (Mapping, list)) or hasattr(source, "__array__"):
        raise InvalidArgumentError(f"{type(data).__name__} without labels came; {_LABELS}.")
    batches = source.open() if hasattr(source, "open") else source
    if not hasattr(batches, "__iter__"):
        raise ArgumentTypeError(f"Data of type {type(data).__name__} cannot be read; {_LABELS}.")
    yield from _from_stream(signature, batches)


def _from_stream(signature: Any, stream: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    labels: list[tuple[Any, ...]] = []

    def inputs() -> Iterator[tuple[Any]]:
        for element in stream:
            if not isinstance(element, (tuple, list)):
                raise InvalidArgumentError(f"A batch without labels came; {_LABELS}.")
            labels[:] = [_checked_labels(tuple(element))]
            yield (element[0],)

    # One reading for the whole stream, so that not each batch by itself is said to be few samples.
    for batch in calibration_data(signature, BatchSource("The data", inputs)):
        yield (batch, *labels[0])


def _cut(signature: Any, element: tuple[Any, ...], size: int) -> Iterator[tuple[Any, ...]]:
    """Batches of (x, y) or (x, y, sample_weight), inputs checked against what the model takes."""
    rest = _checked_labels(element)
    start = 0
    for batch in calibration_data(signature, element[:1], size):
        stop = start + len(tree.flatten(batch)[0])
        rows = slice(start, stop)
        yield (
            batch,
            *(
                None if nest is None else tree.map_structure(lambda x, rows=rows: x[rows], nest)
                for nest in rest
            ),
        )
        start = stop


def _checked_labels(element: tuple[Any, ...]) -> tuple[Any, ...]:
    """Labels, and weights of samples if there are some, as arrays of numbers."""
    if len(element) not in (2, 3):
        raise InvalidArgumentError(f"A tuple of {len(element)} came; {_LABELS}.")
    rest = tuple(
        None if nest is None else tree.map_structure(np.asarray, nest) for nest in element[1:]
    )
    for leaf in tree.flatten(rest):
        if leaf is not None and (not leaf.ndim or leaf.dtype.kind in "OSU"):
            raise ArgumentTypeError(
                "Labels and sample weights must be arrays of numbers with the samples on axis 0, as "
                f"for model.fit; got {type(element[1]).__name__} of {leaf.dtype} {leaf.shape}. Pass "
                "numpy.asarray(y), with names of classes turned into numbers."
            )
    return rest
