"""Run a flat graph call by call, and know when a tensor is needed for the last time."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree
from keras.src import backend

from secateur.keras.flatten import Call, Constant, Graph, Source, Tensor

Visitor = Callable[[Call, tuple[Any, ...], dict[str, Any]], None]
"""Called with a call and the values of its arguments, before it is run."""

Listener = Callable[[Call, list[Any]], None]
"""Called with a call and its flattened outputs, after it was run."""


def run_call(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Run one call at inference; returns its flattened outputs.

    Args:
        call: A call of a flat graph.
        args: Its positional arguments, with backend tensors in the place of `Tensor`.
        kwargs: Its keyword arguments, likewise.
    """
    operation = call.operation
    if isinstance(operation, Source):
        value = ops.cast(ops.convert_to_tensor(operation.variable), call.outputs[0].dtype)
        return [value]
    if isinstance(operation, Constant):
        return [ops.convert_to_tensor(operation.value)]
    with warnings.catch_warnings(), with_masks_afterwards((args, kwargs)):
        # Inside of attention masks go another way; of the user's own layers Keras warned at building.
        warnings.filterwarnings("ignore", "Layer .* was passed an input with a mask attached")
        return list(tree.flatten(operation(*args, **for_inference(operation, kwargs))))


@contextlib.contextmanager
def with_masks_afterwards(nest: Any) -> Iterator[None]:
    """Give tensors back the masks that a call takes off them, as attention does: others read them."""
    tensors = [leaf for leaf in tree.flatten(nest) if backend.is_tensor(leaf)]
    masks = [backend.get_keras_mask(tensor) for tensor in tensors]
    yield
    for tensor, mask in zip(tensors, masks, strict=True):
        if mask is not None and backend.get_keras_mask(tensor) is not mask:
            backend.set_keras_mask(tensor, mask)


def for_inference(operation: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments that make a layer run as it does when it serves."""
    if isinstance(operation, keras.layers.Layer) and "training" in operation._call_context_args:
        return {"training": False, **kwargs}
    return kwargs


def last_uses(calls: Sequence[Call], outputs: Sequence[Tensor]) -> list[list[int]]:
    """Per call, identities of the tensors that nobody needs after it."""
    last: dict[int, int] = {}
    for number, call in enumerate(calls):
        for tensor in (*call.inputs, *call.outputs):
            last[id(tensor)] = number
    for tensor in outputs:
        last.pop(id(tensor), None)
    uses: list[list[int]] = [[] for _ in calls]
    for identity, number in last.items():
        uses[number].append(identity)
    return uses


def input_values(graph: Graph, samples: Any) -> dict[int, Any]:
    """The graph's input tensors (by identity) and what a batch gives for them."""
    return {
        id(tensor): ops.convert_to_tensor(value, dtype=tensor.dtype)
        for tensor, value in zip(graph.inputs, tree.flatten(samples), strict=True)
    }


def fill(values: dict[int, Any], nest: Any) -> Any:
    """A nest of arguments with values in the place of tensors."""
    return tree.map_structure(
        lambda leaf: values[id(leaf)] if isinstance(leaf, Tensor) else leaf, nest
    )


def run_graph(
    graph: Graph, samples: Any, visit: Visitor | None = None, seen: Listener | None = None
) -> Any:
    """Run a flat graph on one batch; tensors are let go after their last use.

    Args:
        graph: What `flatten` or `open_graph` made of a model.
        samples: One batch, nested as the model takes it.
        visit: Sees every call with its arguments before it runs.
        seen: Sees every call with its outputs after it ran.

    Returns:
        The model's outputs, nested as the model gives them.
    """
    values = input_values(graph, samples)
    uses = last_uses(graph.calls, graph.outputs)
    for call, done in zip(graph.calls, uses, strict=True):
        args, kwargs = fill(values, call.args), fill(values, call.kwargs)
        if visit is not None:
            visit(call, args, kwargs)
        outputs = run_call(call, args, kwargs)
        if seen is not None:
            seen(call, outputs)
        values.update((id(t), value) for t, value in zip(call.outputs, outputs, strict=True))
        for identity in done:
            values.pop(identity, None)
    return fill(values, graph.output_structure)
