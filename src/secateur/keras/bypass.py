"""What of a model could be bypassed: branches of sums, layers and blocks.

A residual network runs on without one of its branches: x + f(x) without f is x. Dropping them at
random while training is stochastic depth (Huang et al., ECCV 2016, arXiv 1603.09382); trained
residual networks stand it, since they behave like ensembles of paths (Veit et al., NeurIPS 2016,
arXiv 1605.06431). Whole blocks of language models are chosen by how little they change what goes
through them (ShortGPT, arXiv 2403.03853, eq. 1: Block Influence 1 - E[cos(x, f(x))]). Differs from
the paper: the change is measured here by mean |f(x) - x| or its kin, so that it is the same figure
as the output of a residual branch, and thresholds mean the same for both.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from secateur.bypass_plan import Offer
from secateur.keras.cut_rules.site import is_array
from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.flow import Flow, is_float, matrices, weights_of
from secateur.regions import regions

_NO_OTHER = "nothing else in its sum has the shape and dtype of the sum and depends on the data"
_MASKS = "it makes a mask, which what follows may read"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A part of a model that could be bypassed.

    Attributes:
        offer: What the plan says about it.
        exit: The tensor that it ends in: the operand of a sum, or what the entry stands in for.
        entry: What stands in for the exit; None for a branch, which is held at zero.
        total: The sum that a branch leads into.
        calls: What it consists of.
    """

    offer: Offer
    exit: Tensor
    entry: Tensor | None
    total: Call | None
    calls: list[Call]

    @property
    def name(self) -> str:
        """Its name, unique in the model."""
        return self.offer.name


def find_candidates(graph: Graph) -> list[Candidate]:
    """Every branch, layer and block of a flat graph that could be bypassed, in order of its end.

    Linear in the graph, up to a logarithm and the depth to which candidates are nested.
    """
    flow = Flow(graph)
    branches = list(_branches(flow))
    inside = {id(exit_): calls for _, exit_, _, _, calls, _ in branches}
    found = [*branches, *_regions(flow, inside)]
    order = {id(call): number for number, call in enumerate(graph.calls)}
    made_by = {id(tensor): order[id(call)] for call in graph.calls for tensor in call.outputs}
    found.sort(key=lambda one: made_by[id(one[1])])
    seen: dict[str, int] = {}
    return [_candidate(*one, seen) for one in found]


def _candidate(
    kind: str,
    exit_: Tensor,
    entry: Tensor | None,
    total: Call | None,
    calls: list[Call],
    reason: str,
    seen: dict[str, int],
) -> Candidate:
    makers = tuple(dict.fromkeys(call.name for call in calls if weights_of(call)))
    first = next((call.name for call in calls if matrices(call)), makers[0])
    name = f"{kind}:{first}"
    seen[name] = seen.get(name, 0) + 1
    unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
    masked = exit_.masked if total is None else total.outputs[0].masked
    made = (entry is not None and not entry.masked) or any(_makes_mask(call) for call in calls)
    if not reason and masked and made:
        reason = _MASKS
    return Candidate(Offer(unique, kind, makers, reason), exit_, entry, total, calls)


def _makes_mask(call: Call) -> bool:
    operation = call.operation
    return isinstance(operation, keras.layers.Masking) or bool(
        getattr(operation, "mask_zero", False)
    )


Found = tuple[str, Tensor, Tensor | None, Call | None, list[Call], str]


def _branches(flow: Flow) -> Iterator[Found]:
    for total in flow.graph.calls:
        operands = summands(total)
        if sum(isinstance(operand, Tensor) for operand in operands) < 2:
            continue
        for position, operand in enumerate(operands):
            if not _is_branch_end(flow, total, position, operand):
                continue
            calls = flow.exclusive(operand)
            if not any(weights_of(call) for call in calls) or _goes_through(flow, operand, calls):
                continue
            others = [other for other in operands if other is not operand]
            alone = not any(carries_sum(flow, total, other) for other in others)
            reason = _NO_OTHER if alone else _reads_alone(flow, operand)
            yield "branch", operand, None, total, calls, reason


def _is_branch_end(flow: Flow, total: Call, position: int, operand: Any) -> bool:
    """Whether an operand is a function of the data that nothing else reads."""
    if not isinstance(operand, Tensor) or any(operand is x for x in flow.graph.inputs):
        return False
    if position == 0 and _kind(total) == "Subtract":
        return False
    return flow.reads[id(operand)] == 1 and flow.carries[flow.node(operand)]


def _goes_through(flow: Flow, operand: Tensor, calls: list[Call]) -> bool:
    """Whether an operand is a sum itself, with an operand from outside: the stream, not a branch."""
    own = {id(tensor) for call in calls for tensor in call.outputs}
    maker = {id(tensor): call for call in calls for tensor in call.outputs}
    waiting: list[Any] = [operand]
    while waiting:
        tensor = waiting.pop()
        if not isinstance(tensor, Tensor) or not flow.carries[flow.node(tensor)]:
            continue
        if id(tensor) not in own:
            return True
        waiting += summands(maker[id(tensor)])
    return False


def _reads_alone(flow: Flow, operand: Tensor) -> str:
    nodes = flow.after.exclusive(flow.node(operand))
    symbols = tree.flatten(flow.graph.input_structure)
    alone = [str(symbols[node].name) for node in nodes if node < len(symbols)]
    return f"nothing else reads the input {alone[0]!r}" if alone else ""


def summands(call: Call) -> list[Any]:
    """Operands of a sum, difference or average; [] for other calls."""
    kind = _kind(call)
    if kind not in ("Add", "Subtract", "Average"):
        return []
    leaves = tree.flatten(call.args or call.kwargs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) or is_array(leaf) or _number(leaf)]


def _number(leaf: Any) -> bool:
    return isinstance(leaf, (int, float)) and not isinstance(leaf, bool)


def _kind(call: Call) -> str:
    stock = type(call.operation).__module__.split(".")[0] == "keras"
    return type(call.operation).__name__ if stock else ""


def carries_sum(flow: Flow, total: Call, operand: Any) -> bool:
    """Whether an operand alone keeps the sum's shape, dtype and mask, and depends on the data."""
    out = total.outputs[0]
    return (
        isinstance(operand, Tensor)
        and operand.shape == out.shape
        and operand.dtype == out.dtype
        and (operand.masked or not out.masked)
        and flow.carries[flow.node(operand)]
    )


def _num_heavy(calls: Iterable[Call]) -> int:
    return sum(matrices(call) is not None for call in calls)


def _regions(flow: Flow, branches: Mapping[int, list[Call]]) -> Iterator[Found]:
    """Layers and blocks, but for those that are all that a branch has: the branch can go itself."""
    alike: list[Hashable] = [
        (item.shape, item.dtype) if isinstance(item, Tensor) and is_float(item) else None
        for item in flow.items
    ]
    final = {id(tensor) for tensor in flow.graph.outputs}
    first = {id(tensor) for tensor in flow.graph.inputs}
    for region in regions(flow.stream(), flow.after, alike, flow.heavy):
        entry, exit_ = flow.items[region.entry], flow.items[region.exit]
        assert isinstance(entry, Tensor)
        assert isinstance(exit_, Tensor)
        calls = flow.calls(region.members)
        if _num_heavy(calls) == _num_heavy(branches.get(id(exit_), ())):
            continue
        reason = ""
        if id(exit_) in final and (region.kind == "layer" or id(entry) in first):
            reason = "it makes an output of the model"
        yield region.kind, exit_, entry, None, calls, reason
