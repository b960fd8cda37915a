"""What pruned models are still good for: tasks, methods and sparsities, over three calibration seeds.

Run `python -m bench.quality [TASK ...] [--sparsities .5 .7] [--seeds 0] [--methods default]`. Prints
a row for each task and method as soon as it is known: mean over the seeds, the largest distance from
it, and the seconds one pruning took. Models and texts come from packages (see `bench.zoo`); a task
whose package cannot be had is skipped with a word.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from bench.zoo import (
    MiniLM,
    UnavailableError,
    Vocabulary,
    bilstm,
    load_movies,
    load_trec,
    split,
    text_cnn,
    transformer,
)
from bench.zoo.phonemes import Pronouncer, load_sounds

import secateur as sc
from secateur.errors import MissingDependencyError, SecateurWarning

METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"criterion": "magnitude"},
    "Wanda": {"criterion": "wanda", "scope": "row"},
    "SparseGPT": {"criterion": "sparsegpt"},
    "default": {},
}
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
_LENGTH = 64


@dataclass(frozen=True, eq=False)
class Task:
    """A trained model, data to calibrate with, and a measure of what it is good for.

    Attributes:
        name: In the table.
        measure: What `evaluate` gives.
        model: The model.
        calibration: From a seed to what `prune` is given beside the method.
        evaluate: From a model to a number, higher is better.
        patterns: n:m patterns that are tried beside the sparsities.
    """

    name: str
    measure: str
    model: keras.Model
    calibration: Callable[[int], dict[str, Any]]
    evaluate: Callable[[keras.Model], float]
    patterns: tuple[str, ...] = field(default=())


def minilm() -> Task:
    """The sentence encoder: 256 movie sentences to calibrate, 768 others to test."""
    encoder, texts = MiniLM.load(), load_movies().texts

    # Tested on the same sentences whatever the calibration seed, and on none that it may draw.
    order = np.random.default_rng(10_000).permutation(len(texts))
    held, free = ([texts[row] for row in part] for part in (order[:768], order[768:]))
    dense = encoder.encode(held, _LENGTH)

    def calibration(seed: int) -> dict[str, Any]:
        rows = np.random.default_rng(seed).choice(len(free), 256, replace=False)
        inputs = encoder.tokenizer.encode([free[row] for row in rows], _LENGTH)
        return {"data": list(inputs), "mask": "mask"}

    def evaluate(model: keras.Model) -> float:
        return float((encoder.encode(held, _LENGTH, model=model) * dense).sum(axis=1).mean())

    return Task("MiniLM", "cosine", encoder.model, calibration, evaluate, ("2:4",))


def lemmatiser() -> Task:
    """The lemmatiser of lemminflect on its 80,643 labelled rows."""
    from secateur.demo.lemmatiser import load_lemmatiser, load_rows

    tool, rows = load_lemmatiser(), load_rows()

    def calibration(seed: int) -> dict[str, Any]:
        chosen = np.random.default_rng(seed).choice(len(rows.words), 2048, replace=False)
        return {"data": rows.features[chosen]}

    return Task("lemmatiser", "accuracy", tool.model, calibration, lambda m: tool.accuracy(m, rows))


def phonemes() -> Task:
    """The grapheme-to-phoneme model: 1,024 words to calibrate, 2,000 others to test."""
    tool, sounds = Pronouncer.load(), load_sounds()
    order = np.random.default_rng(10_000).permutation(sorted(sounds))
    held, free = [str(word) for word in order[:2000]], order[2000:]

    def calibration(seed: int) -> dict[str, Any]:
        chosen = np.random.default_rng(seed).choice(free, 1024, replace=False)
        return {"data": tool.taught([str(word) for word in chosen])}

    return Task(
        "phonemes", "words", tool.model, calibration, lambda m: tool.accuracy(m, held, sounds)
    )


def _questions(name: str, make: Callable[..., keras.Model], epochs: int) -> Callable[[], Task]:
    def load() -> Task:
        """A text model trained on TREC questions."""
        keras.utils.set_random_seed(0)
        train, test = split(load_trec())
        vocabulary = Vocabulary.of(train.texts, 8000)
        x, held = (vocabulary.encode(part.texts, 32) for part in (train, test))
        model = make(8000, 32, len(train.names))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, train.labels, batch_size=64, epochs=epochs, verbose=0)

        def calibration(seed: int) -> dict[str, Any]:
            chosen = np.random.default_rng(seed).choice(len(x), 1024, replace=False)
            return {"data": x[chosen]}

        def evaluate(pruned: keras.Model) -> float:
            found = pruned.predict(held, batch_size=256, verbose=0).argmax(axis=1)
            return float((found == test.labels).mean())

        return Task(name, "accuracy", model, calibration, evaluate)

    return load


TASKS: dict[str, Callable[[], Task]] = {
    "minilm": minilm,
    "lemmatiser": lemmatiser,
    "phonemes": phonemes,
    "textcnn": _questions("TREC TextCNN", text_cnn, 10),
    "bilstm": _questions("TREC BiLSTM", bilstm, 8),
    "transformer": _questions("TREC transformer", transformer, 10),
}


@dataclass(frozen=True)
class Cell:
    """Figures of one method at one target over all seeds."""

    values: tuple[float, ...]
    seconds: float

    def __str__(self) -> str:
        mean = float(np.mean(self.values))
        spread = max(abs(value - mean) for value in self.values)
        return f"{mean:.3f} ±{spread:.3f}"


def measure(task: Task, method: str, target: dict[str, Any], seeds: Sequence[int]) -> Cell:
    """Prune with a method, once for each seed, and evaluate."""
    values, seconds = [], 0.0
    for seed in seeds:
        given = task.calibration(seed)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecateurWarning)
            pruned = sc.prune(task.model, **METHODS[method], **target, **given).model
        seconds += time.perf_counter() - start
        values.append(task.evaluate(pruned))
    return Cell(tuple(values), seconds / len(seeds))


def rows(options: argparse.Namespace) -> Iterator[str]:
    """Lines of the table."""
    for name in options.tasks or TASKS:
        try:
            task = TASKS[name]()
        except (UnavailableError, MissingDependencyError) as error:
            yield f"| {name} | skipped: {error} |"
            continue
        targets: list[dict[str, Any]] = [{"sparsity": s} for s in options.sparsities]
        targets += [{"pattern": pattern} for pattern in task.patterns if options.patterns]
        yield f"| {task.name} | not pruned | {task.evaluate(task.model):.3f} ({task.measure}) |"
        for method in options.methods:
            cells = [measure(task, method, target, options.seeds) for target in targets]
            seconds = max(cell.seconds for cell in cells)
            listed = " | ".join(map(str, cells))
            yield f"| {task.name} | {method} | {listed} | {seconds:.1f} s |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)}; all")
    parser.add_argument("--sparsities", nargs="*", type=float, default=SPARSITIES)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--no-patterns", dest="patterns", action="store_false")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        parser.error(f"unknown tasks {sorted(unknown)}; there are {', '.join(TASKS)}")
    heads = [f"{sparsity:.0%}" for sparsity in options.sparsities]
    heads += ["2:4"] * options.patterns
    print(f"| task | method | {' | '.join(heads)} | slowest |")
    print("|---" * (3 + len(heads)) + "|")
    for line in rows(options):
        print(line, flush=True)


if __name__ == "__main__":
    main()
