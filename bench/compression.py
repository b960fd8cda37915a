"""`sc.compress` on real text: bytes and accuracy before and after, on rows that nothing was chosen by.

    python -m bench.compression                          # all four models, five seeds, ten times smaller
    python -m bench.compression TextCNN SMS --seeds 3
    python -m bench.compression TextCNN --ratios 5 10 20 40   # what each bears
    python -m bench.compression transformer --method auto
    python -m bench.compression TextCNN --tfmot-python PYTHON --ratios 5 10 20

Every seed splits the rows anew, 72 % to train on, 13 % to choose by (epochs, steps) and 15 % to judge
by, trains a model, and compresses it with max_drop=0.01 and, but for --method, the defaults of
`sc.compress`. Ratios are bytes of the gzip of the `.keras` file, without optimizer, to bytes of our
file. The rows of a ratio that validation did not allow are those of the best model that it did, so read
the ratio reached.

With --tfmot-python, the Python of an environment with tensorflow-model-optimization (it needs Keras 2)
trains the same TextCNN on the same rows there and prunes it along its polynomial schedule, see
`tfmot_rival.py`. Data comes out of packages, see `bench/zoo`.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from bench.tfmot_rival import rival_rows
from bench.zoo import Labelled, UnavailableError, Vocabulary, load_sms, load_trec, split
from bench.zoo.textmodels import TEXT_MODELS

import secateur as sc
from secateur.errors import TargetNotReachedWarning

MODELS = ("TextCNN", "BiLSTM", "transformer", "SMS")
NUM_TOKENS, EPOCHS, BATCH = 8000, 8, 64
MAX_DROP = 0.01
_HEADINGS = (
    "model", "asked", "ratio", "bytes", "after", "accuracy", "after", "points lost", "spread",
    "worst", "train s", "compress s",
)  # fmt: skip

Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Task:
    """Rows of token numbers and their classes, thrice."""

    train: Rows
    validation: Rows
    test: Rows
    length: int
    num_classes: int


@dataclass(frozen=True)
class Outcome:
    """One model compressed once; accuracies on rows held out of everything."""

    ratio: float
    bytes_before: float
    bytes_after: float
    before: float
    after: float
    train_seconds: float
    seconds: float

    @property
    def points_lost(self) -> float:
        return 100 * (self.before - self.after)


def make_task(data: Labelled, length: int, seed: int) -> Task:
    """Split rows in three; words are numbered by the rows to train on alone."""
    rest, test = split(data, 0.85, seed)
    train, validation = split(rest, 0.85, seed + 100)
    vocabulary = Vocabulary.of(train.texts, NUM_TOKENS)
    parts = [
        (vocabulary.encode(own.texts, length), own.labels) for own in (train, validation, test)
    ]
    return Task(*parts, length, len(data.names))


def load(name: str, seed: int) -> Task:
    """Data of a model by its name in `MODELS`."""
    return make_task(load_sms(), 60, seed) if name == "SMS" else make_task(load_trec(), 32, seed)


def trained(name: str, task: Task, seed: int) -> keras.Model:
    """A model of that name, trained; SMS is a TextCNN on messages."""
    keras.utils.set_random_seed(seed)
    build = TEXT_MODELS["TextCNN" if name == "SMS" else name]
    model = build(NUM_TOKENS, task.length, task.num_classes)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*task.train, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return model


def accuracy(model: keras.Model, rows: Rows) -> float:
    """Fraction of the rows that the model gets right."""
    found = model.evaluate(*rows, batch_size=256, verbose=0, return_dict=True)
    return float(found["accuracy"])


def outcomes(
    name: str, seed: int, ratios: Sequence[float], method: str | None
) -> Iterator[Outcome]:
    """Train once, and compress to each ratio."""
    task = load(name, seed)
    begun = time.monotonic()
    model = trained(name, task, seed)
    train_seconds = time.monotonic() - begun
    before = accuracy(model, task.test)
    for ratio in ratios:
        begun = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TargetNotReachedWarning)  # shown by its ratio
            result = sc.compress(
                model,
                task.train,
                task.validation,
                target=sc.Size(ratio=ratio),
                max_drop=MAX_DROP,
                method=method,
                seed=seed,
            )
        seconds = time.monotonic() - begun
        found = result.comparison
        outcome = Outcome(
            found.ratio, found.before, found.after, before, accuracy(result.model, task.test),
            train_seconds, seconds,
        )  # fmt: skip
        print(
            name, f"seed {seed}", outcome, f"{outcome.points_lost:.2f} points lost", file=sys.stderr
        )
        print(result, file=sys.stderr, flush=True)
        yield outcome


def row(name: str, asked: float, found: Sequence[Outcome]) -> list[str]:
    """Means over seeds, and how far the seeds lie apart (standard deviation)."""

    def mean(field: str) -> float:
        return float(np.mean([getattr(one, field) for one in found]))

    lost = [one.points_lost for one in found]
    return [
        name, f"{asked:g}", f"{mean('ratio'):.1f}", f"{mean('bytes_before'):,.0f}",
        f"{mean('bytes_after'):,.0f}", f"{mean('before'):.4f}", f"{mean('after'):.4f}",
        f"{np.mean(lost):.2f}", f"{np.std(lost):.2f}", f"{max(lost):.2f}",
        f"{mean('train_seconds'):.0f}", f"{mean('seconds'):.0f}",
    ]  # fmt: skip


def model_rows(
    name: str, num_seeds: int, ratios: Sequence[float], method: str | None
) -> Iterator[list[str]]:
    """Lines of a model; where its data cannot be had, one that says so."""
    try:
        seeds = [list(outcomes(name, seed, ratios, method)) for seed in range(num_seeds)]
    except UnavailableError as error:
        yield [name, f"skipped: {error}"]
        return
    for number, ratio in enumerate(ratios):
        yield row(name, ratio, [found[number] for found in seeds])


def show(cells: Sequence[str]) -> None:
    """Print a line of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--ratios", type=float, nargs="+", default=[10.0], metavar="R")
    parser.add_argument("--method", help="of sc.compress; its default if left out")
    parser.add_argument("--tfmot-python", metavar="PYTHON")
    given = parser.parse_args()
    known = {name.lower(): name for name in MODELS}
    unknown = [name for name in given.models if name.lower() not in known]
    if unknown:
        parser.error(f"no model is called {', '.join(unknown)}; there are {', '.join(MODELS)}")
    show(_HEADINGS)
    show(["---"] * len(_HEADINGS))
    for name in [known[name.lower()] for name in given.models] or MODELS:
        for cells in model_rows(name, given.seeds, given.ratios, given.method):
            show(cells)
    if given.tfmot_python:
        tasks = [load("TextCNN", seed) for seed in range(given.seeds)]
        print()
        for cells in rival_rows(given.tfmot_python, tasks):
            show(cells)


if __name__ == "__main__":
    main()
