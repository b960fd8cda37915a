"""Refit what reads removed units, layer by layer in the cut model, to what the original put out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import layers, ops

from secateur.keras.backward import squashed_calls
from secateur.keras.consumers import Consumer, find_consumers
from secateur.keras.cut_rules.site import Kept
from secateur.keras.describe import Description
from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.folding import Folding, bias_beside, per_output
from secateur.keras.layouts import view_as_matrix
from secateur.keras.matrix_calls import has_no_activation
from secateur.keras.output_roles import role_of
from secateur.keras.padding import Keep, counted
from secateur.keras.residuals import added_to
from secateur.keras.stepping import Stepper, Visit
from secateur.keras.taps import Bias, Tap, open_graph, taps_of
from secateur.keras.variables import read_array
from secateur.keras.walk import walk_layers
from secateur.network import Axes
from secateur.output_refit import Squash, refit_output, thinned
from secateur.outputs import OutputStatistics
from secateur.reconstruction.affine import AffineStatistics
from secateur.repair import LayerRepair, OutputFit, Repair

Pairs = Sequence[tuple[Any, Any, Axes]]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# A variance that is this small a part of the mean square is what rounding leaves of a constant.
_STILL = 1e-9


@dataclass(frozen=True, eq=False)
class _Use:
    """A weight of the cut model at the calls that use it, beside the same calls of the original."""

    consumer: Consumer
    variable: Any
    old: list[tuple[int, Tap]]
    new: list[tuple[int, Tap]]
    owner: Any
    sums: tuple[Tensor, Tensor] | None


@dataclass(frozen=True, eq=False)
class _Norm:
    """A normalisation of the cut model beside that of the original."""

    old_call: int
    new_call: int
    old: Any
    new: Any


def repair_cut(
    description: Description,
    kept: Kept,
    model: Any,
    pairs: Pairs,
    folding: Folding,
    batches: Iterable[Any],
    damping: float = 0.15,
) -> Repair:
    """Repair a cut model in place.

    In the order of the graph, each weight that reads removed units is refit by least squares, together
    with its bias, from what goes in now, everything before it being cut and repaired, to what the
    original put out there; where that is added to another tensor, a residual stream, also to what that
    tensor has lost by then. Where a softmax or sigmoid makes an output of the model of it, it is refit
    further, to what the original says there (`secateur.output_refit`). Batch normalisations take over by
    how much the mean and variance of their input changed; scale and offset of layer normalisations are
    refit.

    A recurrent kernel is refit on those of the original's states that stay. The cut model's own change
    with it: what fits the states that the kernel had before makes those that it has then worse.

    Args:
        description: The original.
        kept: What stays.
        model: The cut model, its means folded.
        pairs: Which variable of the cut model stands for which of the original.
        folding: What was folded.
        batches: Calibration data that can be read more than once.
        damping: Ridge towards the weights as they are, as a part of each input's variance.

    Raises:
        FactorisationError: A damped covariance is not positive definite; names the remedy.
        NonFiniteError: What goes into a layer is NaN or infinite; names it.
    """
    return _Repairer(description, kept, model, pairs, folding, damping).repair(batches)


class _Repairer:
    def __init__(
        self,
        description: Description,
        kept: Kept,
        model: Any,
        pairs: Pairs,
        folding: Folding,
        damping: float,
    ) -> None:
        self.kept = kept
        self.folding = folding
        self.damping = damping
        original = description.graph
        self.old = open_graph(original.model, original.input_structure)
        self.new = open_graph(model)
        self.heirs: dict[int, list[Any]] = {}
        self.axes_of: dict[int, Axes] = {}
        for before, after, axes in pairs:
            self.heirs.setdefault(id(before), []).append(after)
            self.axes_of[id(before)] = axes
        self.left: dict[str, str] = dict(folding.held)
        self.uses = self._find_uses(find_consumers(description))
        self.norms = self._beside(layers.BatchNormalization, "moving_mean")
        self.scaled = self._beside(layers.LayerNormalization, "gamma")
        self.old_steps: Stepper
        self.new_steps: Stepper

    def repair(self, batches: Iterable[Any]) -> Repair:
        self.old_steps, self.new_steps = Stepper(self.old, batches), Stepper(self.new, batches)
        events: list[tuple[int, Any]] = [(use.new[0][0], use) for use in self.uses]
        events += [(norm.new_call, norm) for norm in (*self.norms, *self.scaled)]
        done: dict[str, LayerRepair] = {}
        renewed = []
        for _, event in sorted(events, key=lambda item: item[0]):
            if isinstance(event, _Use):
                done[event.consumer.name] = self._refit(event)
            elif done:  # before the first refit nothing differs
                again = self._rescale if event in self.scaled else self._renew
                if again(event):
                    renewed.append(str(event.old.name))
        return Repair(done, tuple(renewed), self.left)

    def _find_uses(self, consumers: Sequence[Consumer]) -> list[_Use]:
        old, new = _taps_by_variable(self.old), _taps_by_variable(self.new)
        uses = []
        for consumer in consumers:
            if not consumer.removed(self.kept).any() or consumer.trouble:
                continue
            heirs = self.heirs.get(id(consumer.variable), [])
            before = old.get(id(consumer.variable), [])
            after = sorted(
                ((n, tap, owner) for heir in heirs for n, tap, owner in new.get(id(heir), [])),
                key=lambda item: item[0],
            )
            if not before:
                continue  # folding has said why
            if len(before) != len(after):
                self.left[consumer.name] = "its calls in the cut model are others"
                continue
            for heir in heirs:
                own = [i for i, (_, tap, _) in enumerate(after) if tap.variable is heir]
                if own:
                    uses.append(
                        _Use(
                            consumer,
                            heir,
                            [before[i][:2] for i in own],
                            [after[i][:2] for i in own],
                            after[own[0]][2],
                            _sums(
                                self.old,
                                [before[i][0] for i in own],
                                self.new,
                                [after[i][0] for i in own],
                            ),
                        )
                    )
        return uses

    def _beside(self, kind: type, weight: str) -> list[_Norm]:
        """Normalisations of a kind that have this weight, in both graphs, called once."""
        old, new = (_calls_of(graph, kind, weight) for graph in (self.old, self.new))
        found = []
        for identity, (number, layer) in old.items():
            for heir in self.heirs.get(identity, []):
                if id(heir) in new:
                    found.append(_Norm(number, new[id(heir)][0], layer, new[id(heir)][1]))
        return found

    def _refit(self, use: _Use) -> LayerRepair:
        consumer, groups = use.consumer, use.new[0][1].groups
        before = consumer.matrix(read_array(consumer.variable))[consumer.stays(self.kept)]
        dense = np.split(before.astype(np.float32), groups)  # each (outputs that stay, in)
        shape = tuple(int(size) for size in use.variable.shape)
        value = np.array(read_array(use.variable))
        view = view_as_matrix(consumer.letters, shape)
        weights = np.split(view.to_matrix(value).astype(np.float32), groups)
        place = self._place(use)
        fits = [
            OutputFit(own, consumer.name, damping=self.damping, intercept=place is not None)
            for own in weights
        ]
        self._count(use, dense, fits)
        solved = [fit.solve() for fit in fits]
        squash = squash_after(self.new, use.new[0][0])
        if squash is not None and len(use.new) == len(fits) == 1:
            solved = [
                self._refit_output(use, dense[0], fits[0].statistics.count, solved[0], squash)
            ]
        shift = np.concatenate([own for _, own in solved])
        folded = self._folded(consumer, len(shift))
        figures = _figures(fits, weights, solved, np.split(folded, groups))
        view.to_matrix(value)[...] = np.concatenate([weight for weight, _ in solved])
        use.variable.assign(value)
        if place is not None:
            _shift_by(*place, per_output(use.owner, shift - folded))
        return figures

    def _refit_output(
        self, use: _Use, dense: Any, count: int, solved: tuple[Any, Float64], squash: Squash
    ) -> tuple[Any, Float64]:
        """From least squares on, the weights by which the model says what the original did."""
        ((number, old_tap),), ((new_number, new_tap),) = use.old, use.new
        if old_tap.bias is None:
            return solved
        bias = read_array(old_tap.bias.variable).astype(np.float64).reshape(-1)

        def parts() -> Iterator[tuple[Any, Any]]:
            beside = zip(
                self.old_steps.visits([number]), self.new_steps.visits([new_number]), strict=True
            )
            for (before,), (after,) in beside:
                given = counted(old_tap.rows(before.args, before.kwargs), before.keep)[0]
                rows = counted(new_tap.rows(after.args, after.kwargs), before.keep)[0]
                yield rows, given.astype(np.float64) @ dense.T + bias

        rows, logits = thinned(parts(), count)
        weight, shift = solved
        start = weight, shift + bias
        weight, total = refit_output(rows, logits, start, squash, damping=self.damping)
        return weight, total - bias

    def _missed(self, use: _Use, before: Visit, after: Visit) -> Float32 | None:
        """What a residual sum has lost already, (positions, outputs): the layer is to make up for it."""
        if use.sums is None:
            return None
        one, two = use.sums
        stays = use.consumer.stays(self.kept)
        lost = _numpy(before.values[id(one)])[..., stays] - _numpy(after.values[id(two)])
        missed: Float32 = counted(lost.astype(np.float32), before.keep)[0]
        return missed

    def _place(self, use: _Use) -> tuple[Bias, int] | None:
        """Where an intercept goes, and whether it is added there (1) or taken off (-1)."""
        bias = use.new[0][1].bias or bias_beside(use.owner)
        if bias is not None:
            return bias, 1
        norm = self.folding.norms.get(id(use.consumer.variable))
        heirs = [] if norm is None else self.heirs.get(id(norm.moving_mean), [])
        return (Bias(heirs[0]), -1) if heirs else None

    def _folded(self, consumer: Consumer, size: int) -> Float64:
        """What folding has added already, one number per row that stays."""
        shift = self.folding.shifts.get(id(consumer.variable))
        return np.zeros(size) if shift is None else shift[consumer.stays(self.kept)]

    def _count(self, use: _Use, dense: Sequence[Any], fits: Sequence[OutputFit]) -> None:
        old = self.old_steps.visits([number for number, _ in use.old])
        new = self.new_steps.visits([number for number, _ in use.new])
        for one, two in zip(old, new, strict=True):
            for before, after, (_, old_tap), (_, new_tap) in zip(
                one, two, use.old, use.new, strict=True
            ):
                wanted = counted(
                    old_tap.rows(before.args, before.kwargs), before.keep, old_tap.groups
                )
                rows = self._rows(use, new_tap, wanted, after, before.keep)
                missed = self._missed(use, before, after)
                for fit, own, matrix, target in zip(fits, rows, dense, wanted, strict=True):
                    outputs = target.astype(np.float32) @ matrix.T
                    fit.update(np.ascontiguousarray(own), outputs, missed)

    def _rows(self, use: _Use, tap: Tap, wanted: Any, after: Visit, keep: Keep | None) -> Any:
        """What the refit weight is fed with, (groups, positions, in)."""
        if tap.feeds_back:
            return wanted[..., ~use.consumer.removed(self.kept)]
        return counted(tap.rows(after.args, after.kwargs), keep, tap.groups)

    def _renew(self, norm: _Norm) -> bool:
        """Change the statistics of a normalisation by as much as those of its input changed."""
        size = int(norm.old.moving_mean.shape[0])
        before = OutputStatistics(size, name=norm.old.name)
        after = OutputStatistics(int(norm.new.moving_mean.shape[0]), name=norm.old.name)
        old, new = self.old_steps.visits([norm.old_call]), self.new_steps.visits([norm.new_call])
        for (one,), (two,) in zip(old, new, strict=True):
            for visit, statistics, layer in ((one, before, norm.old), (two, after, norm.new)):
                rows = np.moveaxis(_numpy(visit.args[0]), layer.axis, -1)
                statistics.update(np.ascontiguousarray(counted(rows, one.keep)))
        stays = self._stays(norm)
        mean, variance = (read_array(v)[stays].astype(np.float64) for v in _moving(norm.old))
        was, now = before.measure("std")[stays] ** 2, after.measure("std") ** 2
        lively = was > _STILL * (was + before.mean[stays] ** 2)
        ratio = np.where(lively, now / np.where(lively, was, 1.0), 1.0)
        # What comes out keeps its mean and spread on the data, whatever part of either the moving
        # statistics had taken off before.
        spread = (variance + norm.old.epsilon) * ratio
        norm.new.moving_mean.assign(after.mean - (before.mean[stays] - mean) * np.sqrt(ratio))
        norm.new.moving_variance.assign(np.maximum(spread - norm.old.epsilon, 0.0))
        return True

    def _rescale(self, norm: _Norm) -> bool:
        """Refit scale and offset of a layer normalisation to what the original's put out."""
        gamma, beta = norm.new.gamma, norm.new.beta
        last = len(self.new.calls[norm.new_call].inputs[0].shape) - 1
        if beta is None or list(norm.new.axis) not in ([-1], [last]):
            return False
        scale, offset = (read_array(variable).astype(np.float64) for variable in (gamma, beta))
        stays = self.kept.take(
            np.arange(int(norm.old.gamma.shape[0])), self.axes_of[id(norm.old.gamma)]
        )
        statistics = AffineStatistics(scale.size, name=str(norm.old.name))
        old, new = self.old_steps.visits([norm.old_call]), self.new_steps.visits([norm.new_call])
        lively = np.where(scale == 0.0, 1.0, scale)
        for (one,), (two,) in zip(old, new, strict=True):
            wanted = counted(_numpy(norm.old(*one.args))[..., stays], one.keep)[0]
            rows = (counted(_numpy(norm.new(*two.args)), one.keep)[0] - offset) / lively
            statistics.update(rows.astype(np.float32), wanted)
        scale, offset = statistics.fit(scale, damping=self.damping)
        gamma.assign(scale)
        beta.assign(offset)
        return True

    def _stays(self, norm: _Norm) -> npt.NDArray[np.intp]:
        axes = self.axes_of[id(norm.old.moving_mean)]
        everything = np.arange(int(norm.old.moving_mean.shape[0]))
        return self.kept.take(everything, axes)


