"""Everything known about one model that is to be cut: its flat graph, slots, units and groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from secateur.cut_choosing import unique_names
from secateur.cut_plan import GroupCut
from secateur.errors import NonFiniteError
from secateur.groups import Group, Units, groups_of, solve
from secateur.keras.bypass import Candidate, find_candidates
from secateur.keras.cut_rules import Kept, is_leaf, opener_of
from secateur.keras.describe import Description, describe
from secateur.keras.flatten import Graph, flatten
from secateur.keras.holding import held_original
from secateur.keras.reducing import Reduction, reduced
from secateur.keras.variables import read_array


@dataclass(frozen=True, eq=False)
class Bench:
    """A model, ready to be planned and cut.

    Attributes:
        graph: The original as flat calls.
        candidates: Branches, layers and blocks that could be bypassed.
        reduction: The graph without those that are bypassed.
        description: Slots and ties of that graph.
        original: The original graph with the same slots, for the proof.
        units: What goes together.
        groups: Units that are ranked together.
        names: Of the groups.
    """

    graph: Graph
    candidates: list[Candidate]
    reduction: Reduction
    description: Description
    original: Description
    units: Units
    groups: list[Group]
    names: list[str]


def open_bench(model: keras.Model, sample: Any = None) -> Bench:
    """Trace a model and settle its ties; nothing is bypassed yet.

    Raises:
        UnsupportedModelError: The model is not built or cannot be traced.
    """
    graph = flatten(model, is_leaf, opener_of, sample)
    return _bench(graph, find_candidates(graph), ())


def without(bench: Bench, bypassed: frozenset[str]) -> Bench:
    """The bench of the same model without the candidates of these names.

    Raises:
        InvalidArgumentError: They cannot go together.
    """
    if bypassed == bench.reduction.names:
        return bench
    chosen = [one for one in bench.candidates if one.name in bypassed]
    return _bench(bench.graph, bench.candidates, chosen)


def _bench(graph: Graph, candidates: list[Candidate], chosen: Any) -> Bench:
    reduction = reduced(graph, chosen)
    description = describe(reduction.graph)
    original = held_original(description, reduction)
    units = solve(description.network)
    groups = groups_of(description.network, units)
    names = unique_names(groups)
    return Bench(graph, candidates, reduction, description, original, units, groups, names)


def weight_arrays(description: Description) -> dict[str, npt.NDArray[np.float32]]:
    """The weights that rules know, by their keys in the network.

    Raises:
        NonFiniteError: One of them is NaN or infinite.
    """
    arrays = {}
    for site in description.sites:
        for variable, _ in site.weights:
            array = read_array(variable).astype(np.float32)
            if not np.isfinite(array).all():
                raise NonFiniteError(
                    f"The weight {variable.path!r} of layer {site.name!r} holds NaN or infinite values; "
                    "mend the model before cutting."
                )
            arrays[site.keys[id(variable)]] = array
    return arrays


def kept_slots(cuts: tuple[GroupCut, ...], bench: Bench) -> Kept:
    """Which slots stay, if these cuts are made."""
    keep = np.ones(bench.units.num_units, np.bool_)
    for group, own in zip(bench.groups, cuts, strict=True):
        keep[group.units[list(own.removed)]] = False
    return Kept(keep[bench.units.unit_of])
