"""A step of a planned compression: cut what the plan cuts, and prune as it says while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from secateur.arrays import Array
from secateur.compression.costs import WeightCost, kept_within, prunable
from secateur.compression.finetuning import fine_tune
from secateur.compression.moves import Setting
from secateur.compression.planning import Blueprint
from secateur.compression.sensitivity import GivenScores, calibration_slice, cut_to
from secateur.keras.cloning import clone_model
from secateur.keras.cutting import plan_cut
from secateur.keras.keeping import keep_zeros
from secateur.keras.pruning import prune
from secateur.keras.tensors import WeightTensor
from secateur.keras.training import Pruning
from secateur.keras.variables import read_array
from secateur.schedules import Cubic

_PRUNINGS = 16
_CUT_SAMPLES = 512


class PlannedPruning(Pruning):
    """Prunes by a blueprint: each matrix to its density, or all together down to a budget.

    The schedule says which part of the way is done, from what is zero at the beginning. Zeros that are
    there when the training begins stay zero.

    Args:
        blueprint: Densities or a budget, and scores.
        prices: Weight name -> its cost.
        schedule: From 0 to 1.
        frequency: As for `Pruning`.
        names: The weights that are pruned.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        prices: Mapping[str, WeightCost],
        schedule: Cubic,
        frequency: int,
        names: Sequence[str],
    ) -> None:
        super().__init__(schedule, "taylor", frequency=frequency, include=list(names))
        self._blueprint = blueprint
        self._prices = prices
        self._start: dict[str, int] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Hold what is zero already; see `Pruning`."""
        super().on_train_begin(logs)
        chosen = self._chosen()
        masks = {tensor.name: np.not_equal(read_array(tensor.variable), 0) for tensor in chosen}
        keep_zeros(self.model, masks)
        self._start = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}

    def _prune_to(self, sparsity: float) -> None:
        chosen = self._chosen()
        found = self._saliencies(chosen)
        criterion = GivenScores(tuple(found.values()))
        if self._blueprint.densities:
            how: dict[str, Any] = {"sparsity": self._layer_sparsities(chosen, sparsity)}
        else:
            kept = self._kept(chosen, found, sparsity)
            size = sum(own.size for own in found.values())
            how = {"count": size - kept, "include": list(found), "scope": "global"}
        result = prune(self.model, criterion=criterion, inplace=True, **how)
        self.report = result.report
        self.history.append((self.step, sparsity))

    def _saliencies(self, chosen: Sequence[WeightTensor]) -> dict[str, Array]:
        """What is ranked, as matrices; what is dear to keep has to be worth it."""
        matrices = [tensor.to_matrix(read_array(tensor.variable)) for tensor in chosen]
        assert self._scores is not None
        taylor = self._scores.saliencies(matrices)
        found = {}
        for tensor, matrix, score in zip(chosen, matrices, taylor, strict=True):
            by_taylor = self._blueprint.scores[tensor.name] == "taylor"
            own = score if by_taylor else np.square(matrix.astype(np.float64))
            found[tensor.name] = own / self._prices[tensor.name].per_weight
        return found

    def _layer_sparsities(self, chosen: Sequence[WeightTensor], share: float) -> dict[str, float]:
        sparsities = {}
        for tensor in chosen:
            size = int(np.prod(tensor.shape))
            begins = self._start[tensor.name] / size
            ends = min(begins, self._blueprint.densities[tensor.name])
            sparsities[tensor.name] = 1 - (begins + (ends - begins) * share)
        return sparsities

    def _kept(
        self, chosen: Sequence[WeightTensor], found: Mapping[str, Array], share: float
    ) -> int:
        """How many weights stay, so that the cost has come its share of the way to the budget."""
        prices = {tensor.name: self._prices[tensor.name] for tensor in chosen}
        begins = sum(
            price.of(self._start[name], found[name].size) for name, price in prices.items()
        )
        ends = min(begins, self._blueprint.budget)
        kept = kept_within(found, prices, begins + (ends - begins) * share)
        return min(kept, sum(self._start.values()))


def prune_and_train(
    setting: Setting,
    candidate: Any,
    blueprint: Blueprint,
    prices: Mapping[str, WeightCost],
) -> float:
    """Prune a model by a blueprint while it is trained; cut it before.

    Args:
        setting: What all steps share.
        candidate: Is changed.
        blueprint: What becomes of each layer.
        prices: Weight name -> its cost.

    Returns:
        The quality, NaN if the loss became NaN.
    """
    names = [tensor.name for tensor in prunable(candidate) if tensor.name in blueprint.scores]
    pruning = None
    if names:
        total = setting.tuning.num_steps(setting.train)
        end = max(1, int(total * setting.tuning.ramp))
        frequency = max(1, end // _PRUNINGS)
        # The first pruning waits for gradients.
        schedule = Cubic(1.0, end=end, begin=min(frequency, end - 1) or 1)
        pruning = PlannedPruning(blueprint, prices, schedule, frequency, names)
    parts = (setting.original, setting.train, setting.quality, setting.tuning)
    return fine_tune(candidate, *parts, pruning, setting.tell)


def cut_by(setting: Setting, model: Any, keep: Mapping[str, int]) -> Any:
    """A copy of a model, cut as far as it is not yet.

    Args:
        setting: What all steps share.
        model: It is not changed.
        keep: Name of a group of units -> how many stay.
    """
    if keep:
        widths = {group.name: group.width for group in plan_cut(model, ratio=0.5, align=1).groups}
        keep = {name: kept for name, kept in keep.items() if kept < widths.get(name, 0)}
    if not keep:
        return clone_model(model)
    return cut_to(model, calibration_slice(setting.train, _CUT_SAMPLES)[0], keep)
