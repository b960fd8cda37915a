"""Plan a cut of a Keras model, and make it: `plan_cut`, `cut`, `bind_plan`."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import keras
import numpy as np
import numpy.typing as npt
from keras import tree

from secateur.arguments import check_callable, check_switch
from secateur.bypass_plan import (
    PLURALS,
    Bypass,
    BypassTarget,
    bypass_kinds,
    choose_bypasses,
    only_bypasses,
    split_keep,
)
from secateur.compensation import Compensation
from secateur.cut_choosing import Choice, CutTarget, carried_over, check_keep, choose
from secateur.cut_plan import CutPlan, GroupCut
from secateur.errors import ArgumentTypeError, InvalidArgumentError, TargetNotReachedWarning
from secateur.keras.alignment import AutoAlign
from secateur.keras.bypass import Candidate
from secateur.keras.bypass_measuring import BypassMeter, weight_outputs
from secateur.keras.carrying import carry_compilation
from secateur.keras.data import Batches, calibration_data, first_batch, graph_signature
from secateur.keras.describe import Description
from secateur.keras.fidelity import check_trace
from secateur.keras.folding import Folding, fold_means
from secateur.keras.measuring import measure_outputs
from secateur.keras.proof import Proof, prove, random_samples
from secateur.keras.rebuild import rebuild
from secateur.keras.repairing import repair_cut
from secateur.keras.settling import settle
from secateur.keras.trying import OutputLoss, best_scores, fit_and_judge
from secateur.keras.unit_scoring import score_groups
from secateur.keras.workbench import Bench, kept_slots, open_bench, weight_arrays, without
from secateur.repair import Repair
from secateur.shortfall import shortfall
from secateur.unit_criteria import UNIT_CRITERIA
from secateur.unit_scores import weight_scores

# A prime that is hardly a width: ops.add takes (n, 1) for a bias where n is the width of what it meets.
_PROOF_SAMPLES = 31
_RANDOM_SAMPLES = 5

# What the default with repair is tried beside: OBS looks at single layers, and this at none.
_RIVAL = "std"

Progress = Callable[[str, int | None], None]


@dataclass(frozen=True)
class CutResult:
    """A cut model and what is to be known about it.

    Attributes:
        model: The smaller model, of the same kind of inputs and outputs, compiled if the original
            was.
        plan: What was removed.
        proof: Figures of the comparison with the original, made before any repair; None if it was
            switched off.
        parameters: Number of weights before and after.
        folding: Where the means of removed units went; None if they were not folded.
        repair: Errors of the layers that were refit, before and after; None without repair.
    """

    model: keras.Model
    plan: CutPlan
    proof: Proof | None
    parameters: tuple[int, int]
    folding: Folding | None = None
    repair: Repair | None = None

    def __str__(self) -> str:
        before, after = self.parameters
        gone = 1 - after / max(before, 1)
        proof = "not proven: the proof was switched off" if self.proof is None else str(self.proof)
        lines = [f"{before:,} -> {after:,} parameters ({gone:.1%} gone)", proof]
        lines += [str(part) for part in (self.folding, self.repair) if part is not None]
        return "\n".join(line for line in lines if line)


def plan_cut(
    model: keras.Model,
    data: Any = None,
    *,
    threshold: float | None = None,
    ratio: float | None = None,
    keep: Mapping[str, int] | None = None,
    relative: bool = False,
    scope: str = "layer",
    measure: str | None = None,
    fold: bool | None = None,
    repair: bool = False,
    damping: float | None = None,
    align: int | str | AutoAlign = 8,
    granularity: Collection[str] | None = None,
    include: Collection[str] | None = None,
    exclude: Collection[str] | None = (),
    mask: Any = None,
    batch_size: int = 32,
    max_samples: int | None = None,
    proof: bool = True,
    progress: Progress | None = None,
) -> CutPlan:
    """Decide which subnetworks of a model go; nothing changes yet.

    Args:
        model: A built Keras model: Sequential, functional, subclassed, nested.
        data: Calibration samples: an array, list or dict of arrays, generator, tf.data.Dataset or
            PyDataset.
        threshold: Subnetworks whose output (without data: weight norm) is strictly below it go:
            units, and on data residual branches, too.
        ratio: Fraction of each layer's units that goes; of the branches, layers and blocks, where
            `granularity` names them.
        keep: Layer name -> number of units that stay; "branches", "layers" or "blocks" -> how many
            of those stay.
        relative: `threshold` counts in multiples of the mean output of the layer, or of all
            branches, layers or blocks.
        scope: "layer", or "global": `ratio` of all units, ranked together relative to their layer's
            mean.
        measure: With data "mean" (of |output|, default), "rms", "max" or "std", the standard
            deviation, by which a unit that is constant goes however large it is; or what the layers
            that read a unit lose by it: "wanda_sp", "flap" or "obs", see `secateur.unit_criteria`.
            Default with `repair`: "obs" or "std", for each kind of unit that by which the outputs of
            the model lose less, tried on a part of the data and judged on another (with a `threshold`
            "obs"; "mean" where only branches, layers or blocks are named). Without data "path"
            (default), "incoming", "outgoing" norms of the weights.
        fold: Whether the means of removed units are folded into the next biases; by default they
            are if there is data.
        repair: Whether, after the cut, the layers that read removed units are refit by least squares
            to what they put out before, and batch normalisations estimated anew. Takes data.
        damping: Ridge of "obs" (default 0.01 of the mean variance of a layer's inputs) and of `repair`
            (default 0.15 of each input's variance); one number sets both.
        align: Kept widths are multiples of it; 1 switches rounding off. "auto" times the layers at
            some widths on this machine, on a batch of the data, for 20 seconds at most
            (`AutoAlign` sets others), and keeps the smallest of the fastest.
        granularity: What may go, of "neuron", "channel", "unit", "head", "embedding" and "branch"
            (an operand of a sum), "layer" (where what goes in and comes out is alike), "block" (a
            larger such part, as of a transformer). Default: all kinds of units; with a `threshold`
            that is not relative and data, branches too.
        include: Names of layers that may lose units or go (wildcards allowed).
        exclude: Names of layers that stay whole.
        mask: Which positions of the data are real, where Keras's own masks do not say so: the name of
            an input of the model, or an array (samples, time). Others are not counted.
        batch_size: For data given as arrays.
        max_samples: Read no more than so many samples.
        proof: False switches off the comparison that `apply` makes.
        progress: Called with what was done and how many such steps there are, where that is known.

    Warns:
        CutNotFasterWarning: By `align="auto"`, layers are smaller but not faster on this machine.

    Returns:
        A `CutPlan`; `plan.apply()` makes the cut.

    Raises:
        UnsupportedModelError: The model is not built or cannot be traced.
        InvalidArgumentError: An argument out of range, or a threshold that would empty the model.
        ArgumentTypeError: An argument, or data, of a type that cannot be used.
        NonFiniteError: Activations are NaN on this data; names the layer.

    Example:
        >>> import keras
        >>> layers = [keras.layers.Dense(16, "relu", name="wide"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> plan = plan_cut(model, ratio=0.5)
        >>> plan["wide"].kept
        8
    """
    _check_model(model)
    for name, switch in (("relative", relative), ("proof", proof)):
        check_switch(name, switch)
    check_callable("progress", progress, "progress(step, total)")
    check_keep(keep)
    if mask is not None and data is None:
        raise InvalidArgumentError(
            "mask= says which positions of the data are real; there is no data."
        )
    _, unit_counts = split_keep(keep)
    target = CutTarget(threshold, ratio, unit_counts if keep is not None else None, relative, scope)
    auto = AutoAlign.of(align)
    width = 1 if auto is not None else cast(int, align)
    choice = Choice(width, granularity, include, () if exclude is None else exclude)
    if measure is None and data is not None and only_bypasses(choice.granularity, keep):
        measure = "mean"  # what is by default with repair judges units alone
    asked = measure
    way = Compensation.of(measure, fold, repair, damping, data is not None)
    measure = way.measure
    bypassing = _bypass_target(target, choice, keep, measure, data is not None)
    sample = first_batch(data) if not getattr(model, "inputs", None) and data is not None else None
    bench = open_bench(model, sample)
    batches = None
    if data is not None:
        batches = _batches(bench.description, data, mask, batch_size, max_samples)
        check_trace(bench.graph, _samples(bench.description, batches)[0])
    told = batches and replace(batches, seen=_teller(batches, progress))
    bypasses, per_unit = _choose_bypasses(bench, told, measure, bypassing)
    plan = CutPlan(model.name, measure, (), bypasses=bypasses, fold=way.fold, repair=way.repair)
    smaller = without(bench, plan.bypassed)
    if smaller is not bench and way.criterion is None:
        # What is left is scored as it runs without the rest.
        per_unit = _unit_scores(smaller, told, measure, BypassMeter(()))
    known = {name for one in bench.candidates for name in (one.name, *one.offer.makers)}
    if told is not None and way.criterion is not None:
        groups, scores = score_groups(smaller, told, way.criterion, target, choice)
        if asked is None and repair and threshold is None:
            others = _unit_scores(smaller, told, _RIVAL, BypassMeter(()))
            rival = {n: others[g.units] for n, g in zip(smaller.names, groups, strict=True)}
            measure, best = best_scores(
                {measure: scores, _RIVAL: rival},
                groups,
                smaller.names,
                lambda own: choose(groups, own, target, choice, known),
                _loss_by(plan, smaller, batches),
                scope == "layer",
            )
            plan, scores = replace(plan, measure=measure), dict(best)
    else:
        groups = smaller.groups
        scores = {n: per_unit[g.units] for n, g in zip(smaller.names, groups, strict=True)}
    cuts = choose(groups, scores, target, choice, known)
    if auto is not None:
        batch = _samples(smaller.description, batches, batch_size, batch_size)[0]
        parts = (smaller.description, smaller.units, smaller.groups)
        cuts = auto.widen(*parts, cuts, scores, batch, keep is not None, progress)
    plan = replace(plan, groups=cuts, walls=smaller.description.walls)
    return _bound(plan, model, smaller, batches, proof)


def _loss_by(plan: CutPlan, bench: Bench, batches: Any) -> Callable[[tuple[GroupCut, ...]], float]:
    """What the model's outputs lose by a cut, on samples that its repair has not seen."""
    graph = bench.description.graph
    fitted, judged = fit_and_judge(graph, batches)
    loss = OutputLoss(graph.model, judged, graph.input_structure)

    def lost(cuts: tuple[GroupCut, ...]) -> float:
        return loss(_make(replace(plan, groups=cuts), bench, fitted, None)[0].model)

    return lost


def _bypass_target(
    target: CutTarget,
    choice: Choice,
    keep: Mapping[str, int] | None,
    measure: str,
    on_data: bool,
) -> BypassTarget:
    counts, unit_counts = split_keep(keep)
    absolute = target.threshold is not None and not target.relative and on_data
    named = bypass_kinds(choice.granularity, absolute, counts, measure)
    return BypassTarget(
        kinds=named,
        threshold=target.threshold,
        relative=target.relative,
        ratio=target.ratio,
        keep=counts if keep is not None else None,
        include=choice.include,
        exclude=choice.exclude,
        counted=tuple(unit_counts),
        asked=choice.granularity is not None or bool(counts),
    )


def _choose_bypasses(
    bench: Bench, batches: Any, measure: str, target: BypassTarget
) -> tuple[tuple[Bypass, ...], npt.NDArray[np.float64]]:
    """What is bypassed; and the scores of units, which come from the same pass over the data."""
    offered = [one for one in bench.candidates if one.offer.kind in target.kinds]
    if target.asked:
        _warn_of_none(bench.graph.model.name, target.kinds, offered)
    meter = BypassMeter(offered)
    per_unit = _unit_scores(bench, batches, measure, meter)
    outputs = weight_outputs(offered) if batches is None else meter.outputs(measure)
    chosen = choose_bypasses([one.offer for one in offered], outputs, target)
    return settle(bench.graph, bench.candidates, chosen), per_unit


def _unit_scores(
    bench: Bench, batches: Any, measure: str, meter: BypassMeter
) -> npt.NDArray[np.float64]:
    """Per unit, what it emits on data, or a norm of its weights; nothing where its readers tell."""
    if measure in UNIT_CRITERIA:
        return np.zeros(0)
    if batches is not None:
        return measure_outputs(bench.description, bench.units, batches, measure, meter)
    arrays = weight_arrays(bench.description)
    return weight_scores(bench.description.network, bench.units, arrays, measure)  # type: ignore[arg-type]


def cut(model: keras.Model, data: Any = None, **options: Any) -> CutResult:
    """Remove subnetworks from a model and prove it: `plan_cut` and `apply` in one.

    Args:
        model: As for `plan_cut`.
        data: As for `plan_cut`.
        **options: As for `plan_cut`.

    Returns:
        A `CutResult`. The model given is not changed.

    Raises:
        ProofError: The cut model is not what the original with the removed parts held at zero is.
        InvalidArgumentError, UnsupportedModelError, NonFiniteError: As for `plan_cut`.

    Example:
        >>> import keras
        >>> layers = [keras.layers.Dense(16, "relu", name="wide"), keras.layers.Dense(1)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> cut(model, ratio=0.5).model.count_params()
        49
    """
    result: CutResult = plan_cut(model, data, **options).apply()
    return result


def bind_plan(
    plan: CutPlan, model: keras.Model, data: Any = None, *, mask: Any = None, proof: bool = True
) -> CutPlan:
    """Bind a plan that was read from JSON to the model it was made for.

    Args:
        plan: The plan.
        model: The model.
        data: Samples to fold means and repair on, and for the proof, for which random ones are drawn
            without.
        mask: Which positions of the data are real; as for `plan_cut`.
        proof: False switches the proof off.

    Raises:
        InvalidArgumentError: The plan was made for other layers, or folds means and there is no
            data.
    """
    _check_model(model)
    if plan.fold and data is None:
        raise InvalidArgumentError(
            "This plan folds the means of removed units into the next biases, which takes data: "
            "bind_plan(plan, model, data). To hold them at zero, plan with fold=False."
        )
    bench = open_bench(model, first_batch(data) if data is not None else None)
    _check_bypasses(plan, bench)
    bench = without(bench, plan.bypassed)
    found = [(n, g.makers, len(g.units)) for n, g in zip(bench.names, bench.groups, strict=True)]
    planned = [(cut.name, cut.makers, cut.width) for cut in plan.groups]
    if found != planned:
        differing = sorted({one[0] for one in found} ^ {one[0] for one in planned}) or [
            one[0] for one, two in zip(found, planned, strict=True) if one != two
        ]
        raise InvalidArgumentError(
            f"This plan was made for another model: groups {differing[:5]} differ. Make a new plan."
        )
    for group, own in zip(bench.groups, plan.groups, strict=True):
        if own.removed and group.reason:
            raise InvalidArgumentError(
                f"The plan cuts {own.name!r}, which stays whole: {group.reason}."
            )
    batches = None if data is None else _batches(bench.description, data, mask, 32, None)
    return _bound(plan, model, bench, batches, proof)


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError(f"cut needs a keras.Model, got {type(model).__name__}.")


def _check_bypasses(plan: CutPlan, bench: Bench) -> None:
    offers = {one.name: one.offer for one in bench.candidates}
    for bypass in plan.bypasses:
        offer = offers.get(bypass.name)
        if offer is None or (offer.kind, offer.makers) != (bypass.kind, bypass.makers):
            raise InvalidArgumentError(
                f"This plan was made for another model: {bypass.name!r} is not there or holds other "
                "layers. Make a new plan."
            )
        if bypass.removed and offer.reason:
            raise InvalidArgumentError(
                f"The plan bypasses {bypass.name!r}, which must stay: {offer.reason}."
            )


def _batches(
    description: Description, data: Any, mask: Any, batch_size: int, max_samples: int | None
) -> Batches:
    signature = graph_signature(description.graph)
    return Batches(calibration_data(signature, data, batch_size, max_samples=max_samples), mask)


def _teller(batches: Batches, progress: Progress | None) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda number: progress(f"measured batch {number}", batches.num_batches)


def _bound(plan: CutPlan, model: Any, bench: Bench, batches: Any, proof: bool) -> CutPlan:
    def regroup(own: CutPlan) -> CutPlan:
        _check_bypasses(own, bench)
        smaller = without(bench, own.bypassed)
        cuts = carried_over(smaller.groups, own.groups)
        edited = replace(own, groups=cuts, walls=smaller.description.walls)
        return _bound(edited, model, smaller, batches, proof)

    return replace(
        plan,
        binding=lambda own: _apply(own, model, bench, batches, proof),
        regrouping=regroup,
    )


def _apply(plan: CutPlan, model: Any, bench: Bench, batches: Any, proof: bool) -> CutResult:
    kept = kept_slots(plan.groups, bench)
    figures: list[Proof] = []

    def check(new: Any, folding: Folding | None) -> None:
        samples, source = _samples(bench.original, batches)
        check_trace(bench.graph, samples)
        corrections = None if folding is None else folding.corrections
        figures.append(prove(bench.original, kept, new, samples, source, corrections))

    new, pairs, folding, repaired = _make(plan, bench, batches, check if proof else None)
    carry_compilation(model, new.model, pairs, kept)
    message = shortfall(plan)
    if message:
        warnings.warn(message, TargetNotReachedWarning, stacklevel=4)
    parameters = (model.count_params(), new.model.count_params())
    return CutResult(
        new.model, plan, figures[0] if figures else None, parameters, folding, repaired
    )


def _make(
    plan: CutPlan,
    bench: Bench,
    batches: Any,
    check: Callable[[Any, Folding | None], None] | None,
) -> tuple[Any, Any, Folding | None, Repair | None]:
    """The smaller model, its pairs of variables, folding and repair; checked before the repair."""
    kept = kept_slots(plan.groups, bench)
    folding = fold_means(bench, kept, batches) if plan.fold else None
    corrections = None if folding is None else folding.corrections
    new, pairs = rebuild(bench.description, kept, corrections)
    if check is not None:
        check(new, folding)
    repaired = None
    if folding is not None and plan.repair is not None:
        parts = (bench.description, kept, new.model, pairs)
        repaired = repair_cut(*parts, folding, batches, plan.repair)
    return new, pairs, folding, repaired


def _warn_of_none(name: str, kinds: Sequence[str], offered: Sequence[Candidate]) -> None:
    found = {one.offer.kind for one in offered}
    for kind in kinds:
        if kind not in found:
            warnings.warn(
                f"Model {name!r} has no {PLURALS[kind]} that could be bypassed.",
                TargetNotReachedWarning,
                stacklevel=4,
            )


def _samples(
    description: Description,
    batches: Any,
    num_random: int = _RANDOM_SAMPLES,
    num_given: int = _PROOF_SAMPLES,
) -> tuple[Any, str]:
    if batches is None:
        return random_samples(description, num_random), "random"
    batch = next(iter(itertools.islice(batches, 1)))
    return tree.map_structure(lambda x: x[:num_given], batch), "given"
