"""Scores of all weights of a model at once, in the network as it was given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.arrays import Array
from secateur.criteria import Criterion
from secateur.data_criteria import ActivationPath, DataCriterion
from secateur.errors import InvalidArgumentError
from secateur.keras.calibrating import CalibrationWalk
from secateur.keras.chains import require_chain
from secateur.keras.choosing import arrays_of
from secateur.keras.data_pruning import Calibration, Opened
from secateur.keras.gathering import Gatherer
from secateur.keras.gradients import gradient_statistics
from secateur.keras.staging import make_schedule
from secateur.keras.tensors import WeightTensor
from secateur.keras.variables import read_array
from secateur.keras.weight_pruning import rank_model
from secateur.patterns import Unstructured
from secateur.pruning import Request

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


def score(
    model: Model,
    opened: Opened,
    calibration: Calibration,
    criterion: Criterion | DataCriterion,
) -> dict[str, Array]:
    """Score the chosen weights of a model.

    Args:
        model: The model.
        opened: The model made ready for a walk.
        calibration: The data.
        criterion: Of weights, of what goes into them, or of gradients.

    Returns:
        Weight name -> (out, in) scores; for magnitudes the weights themselves, with their signs.

    Raises:
        InvalidArgumentError: The criterion cannot score these weights, or needs labels.
        NonFiniteError: A weight, an activation or a gradient is NaN or infinite.
    """
    tensors = opened.chosen.tensors
    if not isinstance(criterion, DataCriterion):
        arrays = arrays_of(tensors)
        request = Request(criterion, Unstructured())
        ranked = rank_model(model, opened.chosen.found, arrays, request)
        return {name: arrays.view(name)(array) for name, array in ranked.arrays.items()}
    if criterion.needs == "gradients":
        found = gradient_statistics(
            model,
            tensors,
            calibration.data,
            batch_size=calibration.batch_size,
            max_samples=calibration.max_samples,
        )
        matrices = [_matrix(tensor) for tensor in tensors]
        scores = criterion.decide(matrices, [found[tensor.name] for tensor in tensors])
        return dict(zip(opened.chosen.names, scores, strict=True))
    if isinstance(criterion, ActivationPath):
        return _score_chain(model, opened, criterion, calibration.memory)
    return score_inputs(opened, tensors, criterion, calibration.memory)


def score_inputs(
    opened: Opened, tensors: Sequence[WeightTensor], criterion: DataCriterion, memory: int
) -> dict[str, Array]:
    """Score weights by what goes into them, each matrix by itself; see `score`."""
    scores: dict[str, Array] = {}
    for tensor, statistics in _seen(opened, tensors, criterion, memory):
        parts = np.split(_matrix(tensor), len(statistics))
        found = [criterion.decide([p], [s])[0] for p, s in zip(parts, statistics, strict=True)]
        scores[tensor.name] = np.concatenate(found)
    return scores


def _score_chain(
    model: Model, opened: Opened, criterion: ActivationPath, memory: int
) -> dict[str, Array]:
    # A path runs through every matrix of the chain, those that are not pruned among them.
    chain = require_chain(model, opened.chosen.found)
    names = [tensor.name for tensor in chain]
    if missing := set(opened.chosen.names) - set(names):
        raise InvalidArgumentError(
            f"Criterion 'path' scores the kernels of a chain of Dense layers; {sorted(missing)} are "
            "not among them. Exclude them or choose another criterion."
        )
    known = {tensor.name: own[0] for tensor, own in _seen(opened, chain, criterion, memory)}
    scores = criterion.decide([_matrix(t) for t in chain], [known[name] for name in names])
    by_name = dict(zip(names, scores, strict=True))
    return {name: by_name[name] for name in opened.chosen.names}


def _seen(
    opened: Opened, tensors: Sequence[WeightTensor], criterion: DataCriterion, memory: int
) -> Any:
    """Each weight with statistics of what goes into it; those of one group at a time are alive."""
    by_variable = {id(tensor.variable): tensor for tensor in tensors}
    schedule = make_schedule(opened.graph, by_variable.keys(), opened.padding)
    gatherer = Gatherer(by_variable, lambda shape, name, _: criterion.init(shape, name=name))
    with CalibrationWalk(
        opened.graph, schedule, opened.batches, opened.padding, beside=False, budget=memory
    ) as walk:
        gatherer.look_ahead(walk, schedule)
        for group in walk.groups():
            statistics = gatherer.gather(walk, group)
            for member in group.members:
                yield by_variable[id(member.variable)], statistics


def _matrix(tensor: WeightTensor) -> Array:
    return tensor.to_matrix(read_array(tensor.variable))
