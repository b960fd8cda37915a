"""What must not be bypassed together: sums and inputs hold back what they cannot do without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keras import tree

from secateur.bypass_plan import Bypass
from secateur.keras.bypass import Candidate, carries_sum, summands
from secateur.keras.flatten import Graph, Tensor
from secateur.keras.flow import Flow
from secateur.keras.reducing import extent
from secateur.regions import ROOT


def settle(
    graph: Graph, candidates: Sequence[Candidate], planned: Sequence[Bypass]
) -> tuple[Bypass, ...]:
    """Hold back what must not go with the others, the strongest first.

    A sum keeps an operand of its shape that depends on the data, and every input of the model that
    the outputs depended on goes on to be read. Linear in the graph.
    """
    by_name = {one.name: one for one in candidates}
    going = sorted((one for one in planned if one.removed), key=lambda one: -one.output)
    flow = Flow(graph)
    held = _held_by_sums(flow, [by_name[one.name] for one in going])
    left = [by_name[one.name] for one in going if one.name not in held]
    held |= _held_by_inputs(flow, left)
    return tuple(
        replace(one, removed=False, why=held[one.name]) if one.name in held else one
        for one in planned
    )


def _held_by_sums(flow: Flow, going: Sequence[Candidate]) -> dict[str, str]:
    zero = {id(one.exit) for one in going if one.total is not None}
    held: dict[str, str] = {}
    for one in going:
        total = one.total
        if total is None or not carries_sum(flow, total, one.exit):
            continue
        left = [operand for operand in summands(total) if id(operand) not in zero]
        if not any(carries_sum(flow, total, operand) for operand in left):
            held[one.name] = f"held back: nothing would be left of {total.name}"
            zero.discard(id(one.exit))
    return held


def _held_by_inputs(flow: Flow, going: Sequence[Candidate]) -> dict[str, str]:
    """For every input that no output would depend on any more, what has to stay so that one does."""
    before = _Reach(flow, ())
    inputs = [tensor for tensor in flow.graph.inputs if before.holds(tensor)]
    names = dict(zip(map(id, flow.graph.inputs), _input_names(flow.graph), strict=True))
    held: dict[str, str] = {}
    for tensor in inputs:
        left = [one for one in going if one.name not in held]
        for one in _needed(flow, left, tensor):
            held[one.name] = (
                f"held back: without it nothing depends on the input {names[id(tensor)]!r}"
            )
    return held


def _input_names(graph: Graph) -> list[str]:
    return [str(symbol.name) for symbol in tree.flatten(graph.input_structure)]


def _needed(flow: Flow, going: Sequence[Candidate], tensor: Tensor) -> list[Candidate]:
    """Give back the strongest until the tensor is reached; of those, what lies on the way to it."""
    reach = _Reach(flow, going)
    waiting, helped = list(going), True
    while waiting and helped and not reach.holds(tensor):
        skipped: list[Candidate] = []
        for one in waiting:
            if reach.holds(tensor):
                break
            if not reach.give_back(one):
                skipped.append(one)  # It lies inside of another one.
        helped, waiting = len(skipped) < len(waiting), skipped
    return reach.given_back_on_the_way(tensor)


class _Reach:
    """Which nodes reach an output by their values, while bypassed parts are given back.

    Args:
        flow: The graph.
        going: Parts that are bypassed.
    """

    def __init__(self, flow: Flow, going: Sequence[Candidate]) -> None:
        self._flow = flow
        self._going: dict[int, list[Candidate]] = {}
        for one in sorted(going, key=extent):
            self._going.setdefault(flow.node(one.exit), []).append(one)
        self._given: dict[int, list[Candidate]] = {}
        self._reader: dict[int, int] = {}
        self._spread([(flow.node(tensor), ROOT) for tensor in flow.graph.outputs])

    def holds(self, tensor: Tensor) -> bool:
        """Whether an output depends on the values of this tensor."""
        return self._flow.node(tensor) in self._reader

    def give_back(self, one: Candidate) -> bool:
        """Count a bypassed part as there again; False where what it leads to is not there itself."""
        node = self._flow.node(one.exit)
        if node not in self._reader:
            return False
        self._going[node].remove(one)
        self._given.setdefault(node, []).append(one)
        self._spread(self._sources(node))
        return True

    def given_back_on_the_way(self, tensor: Tensor) -> list[Candidate]:
        """What was given back and leads from this tensor to an output."""
        node, found = self._flow.node(tensor), []
        while node in self._reader:
            found += self._given.get(node, [])
            node = self._reader[node]
        return found

    def _spread(self, nodes: list[tuple[int, int]]) -> None:
        while nodes:
            node, reader = nodes.pop()
            if node in self._reader or not self._flow.carries[node]:
                continue
            self._reader[node] = reader
            nodes += self._sources(node)

    def _sources(self, node: int) -> list[tuple[int, int]]:
        """What a node depends on as things stand, each with the node itself."""
        if not self._going.get(node):
            return [(other, node) for other in self._flow.predecessors[node]]
        entry = self._going[node][-1].entry
        return [] if entry is None else [(self._flow.node(entry), node)]
