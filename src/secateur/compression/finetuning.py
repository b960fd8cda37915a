"""Train a candidate for a while, and keep the best of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from secateur.compression.quality import Quality
from secateur.errors import InvalidArgumentError, NonFiniteError, TargetNotReachedError
from secateur.keras.compiling import compile_alike
from secateur.keras.teaching import Distillation, taught
from secateur.keras.training import Pruning


@dataclass(frozen=True)
class FineTuning:
    """How candidates are trained after, or while, something goes.

    Attributes:
        epochs: Per step.
        batch_size: For data given as arrays.
        distillation: How much the original teaches; None switches it off.
        ramp: Share of each step's training in which the sparsity grows; the rest recovers.
        learning_rate: None takes the compiled optimizer's.
        cooling: Whether the learning rate falls to zero along a cosine while the candidate
            recovers. An optimizer that has a schedule of its own keeps to that.
    """

    epochs: int = 6
    batch_size: int = 32
    distillation: Distillation | None = field(default_factory=Distillation)
    ramp: float = 0.5
    learning_rate: float | None = None
    cooling: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgumentError(f"{name} must be a whole number >= 1, got {value!r}.")
        if not 0 < self.ramp < 1:
            raise InvalidArgumentError(f"ramp must lie between 0 and 1, got {self.ramp!r}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise InvalidArgumentError(f"learning_rate must be > 0, got {self.learning_rate!r}.")

    def num_steps(self, train: Any) -> int:
        """Batches of one step's training."""
        return self.epochs * steps_per_epoch(train, self.batch_size)


def steps_per_epoch(train: Any, batch_size: int) -> int:
    """Batches of one epoch.

    Raises:
        InvalidArgumentError: A dataset that does not know its length.
    """
    if isinstance(train, tuple):
        rows = len(keras.tree.flatten(train[0])[0])
        return max(1, math.ceil(rows / batch_size))
    length = getattr(train, "num_batches", None) or _cardinality(train)
    if length is None or length < 1:
        raise InvalidArgumentError(
            f"The training data ({type(train).__name__}) does not know how many batches it has; pass "
            "arrays (x, y), a PyDataset, or a tf.data.Dataset of known cardinality."
        )
    return int(length)


def _cardinality(train: Any) -> int | None:
    count = getattr(train, "cardinality", None)
    return None if count is None else int(count())


class KeepBest(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights of the best epoch among those from a training step on.

    Args:
        quality: What is best.
        first_step: Epochs that end before this batch do not count.
    """

    def __init__(self, quality: Quality, first_step: int = 0) -> None:
        super().__init__()
        self.quality = quality
        self.first_step = first_step
        self.step = 0
        self.best: float | None = None
        self._weights: list[Any] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count."""
        del batch, logs
        self.step += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Look at the quality, and keep the weights if it is the best so far."""
        del epoch, logs
        if self.step < self.first_step:
            return
        found = self.quality.of(self.model)
        if self.best is None or self.quality.drop(self.best, found) < 0:
            self.best, self._weights = found, self.model.get_weights()

    def restore(self) -> None:
        """Give the model the weights of its best epoch."""
        if self._weights:
            self.model.set_weights(self._weights)


class Cooling(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets the learning rate fall along a cosine from one training step to another, down to zero.

    Afterwards it is what it was, so that the model can be trained on.

    Args:
        begin: Step at which it begins to fall.
        end: Step at which it reaches zero.

    References:
        Loshchilov & Hutter, "SGDR" (arXiv 1608.03983), equation 5, without restarts.
    """

    def __init__(self, begin: int, end: int) -> None:
        super().__init__()
        self.begin, self.end = begin, end
        self.step = 0
        self._rate: float | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Note the rate to begin with."""
        del logs
        rate = getattr(self.model.optimizer, "_learning_rate", None)
        self._rate = float(rate.value) if isinstance(rate, keras.Variable) else None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set the rate of this step."""
        del batch, logs
        if self._rate is not None and self.step > self.begin:
            share = min(1.0, (self.step - self.begin) / max(1, self.end - self.begin))
            self.model.optimizer.learning_rate = self._rate * 0.5 * (1 + math.cos(math.pi * share))
        self.step += 1

    def on_train_end(self, logs: Any = None) -> None:
        """Give back the rate."""
        del logs
        if self._rate is not None:
            self.model.optimizer.learning_rate = self._rate


class Telling(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells after each batch which share of the training is done.

    Args:
        tell: Called with the share, 0 to 1.
        num_steps: Batches of the training.
    """

    def __init__(self, tell: Callable[[float], None], num_steps: int) -> None:
        super().__init__()
        self.tell, self.num_steps = tell, num_steps
        self.step = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count, and tell."""
        del batch, logs
        self.step += 1
        self.tell(min(1.0, self.step / self.num_steps))


def fine_tune(
    candidate: Any,
    teacher: Any,
    train: Any,
    quality: Quality,
    how: FineTuning,
    pruning: Pruning | None = None,
    tell: Callable[[float], None] | None = None,
) -> float:
    """Train a candidate, and give it the weights of its best epoch.

    Args:
        candidate: A model; it is compiled like the teacher, with a fresh optimizer.
        teacher: The original.
        train: (x, y), (x, y, sample_weight) or a dataset.
        quality: Decides which epoch is best; those before pruning ends do not count.
        how: Epochs and the like.
        pruning: Prunes meanwhile.
        tell: Called after each batch with the share of the training that is done.

    Returns:
        The quality of the best epoch, NaN if the loss became NaN.
    """
    compile_alike(teacher, candidate)
    if how.learning_rate is not None:
        candidate.optimizer.learning_rate = how.learning_rate
    pruned, total = 0 if pruning is None else pruning.schedule.end, how.num_steps(train)
    best = KeepBest(quality, pruned)
    callbacks: list[Any] = [keras.callbacks.TerminateOnNaN(), best]
    if how.cooling:
        callbacks.append(Cooling(pruned, total))
    if tell is not None:
        callbacks.append(Telling(tell, total))
    if pruning is not None:
        callbacks.insert(0, pruning)
    if how.distillation is None:
        failed = _fit(candidate, train, how, callbacks)
    else:
        with taught(candidate, teacher, how.distillation):
            failed = _fit(candidate, train, how, callbacks)
    if failed or best.best is None:
        return math.nan
    best.restore()
    return best.best


def _fit(candidate: Any, train: Any, how: FineTuning, callbacks: Sequence[Any]) -> bool:
    """Fit; says whether the loss became NaN."""
    arrays = train if isinstance(train, tuple) else (train,)
    size = {"batch_size": how.batch_size} if isinstance(train, tuple) else {}
    weights = {"sample_weight": arrays[2]} if len(arrays) > 2 else {}
    try:
        past = candidate.fit(
            *arrays[:2], epochs=how.epochs, callbacks=list(callbacks), verbose=0, **size, **weights
        )
    except NonFiniteError:  # weights that became NaN cannot be ranked
        return True
    except TargetNotReachedError:  # nor can a schedule end where NaN has ended the training
        if candidate.stop_training:
            return True
        raise
    return any(math.isnan(loss) for loss in past.history.get("loss", ()))
