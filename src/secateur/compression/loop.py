"""`compress`: make a model smaller step by step, for as long as its quality holds."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import tree

from secateur.compression.adaptive import Adaptive
from secateur.compression.checking import as_data, check_data
from secateur.compression.checkpoint import Checkpoint, fingerprint
from secateur.compression.finetuning import FineTuning
from secateur.compression.goals import Comparison, Goal, Latency, Sparsity
from secateur.compression.history import History, Step
from secateur.compression.moves import Cut, Move, Prune, Setting
from secateur.compression.overlap import warn_of_overlap
from secateur.compression.proposals import Densities, Ratios, density_for, density_needed
from secateur.compression.quality import Mode, Quality, mode_of
from secateur.compression.result import CompressionResult
from secateur.errors import ArgumentTypeError, InvalidArgumentError, TargetNotReachedWarning
from secateur.keras.cloning import clone_model

METHODS = ("prune", "cut", "both", "auto")
Progress = Callable[[str, float], None]


def compress(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    target: Goal,
    metric: str | None = None,
    mode: Mode | None = None,
    max_drop: float = 0.01,
    method: str | None = None,
    tuning: FineTuning | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> CompressionResult:
    """Prune or cut a model, fine-tune, evaluate, and repeat until a goal is reached.

    Pruning aims at the goal at once: its density is found without training. A step that costs more
    quality than allowed is undone and a smaller one tried; what comes back is the smallest model
    whose quality held. The model given is not changed.

    Args:
        model: A trained and compiled Keras model.
        train: (x, y) or (x, y, sample_weight) arrays, or a dataset.
        validation: The same, held out: it decides what is kept.
        target: `Size(ratio=10)`, `Parameters`, `Macs`, `Latency` or `Sparsity`.
        metric: Name of a compiled metric, or "loss"; the first compiled metric by default.
        mode: "max" or "min", where the metric's name does not tell.
        max_drop: How much worse the metric may become, in its own unit.
        method: "prune", "cut", "both" (cut as far as quality holds, then prune), or "auto": measures
            what pruning and cutting cost each layer, tries a few plans for the whole goal, follows
            the best one and explains it (`.explanation`). By default "cut" for a latency, "prune" for
            everything else.
        tuning: Epochs, batch size and distillation of each step.
        checkpoint: A folder; the best model and the state are written there after every step.
        resume: Go on from the checkpoint, with the same result as if it had not been interrupted.
        seed: Of everything that is random; the same seed gives the same result.
        progress: Called with what is being done and which fraction of the work is done, as far as
            that is foreseen: it falls back where a step fails.

    Returns:
        `.model`, `.history`, `.comparison`, `.quality`, `.reached`, `.explanation`. Ctrl-C returns the
        best so far.

    Raises:
        InvalidArgumentError: The model is not compiled, the metric is not there, data that does not
            fit, an argument out of range, or a checkpoint of something else.
        ArgumentTypeError: `target` is no goal.

    Warns:
        TargetNotReachedWarning: Quality did not hold as far as the goal; the best is returned.
        DataOverlapWarning: Validation samples occur in the training data.

    Example:
        >>> from secateur.compression import FineTuning, Sparsity
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x, y = np.random.rand(64, 8), np.ones((64, 1))
        >>> how = FineTuning(epochs=1)
        >>> result = compress(model, (x[:48], y[:48]), (x[48:], y[48:]), target=Sparsity(0.5),
        ...                   metric="loss", max_drop=10.0, tuning=how)
        >>> result.reached
        True
    """
    run = _prepare(model, train, validation, target, metric, mode, max_drop, method, tuning, seed)
    settings = (target, run.setting.quality.metric, max_drop, run.methods, run.setting.tuning, seed)
    saved = None
    if checkpoint is not None:
        saved = Checkpoint(checkpoint, fingerprint(model, (train, validation), settings))
    run.progress = progress
    run.begin(saved, resume)
    interrupted = False
    try:
        run.run()
    except KeyboardInterrupt:
        interrupted = True
    return run.result(interrupted)


def _prepare(
    model: Any,
    train: Any,
    validation: Any,
    target: Goal,
    metric: str | None,
    mode: Mode | None,
    max_drop: float,
    method: str | None,
    tuning: FineTuning | None,
    seed: int,
) -> _Run:
    method = _checked_method(model, target, max_drop, method)
    train, validation = as_data(train, "train"), as_data(validation, "validation")
    warn_of_overlap(train, validation)
    check_data(model, validation, "validation")
    name = metric or _first_metric(model, validation)
    check_data(model, train, "train")
    quality = Quality(validation, name, mode or mode_of(name))
    embeddings = not isinstance(target, Sparsity)
    # A subclassed model does not say what comes out of it; its copy is functional, and does.
    original = model if getattr(model, "outputs", None) else clone_model(model)
    setting = Setting(
        original, train, _inputs(train), quality, tuning or FineTuning(), seed, embeddings
    )
    methods = ("cut", "prune") if method == "both" else (method,)
    return _Run(setting, target, max_drop, methods)


def _checked_method(model: Any, target: Goal, max_drop: float, method: str | None) -> str:
    """The method, chosen where none was; what cannot be is refused before any data is read."""
    if not isinstance(model, keras.Model):
        raise ArgumentTypeError(f"compress needs a keras.Model, got {type(model).__name__}.")
    if not isinstance(target, Goal):
        raise ArgumentTypeError(
            f"target must be a goal such as Size(ratio=10) or Sparsity(0.9), got {target!r}."
        )
    if not model.compiled:
        raise InvalidArgumentError(
            f"Model {model.name!r} is not compiled; compile it with the loss, metrics and optimizer "
            "that it is to be fine-tuned with."
        )
    if not max_drop >= 0:
        raise InvalidArgumentError(f"max_drop must be at least 0, got {max_drop!r}.")
    method = method or ("cut" if isinstance(target, Latency) else "prune")
    if method not in METHODS:
        raise InvalidArgumentError(f"method must be one of {METHODS}, got {method!r}.")
    if method == "prune" and isinstance(target, Latency):
        raise InvalidArgumentError(
            "Zeros make no call of plain Keras faster: a Latency goal needs method='cut'."
        )
    return method


def _first_metric(model: Any, validation: Any) -> str:
    found = Quality(validation, "loss", "min")._evaluate(model)
    return next((name for name in found if name != "loss"), "loss")


def _inputs(train: Any) -> Any:
    return train[0] if isinstance(train, tuple) else train


def _sample(train: Any) -> Any:
    """A batch of inputs to measure costs on."""
    if isinstance(train, tuple):
        return tree.map_structure(lambda leaf: np.asarray(leaf[:32]), train[0])
    first = train[0] if isinstance(train, keras.utils.PyDataset) else next(iter(train))
    return tree.map_structure(np.asarray, first[0])


@dataclass
class _Run:
    """One compression that is going on."""

    setting: Setting
    goal: Goal
    max_drop: float
    methods: tuple[str, ...]
    phase: int = 0
    densities: Densities = field(default_factory=Densities)
    ratios: Ratios = field(default_factory=Ratios)
    steps: list[Step] = field(default_factory=list)
    best: Any = None
    progress: Progress | None = None
    checkpoint: Checkpoint | None = None
    _doing: str = ""
    figures: Comparison = field(default_factory=lambda: Comparison(0.0, 0.0, 0.0))
    adaptive: Adaptive | None = None

    def begin(self, checkpoint: Checkpoint | None, resume: bool) -> None:
        """Measure the original, or take up the state of an earlier run."""
        self.checkpoint = checkpoint
        saved = checkpoint.read() if checkpoint is not None and resume else None
        self.sample = _sample(self.setting.train)
        if saved is not None:
            self._restore(saved.model, saved.state)
            self._adapt(saved.state.get("adaptive"))
            return
        if checkpoint is not None:
            checkpoint.clear()
        started = time.monotonic()
        original = self.setting.original
        quality = self.setting.quality.of(original)
        self.best = clone_model(original)
        self.figures = self.goal.compare(original, self.best, self.sample)
        step = Step(
            0, "original", 1.0, quality, self.figures.before, True, "", time.monotonic() - started
        )
        self.steps.append(step)
        self._adapt(None)
        self._save()

    def _adapt(self, known: Any) -> None:
        if "auto" not in self.methods:
            return
        figures = self.figures
        self.adaptive = Adaptive(
            self.setting, self.goal, figures.before, figures.limit, self.sample
        )
        if known is not None:
            self.adaptive.restore(known)

    def run(self) -> None:
        """Take steps until the goal is reached or nothing more holds."""
        if self.adaptive is not None and not self.figures.met:
            for _ in self.adaptive.prepare(self._tell_of):
                self._save()
        while not self.figures.met and self.phase < len(self.methods):
            move = self._move()
            amount = self._propose()
            if amount is None:
                self.phase += 1
                continue
            self._doing = f"step {len(self.steps)}: {move.method}, {amount:.4f}"
            self._tell(0.0)
            self._take(move, amount)
            self._save()
        if self.progress is not None:
            self.progress("done", 1.0)

    def _move(self) -> Move:
        if self.adaptive is not None:
            self.adaptive.setting = replace(self.setting, tell=self._tell)
            return self.adaptive
        kinds: dict[str, Callable[[Setting], Move]] = {"prune": Prune, "cut": Cut}
        return kinds[self.methods[self.phase]](replace(self.setting, tell=self._tell))

    def _propose(self) -> float | None:
        if self.methods[self.phase] == "cut":
            return self.ratios.next()
        return self.densities.next(None if self.densities.failed is not None else self._needed())

    def _needed(self) -> float | None:
        """Amount at which the goal is expected to be reached: on trial, then by what was reached."""
        if self.adaptive is not None:
            return self._share_needed(self.adaptive)
        points = [(1.0, self._start_of_pruning())]
        points += [(s.amount, s.figure) for s in self.steps if s.method == "prune" and s.accepted]
        if len(points) > 1:
            return density_needed(points, self.figures.limit)
        trial = Prune(self.setting)
        return density_for(
            lambda density: self._compare(trial.at_once(self.best, density)).after,
            self.goal.margin * self.figures.limit,
        )

    def _share_needed(self, adaptive: Adaptive) -> float:
        """What part of the original's figure to ask a plan for, by what came of the last step."""
        last = [s for s in self.steps if s.method == "auto" and s.accepted]
        if last:
            missed = last[-1].figure / (last[-1].amount * self.figures.before)
            needed = self.figures.limit / self.figures.before / missed
        else:
            needed = adaptive.share_needed()
        return 0.99 * min(needed, self.densities.held)

    def _start_of_pruning(self) -> float:
        """The figure of the model that pruning began with, in the same measure as its steps."""
        before = [s for s in self.steps if s.method == "cut" and s.accepted]
        return before[-1].figure if before else self.figures.before

    def _take(self, move: Move, amount: float) -> None:
        started = time.monotonic()
        number = len(self.steps)
        made = move.make(self.best, amount, number)
        note = made.note or self._objection(made.quality)
        figures = self.figures if made.model is None else self._compare(made.model)
        if not note:
            self.best, self.figures = made.model, figures
        step = Step(number, move.method, amount, made.quality, figures.after, not note, note)
        seconds = time.monotonic() - started
        self.steps.append(replace(step, seconds=seconds, epochs=made.epochs))
        if move.method == "cut":
            self.ratios = self.ratios.after(amount, not note)
        else:
            self.densities = self.densities.after(amount, not note)

    def _compare(self, candidate: Any) -> Comparison:
        known = None if isinstance(self.goal, Latency) else self.figures.before
        return self.goal.compare(self.setting.original, candidate, self.sample, known)

    def _objection(self, quality: float) -> str:
        """Why a candidate is not kept, or ""."""
        if np.isnan(quality):
            return "its loss became NaN: a smaller learning_rate may mend that"
        drop = self.setting.quality.drop(self.steps[0].quality, quality)
        if drop > self.max_drop + 1e-9:
            return f"{self.setting.quality.metric} fell by {drop:.4f}, more than {self.max_drop:g}"
        return ""

    def _tell(self, share: float) -> None:
        """Say how much of the work is done, this share of the present step included."""
        if self.progress is None:
            return
        done = len(self.steps) - 1 + share
        part = done / max(len(self.steps) - 1 + self._steps_left(), 1)
        prepared = self.adaptive.share_prepared if self.adaptive is not None else 0.0
        self.progress(self._doing, prepared + (1 - prepared) * part)

    def _tell_of(self, what: str) -> None:
        """Say what is being done before the first step."""
        self._doing = what
        self._tell(0.0)

    def _steps_left(self) -> int:
        """Steps that are still expected, the present one included."""
        if self.methods[self.phase] == "cut":
            way = np.log(max(self.figures.after / max(self.figures.limit, 1e-30), 1.0))
            return max(1, int(np.ceil(way / -np.log1p(-self.ratios.ratio))))
        lost = self.densities.failures
        return 1 if not lost else max(1, self.densities.patience + 1 - lost)

    def history(self) -> History:
        """All steps so far."""
        quality = self.setting.quality
        goal = f"{self.goal.name} in {self.goal.unit}"
        return History(quality.metric, quality.mode, goal, tuple(self.steps))

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        last = max(step.number for step in self.steps if step.accepted)
        state = {
            "history": self.history().to_dict(),
            "phase": self.phase,
            "densities": vars(self.densities),
            "ratios": vars(self.ratios),
            "figures": vars(self.figures),
        }
        if self.adaptive is not None:
            state["adaptive"] = self.adaptive.to_dict()
        self.checkpoint.write(self.best, last, state)

    def _restore(self, model: Any, state: dict[str, Any]) -> None:
        self.best = model
        self.steps = list(History.from_dict(state["history"]))
        self.phase = int(state["phase"])
        self.densities = Densities(**state["densities"])
        self.ratios = Ratios(**state["ratios"])
        self.figures = Comparison(**state["figures"])

    def result(self, interrupted: bool) -> CompressionResult:
        """The best that was found; warns if that is less than was asked for."""
        kept = [step for step in self.steps if step.accepted]
        best = kept[-1]
        if not self.figures.met:
            why = "it was interrupted" if interrupted else self._last_objection()
            warnings.warn(
                f"The goal was {self.goal.name} {self.figures.limit:,.6g} {self.goal.unit}; reached "
                f"was {self.figures.after:,.6g}: {why}. The best model is returned.",
                TargetNotReachedWarning,
                stacklevel=3,
            )
        return CompressionResult(
            self.best,
            self.history(),
            self.figures,
            (kept[0].quality, best.quality),
            self.figures.met,
            interrupted,
            None if self.adaptive is None else self.adaptive.explain(self.best),
        )

    def _last_objection(self) -> str:
        notes = [step.note for step in self.steps if step.note]
        return notes[-1] if notes else "no smaller step is left to try"
