"""`compress(method="auto")` beside each fixed method, at equal file size, on held-out text.

Run `python -m bench.adaptive [MODEL ...]`. Each model is trained anew for each seed, then compressed by
each method to the same number of bytes, however much accuracy that costs. Test rows are looked at
once, at the end: plans and epochs are chosen on validation rows, which are a part of the training
rows. Fixed methods get as many epochs altogether as "auto" took, trials included, or more; both are
printed. "both" cuts as long as no more than a point of accuracy goes, then prunes.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow
from bench.text_models import Task, accuracy, fit, tokens_task
from bench.zoo import UnavailableError, load_sms, load_trec
from bench.zoo.textmodels import TEXT_MODELS

import secateur as sc
from secateur.compression.goals import file_bytes

METHODS = ("auto", "prune", "cut", "both")
_NUM_TOKENS = 8000
_VALIDATION = 0.12
# What "both" may lose while it cuts, before it prunes.
_CUT_DROP = 0.01
_HEADINGS = ("model", "times smaller", "method", "accuracy", "spread", "bytes", "epochs", "seconds")


@dataclass(frozen=True)
class Kind:
    """A text model to be compressed.

    Attributes:
        data: "TREC" or "SMS".
        model: A name of `TEXT_MODELS`.
        epochs: Of training.
    """

    data: str
    model: str
    epochs: int


KINDS = {
    "TextCNN": Kind("TREC", "TextCNN", 10),
    "BiLSTM": Kind("TREC", "BiLSTM", 8),
    "transformer": Kind("TREC", "transformer", 10),
    "SMS": Kind("SMS", "TextCNN", 5),
}


@dataclass(frozen=True)
class Run:
    """One model compressed once.

    Attributes:
        kind: Name of the model.
        ratio: How many times smaller it was to become.
        method: How.
        seed: Of the training before and of the compression.
        before: Accuracy on the test rows before.
        after: And after.
        num_bytes: Of the file.
        epochs: Of training during the compression.
        seconds: Of the compression.
        note: How "auto" explains itself.
    """

    kind: str
    ratio: float
    method: str
    seed: int
    before: float
    after: float
    num_bytes: int
    epochs: int
    seconds: float
    note: str = ""


def load(data: str) -> Task:
    """Rows of token numbers.

    Raises:
        UnavailableError: The package cannot be had.
    """
    if data == "SMS":
        return tokens_task("SMS", load_sms(), 60)
    return tokens_task("TREC", load_trec(), 32)


def trained(kind: Kind, task: Task, seed: int) -> keras.Model:
    """A model trained on the rows before the validation rows."""
    keras.utils.set_random_seed(seed)
    model = TEXT_MODELS[kind.model](_NUM_TOKENS, task.x.shape[1], task.num_classes)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    fit(model, task, kind.epochs)
    return model


def parted(task: Task) -> tuple[Task, tuple[np.ndarray, np.ndarray]]:
    """The task with fewer rows to train on, and those left out, to choose by."""
    rows = int(len(task.x) * (1 - _VALIDATION))
    less = Task(task.name, task.x[:rows], task.y[:rows], task.test_x, task.test_y, task.num_classes)
    return less, (task.x[rows:], task.y[rows:])


def compressed(
    model: keras.Model,
    task: Task,
    validation: tuple[np.ndarray, np.ndarray],
    method: str,
    ratio: float,
    epochs: int,
    batch_size: int,
    seed: int,
) -> tuple[keras.Model, int, str]:
    """The smaller model, epochs of training, and what is to be noted.

    Args:
        model: The trained model.
        task: Rows to train on.
        validation: Rows to choose by.
        method: One of `METHODS`.
        ratio: How many times smaller.
        epochs: For "auto" of its last step, for others of all steps that they are expected to take.
        batch_size: Of the training.
        seed: Of the compression.
    """
    # A cut takes a quarter of what is left.
    num_cuts = math.ceil(math.log(ratio) / -math.log(0.75))
    each = {"cut": math.ceil(epochs / num_cuts), "both": math.ceil(epochs / num_cuts)}
    tuning = sc.FineTuning(epochs=each.get(method, epochs), batch_size=batch_size)
    data = {"train": (task.x, task.y), "validation": validation, "seed": seed}
    goal = sc.Size(ratio=ratio)
    if method != "both":
        result = sc.compress(model, target=goal, method=method, max_drop=1.0, tuning=tuning, **data)
        note = "" if result.explanation is None else str(result.explanation)
        return result.model, epochs_of(result), note
    first = sc.compress(model, target=goal, method="cut", max_drop=_CUT_DROP, tuning=tuning, **data)
    smaller = sc.Size(value=first.comparison.limit)
    tuning = replace(tuning, epochs=epochs)
    then = sc.compress(
        first.model, target=smaller, method="prune", max_drop=1.0, tuning=tuning, **data
    )
    return then.model, epochs_of(first) + epochs_of(then), ""


def epochs_of(result: sc.CompressionResult) -> int:
    """Epochs that the steps, and the trials of "auto", were trained."""
    trials = 0 if result.explanation is None else result.explanation.epochs
    return trials + sum(step.epochs for step in result.history)


def runs(
    names: Sequence[str],
    ratios: Sequence[float],
    methods: Sequence[str],
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
) -> Iterator[Run]:
    """Every model, size and method; "auto" first, since it sets how long the others may train."""
    for seed, name in itertools.product(seeds, names):
        task, validation = parted(load(KINDS[name].data))
        model = trained(KINDS[name], task, seed)
        before = accuracy(model, task)
        for ratio in ratios:
            allowed = epochs
            for method in methods:
                began = time.monotonic()
                made = compressed(model, task, validation, method, ratio, allowed, batch_size, seed)
                seconds = time.monotonic() - began
                smaller, taken, note = made
                allowed = taken if method == "auto" else allowed
                figures = (before, accuracy(smaller, task), file_bytes(smaller))
                yield Run(name, ratio, method, seed, *figures, taken, seconds, note)


def table(found: Sequence[Run]) -> list[str]:
    """Means over seeds with their spread, and who is ahead."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|" + "---|" * len(_HEADINGS)]
    for kind, ratio in dict.fromkeys((run.kind, run.ratio) for run in found):
        own = [run for run in found if (run.kind, run.ratio) == (kind, ratio)]
        before = {run.seed: run.before for run in own}
        lines.append(_line(kind, ratio, "(before)", list(before.values())))
        by_method = {m: [r for r in own if r.method == m] for m in METHODS}
        by_method = {method: some for method, some in by_method.items() if some}
        for method, some in by_method.items():
            lines.append(_line(kind, ratio, method, [run.after for run in some], some))
        lines.append(verdict(kind, ratio, by_method))
    return lines


