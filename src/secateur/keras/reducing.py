"""A flat graph without what is bypassed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
from keras import tree
from keras.src.ops.numpy import Copy

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
    unmasked: dict[int, list[Call]] = {}
    for one in sorted(chosen, key=extent):
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


def extent(one: Candidate) -> tuple[bool, int]:
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
