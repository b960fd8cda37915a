"""Prune a Keras model on data: gather what goes into each weight, solve, put the result in, go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur._kernels.native import select as select_kernels
from secateur.activation_store import GIGABYTE
from secateur.arguments import check_bytes
from secateur.arrays import Array
from secateur.data_plan import DataPrunePlan, Share
from secateur.errors import InvalidArgumentError
from secateur.keras.calibrating import CalibrationWalk
from secateur.keras.choosing import Chosen
from secateur.keras.data import calibration_data, first_batch, graph_signature, kept_stream
from secateur.keras.flatten import Graph
from secateur.keras.gathering import Gatherer, Make, makes_up
from secateur.keras.keeping import hold_masks
from secateur.keras.norms import is_norm, norm_tap, norm_variables, refit_norm
from secateur.keras.padding import Padding
from secateur.keras.results import Result
from secateur.keras.staging import Member, Schedule, TapGroup, make_schedule
from secateur.keras.taps import open_graph
from secateur.keras.tensors import WeightTensor
from secateur.keras.trimming import Trimmed, trims
from secateur.keras.variables import empty_like, read_array
from secateur.keras.walk import named_variables
from secateur.layer_pruning import PrunedMatrix, Recipe, ThresholdTarget, prune_matrix
from secateur.patterns import NM, Pattern, Unstructured
from secateur.plan import TensorShape
from secateur.pruning import Progress
from secateur.reconstruction import LayerTarget
from secateur.report import Left, PruneReport, TensorReport
from secateur.statistics import InputStatistics

if TYPE_CHECKING:
    from secateur.keras.protocols import Model

_NO_TAP = (
    "what goes into it cannot be seen (its layer is unknown, does not run on symbolic tensors, or the "
    "model's outputs do not depend on it), so data says nothing of it"
)


@dataclass(frozen=True, eq=False)
class Calibration:
    """The data, and how it is read.

    Attributes:
        data: As `calibration_data` takes it.
        mask: Which positions are real, as `Padding` takes it.
        batch_size: For data given as arrays.
        max_samples: Read no more than so many.
        memory: Bytes of activations that may be kept in memory.
    """

    data: Any
    mask: Any = None
    batch_size: int = 32
    max_samples: int | None = None
    memory: int = GIGABYTE

    def __post_init__(self) -> None:
        """Check the memory, which is looked at only when the walk begins; keep what a generator yields.

        Raises:
            ArgumentTypeError, InvalidArgumentError: It is no number of bytes.
        """
        check_bytes("memory", self.memory)
        # Labels, a plan and its making each read the data anew, which a generator does not bear.
        object.__setattr__(self, "data", kept_stream(self.data, self.max_samples))


@dataclass(frozen=True, eq=False)
class Opened:
    """A model made ready for a walk.

    Attributes:
        chosen: The weights that can be pruned on data.
        graph: The model, flat.
        batches: The data.
        padding: Which positions are real.
        schedule: The order.
        trims: Whether padding can be cut off, by `trims`.
    """

    chosen: Chosen
    graph: Graph
    batches: Iterable[Any]
    padding: Padding
    schedule: Schedule
    trims: bool = False

    def trimmed(self, batches: Iterable[Any]) -> Iterable[Any]:
        """Batches of the model without what is padding, where that can be."""
        return Trimmed(batches, self.padding) if self.trims else batches


@dataclass(frozen=True, eq=False)
class Job:
    """What is done on a walk.

    Attributes:
        recipe: How a matrix is pruned.
        pattern: Which weights go together.
        shares: Weight name -> how much of it goes.
        scores: Weight name -> (out, in) scores that are handed in; empty where the data makes them.
        importance: Weight name -> (out,), what a squared error of each output costs.
        masks: Weight name -> mask of its shape, where it is settled before the walk which weights go.
        settings: What the plan is to say of the method.
        memory: Bytes of activations that may be kept in memory.
        restores: Whether the model is what it was after an error; False for a copy that is thrown away.
        progress: Called with each weight's name when it is done.
    """

    recipe: Recipe
    pattern: Pattern
    shares: Mapping[str, Share]
    scores: Mapping[str, Array] = field(default_factory=dict)
    importance: Mapping[str, Array] = field(default_factory=dict)
    masks: Mapping[str, Array] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    memory: int = GIGABYTE
    restores: bool = True
    progress: Progress | None = None


def open_for_walk(
    model: Model,
    chosen: Chosen,
    calibration: Calibration,
    *,
    strict: bool = False,
    norms: bool = False,
    residuals: bool = False,
) -> Opened:
    """Trace a model, read its data, and see which weights the data says something of.

    Args:
        model: A built model.
        chosen: The weights that are asked for.
        calibration: The data.
        strict: Whether a weight that data says nothing of is an error; else it is left, with the reason.
        norms: Whether normalisations behind the chosen weights are looked at, too.
        residuals: Whether weights make up for what their output is added to has lost.

    Raises:
        InvalidArgumentError: Data that does not fit, or weights that data says nothing of.
        UnsupportedModelError: The model cannot be traced.
    """
    known = getattr(model, "inputs", None)
    graph = open_graph(model, None if known else first_batch(calibration.data))
    batches = calibration_data(
        graph_signature(graph),
        calibration.data,
        calibration.batch_size,
        max_samples=calibration.max_samples,
    )
    padding = Padding(graph, calibration.mask)
    wanted = {id(tensor.variable) for tensor in chosen.tensors}
    scales = norm_variables(graph, wanted) if norms else set()
    schedule = make_schedule(graph, wanted | scales, padding, norm_tap, residuals=residuals)
    tapped = _with_taps(chosen, schedule, strict)
    return Opened(tapped, graph, batches, padding, schedule, trims(graph, batches, padding))


def _with_taps(chosen: Chosen, schedule: Schedule, strict: bool) -> Chosen:
    tapped: list[WeightTensor] = []
    untapped: list[WeightTensor] = []
    for tensor in chosen.tensors:
        (untapped if id(tensor.variable) in schedule.untapped else tapped).append(tensor)
    names = [tensor.name for tensor in untapped]
    if names and (strict or not tapped):
        raise InvalidArgumentError(
            f"{', '.join(names[:5])} cannot be pruned on data: {_NO_TAP}. Exclude what is named here, or "
            "prune it without data."
        )
    left = tuple(Left(name, _NO_TAP) for name in names)
    return Chosen(chosen.found, tuple(tapped), chosen.left + left)


def prune_on_data(model: Model, opened: Opened, job: Job) -> Result:
    """Prune a model's own weights on data; after an error it is what it was, if the job says so.

    Args:
        model: The model that `opened` was made of.
        opened: The model made ready.
        job: What is done.

    Raises:
        NonFiniteError: A weight, or what goes into one, is NaN or infinite; it is named.
        FactorisationError: The data says too little for the damping.
    """
    surgeon = _Surgeon(opened, job)
    tensors = {id(tensor.variable): tensor for tensor in opened.chosen.tensors}
    gatherer = Gatherer(tensors, _maker(job.recipe))
    with CalibrationWalk(
        opened.graph,
        opened.schedule,
        opened.trimmed(opened.batches),
        opened.padding,
        beside=job.recipe.asymmetric,
        budget=job.memory,
        restores=job.restores,
    ) as walk:
        gatherer.look_ahead(walk, opened.schedule)
        for group in walk.groups():
            if is_norm(group.members[0]):
                surgeon.changed += refit_norm(walk, group, job.recipe.damping)
                continue
            surgeon.prune(walk, group, gatherer.gather(walk, group))
        walk.commit()
    return surgeon.result(model, hold_masks(model, surgeon.masks()))


def _maker(recipe: Recipe) -> Make:
    def make(shape: tuple[int, int], name: str, companion: int) -> InputStatistics:
        return InputStatistics(shape[1], name=name, cross=companion if recipe.asymmetric else 0)

    return make


class _Surgeon:
    """Prunes weights by what goes into them, and keeps the books."""

    def __init__(self, opened: Opened, job: Job) -> None:
        self._opened = opened
        self._job = job
        self._tensors = {id(tensor.variable): tensor for tensor in opened.chosen.tensors}
        # Bits until the walk is over: beside the weights before and after, bytes would be a quarter more.
        self._packed: dict[str, Array] = {}
        self._reports: dict[str, TensorReport] = {}
        self.changed: list[Any] = []

    def prune(
        self, walk: CalibrationWalk, group: TapGroup, statistics: list[InputStatistics]
    ) -> None:
        """Prune the weights of a group and put the results into the model."""
        for member in group.members:
            self._prune(walk, member, statistics, outputs=makes_up(group))

    def _prune(
        self,
        walk: CalibrationWalk,
        member: Member,
        statistics: list[InputStatistics],
        *,
        outputs: bool,
    ) -> None:
        tensor = self._tensors[id(member.variable)]
        before = read_array(tensor.variable)
        done = prune_matrix(
            tensor.to_matrix(before),
            statistics,
            self._target(tensor),
            self._job.recipe,
            has_bias=member.tap.bias is not None,
            scores=self._job.scores.get(tensor.name),
            outputs=outputs,
            importance=self._job.importance.get(tensor.name),
        )
        after, mask = empty_like(before), np.empty(before.shape, np.bool_)
        tensor.to_matrix(after)[...] = done.weight
        tensor.to_matrix(mask)[...] = done.mask
        walk.change(member.variable, after)
        if done.bias_shift is not None:
            self.changed.append(shift_bias(walk, member, done.bias_shift))
        self._packed[tensor.name] = np.packbits(mask)
        self._reports[tensor.name] = self._report(tensor, after, mask, done)
        if self._job.progress is not None:
            self._job.progress(tensor.name)

    def _target(self, tensor: WeightTensor) -> LayerTarget | ThresholdTarget:
        mask = self._job.masks.get(tensor.name)
        if mask is not None:
            return LayerTarget(mask=np.ascontiguousarray(tensor.to_matrix(mask)))
        return _target(self._job.pattern, self._job.shares[tensor.name])

    def _report(
        self, tensor: WeightTensor, after: Array, mask: Array, done: PrunedMatrix
    ) -> TensorReport:
        return TensorReport(
            name=tensor.name,
            shape=tensor.shape,
            dtype=tensor.dtype,
            size=after.size,
            num_zeros=select_kernels.count_zeros(after),
            num_removed=mask.size - int(np.count_nonzero(mask)),
            asked_sparsity=self._asked(tensor),
            threshold=self._job.shares[tensor.name].threshold,
            largest_removed=None,
            smallest_kept=None,
            relative_error=done.error,
            bias_refitted=done.bias_shift is not None,
        )

    def _asked(self, tensor: WeightTensor) -> float | None:
        if isinstance(self._job.pattern, NM):
            return self._job.pattern.sparsity
        share = self._job.shares[tensor.name]
        if share.count is not None and isinstance(self._job.pattern, Unstructured):
            return share.count / int(np.prod(tensor.shape))
        return share.sparsity

    def masks(self) -> Iterator[tuple[str, Array]]:
        """Names and masks, in the order of the model; each is let go of when the next is asked for."""
        for tensor in self._opened.chosen.tensors:
            bits = self._packed.pop(tensor.name, None)
            if bits is not None:
                flat = np.unpackbits(bits, count=int(np.prod(tensor.shape)))
                yield tensor.name, flat.reshape(tensor.shape).view(np.bool_)

    def result(self, model: Model, masks: dict[str, Array]) -> Result:
        """Everything that is known in the end."""
        chosen = self._opened.chosen
        done = [name for name in chosen.names if name in self._reports]
        changed = {id(variable) for variable in self.changed}
        names = (own.name for own in named_variables(model) if id(own.variable) in changed)
        rows = tuple(self._reports[name] for name in done)
        report = PruneReport(rows, chosen.left, tuple(names))
        return Result(model, masks, report, data_plan(chosen, self._job))


def data_plan(chosen: Chosen, job: Job) -> DataPrunePlan:
    """What a job is to do, as a value."""
    tensors = {t.name: TensorShape(t.shape, t.dtype) for t in chosen.tensors}
    shares = {name: job.shares[name] for name in tensors}
    return DataPrunePlan(job.recipe.name, job.pattern, dict(job.settings), shares, tensors)


def _target(pattern: Pattern, share: Share) -> LayerTarget | ThresholdTarget:
    if isinstance(pattern, NM):
        return LayerTarget(pattern)
    if share.threshold is not None:
        return ThresholdTarget(share.threshold, pattern)
    scope: Any = share.scope
    return LayerTarget(pattern, sparsity=share.sparsity, count=share.count, scope=scope)


def shift_bias(walk: CalibrationWalk, member: Member, shift: Array) -> Any:
    """Add to the bias that a weight feeds; returns its variable.

    Args:
        walk: Keeps what it was.
        member: The weight; it has a bias.
        shift: (out,) float64.
    """
    assert member.tap.bias is not None
    variable, part = member.tap.bias.variable, member.tap.bias.part
    before = read_array(variable)
    wide = before.astype(np.float64)
    own = wide if part is None else wide[part]
    own += shift.reshape(own.shape)
    after = empty_like(before)
    after[...] = wide
    walk.change(variable, after)
    return variable
