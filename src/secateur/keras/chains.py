"""Models that are one chain of Dense layers, for which paths from input to output are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from secateur.errors import UnsupportedModelError
from secateur.keras.tensors import FoundTensors, WeightTensor
from secateur.keras.walk import is_graph

if TYPE_CHECKING:
    from secateur.keras.protocols import Model

_MEND = "choose criterion='magnitude', or score the matrices of a chain with secateur.saliency."


def require_chain(model: Model, found: FoundTensors) -> tuple[WeightTensor, ...]:
    """The Dense kernels of a model that is one chain, in the order data flows through them.

    Layers without weights (activations, dropout, flattening) may stand between.

    Raises:
        UnsupportedModelError: The model branches, or a layer with weights is not Dense; it is named.
    """
    by_layer = {id(tensor.layer): tensor for tensor in found.tensors if tensor.role == "kernel"}
    return tuple(
        by_layer[id(operation)]
        for operation in _chain_of_operations(model)
        if id(operation) in by_layer
    )


def _chain_of_operations(model: Any) -> list[Any]:
    if not is_graph(model):
        raise UnsupportedModelError(
            f"Criterion 'path' needs the graph of {model.name!r}, which a subclassed model has only "
            "once it is traced: leave inplace out, or " + _MEND
        )
    graph = model._functional if isinstance(model, keras.Sequential) else model
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UnsupportedModelError(
            f"Criterion 'path' needs one input and one output, but {model.name!r} has "
            f"{len(graph.inputs)} and {len(graph.outputs)}; " + _MEND
        )
    operations = []
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        nodes = graph._nodes_by_depth[depth]
        if len(nodes) > 1 or len(nodes[0].input_tensors) > 1:
            names = [node.operation.name for node in nodes]
            raise UnsupportedModelError(f"Model {model.name!r} branches at {names}; " + _MEND)
        operations.append(nodes[0].operation)
    for operation in operations:
        _check_operation(operation)
    if len(set(map(id, operations))) != len(operations):
        raise UnsupportedModelError(f"Model {model.name!r} uses a layer twice; " + _MEND)
    return operations


def _check_operation(operation: Any) -> None:
    weights = getattr(operation, "weights", [])
    seeds = {id(g.state) for g in getattr(operation, "_seed_generators", [])}
    if all(id(weight) in seeds for weight in weights) or isinstance(operation, keras.layers.Dense):
        return
    raise UnsupportedModelError(
        f"Criterion 'path' reads chains of Dense layers, but {operation.name!r} is "
        f"{type(operation).__name__}; " + _MEND
    )
