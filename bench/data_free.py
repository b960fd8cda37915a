"""What calibration and distillation without data are worth, beside noise and beside real data.

Run `python -m bench.data_free [TASK ...] [--seeds 0 1 2] [--sparsities .7 .8 .9]`. Each model is pruned on
1,024 samples: noise (token ids all alike, or standard normal numbers), generated (`secateur.generate`), what it starts
from (before any step of its descent), and real ones; and once by magnitude, without any. Mean accuracy on held-out
data over the seeds, and the largest distance from it. Then, for the models pruned without data, the outputs of the
original are taught on the same samples. What cannot be had is skipped with a word.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from bench.zoo import (
    UnavailableError,
    Vocabulary,
    bilstm,
    load_sms,
    load_trec,
    split,
    text_cnn,
    transformer,
)

import secateur as sc
from secateur.errors import MissingDependencyError, SecateurWarning

COUNT = 1024
SOURCES = ("noise", "start", "generated", "real")
_NUM_TOKENS = 8000


@dataclass(frozen=True, eq=False)
class Task:
    """A trained model, what it was trained on, and a measure of what it is good for."""

    name: str
    model: keras.Model
    x: np.ndarray
    evaluate: Callable[[keras.Model], float]

    def samples(self, source: str, seed: int) -> np.ndarray:
        """`COUNT` samples of a source."""
        rng = np.random.default_rng(seed)
        if source == "real":
            return self.x[rng.choice(len(self.x), COUNT, replace=len(self.x) < COUNT)]
        if source == "noise":
            shape = (COUNT, *self.x.shape[1:])
            if self.x.dtype.kind == "i":
                return rng.integers(0, _NUM_TOKENS, shape).astype(self.x.dtype)
            return rng.normal(size=shape).astype(self.x.dtype)
        how = sc.Generation(steps=0) if source == "start" else None
        return sc.generate(self.model, COUNT, seed=seed, how=how)


def _texts(
    name: str, load: Callable[[], Any], make: Callable[..., keras.Model], length: int, epochs: int
) -> Callable[[], Task]:
    def build() -> Task:
        keras.utils.set_random_seed(0)
        train, test = split(load())
        vocabulary = Vocabulary.of(train.texts, _NUM_TOKENS)
        x, held = (vocabulary.encode(part.texts, length) for part in (train, test))
        model = make(_NUM_TOKENS, length, len(train.names))
        return _trained(name, model, (x, train.labels), (held, test.labels), epochs, 64)

    return build


def _trained(
    name: str, model: keras.Model, train: tuple, held: tuple, epochs: int, batch_size: int
) -> Task:
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*train, batch_size=batch_size, epochs=epochs, verbose=0)

    def evaluate(pruned: keras.Model) -> float:
        found = pruned.predict(held[0], batch_size=256, verbose=0).argmax(axis=1)
        return float((found == held[1]).mean())

    return Task(name, model, train[0], evaluate)


def _digits(*, norms: bool) -> Callable[[], Task]:
    def build() -> Task:
        """Three convolutions on scikit-learn's 8x8 digits, 1,200 to train on, 597 held out."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UnavailableError("scikit-learn is not installed.") from None
        keras.utils.set_random_seed(0)
        data = load_digits()
        order = np.random.default_rng(0).permutation(len(data.images))
        x = (data.images[order, ..., None] / 16).astype("float32")
        train, held = (
            (x[rows], data.target[order][rows]) for rows in (slice(1200), slice(1200, None))
        )
        name = "digits CNN" + (", batch norm" if norms else "")
        return _trained(name, _small_cnn(norms), train, held, 15, 32)

    return build


def _small_cnn(norms: bool) -> keras.Model:
    layers = keras.layers

    def convolution(filters: int) -> list[keras.Layer]:
        own: list[keras.Layer] = [layers.Conv2D(filters, 3, padding="same", use_bias=not norms)]
        return [*own, *([layers.BatchNormalization()] if norms else []), layers.ReLU()]

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *convolution(32),
            *convolution(32),
            layers.MaxPooling2D(),
            *convolution(64),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )


