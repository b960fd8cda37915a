"""Gradients of random sums of a model's outputs, with respect to what its layers put out.

With J the Jacobian of the outputs by what a layer puts out, and r a random vector with E r r^T = M,
the square of J^T r has J^T M J as its expectation (Hutchinson 1990, section 2): one backward pass a
batch tells how much the outputs depend on every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from keras import ops, tree
from keras.src.utils.module_utils import tensorflow

from secateur.keras.flatten import Call, Graph
from secateur.keras.matrix_calls import puts_out_rows
from secateur.keras.output_roles import maker_of, role_of
from secateur.keras.running import run_graph

Float64: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Seeds: TypeAlias = Callable[[int, Any], "Float64 | None"]
"""From the number of an output and its values, r of their shape; None where it does not count."""


def gradients(
    graph: Graph, batch: Any, calls: Sequence[Call], seeds: Seeds
) -> Iterator[tuple[Call, Float64]]:
    """What each call puts out before its activation is changed by: the gradient of sum r f.

    Args:
        graph: A flat graph; it is not changed.
        batch: Nested as the model takes it.
        calls: Of layers for which `puts_out_rows`.
        seeds: Gives r; of what is squashed (a softmax, a sigmoid) f is what goes into it.

    Yields:
        A call and the gradient, of its output's shape; calls that no gradient reaches are left out.
    """
    terms = []
    with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
        run = run_outputs(graph, batch, calls, tape)
        for number, output in enumerate(run.outputs):
            seed = seeds(number, output)
            if seed is not None:
                product = tensorflow.cast(output, "float32") * seed.astype(np.float32)
                terms.append(tensorflow.reduce_sum(product))
        total = tensorflow.add_n(terms) if terms else None
    if total is None:
        return
    found = tape.gradient(total, [values for _, values in run.seen])
    for (call, _), gradient in zip(run.seen, found, strict=True):
        if gradient is not None:
            yield call, np.asarray(tensorflow.convert_to_tensor(gradient)).astype(np.float64)


class Run(NamedTuple):
    """One batch through the model.

    Attributes:
        seen: Some calls, and what they put out before their activation.
        outputs: Of the model; of those that a softmax or sigmoid squashes, what goes into it: what is
            far from a decision would else count for nothing.
    """

    seen: list[tuple[Call, Any]]
    outputs: list[Any]


def run_outputs(graph: Graph, batch: Any, calls: Sequence[Call] = (), tape: Any = None) -> Run:
    """Run a batch.

    Args:
        graph: A flat graph.
        batch: Nested as the model takes it.
        calls: Of which the values are watched.
        tape: What watches them.
    """
    squashed = squashed_calls(graph)
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
    ends = [maker_of(graph, tensor) for tensor in graph.outputs]
    with _watched([call for call in (*calls, *squashed) if puts_out_rows(call)], watch):
        outputs = tree.flatten(run_graph(graph, batch, visit))
    return Run(
        seen,
        [
            before.get(id(call), output) if call in squashed else output
            for call, output in zip(ends, outputs, strict=True)
        ],
    )


def squashed_calls(graph: Graph) -> list[Call]:
    """The calls that make outputs of the model by a softmax or sigmoid of what can be seen."""
    ends = [maker_of(graph, tensor) for tensor in graph.outputs]
    return [call for call in ends if call is not None and _squashes(call)]


def _squashes(call: Call) -> bool:
    """Whether a call is a softmax or sigmoid, or a product under one, so that what goes in is seen."""
    bare = not getattr(call.operation, "weights", ())
    return role_of(call) is not None and (bare or puts_out_rows(call))


def spread_scales(outputs: Sequence[Sequence[Any]]) -> list[float]:
    """What makes all outputs of a model count alike; 0 for whole numbers and constants.

    Args:
        outputs: Per batch, the outputs.
    """
    scales = []
    for own in zip(*outputs, strict=True):
        arrays = [np.asarray(ops.convert_to_numpy(array)).astype(np.float64) for array in own]
        spread = sum(float(np.square(array - array.mean(axis=0)).sum()) for array in arrays)
        smooth = tensorflow.as_dtype(own[0].dtype).is_floating
        scales.append(1 / np.sqrt(spread) if smooth and 0 < spread < np.inf else 0.0)
    return scales


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
