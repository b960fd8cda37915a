"""Read a flat graph back from what a recording left: the history of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree
from keras.src import backend

from secateur.keras.graph import Call, Graph, Nest, Source, Tensor
from secateur.keras.recording import FOLLOW_CALLER, Recording
from secateur.keras.sizes import Size, is_pending


def read_graph(trace: Recording, structure: Nest, outputs: Nest) -> Graph:
    """The graph from the outputs' history, in an order in which calls can run.

    Args:
        trace: What was recorded.
        structure: The symbolic inputs, nested as the model takes them.
        outputs: What the model made of them.
    """
    reader = _Reader(trace, structure)
    reader.read([leaf for leaf in tree.flatten(outputs) if isinstance(leaf, keras.KerasTensor)])
    result = Graph(
        model=trace.model,
        inputs=[reader.tensors[id(x)] for x in tree.flatten(structure)],
        input_structure=structure,
        output_structure=tree.map_structure(reader.convert, outputs),
        calls=reader.calls,
        opened=trace.failures,
    )
    for call in result.calls:
        call.wall = trace.failures.get(call.name, "")
    return result


class _Reader:
    def __init__(self, trace: Recording, structure: Nest) -> None:
        self.trace = trace
        self.tensors: dict[int, Tensor] = {}
        self.calls: list[Call] = []
        self.done: set[int] = set()
        self.source_of = {id(symbol): variable for symbol, variable in trace.sources.values()}
        self.keep: list[Any] = []
        self.numbers: dict[int, tuple[Size, Any]] = {}
        for leaf in tree.flatten(structure):
            self.tensor(leaf)

    def tensor(self, symbol: Any) -> Tensor:
        symbol = self.resolve(symbol)
        if id(symbol) not in self.tensors:
            self.keep.append(symbol)
            dtype = backend.standardize_dtype(symbol.dtype)
            node = self.node_of(symbol)
            by_layer = node is not None and isinstance(node.operation, keras.layers.Layer)
            masked = by_layer and backend.get_keras_mask(symbol) is not None
            self.tensors[id(symbol)] = Tensor(tuple(symbol.shape), dtype, masked)
        return self.tensors[id(symbol)]

    def node_of(self, symbol: Any) -> Any:
        history = getattr(symbol, "_keras_history", None)
        if history is None or history.operation is None:
            return None
        return history.operation._inbound_nodes[history.node_index]

    def convert(self, leaf: Any) -> Any:
        if isinstance(leaf, keras.KerasTensor):
            return self.tensor(leaf)
        if isinstance(leaf, keras.Variable):
            return self.tensor(self.trace.source(leaf))
        return self.tensor(self.number(leaf)) if is_pending(leaf) else leaf

    def number(self, size: Size) -> Any:
        """The symbolic tensor of a size that stands as a number among arguments."""
        if id(size) not in self.numbers:
            self.numbers[id(size)] = (size, size.scalar())
        return self.numbers[id(size)][1]

    def read(self, symbols: Sequence[Any]) -> None:
        stack: list[tuple[Any, bool]] = [(symbol, False) for symbol in reversed(symbols)]
        while stack:
            item, ready = stack.pop()
            if ready:
                self._record(item)
                continue
            item = self.resolve(item)
            node = self.node_of(item)
            if node is None:
                self._record_source(item)
                continue
            if id(node) in self.done:
                continue
            self.done.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(self._parents(node)))

    def _parents(self, node: Any) -> list[Any]:
        parents = []
        for leaf in tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(leaf, keras.KerasTensor):
                parents.append(leaf)
            elif isinstance(leaf, keras.Variable):
                symbol = self.trace.source(leaf)
                self.source_of[id(symbol)] = leaf
                parents.append(symbol)
            elif is_pending(leaf):
                parents.append(self.number(leaf))
        return parents

    def _record_source(self, symbol: Any) -> None:
        variable = self.source_of.get(id(symbol))
        if variable is None or id(symbol) in self.done:
            return
        self.done.add(id(symbol))
        tensor = self.tensor(symbol)
        source = variable
        if isinstance(variable, keras.Variable):
            source = Source(variable, variable.path.replace("/", "_"))
        self.calls.append(Call(source, (), {}, [tensor], tensor))

    def _record(self, node: Any) -> None:
        args = tree.map_structure(self.convert, tuple(node.arguments.args))
        kwargs = {
            name: tree.map_structure(self.convert, value)
            for name, value in node.arguments.kwargs.items()
            if value is not FOLLOW_CALLER and not self._travels(name, value, node)
        }
        outputs = [self.tensor(output) for output in node.outputs]
        self.calls.append(Call(node.operation, args, kwargs, outputs, outputs))

    def _travels(self, name: str, value: Any, node: Any) -> bool:
        """Whether an argument is the mask that Keras itself hands on."""
        if name != "mask" or value is None:
            return name == "mask"
        first = node.arguments.args[0] if node.arguments.args else None
        if not isinstance(first, keras.KerasTensor):
            return False
        return self._same(backend.get_keras_mask(first), value)

    def _same(self, one: Any, two: Any) -> bool:
        """Whether two symbolic tensors are made in the same way from the same tensors."""
        if not (isinstance(one, keras.KerasTensor) and isinstance(two, keras.KerasTensor)):
            return bool(one is two or (not hasattr(one, "shape") and one == two))
        first, second = self.node_of(self.resolve(one)), self.node_of(self.resolve(two))
        if self.resolve(one) is self.resolve(two):
            return True
        if first is None or second is None or type(first.operation) is not type(second.operation):
            return False
        if (
            isinstance(first.operation, keras.layers.Layer)
            and first.operation is not second.operation
        ):
            return False
        pairs = [tree.flatten((n.arguments.args, n.arguments.kwargs)) for n in (first, second)]
        return len(pairs[0]) == len(pairs[1]) and all(map(self._same, *pairs))

    def resolve(self, symbol: Any) -> Any:
        """Look through conversions that change nothing."""
        node = self.node_of(symbol)
        while node is not None and type(node.operation).__name__ == "ConvertToTensor":
            source = node.arguments.args[0]
            if not isinstance(source, keras.KerasTensor) or source.dtype != symbol.dtype:
                break
            symbol, node = source, self.node_of(source)
        return symbol