def _numpy(value: Any) -> Any:
    return np.asarray(ops.convert_to_numpy(value))


def _moving(norm: Any) -> tuple[Any, Any]:
    return norm.moving_mean, norm.moving_variance


def _shift_by(place: Bias, sign: int, change: Float64) -> None:
    value = np.array(read_array(place.variable), np.float64)
    part = value if place.part is None else value[place.part]
    part += sign * change.reshape(part.shape)
    place.variable.assign(value)


def _figures(
    fits: Sequence[OutputFit],
    weights: Sequence[Any],
    solved: Sequence[tuple[Any, Float64]],
    folded: Sequence[Float64],
) -> LayerRepair:
    energy = sum(fit.energy for fit in fits)
    before = sum(f.lost(w, s) for f, w, s in zip(fits, weights, folded, strict=True))
    after = sum(f.lost(w, s) for f, (w, s) in zip(fits, solved, strict=True))
    scale = energy if energy > 0 else 1.0
    return LayerRepair(before / scale, after / scale, fits[0].statistics.count)


def _taps_by_variable(graph: Graph) -> dict[int, list[tuple[int, Tap, Any]]]:
    """By identity of a weight, for each call: its number, the tap, the layer that owns the weight."""
    found: dict[int, list[tuple[int, Tap, Any]]] = {}
    for number, call in enumerate(graph.calls):
        for tap in taps_of(call):
            owner = next(
                place.layer
                for place in walk_layers(call.operation)
                if any(v is tap.variable for v in place.layer._trainable_variables)
                or any(v is tap.variable for v in place.layer._non_trainable_variables)
            )
            found.setdefault(id(tap.variable), []).append((number, tap, owner))
    return found


