"""Single steps of a compression: from a model that is good enough to a smaller candidate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import keras

from secateur.compression.finetuning import FineTuning, fine_tune, steps_per_epoch
from secateur.compression.quality import Quality
from secateur.errors import TargetNotReachedWarning
from secateur.keras.cloning import clone_model
from secateur.keras.cutting import cut
from secateur.keras.pruning import prune
from secateur.keras.tensors import find_tensors
from secateur.keras.training import Pruning
from secateur.keras.variables import read_array
from secateur.schedules import Cubic


@dataclass(frozen=True)
class Setting:
    """What all steps of one compression share.

    Attributes:
        original: The model as it was given; the teacher.
        train: Training data.
        calibration: Inputs alone, for measuring outputs.
        quality: On held-out data.
        tuning: How candidates are trained.
        seed: Step n uses seed + n.
        embeddings: Whether embeddings are pruned too.
        tell: Called with the share of a step that is done, 0 to 1.
    """

    original: Any
    train: Any
    calibration: Any
    quality: Quality
    tuning: FineTuning
    seed: int
    embeddings: bool
    tell: Callable[[float], None] | None = None


@dataclass(frozen=True)
class Candidate:
    """What a step made.

    Attributes:
        model: The smaller model; None where nothing could be made.
        quality: Its metric on the validation data; NaN if its training failed.
        note: Why there is no model, or "".
        epochs: Of its training.
    """

    model: Any
    quality: float = math.nan
    note: str = ""
    epochs: int = 0


class Move(Protocol):
    """A way to make a model smaller by an amount.

    Attributes:
        method: Its name in the history.
    """

    method: str

    def make(self, model: Any, amount: float, number: int) -> Candidate:
        """A smaller candidate."""


class Prune:
    """Zero weights while training, up to a density; amounts are densities.

    Args:
        setting: What all steps share.
    """

    method = "prune"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def at_once(self, model: Any, density: float) -> Any:
        """A copy that is pruned and not trained: what it costs is nearly what it will cost."""
        candidate = clone_model(model)
        prune(candidate, sparsity=1 - density, include=self.names(candidate), inplace=True)
        return candidate

    def names(self, model: Any) -> list[str]:
        """Weights that are pruned: matrices, and embeddings where they count."""
        return [
            tensor.name
            for tensor in find_tensors(model).tensors
            if tensor.default or (self.setting.embeddings and tensor.role == "embedding")
        ]

    def make(self, model: Any, amount: float, number: int) -> Candidate:
        """Prune to the density `amount` along a cubic schedule, then recover."""
        keras.utils.set_random_seed(self.setting.seed + number)
        candidate = clone_model(model)
        names = self.names(candidate)
        tuning = self.setting.tuning
        total = tuning.epochs * steps_per_epoch(self.setting.train, tuning.batch_size)
        end = max(1, int(total * tuning.ramp))
        begins = min(_zeros(candidate, names), 1 - amount)
        schedule = Cubic(1 - amount, end=end, initial=begins)
        pruning = Pruning(schedule, frequency=max(1, end // 16), include=names)
        reached = fine_tune(
            candidate,
            self.setting.original,
            self.setting.train,
            self.setting.quality,
            tuning,
            pruning,
            self.setting.tell,
        )
        return Candidate(candidate, reached, epochs=self.setting.tuning.epochs)


class Cut:
    """Remove units by what they put out on data, then train; amounts are fractions of the units.

    Args:
        setting: What all steps share.
    """

    method = "cut"

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def make(self, model: Any, amount: float, number: int) -> Candidate:
        """Cut the fraction `amount` of each layer's units, then recover."""
        keras.utils.set_random_seed(self.setting.seed + number)
        with warnings.catch_warnings():
            # That widths are rounded is no news in a loop: the history shows what came of it.
            warnings.simplefilter("ignore", TargetNotReachedWarning)
            result = cut(model, self.setting.calibration, ratio=amount)
        candidate = result.model
        if result.parameters[0] == result.parameters[1]:
            return Candidate(None, note="nothing is left to cut at this ratio")
        reached = fine_tune(
            candidate,
            self.setting.original,
            self.setting.train,
            self.setting.quality,
            self.setting.tuning,
            tell=self.setting.tell,
        )
        return Candidate(candidate, reached, epochs=self.setting.tuning.epochs)


def _zeros(model: Any, names: list[str]) -> float:
    """Fraction of zeros in the named weights."""
    chosen = set(names)
    arrays = [read_array(t.variable) for t in find_tensors(model).tensors if t.name in chosen]
    size = sum(array.size for array in arrays)
    return sum(int((array == 0).sum()) for array in arrays) / max(size, 1)
