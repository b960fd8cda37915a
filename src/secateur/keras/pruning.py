"""Prune a Keras model: find its weight matrices, plan and apply over their arrays, write them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from secateur.arrays import Array
from secateur.criteria import Criterion, Path, get_criterion
from secateur.errors import InvalidArgumentError
from secateur.keras.chains import require_chain
from secateur.keras.cloning import clone_model
from secateur.keras.keeping import keep_zeros
from secateur.keras.selecting import Selector, resolve_targets, select_tensors
from secateur.keras.tensors import FoundTensors, WeightTensor, find_tensors
from secateur.keras.variables import empty_like, give_array, read_array
from secateur.keras.walk import is_graph
from secateur.patterns import Pattern, Unstructured, parse_pattern
from secateur.plan import PrunePlan
from secateur.pruning import (
    Progress,
    Request,
    Tensors,
    apply_plan,
    array_targets,
    make_plan,
    rank,
    warn_if_short,
)
from secateur.report import Left, PruneReport
from secateur.selection import Norm, Ranked

if TYPE_CHECKING:
    from secateur.keras.protocols import Model

Selectors: TypeAlias = "Selector | Iterable[Selector] | None"


@dataclass(frozen=True)
class Result:
    """A pruned model and what was done to it.

    Attributes:
        model: An ordinary Keras model.
        masks: Weight name -> boolean array of the weight's shape, True = kept.
        report: Per weight: shape, sparsity asked for and reached, threshold, largest saliency that
            went and smallest that stayed; and what was left as it is, with the reason.
        plan: What was decided.
    """

    model: Any
    masks: dict[str, Array]
    report: PruneReport
    plan: PrunePlan


@dataclass(frozen=True)
class ModelPrunePlan:
    """What is to go from a model, and why; nothing has changed yet.

    Attributes:
        model: The model it was made for.
        plan: The decisions; `plan.to_json()` saves them.
        left: What will be left as it is, with the reason.
    """

    model: Any
    plan: PrunePlan
    left: tuple[Left, ...]

    def apply(self, *, inplace: bool = False) -> Result:
        """Prune a copy of the model, or with `inplace` the model itself.

        Raises:
            InvalidArgumentError: The model's weights no longer have the shapes the plan was made for.
        """
        target = self.model if inplace else clone_model(self.model)
        return _apply(self.plan, target, self.left, None, None)

    def __str__(self) -> str:
        return "\n".join(
            [
                str(self.plan),
                *(f"  left as it is: {left.name}: {left.reason}" for left in self.left),
            ]
        )


@dataclass(frozen=True)
class _Prepared:
    """The chosen tensors of one model and what is compared."""

    tensors: Tensors
    ranked: Ranked
    plan: PrunePlan
    left: tuple[Left, ...]


def prune(
    model: Model,
    *,
    sparsity: float | Mapping[Any, float] | None = None,
    threshold: float | None = None,
    count: int | None = None,
    criterion: str | Criterion = "magnitude",
    pattern: str | Pattern = "unstructured",
    scope: str | Mapping[Any, str] = "global",
    norm: Norm = "l2",
    include: Selectors = None,
    exclude: Selectors = None,
    inplace: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Zero the least salient weights of a Keras model.

    Kernels of dense, convolutional, recurrent and attention layers are pruned, wherever they stand in
    nested models and wrappers; embeddings and custom weights if `include` names them; biases and
    normalisation only by their own name ("dense/bias").

    Args:
        model: A built model: Sequential, functional or subclassed. A subclassed model comes back as a
            functional model of the same layers (unless `inplace`).
        sparsity: Fraction of zeros over the chosen weights, 0 to 1: exactly `round(sparsity * size)` go.
            Or a mapping of layer name, weight name or pattern to the fraction for each of its weights;
            what it does not name is left.
        threshold: Weights with a saliency strictly below go.
        count: Exactly this many weights (or blocks) go.
        criterion: "magnitude", "random", "path" (for models that are one chain of Dense layers) or a
            `Criterion`.
        pattern: "unstructured", "n:m" (n kept of m consecutive inputs; its own target) or "block:RxC"
            (R outputs by C inputs).
        scope: What is ranked together: "global", "layer" (each weight matrix alone), or a mapping of
            layer name or pattern to the name of a group.
        norm: How a block's saliency is made of its weights': "l1" or "l2".
        include: Layers, layer types, names or patterns: only these. Default: every weight matrix but
            embeddings.
        exclude: The same, for what to leave.
        inplace: Change the model given instead of a copy.
        progress: Called with each weight's name when it is done.

    Returns:
        `.model`, `.masks`, `.report` and `.plan`. A compiled model stays compiled, with its optimizer's
        state.

    Raises:
        UnsupportedModelError: The model is not built, or cannot be copied.
        InvalidArgumentError: No target, more than one, or out of range; a name that matches nothing.
        NonFiniteError: A weight is NaN or infinite; the message names it and nothing was changed.

    Warns:
        TargetNotReachedWarning: Fewer weights are zero than asked for; it says why.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
        >>> result = prune(model, sparsity=0.75)
        >>> result.report["out/kernel"].num_zeros
        24
    """
    request = Request(get_criterion(criterion), parse_pattern(pattern), norm)
    target = model if inplace else clone_model(model)
    how = (sparsity, threshold, count, scope)
    prepared = _prepare(target, request, how, include, exclude)
    result = _apply(prepared.plan, target, prepared.left, prepared, progress)
    warn_if_short(result.plan, result.report)
    return result


