"""How much the model's outputs depend on every output of its layers, without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from keras import ops, tree
from keras.src.utils.module_utils import tensorflow

from secateur.keras.data_pruning import Opened
from secateur.keras.flatten import Call
from secateur.keras.matrix_calls import puts_out_rows
from secateur.keras.output_roles import maker_of, role_of
from secateur.keras.running import run_graph
from secateur.keras.sampling import some_samples
from secateur.keras.taps import taps_of
from secateur.keras.tensors import WeightTensor

_SAMPLES = 64
_BATCH_SIZE = 8

# What seems not to matter on these samples may on others.
_LEAST = 1e-4

Float64: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def output_importance(opened: Opened) -> dict[str, Float64]:
    """Mean squared change of the model's outputs per squared change of each output of a layer.

    With f the model's outputs (each as a part of its spread over the data, before a softmax or sigmoid)
    and z what a layer puts out before its activation, it is E |df / dz_j|^2, summed over positions: the
    diagonal of the Gauss-Newton matrix of the squared error of f. The square of one backward pass of a
    random combination of the outputs, with signs for coefficients, has it as its expectation.

    Args:
        opened: The model made ready for a walk; it is not changed.

    Returns:
        Weight name -> (out,) float64, > 0, of mean 1. Weights whose layer does more than a product with
        one matrix (recurrent ones, depthwise), and those that no gradient reaches, are left out.

    References:
        Hutchinson, "A stochastic estimator of the trace of the influence matrix" (1990), section 2.
        Differs from the paper: it gives the diagonal, by the squares of J^T r.
    """
    batches, _ = some_samples(opened.batches, _SAMPLES, _BATCH_SIZE)
    tensors = {id(tensor.variable): tensor for tensor in opened.chosen.tensors}
    calls = _calls(opened, tensors)
    scales = _scales(opened, batches)
    random = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for batch in batches:
        for call, gradient in _gradients(opened, batch, calls, scales, random):
            (tap,) = taps_of(call)
            tensor = tensors[id(tap.variable)]
            rows = tensor.to_matrix(np.empty(tensor.shape, np.int8)).shape[0]
            squares = np.square(gradient).reshape(-1, rows).sum(axis=0)
            found[tensor.name] = found.get(tensor.name, 0.0) + squares
    return {
        name: np.maximum(total / total.mean(), _LEAST)
        for name, total in found.items()
        if np.isfinite(total).all() and total.any()
    }


def _calls(opened: Opened, tensors: Mapping[int, WeightTensor]) -> list[Call]:
    found = []
    for call in opened.graph.calls:
        taps = taps_of(call)
        if len(taps) == 1 and id(taps[0].variable) in tensors and puts_out_rows(call):
            found.append(call)
    return found


def _scales(opened: Opened, batches: Sequence[Any]) -> list[float]:
    """What makes all outputs of the model count alike; 0 for whole numbers and constants."""
    outputs = [_run(opened, batch, (), None).outputs for batch in batches]
    scales = []
    for own in zip(*outputs, strict=True):
        arrays = [np.asarray(ops.convert_to_numpy(array)).astype(np.float64) for array in own]
        spread = sum(float(np.square(array - array.mean(axis=0)).sum()) for array in arrays)
        smooth = tensorflow.as_dtype(own[0].dtype).is_floating
        scales.append(1 / np.sqrt(spread) if smooth and 0 < spread < np.inf else 0.0)
    return scales


def _gradients(
    opened: Opened, batch: Any, calls: Sequence[Call], scales: Sequence[float], random: Any
) -> Iterator[tuple[Call, Float64]]:
    """What each call puts out before its activation, and the gradient of a random sum of the outputs."""
    terms = []
    with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
        run = _run(opened, batch, calls, tape)
        for output, scale in zip(run.outputs, scales, strict=True):
            signs = random.choice([-scale, scale], size=tuple(output.shape)).astype(np.float32)
            if scale:
                terms.append(tensorflow.reduce_sum(tensorflow.cast(output, "float32") * signs))
        total = tensorflow.add_n(terms) if terms else None
    if total is None:
        return
    gradients = tape.gradient(total, [values for _, values in run.seen])
    for (call, _), gradient in zip(run.seen, gradients, strict=True):
        if gradient is not None:
            yield call, np.asarray(tensorflow.convert_to_tensor(gradient)).astype(np.float64)


class _Run(NamedTuple):
    """One batch through the model.

    Attributes:
        seen: Some calls, and what they put out before their activation.
        outputs: Of the model; of those that a softmax or sigmoid squashes, what goes into it: what is
            far from a decision would else count for nothing.
    """

    seen: list[tuple[Call, Any]]
    outputs: list[Any]


def _run(opened: Opened, batch: Any, calls: Sequence[Call], tape: Any) -> _Run:
    graph = opened.graph
    ends = [maker_of(graph, tensor) for tensor in graph.outputs]
    squashed = [call for call in ends if call is not None and _squashes(call)]
    before: dict[int, Any] = {}

    def visit(call: Call, args: Any, kwargs: Any) -> None:
        del kwargs
        running[:] = [call]
        if call in squashed and args:
            before[id(call)] = args[0]

    def watch(values: Any) -> None:
        (call,) = running
        before[id(call)] = values
        if call in calls:
            tape.watch(values)
            seen.append((call, values))

    running: list[Call] = []
    seen: list[tuple[Call, Any]] = []
    with _watched([call for call in (*calls, *squashed) if puts_out_rows(call)], watch):
        outputs = tree.flatten(run_graph(graph, batch, visit))
    return _Run(
        seen,
        [
            before.get(id(call), output) if call in squashed else output
            for call, output in zip(ends, outputs, strict=True)
        ],
    )


def _squashes(call: Call) -> bool:
    """Whether a call is a softmax or sigmoid, or a product under one, so that what goes in is seen."""
    bare = not getattr(call.operation, "weights", ())
    return role_of(call) is not None and (bare or puts_out_rows(call))


@contextmanager
def _watched(calls: Sequence[Call], watch: Callable[[Any], None]) -> Iterator[None]:
    """What goes into the activations of some calls' layers is shown, while this lasts."""
    found = {id(call.operation): call.operation for call in calls}
    before = {identity: layer.activation for identity, layer in found.items()}

    def watching(activation: Any) -> Any:
        def watched(values: Any) -> Any:
            watch(values)
            return activation(values)

        return watched

    try:
        for identity, layer in found.items():
            # Not by the layer's own way of setting attributes, which keeps track of what is set.
            object.__setattr__(layer, "activation", watching(before[identity]))
        yield
    finally:
        for identity, layer in found.items():
            object.__setattr__(layer, "activation", before[identity])