def _lemmatiser() -> Task:
    from secateur.demo.lemmatiser import load_lemmatiser, load_rows

    tool, rows = load_lemmatiser(), load_rows()
    tool.model.compile("adam", "sparse_categorical_crossentropy")
    return Task("lemmatiser", tool.model, rows.features, lambda m: tool.accuracy(m, rows))


TASKS: dict[str, Callable[[], Task]] = {
    "textcnn": _texts("TREC TextCNN", load_trec, text_cnn, 32, 10),
    "transformer": _texts("TREC transformer", load_trec, transformer, 32, 10),
    "bilstm": _texts("TREC BiLSTM", load_trec, bilstm, 32, 8),
    "sms": _texts("SMS TextCNN", load_sms, text_cnn, 60, 5),
    "lemmatiser": _lemmatiser,
    "digits": _digits(norms=False),
    "digits-norm": _digits(norms=True),
}


def pruned(task: Task, sparsity: float, data: np.ndarray | None) -> keras.Model:
    """A pruned copy; None prunes by magnitude alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecateurWarning)
        return sc.prune(task.model, sparsity=sparsity, data=data).model


def taught(task: Task, sparsity: float, x: np.ndarray, epochs: int, seed: int) -> keras.Model:
    """Pruned by magnitude, then taught what the original says to `x`; its zeros stay."""
    student = pruned(task, sparsity, None)
    keras.utils.set_random_seed(seed)
    student.compile(keras.optimizers.Adam(1e-3), "kl_divergence")
    student.fit(x, task.model.predict(x, verbose=0), batch_size=32, epochs=epochs, verbose=0)
    return student


def cell(values: Sequence[float]) -> str:
    """Mean, and the largest distance from it."""
    mean = float(np.mean(values))
    return f"{mean:.3f} ±{max(abs(value - mean) for value in values):.3f}"


def rows(task: Task, options: argparse.Namespace) -> Iterator[str]:
    """Lines of a task."""
    blank = " | " * (len(options.sparsities) - 1)
    yield f"| {task.name} | not pruned | {task.evaluate(task.model):.3f}{blank} |"
    plain = [f"{task.evaluate(pruned(task, s, None)):.3f}" for s in options.sparsities]
    yield f"| {task.name} | pruned by magnitude | {' | '.join(plain)} |"
    made = {source: [task.samples(source, seed) for seed in options.seeds] for source in SOURCES}
    for source, samples in made.items() if "prune" in options.parts else ():
        cells = [
            cell([task.evaluate(pruned(task, s, x)) for x in samples]) for s in options.sparsities
        ]
        yield f"| {task.name} | pruned on {source} | {' | '.join(cells)} |"
    for source in ("noise", "generated", "real") if "teach" in options.parts else ():
        pairs = list(zip(made[source], options.seeds, strict=True))
        cells = [
            cell([task.evaluate(taught(task, s, x, options.epochs, seed)) for x, seed in pairs])
            for s in options.sparsities
        ]
        yield f"| {task.name} | by magnitude, taught on {source} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}; all")
    parser.add_argument("--sparsities", nargs="*", type=float, default=(0.7, 0.8, 0.9))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=5, help="of teaching")
    parser.add_argument(
        "--parts", nargs="*", choices=["prune", "teach"], default=["prune", "teach"]
    )
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"unknown tasks {sorted(unknown)}; there are {', '.join(TASKS)}")
    heads = [f"{sparsity:.0%}" for sparsity in options.sparsities]
    print(f"| task | how | {' | '.join(heads)} |\n{'|---' * (2 + len(heads))}|", flush=True)
    for name in options.tasks or TASKS:
        try:
            for line in rows(TASKS[name](), options):
                print(line, flush=True)
        except (UnavailableError, MissingDependencyError) as error:
            print(f"| {name} | skipped: {error} |", flush=True)


if __name__ == "__main__":
    main()
