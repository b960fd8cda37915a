"""What pruning a model gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateur.arrays import Array
from secateur.data_plan import DataPrunePlan
from secateur.plan import PrunePlan
from secateur.report import PruneReport


@dataclass(frozen=True)
class Result:
    """A pruned model and what was done to it.

    Attributes:
        model: An ordinary Keras model.
        masks: Weight name -> boolean array of the weight's shape, True = kept.
        report: Per weight: shape, sparsity asked for and reached, and without data the threshold, the
            largest saliency that went and the smallest that stayed, with data the part of its output
            that is lost; and what was left as it is, with the reason.
        plan: What was decided.
    """

    model: Any
    masks: dict[str, Array]
    report: PruneReport
    plan: PrunePlan | DataPrunePlan
