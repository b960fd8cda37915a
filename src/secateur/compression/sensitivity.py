"""How much worse a model's loss becomes, one layer at a time, by pruning it and by cutting it."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import tree

from secateur.arrays import Array
from secateur.compression.quality import Quality
from secateur.errors import CalibrationWarning, TargetNotReachedWarning
from secateur.keras.cloning import clone_model
from secateur.keras.compiling import compile_alike
from secateur.keras.cutting import cut, plan_cut
from secateur.keras.gradient_scores import GradientScores
from secateur.keras.keeping import release_zeros
from secateur.keras.pruning import prune
from secateur.keras.tensors import WeightTensor, find_tensors
from secateur.keras.variables import read_array, writable_copy, write_array

DENSITIES = (0.3, 0.1, 0.03, 0.0)
_KEPT_UNITS = (0.5, 0.25)
_SAMPLES = 256
_ALIGN = 8


@dataclass(frozen=True)
class CutLosses:
    """What cutting one group of units costs.

    Attributes:
        kind: "neuron", "channel", "unit", "head" or "embedding".
        width: Number of units.
        losses: Number of units that stay -> increase of the loss, after repair.
        shares: Number of units that stay -> weight name -> share of its weights that stays.
    """

    kind: str
    width: int
    losses: dict[int, float]
    shares: dict[int, dict[str, float]]


@dataclass
class Sensitivity:
    """What was measured of a model.

    Attributes:
        loss: Of the model as it is, on the calibration samples.
        sizes: Weight name -> number of weights.
        pruned: Weight name -> score -> density -> increase of the loss.
        cut: Name of the group of units -> what cutting it costs.
    """

    loss: float
    sizes: dict[str, int]
    pruned: dict[str, dict[str, dict[float, float]]] = field(default_factory=dict)
    cut: dict[str, CutLosses] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON, whose keys are strings."""
        pruned = {
            name: {score: list(curve.items()) for score, curve in scores.items()}
            for name, scores in self.pruned.items()
        }
        cuts = {
            name: [own.kind, own.width, list(own.losses.items()), list(own.shares.items())]
            for name, own in self.cut.items()
        }
        return {"loss": self.loss, "sizes": self.sizes, "pruned": pruned, "cut": cuts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Sensitivity:
        """Read what `to_dict` gave."""
        pruned = {
            name: {score: {float(d): v for d, v in curve} for score, curve in scores.items()}
            for name, scores in data["pruned"].items()
        }
        cuts = {
            name: CutLosses(kind, width, dict(map(tuple, losses)), dict(map(tuple, shares)))
            for name, (kind, width, losses, shares) in data["cut"].items()
        }
        return cls(data["loss"], data["sizes"], pruned, cuts)


def calibration_slice(train: Any, num_samples: int = _SAMPLES) -> tuple[Any, ...]:
    """A few samples of the training data, spread evenly over arrays, or a dataset's first.

    Args:
        train: (x, y), (x, y, sample_weight) of arrays, or a dataset of such batches.
        num_samples: At most.
    """
    if isinstance(train, tuple):
        rows = len(tree.flatten(train)[0])
        chosen = np.unique(np.linspace(0, rows - 1, min(rows, num_samples)).astype(np.int64))
        return tree.map_structure(lambda leaf: np.asarray(leaf)[chosen], train)  # type: ignore[no-any-return]
    batches, have = [], 0
    for batch in _batches(train):
        batches.append(tree.map_structure(np.asarray, tuple(batch)))
        have += len(tree.flatten(batches[-1])[0])
        if have >= num_samples:
            break
    return tree.map_structure(lambda *leaves: np.concatenate(leaves), *batches)  # type: ignore[no-any-return]


def _batches(train: Any) -> Iterator[Any]:
    if isinstance(train, keras.utils.PyDataset):
        yield from (train[number] for number in range(train.num_batches))
        return
    yield from train


def training_scores(
    model: Any, tensors: Sequence[WeightTensor], samples: tuple[Any, ...]
) -> GradientScores:
    """First-order Taylor scores of a model's weights, from one pass that changes nothing.

    Args:
        model: Compiled; its optimizer is replaced, so give a copy.
        tensors: Its weights that are to be scored.
        samples: (x, y, ...).
    """
    scores = GradientScores("taylor", tensors)
    model.optimizer = keras.optimizers.SGD(0.0)  # gradients pass through, and nothing moves
    scores.listen(model.optimizer)
    weights = {"sample_weight": samples[2]} if len(samples) > 2 else {}
    model.fit(*samples[:2], batch_size=32, epochs=1, verbose=0, shuffle=False, **weights)
    scores.stop(model.optimizer)
    return scores


@dataclass(frozen=True)
class GivenScores:
    """A criterion that was worked out before.

    Attributes:
        given: One matrix of saliencies for each weight, (out, in), in order.
    """

    given: tuple[Array, ...]
    name: str = "given"

    def saliencies(self, weights: Sequence[Array]) -> list[Array]:
        """The saliencies, zero where the weight is."""
        return [
            np.where(weight == 0, 0.0, own) for weight, own in zip(weights, self.given, strict=True)
        ]


def measure_pruning(
    model: Any, names: Collection[str], samples: tuple[Any, ...]
) -> Iterator[tuple[str, dict[str, dict[float, float]]]]:
    """Prune one weight matrix at a time to some densities, by each score, and look at the loss.

    Args:
        model: A compiled model; it is not changed.
        names: Of weight matrices.
        samples: (x, y, ...).

    Yields:
        Weight name, and score -> density -> increase of the loss; infinite where it is not finite.
    """
    loss = Quality(samples, "loss", "min")
    scored = clone_model(model)
    compile_alike(model, scored)
    taylor = _by_taylor(scored, names, samples)
    probe = clone_model(model)
    compile_alike(model, probe)
    before = loss.of(probe)
    for tensor in _named(probe, names):
        own = writable_copy(tensor.variable)
        criteria: dict[str, Any] = {"magnitude": "magnitude"}
        if tensor.variable.trainable:  # else its gradients say nothing
            criteria["taylor"] = GivenScores((taylor[tensor.name],))
        found: dict[str, dict[float, float]] = {score: {} for score in criteria}
        for score, density in itertools.product(criteria, DENSITIES):
            how = {"sparsity": {tensor.name: 1 - density}, "criterion": criteria[score]}
            prune(probe, inplace=True, **how)
            found[score][density] = _rise(before, loss.of(probe))
            release_zeros(probe)
            write_array(tensor.variable, own)
        yield tensor.name, found


def _by_taylor(model: Any, names: Collection[str], samples: tuple[Any, ...]) -> dict[str, Array]:
    """Weight name -> first-order Taylor scores as a matrix, (out, in)."""
    tensors = _named(model, names)
    scores = training_scores(model, tensors, samples)
    matrices = [tensor.to_matrix(read_array(tensor.variable)) for tensor in tensors]
    found = scores.saliencies(matrices)
    return {tensor.name: own for tensor, own in zip(tensors, found, strict=True)}


def _named(model: Any, names: Collection[str]) -> list[WeightTensor]:
    return [tensor for tensor in find_tensors(model).tensors if tensor.name in names]


def _rise(before: float, after: float) -> float:
    """Increase of a loss; less than nothing counts as nothing, and what is no number as infinite."""
    return max(after - before, 0.0) if math.isfinite(after) else math.inf


def measure_cutting(
    model: Any, names: Collection[str], samples: tuple[Any, ...]
) -> Iterator[tuple[str, CutLosses]]:
    """Cut one group of units at a time to some widths, repair, and look at the loss.

    Args:
        model: A compiled model; it is not changed.
        names: Weight matrices whose shrinking counts.
        samples: (x, y, ...).

    Yields:
        Name of the group, and what cutting it costs; groups that must stay whole are left out.
    """
    loss = Quality(samples, "loss", "min")
    inputs = tree.map_structure(np.asarray, samples[0])
    whole = clone_model(model)
    compile_alike(model, whole)
    before = loss.of(whole)
    sizes = {tensor.name: math.prod(tensor.shape) for tensor in _named(whole, names)}
    for group in plan_cut(whole, ratio=0.5, align=1).groups:
        widths = units_kept(group.kind, group.width) if group.removed else []
        own = CutLosses(group.kind, group.width, {}, {})
        for kept in widths:
            smaller = cut_to(whole, inputs, {group.name: kept})
            own.losses[kept] = _rise(before, loss.of(smaller))
            after = {t.name: math.prod(t.shape) for t in _named(smaller, names)}
            shares = {name: after[name] / size for name, size in sizes.items() if name in after}
            own.shares[kept] = {name: share for name, share in shares.items() if share < 1}
        if own.losses:
            yield group.name, own


def units_kept(kind: str, width: int) -> list[int]:
    """Widths at which cutting is measured, largest first: a half and a quarter, rounded up to eights.

    Example:
        >>> units_kept("neuron", 100), units_kept("head", 4), units_kept("neuron", 6)
        ([56, 32], [2, 1], [3, 2])
    """
    step = _step(kind, width)
    rounded = {max(1, math.ceil(share * width / step) * step) for share in _KEPT_UNITS}
    return sorted((kept for kept in rounded if kept < width), reverse=True)


def widths_between(kind: str, narrowest: int, width: int) -> Array:
    """Widths that a group may be cut to, ascending: eights where it is wide, and the whole group.

    Example:
        >>> widths_between("neuron", 8, 28).tolist()
        [8, 16, 24, 28]
    """
    kept = np.arange(narrowest, width, _step(kind, width))
    return np.append(kept, width)


def _step(kind: str, width: int) -> int:
    return _ALIGN if kind != "head" and width >= 2 * _ALIGN else 1


def cut_to(model: Any, inputs: Any, keep: Mapping[str, int]) -> Any:
    """A model cut to the given numbers of units, and repaired.

    Args:
        model: It is not changed.
        inputs: Calibration samples.
        keep: Name of a group -> number of units that stay.
    """
    with warnings.catch_warnings():
        # What a cut reaches is measured, so that a warning would say it twice.
        warnings.simplefilter("ignore", TargetNotReachedWarning)
        warnings.simplefilter("ignore", CalibrationWarning)
        # Named, so that no other is tried beside it: what is cut here is trained, or only measured.
        return cut(model, inputs, keep=dict(keep), measure="obs", repair=True, proof=False).model
