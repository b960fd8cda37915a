"""Cut a real model at several ratios, fine-tune, store and load each, and measure all of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import secateur as sc
from secateur.demo.lemmatiser import Lemmatiser, Rows, set_up
from secateur.keras.calling import compiled
from secateur.timing import median_times

RATIOS = (0.25, 0.5, 0.75, 0.9)
NOTE = (
    "The lemmatiser of lemminflect, its 64 hidden units cut by mean |output|. Lemma accuracy on 16,128 "
    "labelled rows held out: before, after the cut, and after fine-tuning for 4 epochs on 10,000 "
    "others, saved and loaded with plain Keras. ms: a compiled call on 1,024 words before and after, "
    "medians of calls in turn. Sizes in bytes."
)
_HELD_OUT = 0.2
_NUM_TRAINED = 10_000
_NUM_CALIBRATION = 2_048
_NUM_TIMED = 1_024
_ROUNDS = 40
_EPOCHS = 4


@dataclass(frozen=True)
class CutRow:
    """One line of the demonstration's table.

    Attributes:
        asked: Fraction of the hidden units that was to go; 0 is the model as it came.
        units: Hidden units left.
        parameters: Weights left.
        before: Lemma accuracy of the trained model, on rows held out of all that follows.
        after: That of the cut model, before any training.
        tuned: That of the fine-tuned model, loaded from its file by plain Keras.
        milliseconds_before: Time of a call of the trained model.
        milliseconds_after: Time of a call of the cut model.
        keras_bytes: Size of its `.keras` file.
        path: That file.
    """

    asked: float
    units: int
    parameters: int
    before: float
    after: float
    tuned: float
    milliseconds_before: float
    milliseconds_after: float
    keras_bytes: int
    path: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Stage:
    """What all rows of the table share."""

    lemmatiser: Lemmatiser
    trained: Rows
    held_out: Rows
    before: float
    folder: Path


def run(folder: Path, on_step: Callable[[str], None] = lambda _: None) -> Iterator[CutRow]:
    """Cut the lemmatiser at each of `RATIOS`, leaving the models in `folder`.

    Args:
        folder: Made if it is not there.
        on_step: Told what is going on, for a progress display.

    Yields:
        A row for the model as it came, then one for each ratio.
    """
    keras.utils.set_random_seed(0)
    lemmatiser, rows = set_up(folder, on_step)
    order = np.random.default_rng(0).permutation(len(rows.words))
    count = int(_HELD_OUT * order.size)
    held_out, trained = rows.part(order[:count]), rows.part(order[count:][:_NUM_TRAINED])
    before = lemmatiser.accuracy(lemmatiser.model, held_out)
    stage = _Stage(lemmatiser, trained, held_out, before, folder)
    for ratio in (0.0, *RATIOS):
        on_step(f"ratio {ratio:.0%}")
        yield _measure(stage, ratio)


def _measure(stage: _Stage, ratio: float) -> CutRow:
    lemmatiser = stage.lemmatiser
    result = _cut(lemmatiser.model, stage.trained.features[:_NUM_CALIBRATION], ratio)
    after = lemmatiser.accuracy(result.model, stage.held_out)
    if ratio:
        _fine_tune(lemmatiser, result.model, stage.trained)
    path = stage.folder / f"lemmatiser-cut-{round(100 * ratio):02d}.keras"
    result.model.save(path)
    loaded = keras.models.load_model(path, compile=False)
    words = stage.held_out.features[:_NUM_TIMED]
    calls = [compiled(model, words) for model in (lemmatiser.model, loaded)]
    times = median_times(calls, rounds=_ROUNDS)
    return CutRow(
        asked=ratio,
        units=result.plan["hidden"].kept,
        parameters=result.parameters[1],
        before=stage.before,
        after=after,
        tuned=lemmatiser.accuracy(loaded, stage.held_out),
        milliseconds_before=1e3 * times[0],
        milliseconds_after=1e3 * times[1],
        keras_bytes=path.stat().st_size,
        path=str(path),
    )


def _cut(model: Any, samples: Any, ratio: float) -> Any:
    with warnings.catch_warnings():
        if not ratio:
            # The row of the model as it came: that nothing goes is what was asked for.
            warnings.simplefilter("ignore", sc.errors.TargetNotReachedWarning)
        return sc.cut(model, samples, ratio=ratio, align=4)


def _fine_tune(lemmatiser: Lemmatiser, model: Any, rows: Rows) -> None:
    """Train on what gives an accepted lemma: often more than one suffix rule does."""
    right = lemmatiser.right_rules(rows)
    some = right.any(axis=1)
    # A second model of the same layers is compiled: the one that is saved carries no optimizer.
    trainer = keras.Model(model.inputs, model.outputs)
    trainer.compile(keras.optimizers.Adam(2e-3), _right_lemma)
    targets = right[some].astype(np.float32)
    trainer.fit(rows.features[some], targets, batch_size=128, epochs=_EPOCHS, verbose=0)


def _right_lemma(right: Any, probabilities: Any) -> Any:
    """-log of the probability that some right rule is chosen."""
    return -ops.log(ops.sum(right * probabilities, axis=-1) + keras.config.epsilon())
