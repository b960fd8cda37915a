"""From ties to units (slots that go together) and groups (units that are alike and ranked together)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from secateur.network import Labels, Network, Product

_OPEN = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Units:
    """What goes together.

    Attributes:
        unit_of: Per slot, its unit.
        num_units: How many there are.
        reason_of: Per unit, an index into `reasons`, or -1 where it may be cut.
        reasons: Why units are frozen.
    """

    unit_of: npt.NDArray[np.int64]
    num_units: int
    reason_of: npt.NDArray[np.int64]
    reasons: tuple[str, ...]

    @property
    def free(self) -> npt.NDArray[np.bool_]:
        """Per unit, whether it may be cut."""
        return self.reason_of < 0


@dataclass(frozen=True, eq=False)
class Group:
    """Units that index the same axes of the same weights, so any of them can go.

    Attributes:
        name: The operations that make them, joined by "+".
        makers: Those operations.
        kind: What a unit is: "neuron", "channel", "unit", "head", "embedding".
        units: Unit numbers, in order of position.
        span: Positions of the makers' axis that one unit takes.
        reason: Why none may be cut, or "".
        is_output: Whether the units are an output of the model, which nobody would cut.
    """

    name: str
    makers: tuple[str, ...]
    kind: str
    units: npt.NDArray[np.int64]
    span: int
    reason: str = ""
    is_output: bool = False


def solve(network: Network) -> Units:
    """Settle all ties. Linear in the number of slots and ties.

    A split axis has one factor that is cut; which one is chosen here, after all freezes are known:
    a
    factor that is free, rather one whose positions are not summed over, rather one that an axis
    tied to it already uses.
    """
    reasons: dict[str, int] = {}
    first = _components(network, network.ties)
    frozen = _frozen(first, network.frozen, reasons)
    ties, freezes = _settle_products(network, first, frozen < 0)
    unit_of = _components(network, [*network.ties, *ties])
    reason_of = _frozen(unit_of, [*network.frozen, *freezes], reasons)
    return Units(unit_of, int(unit_of.max(initial=-1)) + 1, reason_of, tuple(reasons))


def _components(network: Network, ties: list[tuple[Labels, Labels]]) -> npt.NDArray[np.int64]:
    size = network.num_slots
    if not ties:
        return np.arange(size, dtype=np.int64)
    rows = np.concatenate([one for one, _ in ties])
    cols = np.concatenate([two for _, two in ties])
    graph = coo_array((np.ones(rows.size, np.int8), (rows, cols)), shape=(size, size))
    _, labels = connected_components(graph, directed=False)
    return _by_first_slot(labels.astype(np.int64))


def _by_first_slot(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number components in the order in which their first slots stand."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(first.size, np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(first.size)
    return np.asarray(rank[inverse], np.int64)


def _frozen(
    unit_of: npt.NDArray[np.int64],
    freezes: list[tuple[Labels, str]],
    reasons: dict[str, int],
) -> npt.NDArray[np.int64]:
    found = np.full(int(unit_of.max(initial=-1)) + 1, _OPEN, np.int64)
    for labels, reason in freezes:
        units = unit_of[labels]
        found[units] = np.minimum(found[units], reasons.setdefault(reason, len(reasons)))
    return np.where(found == _OPEN, -1, found)


def _settle_products(
    network: Network, unit_of: npt.NDArray[np.int64], free: npt.NDArray[np.bool_]
) -> tuple[list[tuple[Labels, Labels]], list[tuple[Labels, str]]]:
    mixed = np.zeros(free.size, np.bool_)
    for labels in network.mixed:
        mixed[unit_of[labels]] = True
    chosen = np.zeros(free.size, np.bool_)
    choices: dict[int, int] = {}

    def rank(labels: Labels) -> tuple[bool, bool, bool]:
        units = unit_of[labels]
        return bool(free[units].all()), bool(chosen[units].any()), not mixed[units].any()

    def decide(number: int, product: Product) -> None:
        ranks = [rank(own) for own, _ in product.factors]
        best = max(range(len(ranks)), key=lambda index: (ranks[index], index))
        choices[number] = best
        chosen[unit_of[product.factors[best][0]]] = True

    waiting = list(enumerate(network.products))
    decisive = [item for item in waiting if _decided(item[1], unit_of, free, mixed)]
    for number, product in decisive:
        decide(number, product)
    for number, product in waiting:
        if number not in choices and product.factors:
            decide(number, product)
    ties: list[tuple[Labels, Labels]] = []
    freezes: list[tuple[Labels, str]] = []
    for number, product in waiting:
        if not product.factors:
            freezes.append((product.whole, "no factor of a split axis can be cut"))
            continue
        for index, (own, spread_out) in enumerate(product.factors):
            if index == choices[number]:
                ties.append((product.whole, spread_out))
            else:
                freezes.append((own, "the other factor of a split axis is the one that is cut"))
    return ties, freezes


def _decided(
    product: Product,
    unit_of: npt.NDArray[np.int64],
    free: npt.NDArray[np.bool_],
    mixed: npt.NDArray[np.bool_],
) -> bool:
    candidates = [unit_of[own] for own, _ in product.factors if free[unit_of[own]].all()]
    return len([units for units in candidates if not mixed[units].any()]) == 1


def groups_of(network: Network, units: Units) -> list[Group]:
    """Group the units that makers make, frozen ones with their reason, in order of first slot."""
    signature, span = _signatures(network, units)
    makers = _makers(network, units)
    outputs = np.zeros(units.num_units, np.bool_)
    for labels in network.outputs:
        outputs[units.unit_of[labels]] = True
    order: dict[tuple[int, int], list[int]] = {}
    for unit in np.unique(units.unit_of):
        key = (int(signature[unit]), int(units.reason_of[unit]))
        order.setdefault(key, []).append(int(unit))
    groups = []
    for (_, reason), members in order.items():
        names, kind = makers(members[0])
        if not names:
            continue
        groups.append(
            Group(
                name="+".join(names),
                makers=names,
                kind=kind,
                units=np.array(members, np.int64),
                span=int(span[members[0]]),
                reason=units.reasons[reason] if reason >= 0 else "",
                is_output=bool(outputs[members].any()),
            )
        )
    return groups


def _signatures(
    network: Network, units: Units
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Per unit, a hash of the axes it indexes (equal = alike), and its positions on a maker's axis."""
    random = np.random.default_rng(0x5EC)
    signature = np.zeros(units.num_units, np.uint64)
    span = np.zeros(units.num_units, np.int64)

    def add(labels: Labels) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        # Only the units that are there are touched: the cost of all axes is that of their positions.
        own, counts = np.unique(units.unit_of[labels], return_counts=True)
        number = random.integers(1, 2**63, dtype=np.uint64)
        with np.errstate(over="ignore"):
            signature[own] += counts.astype(np.uint64) * number
        return own, counts.astype(np.int64)

    for origin in network.origins:
        own, counts = add(origin.labels)
        if origin.makes_units:
            span[own] = np.maximum(span[own], counts)
    for weight in network.weights.values():
        for labels in weight.axes:
            if labels is not None:
                add(labels)
    return signature, span


def _makers(network: Network, units: Units) -> Callable[[int], tuple[tuple[str, ...], str]]:
    starts = np.array([origin.start for origin in network.origins], np.int64)
    by_unit = np.argsort(units.unit_of, kind="stable")
    bounds = np.searchsorted(units.unit_of[by_unit], np.arange(units.num_units + 1))

    def makers(unit: int) -> tuple[tuple[str, ...], str]:
        slots = np.sort(by_unit[bounds[unit] : bounds[unit + 1]])
        numbers = np.unique(np.searchsorted(starts, slots, side="right") - 1)
        origins = [network.origins[number] for number in numbers]
        names = dict.fromkeys(origin.name for origin in origins if origin.makes_units)
        kinds = [origin.kind for origin in origins if origin.makes_units]
        kind = "head" if any(origin.kind == "factor" for origin in origins) else ""
        return tuple(names), kind or (kinds[0] if kinds else "")

    return makers
