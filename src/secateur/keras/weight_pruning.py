"""Prune the weights of a Keras model by what can be told of them without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from secateur.criteria import Path
from secateur.errors import InvalidArgumentError
from secateur.keras.chains import require_chain
from secateur.keras.choosing import Selection, arrays_of, choose
from secateur.keras.keeping import keep_zeros
from secateur.keras.results import Result
from secateur.keras.tensors import FoundTensors, find_tensors
from secateur.keras.variables import empty_like, give_array
from secateur.plan import PrunePlan
from secateur.pruning import (
    Progress,
    Request,
    Tensors,
    apply_plan,
    array_targets,
    make_plan,
    rank,
)
from secateur.report import Left, PruneReport
from secateur.selection import Ranked

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


@dataclass(frozen=True)
class How:
    """How much is to go, as a user says it; see `prune`."""

    sparsity: float | Mapping[Any, float] | None = None
    threshold: float | None = None
    count: int | None = None
    scope: str | Mapping[Any, str] | None = None


@dataclass(frozen=True)
class Prepared:
    """The chosen tensors of one model and what is compared."""

    tensors: Tensors
    ranked: Ranked
    plan: PrunePlan
    left: tuple[Left, ...]


def prepare(model: Model, request: Request, how: How, selection: Selection) -> Prepared:
    """Choose the weights of a model, score them and decide what goes."""
    chosen = choose(model, selection, request.pattern, how.sparsity)
    sparsity = chosen.spread(how.sparsity)
    scope = chosen.spread("global" if how.scope is None else how.scope)
    tensors = arrays_of(chosen.tensors)
    groups = array_targets(chosen.names, request.pattern, scope, sparsity, how.threshold, how.count)
    ranked = rank_model(model, chosen.found, tensors, request)
    return Prepared(tensors, ranked, make_plan(tensors, ranked, request, groups), chosen.left)


def rank_model(model: Model, found: FoundTensors, tensors: Tensors, request: Request) -> Ranked:
    """What is compared, for the chosen tensors of a model."""
    if not isinstance(request.criterion, Path):
        return rank(tensors, request)
    # A path runs through every matrix of the chain, those that are not pruned among them.
    chain = arrays_of(require_chain(model, found))
    if missing := tensors.arrays.keys() - chain.arrays.keys():
        raise InvalidArgumentError(
            f"Criterion 'path' scores the kernels of a chain of Dense layers; {sorted(missing)} are "
            "not among them. Exclude them or choose another criterion."
        )
    ranked = rank(chain, request)
    return Ranked({name: ranked.arrays[name] for name in tensors.arrays}, ranked.order)


def apply(
    plan: PrunePlan,
    model: Model,
    left: tuple[Left, ...],
    prepared: Prepared | None,
    progress: Progress | None,
) -> Result:
    """Prune a model's own weights by a plan; what it was made of is used again if it is at hand."""
    by_name = {tensor.name: tensor for tensor in find_tensors(model).tensors}
    if missing := plan.tensors.keys() - by_name.keys():
        raise InvalidArgumentError(
            f"The plan names weights that the model does not have: {sorted(missing)[:5]}; "
            "make a new plan."
        )
    chosen = [by_name[name] for name in plan.tensors]
    tensors = arrays_of(chosen) if prepared is None else prepared.tensors
    ranked = None if prepared is None else prepared.ranked
    if ranked is None and isinstance(plan.criterion, Path):
        request = Request(plan.criterion, plan.pattern, plan.norm)
        ranked = rank_model(model, find_tensors(model), tensors, request)
    out = {name: empty_like(array) for name, array in tensors.arrays.items()}
    masks, report = apply_plan(plan, tensors, out, ranked=ranked, progress=progress)
    for name in masks:  # nothing is written before everything is known
        give_array(by_name[name].variable, out[name])
    keep_zeros(model, masks)
    return Result(model, masks, PruneReport(report.tensors, left), plan)