def verdict(kind: str, ratio: float, by_method: dict[str, list[Run]]) -> str:
    """Whether "auto" beats the best fixed method, seed by seed."""
    means = {m: float(np.mean([run.after for run in some])) for m, some in by_method.items()}
    fixed = {method: mean for method, mean in means.items() if method != "auto"}
    if not fixed or "auto" not in means:
        return ""
    best = max(fixed, key=lambda method: fixed[method])
    theirs = {run.seed: run.after for run in by_method[best]}
    gains = [r.after - theirs[r.seed] for r in by_method["auto"] if r.seed in theirs]
    word = "beats" if np.mean(gains) > 0 else "does not beat"
    return (
        f"{kind}, {ratio:g} times smaller: auto {word} {best}, the best fixed method, by "
        f"{100 * np.mean(gains):+.2f} points on average over {len(gains)} seeds "
        f"({', '.join(f'{100 * gain:+.2f}' for gain in gains)})"
    )


def _line(
    kind: str, ratio: float, method: str, accuracies: Sequence[float], some: Sequence[Run] = ()
) -> str:
    spread = f"{np.std(accuracies, ddof=1):.4f}" if len(accuracies) > 1 else ""
    cells = [kind, f"{ratio:g}", method, f"{np.mean(accuracies):.4f}", spread]
    if some:
        cells += [
            f"{np.mean([run.num_bytes for run in some]):,.0f}",
            f"{np.mean([run.epochs for run in some]):.0f}",
            f"{np.mean([run.seconds for run in some]):.0f}",
        ]
    return "| " + " | ".join([*cells, *[""] * (len(_HEADINGS) - len(cells))]) + " |"


def main() -> None:
    """Print every run as it comes, then the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", help=f"of {', '.join(KINDS)}; all without")
    parser.add_argument("--ratios", type=float, nargs="+", default=[20, 40])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10, help="of the last step of auto")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, help="of TensorFlow; its own choice without")
    given = parser.parse_args()
    if given.threads:
        tensorflow.config.threading.set_intra_op_parallelism_threads(given.threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(given.threads)
    methods = sorted(given.methods, key=METHODS.index)
    warnings.simplefilter("ignore", sc.errors.TargetNotReachedWarning)
    found = []
    try:
        names = given.models or list(KINDS)
        how = (given.ratios, methods, given.seeds, given.epochs, given.batch)
        for run in runs(names, *how):
            found.append(run)
            print(replace(run, note=""), run.note, sep="\n", flush=True)
    except UnavailableError as error:
        print(f"skipped: {error}")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
