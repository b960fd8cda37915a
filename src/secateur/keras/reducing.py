"""A flat graph without what is bypassed, and what must not be bypassed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import tree
from keras.src.ops.numpy import Multiply

from secateur.bypass_plan import Bypass
from secateur.errors import InvalidArgumentError
from secateur.keras.bypass import Candidate, carries_sum, summands
from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.flow import Flow


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
    for one in chosen:
        result.instead[id(one.exit)] = one.entry
        if one.entry is None:
            zero.add(id(one.exit))
        else:
            result._alias[id(one.exit)] = one.entry
    flow = Flow(graph)
    calls = []
    for call in graph.calls:
        heirs = _heirs(call, zero, result, flow)
        if len(heirs) == 1 and heirs[0].operation is call.operation:
            result.heirs[id(call)] = heirs[0]
        calls += heirs
    structure = tree.map_structure(lambda leaf: _now(leaf, result), graph.output_structure)
    new = replace(graph, output_structure=structure)
    new.calls = _alive(calls, new.outputs)
    result.graph = new
    return result


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
    if isinstance(call.operation, keras.layers.Average):
        return _share(call, now, len(operands))
    if len(now) == 1:
        reduction._alias.setdefault(id(out), now[0])
        return []
    return [replace(call, args=(now,), kwargs={})]


def _share(call: Call, left: list[Any], count: int) -> list[Call]:
    """An average of `count` operands of which some are zero: what is left, over `count`."""
    scale, scaled, before = len(left) / count, left[0], []
    if len(left) > 1:
        out = call.outputs[0]
        scaled = Tensor(out.shape, out.dtype)
        before = [replace(call, args=(left,), kwargs={}, outputs=[scaled])]
    times: Any = Multiply()
    return [*before, replace(call, operation=times, args=(scaled, scale), kwargs={})]


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
    """Give back the strongest as long as an output is no longer reached from some input."""
    reach = _Reach(flow, {})
    before = [tensor for tensor in flow.graph.inputs if reach.holds(tensor)]
    reach = _Reach(flow, {id(one.exit): one.entry for one in going})
    held: dict[str, str] = {}
    waiting, helped = list(going), True
    while waiting and helped:
        helped, skipped = False, []
        for one in waiting:
            lost = [number for number, x in enumerate(before) if not reach.holds(x)]
            if not lost:
                return held
            if not reach.give_back(one):
                skipped.append(one)  # inside of another one, or nothing new comes through it
                continue
            helped = True
            name = tree.flatten(flow.graph.input_structure)[lost[0]].name
            held[one.name] = f"held back: without it less depends on the input {name!r}"
        waiting = skipped
    return held


class _Reach:
    """Which tensors reach an output by their values, while bypassed parts are given back."""

    def __init__(self, flow: Flow, instead: Mapping[int, Tensor | None]) -> None:
        self._flow = flow
        self._instead = dict(instead)
        self._reached: set[int] = set()
        self._spread([flow.node(tensor) for tensor in flow.graph.outputs])

    def holds(self, tensor: Tensor) -> bool:
        """Whether an output depends on the values of this tensor."""
        return self._flow.node(tensor) in self._reached

    def give_back(self, one: Candidate) -> bool:
        """Count a bypassed part as there again; False where that makes no difference."""
        node = self._flow.node(one.exit)
        if node not in self._reached:
            return False
        self._instead.pop(id(one.exit), None)
        size = len(self._reached)
        self._spread(self._flow.predecessors[node])
        return len(self._reached) > size

    def _spread(self, nodes: Sequence[int]) -> None:
        stack = list(nodes)
        while stack:
            node = stack.pop()
            if node in self._reached or not self._flow.carries[node]:
                continue
            self._reached.add(node)
            item = self._flow.items[node]
            if id(item) in self._instead:
                entry = self._instead[id(item)]
                stack += [] if entry is None else [self._flow.node(entry)]
            else:
                stack += self._flow.predecessors[node]