def plan_prune(
    model: Model,
    *,
    sparsity: float | Mapping[Any, float] | None = None,
    threshold: float | None = None,
    count: int | None = None,
    criterion: str | Criterion = "magnitude",
    pattern: str | Pattern = "unstructured",
    scope: str | Mapping[Any, str] = "global",
    norm: Norm = "l2",
    include: Selectors = None,
    exclude: Selectors = None,
) -> ModelPrunePlan:
    """Decide what `prune` would remove, and change nothing.

    Args, Raises: As for `prune`.

    Returns:
        A plan that prints, turns into JSON (`.plan.to_json()`) and can be applied (`.apply()`).

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="out")])
        >>> plan = plan_prune(model, threshold=0.01)
        >>> plan.apply().report.size
        32
    """
    request = Request(get_criterion(criterion), parse_pattern(pattern), norm)
    # A subclassed model's weights get other names once it is traced, so the plan is for the trace.
    target = model if is_graph(model) else clone_model(model)
    prepared = _prepare(target, request, (sparsity, threshold, count, scope), include, exclude)
    return ModelPrunePlan(target, prepared.plan, prepared.left)


def _prepare(
    model: Model,
    request: Request,
    how: tuple[Any, Any, Any, Any],
    include: Selectors,
    exclude: Selectors,
) -> _Prepared:
    sparsity, threshold, count, scope = how
    found = find_tensors(model)
    if isinstance(sparsity, Mapping):
        sparsity = resolve_targets(found, sparsity)
        include = list(sparsity) if include is None else include
    chosen = select_tensors(found, include, exclude)
    chosen, unfit = _fit_for(request.pattern, chosen)
    names = {tensor.name for tensor in chosen}
    left = tuple(Left(name, why) for name, why in found.left if name not in names) + unfit
    if not chosen:
        why = "; ".join(f"{entry.name}: {entry.reason}" for entry in left) or "it has no weights"
        raise InvalidArgumentError(f"There is nothing to prune in model {model.name!r}: {why}.")
    if isinstance(sparsity, Mapping):
        sparsity = {name: value for name, value in sparsity.items() if name in names}
    if isinstance(scope, Mapping):
        scope = {n: g for n, g in resolve_targets(found, scope).items() if n in names}
    tensors = _tensors(chosen)
    order = [tensor.name for tensor in chosen]
    groups = array_targets(order, request.pattern, scope, sparsity, threshold, count)
    ranked = _rank(model, found, tensors, request)
    return _Prepared(tensors, ranked, make_plan(tensors, ranked, request, groups), left)


def _fit_for(
    pattern: Pattern, chosen: Iterable[WeightTensor]
) -> tuple[tuple[WeightTensor, ...], tuple[Left, ...]]:
    """Set those aside whose axes cannot be read as (out, in) where the pattern needs that."""
    if isinstance(pattern, Unstructured):
        return tuple(chosen), ()
    fit, unfit = [], []
    for tensor in chosen:
        if tensor.view.interleaved:
            unfit.append(Left(tensor.name, f"{tensor.view.interleaved}; {pattern} needs one"))
        else:
            fit.append(tensor)
    return tuple(fit), tuple(unfit)


def _tensors(chosen: Iterable[WeightTensor]) -> Tensors:
    arrays = {tensor.name: read_array(tensor.variable) for tensor in chosen}
    return Tensors(arrays, {tensor.name: tensor.to_matrix for tensor in chosen})


def _rank(model: Model, found: FoundTensors, tensors: Tensors, request: Request) -> Ranked:
    if not isinstance(request.criterion, Path):
        return rank(tensors, request)
    # A path runs through every matrix of the chain, those that are not pruned among them.
    chain = _tensors(require_chain(model, found))
    if missing := tensors.arrays.keys() - chain.arrays.keys():
        raise InvalidArgumentError(
            f"Criterion 'path' scores the kernels of a chain of Dense layers; {sorted(missing)} are "
            "not among them. Exclude them or choose another criterion."
        )
    ranked = rank(chain, request)
    return Ranked({name: ranked.arrays[name] for name in tensors.arrays}, ranked.order)


def _apply(
    plan: PrunePlan,
    model: Model,
    left: tuple[Left, ...],
    prepared: _Prepared | None,
    progress: Progress | None,
) -> Result:
    by_name = {tensor.name: tensor for tensor in find_tensors(model).tensors}
    if missing := plan.tensors.keys() - by_name.keys():
        raise InvalidArgumentError(
            f"The plan names weights that the model does not have: {sorted(missing)[:5]}; "
            "make a new plan."
        )
    chosen = [by_name[name] for name in plan.tensors]
    tensors = _tensors(chosen) if prepared is None else prepared.tensors
    ranked = None if prepared is None else prepared.ranked
    if ranked is None and isinstance(plan.criterion, Path):
        request = Request(plan.criterion, plan.pattern, plan.norm)
        ranked = _rank(model, find_tensors(model), tensors, request)
    out = {name: empty_like(array) for name, array in tensors.arrays.items()}
    masks, report = apply_plan(plan, tensors, out, ranked=ranked, progress=progress)
    for name in masks:  # nothing is written before everything is known
        give_array(by_name[name].variable, out[name])
    keep_zeros(model, masks)
    return Result(model, masks, PruneReport(report.tensors, left), plan)
