"""Prune while a model is trained by plain `fit`: a schedule as a Keras callback."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from secateur.arrays import Array
from secateur.criteria import get_criterion
from secateur.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    TargetNotReachedError,
)
from secateur.keras.gradient_scores import GRADIENT_SCORES, GradientScores
from secateur.keras.keeping import keep_zeros, trace_again
from secateur.keras.pruning import prune
from secateur.keras.selecting import select_tensors
from secateur.keras.tensors import WeightTensor, find_tensors
from secateur.keras.variables import read_array
from secateur.patterns import NM, parse_pattern
from secateur.report import PruneReport
from secateur.schedules import Schedule


class Pruning(keras.callbacks.Callback):  # type: ignore[misc]
    """Prunes a model in place while `fit` trains it, along a schedule of steps.

    A step is one batch that this callback has seen, over all calls of `fit` that it is passed to.
    Pruning happens at the schedule's `begin`, then every `frequency` steps, and at its `end` in any
    case. What is zero stays zero, during the training and after it.

    Args:
        schedule: Step -> sparsity: `sc.schedules.Cubic(0.9, end=1000)` and others.
        criterion: As for `prune`; or "movement" or "taylor", which add up the gradients of the
            training itself, see `GradientScores`.
        frequency: Steps from one pruning to the next.
        first_step: Number of the first batch, to go on with a training in another process.
        **how: `pattern`, `scope`, `norm`, `include`, `exclude`, as for `prune`.

    Attributes:
        step: Batches seen.
        report: Of the last pruning, as `prune` gives it; None before.
        history: (step, sparsity reached) of every pruning.

    Raises:
        TargetNotReachedError: From `fit`: before it begins, if it is known to be too short for the
            schedule to reach its end; else after it. The model keeps what was reached.
        InvalidArgumentError, ArgumentTypeError: As for `prune`.

    References:
        Zhu & Gupta (arXiv 1710.01878) for gradual pruning during training.

    Example:
        >>> from secateur.schedules import Cubic
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> pruning = Pruning(Cubic(0.75, end=4), frequency=2)
        >>> x, y = np.ones((40, 4)), np.ones((40, 2))
        >>> _ = model.fit(x, y, batch_size=10, epochs=2, callbacks=[pruning], verbose=0)
        >>> int((model.get_weights()[0] == 0).sum())
        6
    """

    def __init__(
        self,
        schedule: Schedule,
        criterion: Any = "magnitude",
        *,
        frequency: int = 100,
        first_step: int = 0,
        **how: Any,
    ) -> None:
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise ArgumentTypeError(
                "schedule must be one of secateur.schedules, or have begin, end, final and "
                f"at(step); got {schedule!r}."
            )
        if not isinstance(frequency, int) or frequency < 1:
            raise InvalidArgumentError(f"frequency must be at least 1 step, got {frequency!r}.")
        unknown = set(how) - {"pattern", "scope", "norm", "include", "exclude"}
        if unknown:
            raise InvalidArgumentError(
                f"Pruning takes no {sorted(unknown)}; see prune's arguments."
            )
        self.schedule = schedule
        self.criterion = criterion if criterion in GRADIENT_SCORES else get_criterion(criterion)
        self.frequency = frequency
        self.step = first_step
        self.report: PruneReport | None = None
        self.history: list[tuple[int, float]] = []
        self._how: dict[str, Any] = {"pattern": "unstructured", **how}
        self._fixed = isinstance(parse_pattern(self._how["pattern"]), NM)
        self._scores: GradientScores | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Check that the schedule fits the training, and put masks in place that keep everything."""
        del logs
        self._require_enough_steps()
        chosen = self._chosen()
        if isinstance(self.criterion, str):
            self._scores = self._scores or GradientScores(self.criterion, chosen)
            self._scores.listen(self.model.optimizer)
            trace_again(self.model)
        # The training step is traced with the masks; later they only change their values.
        masks = {t.name: _mask_so_far(t, started=bool(self.history)) for t in chosen}
        keep_zeros(self.model, masks)
        if self.step == 0:
            self._prune_if_due()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the step, and prune if it is time."""
        del batch, logs
        self.step += 1
        self._prune_if_due()

    def on_train_end(self, logs: Any = None) -> None:
        """Make sure that the training was long enough."""
        del logs
        if self._scores is not None:
            self._scores.stop(self.model.optimizer)
            trace_again(self.model)
        if self.step < self.schedule.end:
            reached = self.history[-1][1] if self.history else 0.0
            raise TargetNotReachedError(
                f"Pruning reached sparsity {reached:.4f} of {self.schedule.final:.4f}: the training "
                f"ended at step {self.step}, the schedule at {self.schedule.end}. The model keeps "
                "what was reached; train on with the same callback, or give a shorter schedule."
            )

    def _require_enough_steps(self) -> None:
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        if steps is None or epochs is None or self.history:
            return
        if self.step + steps * epochs < self.schedule.end:
            raise TargetNotReachedError(
                f"This training has {steps * epochs} steps ({epochs} epochs of {steps}), but the "
                f"schedule reaches {self.schedule.final} only at step {self.schedule.end}. Nothing "
                "was changed; train longer, or end the schedule earlier."
            )

    def _chosen(self) -> tuple[WeightTensor, ...]:
        found = find_tensors(self.model)
        return select_tensors(found, self._how.get("include"), self._how.get("exclude"))

    def _prune_if_due(self) -> None:
        begin, end = self.schedule.begin, self.schedule.end
        due = (self.step - begin) % self.frequency == 0 or self.step == end
        if not begin <= self.step <= end or not due:
            return
        sparsity = self.schedule.at(self.step)
        if sparsity > 0 or self._fixed:
            self._prune_to(sparsity)

    def _prune_to(self, sparsity: float) -> None:
        criterion = self.criterion if self._scores is None else self._scores
        target = None if self._fixed else sparsity
        result = prune(self.model, sparsity=target, criterion=criterion, inplace=True, **self._how)
        self.report = result.report
        self.history.append((self.step, result.report.sparsity))


def _mask_so_far(tensor: WeightTensor, *, started: bool) -> Array:
    array = read_array(tensor.variable)
    return np.not_equal(array, 0) if started else np.ones(array.shape, np.bool_)