def _calls_of(graph: Graph, kind: type, weight: str) -> dict[int, tuple[int, Any]]:
    """By identity of this weight, layers of exactly this kind that are called once, and where."""
    calls = [
        (number, call.operation)
        for number, call in enumerate(graph.calls)
        if type(call.operation) is kind and getattr(call.operation, weight, None) is not None
    ]
    uses = [id(layer) for _, layer in calls]
    return {
        id(getattr(layer, weight)): (number, layer)
        for number, layer in calls
        if uses.count(id(layer)) == 1
    }


def squash_after(graph: Graph, number: int) -> Squash | None:
    """What makes an output of the model of what a call puts out, row by row; None if nothing does."""
    call = graph.calls[number]
    for end in squashed_calls(graph):
        softmax = role_of(end) == "probabilities"
        if softmax and (_is_split(call) or getattr(end.operation, "axis", -1) != -1):
            continue
        if end is call or _is_alone(graph, call, end):
            return "softmax" if softmax else "sigmoid"
    return None


def _is_split(call: Call) -> bool:
    """Whether a row of outputs lies on more than one axis, so a softmax is over a part of it."""
    return isinstance(call.operation, layers.EinsumDense)


def _is_alone(graph: Graph, call: Call, end: Call) -> bool:
    """Whether a linear call's output goes into this other one and nowhere else."""
    output = call.outputs[0]
    readers = [one for one in graph.calls if any(t is output for t in one.inputs)]
    known = has_no_activation(call) and not any(t is output for t in graph.outputs)
    return known and len(readers) == 1 and readers[0] is end


def _sums(
    old: Graph, before: Sequence[int], new: Graph, after: Sequence[int]
) -> tuple[Tensor, Tensor] | None:
    """What the output is added to in the original and in the cut model; None with several calls."""
    if len(before) != 1:
        return None
    one, two = added_to(old, before[0]), added_to(new, after[0])
    return None if one is None or two is None else (one, two)
