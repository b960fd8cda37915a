"""Plan and apply pruning over named arrays. Nothing here knows Keras."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from secateur._kernels.native import select as select_kernels
from secateur._kernels.native.select import CutStatistics
from secateur.arrays import (
    Array,
    Arrays,
    check_writable,
    contiguous,
    like,
    matrix_view,
    named_arrays,
)
from secateur.criteria import Criterion, Magnitude, get_criterion
from secateur.errors import InvalidArgumentError, TargetNotReachedWarning
from secateur.patterns import NM, Block, Pattern, parse_pattern
from secateur.plan import Decision, PrunePlan, TensorShape
from secateur.report import PruneReport, TensorReport
from secateur.selection import (
    Norm,
    Ranked,
    Scope,
    Target,
    View,
    block_ranked,
    check_finite,
    check_norm,
    fill_masks,
    fill_row_masks,
    find_cut,
    groups_of,
    nm_mask,
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Tensors:
    """Named C-contiguous arrays, and how each is seen as an (out, in) matrix without a copy."""

    arrays: dict[str, Array]
    views: dict[str, View] = field(default_factory=dict)

    def view(self, name: str) -> View:
        """The function that shows this tensor (or its mask) as an (out, in) matrix."""
        return self.views.get(name, matrix_view)

    def matrix(self, name: str) -> Array:
        """The tensor itself as an (out, in) matrix."""
        return self.view(name)(self.arrays[name])

    def shapes(self) -> dict[str, TensorShape]:
        """Shape and dtype of every tensor."""
        return {
            name: TensorShape(tuple(array.shape), str(array.dtype))
            for name, array in self.arrays.items()
        }


@dataclass(frozen=True)
class Request:
    """What to prune by, apart from how much."""

    criterion: Criterion = field(default_factory=Magnitude)
    pattern: Pattern = field(default_factory=lambda: parse_pattern("unstructured"))
    norm: Norm = "l2"

    def __post_init__(self) -> None:
        """Check the norm."""
        check_norm(self.norm)


@dataclass(frozen=True)
class Pruned:
    """Arrays after pruning, their masks (True = keep), and the report."""

    weights: Any
    masks: Any
    report: PruneReport


def rank(tensors: Tensors, request: Request) -> Ranked:
    """Work out what is compared: weights by magnitude, saliencies, or scores of blocks."""
    ranked = _weight_keys(tensors, request.criterion)
    if not isinstance(request.pattern, Block):
        return ranked
    matrices = {name: tensors.view(name)(array) for name, array in ranked.arrays.items()}
    return block_ranked(matrices, request.pattern, request.norm)


def _weight_keys(tensors: Tensors, criterion: Criterion) -> Ranked:
    dtypes = {array.dtype for array in tensors.arrays.values()}
    if isinstance(criterion, Magnitude) and len(dtypes) <= 1:
        return Ranked(tensors.arrays, "magnitude")  # |w| is read off the weights: nothing is stored
    check_finite_each(tensors.arrays)
    matrices = [tensors.matrix(name) for name in tensors.arrays]
    saliencies = criterion.saliencies(matrices)
    common = np.result_type(np.float32, *(s.dtype for s in saliencies))
    keys = {}
    for (name, array), saliency in zip(tensors.arrays.items(), saliencies, strict=True):
        keys[name] = np.empty(array.shape, common)
        tensors.view(name)(keys[name])[...] = saliency
    return Ranked(keys, "value")


def check_finite_each(arrays: Mapping[str, Array]) -> None:
    """Refuse non-finite weights in arrays that may differ in dtype."""
    for name, array in arrays.items():
        check_finite({name: array})


def make_plan(
    tensors: Tensors,
    ranked: Ranked,
    request: Request,
    groups: Sequence[tuple[tuple[str, ...], Target | None]],
) -> PrunePlan:
    """Decide for each group of tensors what goes; a target of None leaves it to the n:m pattern."""
    decisions = []
    for names, target in groups:
        if target is None:
            decisions.append(Decision(names))
            continue
        if target.ranks_rows:
            decisions.append(Decision(names, target))
            continue
        if target.threshold is not None:
            check_finite_each({name: tensors.arrays[name] for name in names})
        cut = find_cut(ranked, names, target)
        dtype = ranked.arrays[names[0]].dtype
        value = select_kernels.cut_value(cut, dtype, ranked.order)
        decisions.append(Decision(names, target, cut, value))
    return PrunePlan(
        criterion=request.criterion,
        pattern=request.pattern,
        norm=request.norm,
        decisions=tuple(decisions),
        tensors=tensors.shapes(),
    )


def apply_plan(
    plan: PrunePlan,
    tensors: Tensors,
    out: Mapping[str, Array],
    *,
    ranked: Ranked | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Array], PruneReport]:
    """Write the pruned weights into `out` (which may be the inputs) and make the masks.

    Args:
        plan: What goes.
        tensors: The arrays the plan was made for.
        out: Where each pruned array is written, same shapes and dtypes.
        ranked: What the plan compared, if it is still at hand; worked out again if not.
        progress: Called with each tensor's name when it is done.

    Returns:
        Masks by name (True = keep), and the report.

    Raises:
        InvalidArgumentError: The plan was made for other tensors.
    """
    plan.check_fits(tensors.shapes())
    request = Request(plan.criterion, plan.pattern, plan.norm)
    if ranked is None:
        ranked = rank(tensors, request)
    masks = {
        name: np.empty(tensors.arrays[name].shape, np.bool_)
        for decision in plan.decisions
        for name in decision.names
    }
    reports: dict[str, TensorReport] = {}
    for decision in plan.decisions:
        statistics = _apply_decision(decision, tensors, ranked, plan.pattern, masks, out)
        for name, statistic in zip(decision.names, statistics, strict=True):
            reports[name] = _tensor_report(name, decision, statistic, masks[name], out[name], plan)
            if progress is not None:
                progress(name)
    report = PruneReport(tuple(reports[name] for name in tensors.arrays if name in reports))
    return masks, report


def _apply_decision(
    decision: Decision,
    tensors: Tensors,
    ranked: Ranked,
    pattern: Pattern,
    masks: Mapping[str, Array],
    out: Mapping[str, Array],
) -> list[CutStatistics]:
    names = decision.names
    arrays = [tensors.arrays[name] for name in names]
    if decision.cut is not None and ranked.arrays is tensors.arrays:
        # Keys are the weights themselves: masks, zeros and statistics come from one fused pass.
        return select_kernels.apply_cut(
            arrays,
            decision.cut,
            ranked.order,
            out=[out[name] for name in names],
            masks=[masks[name] for name in names],
        )
    views = {name: tensors.view(name) for name in names}
    if _ranks_rows(decision):
        assert decision.target is not None
        assert not isinstance(pattern, NM)
        statistics = fill_row_masks(ranked, names, decision.target, pattern, masks, views)
    elif decision.cut is None:
        assert isinstance(pattern, NM)
        statistics = [_apply_nm(name, tensors, ranked, pattern, masks[name]) for name in names]
    else:
        assert not isinstance(pattern, NM)
        statistics = fill_masks(ranked, names, decision.cut, pattern, masks, views)
    for name, array in zip(names, arrays, strict=True):
        select_kernels.apply_mask(array, masks[name], out[name])
    return statistics


def _apply_nm(
    name: str, tensors: Tensors, ranked: Ranked, pattern: NM, mask: Array
) -> CutStatistics:
    view = tensors.view(name)
    keys = view(ranked.arrays[name])
    nm_mask(name, keys, pattern, ranked.order, view(mask))
    return select_kernels.mask_statistics(ranked.arrays[name], mask, ranked.order)


def _tensor_report(
    name: str,
    decision: Decision,
    statistic: CutStatistics,
    mask: Array,
    pruned: Array,
    plan: PrunePlan,
) -> TensorReport:
    num_removed = statistic.num_removed
    if isinstance(plan.pattern, Block):
        num_removed = mask.size - int(np.count_nonzero(mask))
    # A zero among the kept shows as the smallest kept saliency, unless saliency is not magnitude.
    by_magnitude = isinstance(plan.criterion, Magnitude) and not isinstance(plan.pattern, Block)
    smallest = statistic.smallest_kept
    if by_magnitude and (smallest is None or smallest > 0):
        num_zeros = num_removed
    else:
        num_zeros = select_kernels.count_zeros(pruned)
    return TensorReport(
        name=name,
        shape=tuple(pruned.shape),
        dtype=str(pruned.dtype),
        size=pruned.size,
        num_zeros=num_zeros,
        num_removed=num_removed,
        asked_sparsity=_asked(decision, plan),
        threshold=decision.threshold if statistic.largest_removed is not None else None,
        largest_removed=statistic.largest_removed,
        smallest_kept=statistic.smallest_kept,
    )


def _asked(decision: Decision, plan: PrunePlan) -> float | None:
    if isinstance(plan.pattern, NM):
        return plan.pattern.sparsity
    assert decision.target is not None
    if decision.target.ranks_rows and decision.target.count is not None:
        return None
    if decision.target.sparsity is not None:
        return float(decision.target.sparsity)
    if decision.target.count is not None and not isinstance(plan.pattern, Block):
        size = sum(plan.tensors[name].size for name in decision.names)
        return decision.target.count / size if size else None
    return None


def _ranks_rows(decision: Decision) -> bool:
    return decision.target is not None and decision.target.ranks_rows


def warn_if_short(plan: PrunePlan, report: PruneReport, stacklevel: int = 3) -> None:
    """Warn for every group in which fewer weights are zero than were asked for, and say why."""
    sizes = {tensor.name: tensor for tensor in report}
    for decision in plan.decisions:
        asked = _asked(decision, plan)
        tensors = [sizes[name] for name in decision.names]
        size = sum(tensor.size for tensor in tensors)
        zeros = sum(tensor.num_zeros for tensor in tensors)
        # A row's share is rounded to whole weights in each row alike: that is what was asked for.
        if _ranks_rows(decision) and not isinstance(plan.pattern, Block):
            continue
        # Half a weight is what rounding to whole weights may cost.
        if asked is None or zeros + 0.5 >= asked * size - 1e-6 * size:
            continue
        names = ", ".join(decision.names[:3]) + (", ..." if len(decision.names) > 3 else "")
        why = (
            "blocks go whole, and those at the edges are smaller"
            if isinstance(plan.pattern, Block)
            else f"the last group of inputs is shorter than {plan.pattern}'s"
        )
        warnings.warn(
            f"Asked for sparsity {asked:.4f} over {names}, reached {zeros / size:.4f}: {why}.",
            TargetNotReachedWarning,
            stacklevel=stacklevel,
        )


def array_targets(
    names: Sequence[str],
    pattern: Pattern,
    scope: Scope,
    sparsity: float | Mapping[str, float] | None,
    threshold: float | None,
    count: int | None,
) -> list[tuple[tuple[str, ...], Target | None]]:
    """Work out which tensors are ranked together and how much of each group goes.

    A mapping of name to sparsity ranks each named tensor alone and leaves the others.
    """
    if isinstance(sparsity, Mapping):
        if unknown := set(sparsity) - set(names):
            raise InvalidArgumentError(
                f"sparsity names tensors that do not exist: {sorted(unknown)}; "
                f"there are {list(names)}."
            )
        if (threshold, count) != (None, None) or isinstance(pattern, NM):
            raise InvalidArgumentError("A sparsity per tensor goes with no other target.")
        return [((name,), Target(sparsity=sparsity[name])) for name in names if name in sparsity]
    if isinstance(pattern, NM):
        if sparsity is not None and abs(sparsity - pattern.sparsity) > 1e-9:
            raise InvalidArgumentError(
                f"The pattern {pattern} makes a sparsity of {pattern.sparsity:g}, but "
                f"sparsity={sparsity} was asked for; leave sparsity out or choose another pattern."
            )
        if (threshold, count) != (None, None):
            raise InvalidArgumentError(
                f"The pattern {pattern} is itself the target; give no other."
            )
        return [(group, None) for group in groups_of(names, scope)]
    target = Target(sparsity, threshold, count, by_row=scope == "row")
    return [(group, target) for group in groups_of(names, scope)]


def prune_arrays(
    weights: Arrays,
    *,
    sparsity: float | Mapping[str, float] | None = None,
    threshold: float | None = None,
    count: int | None = None,
    criterion: str | Criterion = "magnitude",
    pattern: str | Pattern = "unstructured",
    scope: Scope = "global",
    norm: Norm = "l2",
    inplace: bool = False,
) -> Pruned:
    """Zero the least salient weights of a collection of arrays.

    Args:
        weights: Mapping or sequence of arrays, float16 / bfloat16 / float32 / float64, any shape.
            C-contiguous arrays are ranked together without being copied or concatenated; others
            are copied first. As matrices (for n:m, blocks and `path`) they are (out, in).
        sparsity: Fraction of zeros, 0 to 1: exactly `round(sparsity * size)` weights of each group
            go, those that are zero already among them. A mapping of array name to sparsity treats
            each alone and leaves the arrays that it does not name.
        threshold: Weights with a saliency strictly below go (all of them at inf).
        count: Exactly this many weights (or blocks) of each group go.
        criterion: "magnitude", "path", "random", or a `Criterion`.
        pattern: "unstructured", "n:m" (which is its own target) or "block:RxC".
        scope: What is ranked together: "global" (everything), "layer" (each array alone), "row" (each
            output of each matrix alone: sparsity and count are then per row) or a mapping of array
            name to group.
        norm: How a block's saliency is made of its weights': "l1" or "l2".
        inplace: Change the arrays given (they must be C-contiguous and writable).

    Returns:
        `.weights` (same kind of collection, same shapes and dtypes), `.masks` (True = keep) and
        `.report`. Of equal saliencies those of the earlier (array, position) go first.

    Raises:
        InvalidArgumentError: No target, more than one, or one out of range.
        ArgumentTypeError: `weights` holds something that is not a float array.
        NonFiniteError: A weight is NaN or infinite; the message names the array.

    Warns:
        TargetNotReachedWarning: Fewer weights are zero than asked for; it says why.

    Example:
        >>> import numpy as np
        >>> pruned = prune_arrays([np.array([3.0, -1.0, 2.0, 0.5], np.float32)], sparsity=0.5)
        >>> pruned.weights
        [array([3., 0., 2., 0.], dtype=float32)]
    """
    named = named_arrays(weights)
    if inplace:
        check_writable(named)
    tensors = Tensors({name: contiguous(array) for name, array in named.items()})
    request = Request(get_criterion(criterion), parse_pattern(pattern), norm)
    groups = array_targets(list(named), request.pattern, scope, sparsity, threshold, count)
    ranked = rank(tensors, request)
    plan = make_plan(tensors, ranked, request, groups)
    touched = {name for decision in plan.decisions for name in decision.names}
    out = {
        name: array if inplace else np.empty_like(array) if name in touched else array.copy()
        for name, array in tensors.arrays.items()
    }
    masks, report = apply_plan(plan, tensors, out, ranked=ranked)
    warn_if_short(plan, report)
    for name in named.keys() - touched:
        masks[name] = np.ones(named[name].shape, np.bool_)
    masks = {name: masks[name] for name in named}
    return Pruned(weights if inplace else like(weights, out), like(weights, masks), report)
