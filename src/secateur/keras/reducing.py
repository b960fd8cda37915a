"""A flat graph without what is bypassed, and what must not be bypassed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import tree
from keras.src.ops.numpy import Copy

from secateur.bypass_plan import Bypass
from secateur.errors import InvalidArgumentError
from secateur.keras.bypass import Candidate, carries_sum, summands
from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.flow import Flow
from secateur.regions import ROOT


@dataclass(eq=False)
class Reduction:
    """A graph with some candidates bypassed.

    Attributes:
        graph: What is left: calls that an output still needs.
        original: The graph it was made from.
        names: Of what was bypassed.
        heirs: By identity of an original call, the call that does its work now.
        instead: By identity of a tensor of the original, what it counts as: None = zero.
    """

    graph: Graph
    original: Graph
    names: frozenset[str] = frozenset()
    heirs: dict[int, Call] = field(default_factory=dict)
    instead: dict[int, Tensor | None] = field(default_factory=dict)
    _alias: dict[int, Tensor] = field(default_factory=dict)

    def heir(self, tensor: Tensor) -> Tensor:
        """The tensor that is read now where this one was."""
        while id(tensor) in self._alias:
            tensor = self._alias[id(tensor)]
        return tensor


def reduced(graph: Graph, chosen: Sequence[Candidate]) -> Reduction:
    """Bypass candidates: sums lose operands, exits are replaced by entries, dead calls vanish.

    Raises:
        InvalidArgumentError: A sum would lose all that gives it its shape.
    """
    if not chosen:
        return Reduction(graph, graph, heirs={id(call): call for call in graph.calls})
    result = Reduction(graph, graph, frozenset(one.name for one in chosen))
    zero: set[int] = set()
    unmasked: dict[int, list[Call]] = {}
    for one in sorted(chosen, key=_extent):
        result.instead[id(one.exit)] = one.entry
        if one.entry is None:
            zero.add(id(one.exit))
            continue
        result._alias[id(one.exit)] = one.entry
        if one.entry.masked and not one.exit.masked:
            copied = _Steps(one.exit)
            result._alias[id(one.exit)] = copied.then(Copy(), (one.entry,), False)
            unmasked[id(one.exit)] = copied.calls
    flow = Flow(graph)
    calls: list[Call] = []
    for call in graph.calls:
        heirs = _heirs(call, zero, result, flow)
        if len(heirs) == 1 and heirs[0].operation is call.operation:
            result.heirs[id(call)] = heirs[0]
        calls += heirs
        for tensor in call.outputs:
            calls += [_readdressed(own, result) for own in unmasked.get(id(tensor), ())]
    structure = tree.map_structure(lambda leaf: _now(leaf, result), graph.output_structure)
    new = replace(graph, output_structure=structure)
    new.calls = _alive(calls, new.outputs)
    result.graph = new
    return result


def _extent(one: Candidate) -> tuple[bool, int]:
    """Of those with one end the last by this order takes the others along."""
    return one.entry is None, len(one.calls)


def _now(leaf: Any, reduction: Reduction) -> Any:
    return reduction.heir(leaf) if isinstance(leaf, Tensor) else leaf


def _heirs(call: Call, zero: set[int], reduction: Reduction, flow: Flow) -> list[Call]:
    """What does the work of a call now; nothing where its output is one of its operands."""
    operands = summands(call)
    left = [operand for operand in operands if id(operand) not in zero]
    if len(left) == len(operands):
        return [_readdressed(call, reduction)]
    if not any(carries_sum(flow, call, operand) for operand in left):
        raise InvalidArgumentError(
            f"All operands of {call.name!r} that give it its shape would go; one must stay."
        )
    now = [_now(operand, reduction) for operand in left]
    out = call.outputs[0]
    steps, value = _Steps(out), now[0]
    if len(now) > 1:
        value = steps.then(call.operation, (now,), all(operand.masked for operand in now))
    if isinstance(call.operation, keras.layers.Average):
        # What is left is an average over fewer; the operands that are zero counted, too.
        scale = keras.layers.Rescaling(len(now) / len(operands), dtype=call.operation.dtype_policy)
        value = steps.then(scale, (value,), value.masked)
    if value.masked and not out.masked:
        value = steps.then(Copy(), (value,), False)
    if not steps.calls:
        reduction._alias.setdefault(id(out), value)
    return steps.ending_in(out)


class _Steps:
    """New calls one after the other, of which each gives a tensor like a given one."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self.calls: list[Call] = []

    def then(self, operation: Any, args: tuple[Any, ...], masked: bool) -> Tensor:
        """Add a call; ops drop masks, layers hand them on."""
        tensor = Tensor(self._like.shape, self._like.dtype, masked)
        self.calls.append(Call(operation, args, {}, [tensor], tensor))
        return tensor

    def ending_in(self, tensor: Tensor) -> list[Call]:
        """The calls, the last of which gives this tensor."""
        last = self.calls[-1:]
        return [*self.calls[:-1], *(replace(call, outputs=[tensor]) for call in last)]


def _readdressed(call: Call, reduction: Reduction) -> Call:
    changed = False

    def now(leaf: Any) -> Any:
        nonlocal changed
        other = _now(leaf, reduction)
        changed = changed or other is not leaf
        return other

    args, kwargs = tree.map_structure(now, (call.args, call.kwargs))
    return replace(call, args=args, kwargs=kwargs) if changed else call


def _alive(calls: list[Call], outputs: list[Tensor]) -> list[Call]:
    needed = {id(tensor) for tensor in outputs}
    alive = []
    for call in reversed(calls):
        if any(id(tensor) in needed for tensor in call.outputs):
            alive.append(call)
            needed.update(id(tensor) for tensor in call.inputs)
    return alive[::-1]


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
        for one in sorted(going, key=_extent):
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
