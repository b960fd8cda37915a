"""In which order weights can be looked at: when all that goes into them is settled.

The level of a tensor is the number of weights to be changed that lie one after another on the way to it.
Weights whose inputs are of one level do not depend on each other: they are looked at side by side, and
those with the same inputs share their statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.padding import Padding
from secateur.keras.residuals import added_to
from secateur.keras.taps import Tap, taps_of


@dataclass(frozen=True, eq=False)
class Inlet:
    """What goes into a weight at one call.

    Attributes:
        call: The call.
        tap: Of the weight.
        position: Which of the call's taps it is; a later one may see what became of an earlier.
        added: What the call's output is added to, where the weight is to make up for what that lost.
    """

    call: Call
    tap: Tap
    position: int
    added: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Member:
    """A weight, and its tap at the first call that uses it."""

    variable: Any
    tap: Tap


@dataclass(eq=False)
class TapGroup:
    """Weights with the same inputs.

    Attributes:
        members: The weights.
        inlets: Where their inputs can be seen; the same for all of them.
        later: Further uses of the same weights, deeper in the model, where what comes in depends on
            what is made of the weights here.
        level: When the inlets are settled.
        position: Which of the weights of a call they are; earlier ones are changed before.
    """

    members: list[Member]
    inlets: list[Inlet]
    later: list[Inlet]
    level: int
    position: int

    @property
    def groups(self) -> int:
        """Runs of rows of the matrices that have inputs of their own."""
        return self.inlets[0].tap.groups


@dataclass(eq=False)
class Schedule:
    """The order of a walk.

    Attributes:
        passes: Calls that run in each pass, in an order in which they can; the ones whose weights were
            looked at after the pass before come in the next.
        groups: What is looked at after each pass.
        untapped: Wanted weights that no call of the graph shows the inputs of, by identity.
        last_pass: The last pass that needs a tensor, by identity; tensors that none needs are left out.
        masks: Masks of the graph that count for a call whose weights are looked at, by its identity.
        constant: Tensors that do not depend on data, by identity.
    """

    passes: list[list[Call]]
    groups: list[list[TapGroup]]
    untapped: set[int]
    last_pass: dict[int, int]
    masks: dict[int, list[Tensor]]
    constant: set[int]

    @property
    def all_groups(self) -> list[TapGroup]:
        """Every group, in the order of the walk."""
        return [group for level in self.groups for group in level]


def make_schedule(
    graph: Graph,
    wanted: Collection[int],
    padding: Padding,
    more_taps: Callable[[Call], Tap | None] | None = None,
    *,
    residuals: bool = False,
    to_outputs: bool = False,
) -> Schedule:
    """Order the calls of a graph for a walk.

    Args:
        graph: What `open_graph` made of a model.
        wanted: Identities of the variables that are to be changed.
        padding: Which masks count for which call.
        more_taps: Tap of a call whose layer has no weight matrices.
        residuals: Whether weights whose output is added to something are shown that, too.
        to_outputs: Whether the walk must be able to go on to the model's outputs from everywhere.
    """
    inlets = {id(call): _wanted_taps(call, wanted, more_taps) for call in graph.calls}
    levels, of_tensor = _levels(graph, inlets)
    if residuals:
        _show_sums(graph, inlets, levels, of_tensor)
    masks = {
        id(call): [t for t in padding.tensors(call) if of_tensor.get(id(t), 0) <= levels[id(call)]]
        for call in graph.calls
        if inlets[id(call)]
    }
    groups = _groups(graph.calls, inlets, levels, padding)
    num_passes = 1 + max((group.level for group in groups), default=-1)
    useful = _useful(graph, inlets, masks, graph.outputs if to_outputs else ())
    passes: list[list[Call]] = [[] for _ in range(num_passes)]
    last_pass: dict[int, int] = {}
    for call in graph.calls:
        if id(call) not in useful:
            continue
        runs = levels[id(call)] + bool(inlets[id(call)])
        added = (inlet.added for inlet in inlets[id(call)] if inlet.added is not None)
        for tensor in (*call.inputs, *masks.get(id(call), ()), *added):
            last_pass[id(tensor)] = max(runs, last_pass.get(id(tensor), 0))
        if runs < num_passes:
            passes[runs].append(call)
    for tensor in graph.outputs if to_outputs else ():
        last_pass[id(tensor)] = num_passes
    by_level = [[g for g in groups if g.level == number] for number in range(num_passes)]
    for found in by_level:
        found.sort(key=lambda group: group.position)
    seen = {id(member.variable) for group in groups for member in group.members}
    return Schedule(passes, by_level, set(wanted) - seen, last_pass, masks, _constant(graph))


def _wanted_taps(
    call: Call, wanted: Collection[int], more_taps: Callable[[Call], Tap | None] | None
) -> list[Inlet]:
    taps = taps_of(call)
    if not taps and more_taps is not None:
        taps = [tap for tap in [more_taps(call)] if tap is not None]
    # Those of one origin take the same rows, so they are looked at together.
    first = {tap.origin: position for position, tap in reversed(list(enumerate(taps)))}
    return [Inlet(call, tap, first[tap.origin]) for tap in taps if id(tap.variable) in wanted]


def _show_sums(
    graph: Graph,
    inlets: dict[int, list[Inlet]],
    levels: dict[int, int],
    of_tensor: dict[int, int],
) -> None:
    """Say what outputs are added to, for weights of one use, where both networks know it by then."""
    uses = Counter(id(inlet.tap.variable) for found in inlets.values() for inlet in found)
    for number, call in enumerate(graph.calls):
        found = inlets[id(call)]
        if len(found) != 1 or uses[id(found[0].tap.variable)] != 1 or not levels[id(call)]:
            continue
        other = added_to(graph, number)
        # At level 0 nothing has changed yet.
        if other is not None and of_tensor.get(id(other), 0) <= levels[id(call)]:
            inlets[id(call)] = [replace(found[0], added=other)]


def _levels(graph: Graph, inlets: dict[int, list[Inlet]]) -> tuple[dict[int, int], dict[int, int]]:
    """Level of what goes into each call, and of each tensor."""
    of_tensor: dict[int, int] = {}
    levels = {}
    for call in graph.calls:
        level = max((of_tensor.get(id(tensor), 0) for tensor in call.inputs), default=0)
        levels[id(call)] = level
        for tensor in call.outputs:
            of_tensor[id(tensor)] = level + bool(inlets[id(call)])
    return levels, of_tensor


def _groups(
    calls: list[Call], inlets: dict[int, list[Inlet]], level: dict[int, int], padding: Padding
) -> list[TapGroup]:
    uses: dict[int, list[Inlet]] = {}
    for call in calls:
        for inlet in inlets[id(call)]:
            uses.setdefault(id(inlet.tap.variable), []).append(inlet)
    groups: dict[Hashable, TapGroup] = {}
    for found in uses.values():
        first = min(level[id(inlet.call)] for inlet in found)
        now = [inlet for inlet in found if level[id(inlet.call)] == first]
        later = [inlet for inlet in found if level[id(inlet.call)] > first]
        origins = tuple(
            tuple((inlet.tap.origin, padding.key(inlet.call)) for inlet in part)
            for part in (now, later)
        )
        # What makes up for a sum has a target of its own.
        added = None if now[0].added is None else id(now[0].tap.variable)
        key = (first, now[0].position, now[0].tap.groups, added, *origins)
        group = groups.setdefault(key, TapGroup([], now, later, first, now[0].position))
        group.members.append(Member(now[0].tap.variable, now[0].tap))
    return list(groups.values())


def _useful(
    graph: Graph,
    inlets: dict[int, list[Inlet]],
    masks: dict[int, list[Tensor]],
    outputs: Iterable[Tensor],
) -> set[int]:
    """Calls that something wanted, or some outputs, depend on, and the wanted ones."""
    made_by = {id(tensor): call for call in graph.calls for tensor in call.outputs}
    useful: set[int] = set()
    pending = [call for call in graph.calls if inlets[id(call)]]
    pending += [made_by[id(tensor)] for tensor in outputs if id(tensor) in made_by]
    while pending:
        call = pending.pop()
        if id(call) in useful:
            continue
        useful.add(id(call))
        added = (inlet.added for inlet in inlets[id(call)] if inlet.added is not None)
        read = (*call.inputs, *masks.get(id(call), ()), *added)
        makers = (made_by.get(id(tensor)) for tensor in read)
        pending.extend(maker for maker in makers if maker is not None)
    return useful


def _constant(graph: Graph) -> set[int]:
    varying = {id(tensor) for tensor in graph.inputs}
    constant: set[int] = set()
    for call in graph.calls:
        ids = {id(tensor) for tensor in call.inputs}
        outputs = {id(tensor) for tensor in call.outputs}
        if ids & varying:
            varying |= outputs
        else:
            constant |= outputs
    return constant
