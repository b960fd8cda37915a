"""What it costs a model that one weight alone is pruned, by how much of it goes.

The error of a layer's own output says nothing of what the model makes of it, and the two differ between
layers by orders of magnitude. So each weight is pruned alone, in the given network: its error is known
at several sparsities from what goes into it, and the model's output is looked at for one of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import ops

from secateur.allocation import scaled_losses
from secateur.errors import CalibrationWarning
from secateur.keras.calibrating import CalibrationWalk
from secateur.keras.data_pruning import Opened, shift_bias
from secateur.keras.gathering import Gatherer
from secateur.keras.sampling import num_samples, some_samples
from secateur.keras.staging import Member, make_schedule
from secateur.keras.tensors import WeightTensor
from secateur.keras.variables import empty_like, read_array
from secateur.layer_pruning import PrunedMatrix, Recipe, make_problems, prune_problems
from secateur.patterns import Pattern
from secateur.pruning import Progress
from secateur.reconstruction import LayerTarget
from secateur.statistics import InputStatistics

# Of a large calibration set, so much tells what a layer is worth.
_SAMPLES = 256
_SAMPLES_OF_OUTPUT = 64

# Densities at which errors are looked at, as parts of the density that is asked for of all.
_FACTORS = (2.0, 1.4, 1.0, 0.7, 0.45, 0.25)


@dataclass(frozen=True)
class Alone:
    """How one weight is pruned, all others being whole.

    Attributes:
        recipe: How; without companions of the dense network.
        pattern: Which weights go together; no n:m.
        scope: "layer", or "row".
        sparsity: What is asked for of all weights together, above 0 and below 1.
        importance: Weight name -> (out,), as `output_importance` gives it.
    """

    recipe: Recipe
    pattern: Pattern
    scope: Any
    sparsity: float
    importance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sparsities(self) -> list[float]:
        """Sparsities at which errors are looked at, rising."""
        density = 1 - self.sparsity
        return [1 - density * factor for factor in _FACTORS if density * factor < 1]

    def prune(
        self, tensor: WeightTensor, member: Member, statistics: list[InputStatistics]
    ) -> dict[float, PrunedMatrix]:
        """The weight at each of the sparsities."""
        matrix = tensor.to_matrix(read_array(tensor.variable))
        has_bias = member.tap.bias is not None
        importance = self.importance.get(tensor.name)
        problems = make_problems(
            matrix, statistics, self.recipe, has_bias=has_bias, importance=importance
        )
        done = {}
        for at in self.sparsities:
            target = LayerTarget(self.pattern, sparsity=at, scope=self.scope)
            done[at] = prune_problems(matrix, problems, statistics, target, self.recipe)
        return done


def losses_alone(
    opened: Opened, alone: Alone, memory: int, progress: Progress | None = None
) -> dict[str, dict[float, float]]:
    """Loss of the model by the sparsity of one weight, all others being whole.

    The loss is the squared difference of the outputs as a part of their variance over the data.

    Args:
        opened: The model made ready for a walk; afterwards it is what it was.
        alone: How weights are pruned.
        memory: Bytes of activations that may be kept in memory.
        progress: Called with each weight's name when it is known.

    Returns:
        Weight name -> {sparsity: loss}, for `secateur.allocation.by_loss`.

    Raises:
        NonFiniteError: A weight, or what goes into one, is NaN or infinite; it is named.
        FactorisationError: The data says too little for the damping.
    """
    batches, rows = some_samples(opened.batches, _SAMPLES, real=opened.padding.given)
    batches = list(opened.trimmed(batches))
    padding = opened.padding.of_samples(rows)
    tensors = {id(tensor.variable): tensor for tensor in opened.chosen.tensors}
    schedule = make_schedule(opened.graph, tensors.keys(), padding, to_outputs=True)
    gatherer = Gatherer(tensors, lambda shape, name, _: InputStatistics(shape[1], name=name))
    errors: dict[str, dict[float, float]] = {}
    measured: dict[str, tuple[float, float]] = {}
    with CalibrationWalk(
        opened.graph, schedule, batches, padding, beside=False, budget=memory
    ) as walk:
        gatherer.look_ahead(walk, schedule)
        outputs: _Outputs | None = None
        for group in walk.groups():
            outputs = outputs or _Outputs(walk, [num_samples(batch) for batch in batches])
            statistics = gatherer.gather(walk, group)
            for member in group.members:
                tensor = tensors[id(member.variable)]
                found = _without_warning(alone, tensor, member, statistics)
                errors[tensor.name] = {at: done.error for at, done in found.items()}
                at = min(found, key=lambda level: abs(level - alone.sparsity))
                with _put(walk, tensor, member, found[at]):
                    measured[tensor.name] = (at, outputs.loss())
                if progress is not None:
                    progress(tensor.name)
    return scaled_losses(errors, measured)


def _without_warning(
    alone: Alone, tensor: WeightTensor, member: Member, statistics: list[InputStatistics]
) -> dict[float, PrunedMatrix]:
    with warnings.catch_warnings():
        # These are some of the samples only; whether all are few, the pruning itself says.
        warnings.simplefilter("ignore", CalibrationWarning)
        return alone.prune(tensor, member, statistics)


@contextmanager
def _put(
    walk: CalibrationWalk, tensor: WeightTensor, member: Member, done: PrunedMatrix
) -> Iterator[None]:
    """The pruned weight in the model, and its bias, while this lasts."""
    variables = [tensor.variable]
    if done.bias_shift is not None:
        assert member.tap.bias is not None
        variables.append(member.tap.bias.variable)
    after = empty_like(read_array(tensor.variable))
    tensor.to_matrix(after)[...] = done.weight
    walk.change(tensor.variable, after)
    if done.bias_shift is not None:
        shift_bias(walk, member, done.bias_shift)
    try:
        yield
    finally:
        for variable in variables:
            walk.undo(variable)


class _Outputs:
    """What the given model puts out, and how far from it the model is as it is now."""

    def __init__(self, walk: CalibrationWalk, sizes: list[int]) -> None:
        self._walk = walk
        count = min(len(sizes), -(-_SAMPLES_OF_OUTPUT // max(sizes)))
        # Where batches are sorted by length, those in the middle of equal parts stand for all.
        self._numbers = [(2 * part + 1) * len(sizes) // (2 * count) for part in range(count)]
        self._given = self._now()

    def loss(self) -> float:
        """Squared difference as a part of the variance over samples, summed over the outputs."""
        total = 0.0
        for given, now in zip(self._given, self._now(), strict=True):
            pairs = zip(given, now, strict=True)
            lost = sum(float(np.square(own - other).sum()) for own, other in pairs)
            varied = sum(float(np.square(own - own.mean(axis=0)).sum()) for own in given)
            total += lost / varied if varied > 0 else lost
        return total

    def _now(self) -> list[list[Any]]:
        """Per output, (samples, ...) float64 of each batch."""
        batches = [self._walk.outputs(number) for number in self._numbers]
        return [
            [np.asarray(ops.convert_to_numpy(own)).astype(np.float64) for own in output]
            for output in zip(*batches, strict=True)
        ]
