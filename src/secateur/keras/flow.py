"""A flat graph of calls as numbered nodes, with what `regions` asks about them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import keras

from secateur.keras.flatten import Call, Graph, Source, Tensor
from secateur.regions import ROOT, DominatorTree, PostDominators, dominators

# What they return depends on the shape of what goes in only.
_SHAPE_ONLY = frozenset({"ZerosLike", "OnesLike", "FullLike"})


class Flow:
    """Nodes for every tensor and call of a graph, in an order in which they can run.

    Args:
        graph: The flat calls.

    Attributes:
        items: The tensor or call of each node.
        after: Who leads where only.
        carries: Whether a node depends on the values of the data; positions and masks do not.
        heavy: What the matrices of a call look like, None where it has none. Normalisations and
            the like, which scale and shift what goes through, have none.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.items: list[Tensor | Call] = []
        self.predecessors: list[list[int]] = []
        self.successors: list[list[int]] = []
        self.carries: list[bool] = []
        self.heavy: list[Hashable] = []
        self._node: dict[int, int] = {}
        for tensor in graph.inputs:
            self._add(tensor, [], tensor.dtype != "bool")
        for call in graph.calls:
            self._add_call(call)
        outputs = [self._node[id(tensor)] for tensor in graph.outputs]
        self.after = PostDominators(self.successors, outputs)
        self.reads = self._count_reads()

    def _add(self, item: Tensor | Call, before: list[int], carries: bool) -> int:
        node = len(self.items)
        self._node[id(item)] = node
        self.items.append(item)
        self.predecessors.append(before)
        self.successors.append([])
        self.carries.append(carries)
        self.heavy.append(matrices(item) if isinstance(item, Call) and carries else None)
        for other in before:
            self.successors[other].append(node)
        return node

    def _add_call(self, call: Call) -> None:
        before = list(dict.fromkeys(self._node[id(tensor)] for tensor in call.inputs))
        shape_only = type(call.operation).__name__ in _SHAPE_ONLY
        carries = not shape_only and any(self.carries[node] for node in before)
        node = self._add(call, before, carries)
        for tensor in call.outputs:
            self._add(tensor, [node], carries and tensor.dtype != "bool")

    def _count_reads(self) -> dict[int, int]:
        reads: dict[int, int] = {}
        for call in self.graph.calls:
            for tensor in call.inputs:
                reads[id(tensor)] = reads.get(id(tensor), 0) + 1
        for tensor in self.graph.outputs:
            reads[id(tensor)] = reads.get(id(tensor), 0) + 1
        return reads

    def node(self, item: Tensor | Call) -> int:
        """The number of a tensor or call."""
        return self._node[id(item)]

    def calls(self, nodes: Any) -> list[Call]:
        """The calls among nodes."""
        return [item for item in map(self.items.__getitem__, nodes) if isinstance(item, Call)]

    def exclusive(self, tensor: Tensor) -> list[Call]:
        """Calls from which every path leads into this tensor."""
        return self.calls(self.after.exclusive(self.node(tensor)))

    def stream(self) -> DominatorTree:
        """Who dominates whom in what flows through the weights.

        Left out is what comes in from the side: masks, positions and whatever else is made of the
        data without weights or of weights without the data. The trunk, from which all weighted
        calls are fed, belongs to it even before the first weight.
        """
        trunk = self._trunk()
        inside: list[bool] = []
        for node, before in enumerate(self.predecessors):
            item = self.items[node]
            begins = node in trunk or (isinstance(item, Call) and bool(weights_of(item)))
            fed = begins or any(inside[other] for other in before)
            inside.append(self.carries[node] and fed)
        return dominators(self.predecessors, [not own for own in inside])

    def _trunk(self) -> set[int]:
        """What dominates every weighted call, where it begins with numbers that are no indices."""
        tree = dominators(self.predecessors, [not carries for carries in self.carries])
        heavy = [node for node, own in enumerate(self.heavy) if own is not None]
        node = tree.common(heavy)
        trunk = set()
        while node != ROOT:
            trunk.add(node)
            node = tree.parent[node]
        floats = all(is_float(self.items[node]) for node in trunk)
        return trunk if floats else set()


def is_float(item: Tensor | Call) -> bool:
    """Whether a tensor holds floats; calls do not matter."""
    return isinstance(item, Call) or "float" in item.dtype


def weights_of(call: Call) -> list[Any]:
    """The weights that a call uses."""
    if isinstance(call.operation, Source):
        return [call.operation.variable]
    return list(call.operation.weights) if isinstance(call.operation, keras.layers.Layer) else []


def matrices(call: Call) -> Hashable:
    """Shapes of a call's matrices with the kind of layer; None where it has none."""
    kernels = [tuple(v.shape) for v in weights_of(call) if len(v.shape) >= 2]
    if not kernels or type(call.operation).__name__ == "PReLU":
        return None
    if "Normalization" in type(call.operation).__name__:
        return None
    return (type(call.operation).__name__, *kernels)
