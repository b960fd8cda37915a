"""The polynomial schedule of tensorflow-model-optimization, on Keras 2, in an environment of its own.

    python -m venv KERAS2 && KERAS2/bin/pip install "tensorflow==2.15.*" "tf-keras==2.15.*" \
        tensorflow-model-optimization "numpy<2"

`rival_rows` hands it the rows of a task. There, this very file runs as a script: it trains the TextCNN
of `bench/zoo/textmodels.py`, prunes a copy at each sparsity during further epochs (all layers that
tfmot can prune, the embedding too; the schedule ends after two thirds of the steps, as in its guide),
keeps the epoch that is best on the validation rows as ours does, strips, and measures the gzip of the
`.h5` file before and after.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SPARSITIES = (0.8, 0.9, 0.95, 0.975)
HEADINGS = (
    "tfmot, TextCNN", "ratio", "bytes", "after", "accuracy", "after", "points lost", "spread", "worst",
)  # fmt: skip
_EPOCHS, _PRUNING_EPOCHS, _BATCH = 8, 6, 64


def rival_rows(python: str, tasks: Sequence[Any]) -> Iterator[Sequence[str]]:
    """Lines of a table: one for each sparsity, means over tasks.

    Args:
        python: Of an environment that has tensorflow-model-optimization.
        tasks: `bench.compression.Task`s, one for each seed.
    """
    found = [run(python, task, seed) for seed, task in enumerate(tasks)]
    yield HEADINGS
    yield ["---"] * len(HEADINGS)
    for number, sparsity in enumerate(SPARSITIES):
        outcomes = [seed[number] for seed in found]
        mean = {key: float(np.mean([one[key] for one in outcomes])) for key in outcomes[0]}
        lost = [100 * (one["before"] - one["after"]) for one in outcomes]
        ratio = np.mean([one["bytes_before"] / one["bytes_after"] for one in outcomes])
        yield [
            f"{sparsity:.1%} zeros", f"{ratio:.1f}", f"{mean['bytes_before']:,.0f}",
            f"{mean['bytes_after']:,.0f}", f"{mean['before']:.4f}", f"{mean['after']:.4f}",
            f"{np.mean(lost):.2f}", f"{np.std(lost):.2f}", f"{max(lost):.2f}",
        ]  # fmt: skip


def run(python: str, task: Any, seed: int) -> list[dict[str, float]]:
    """Outcomes at each sparsity, from a process of that Python."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        rows = [*task.train, *task.validation, *task.test]
        named = {f"{number}": array for number, array in enumerate(rows)}
        np.savez(path, **named, sizes=np.array([task.length, task.num_classes, seed]))
        command = [python, __file__, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{python} cannot run tfmot:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _serve(path: str) -> None:
    """In the other environment: train, prune, and print the outcomes as JSON."""
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.python.core.keras.compat import keras

    loaded = np.load(path)
    train, validation, test = ((loaded[str(n)], loaded[str(n + 1)]) for n in (0, 2, 4))
    length, num_classes, seed = (int(size) for size in loaded["sizes"])
    layers = keras.layers

    def build() -> Any:
        return keras.Sequential(
            [
                layers.Embedding(8000, 64, input_length=length),
                layers.Dropout(0.3),
                layers.Conv1D(128, 3, activation="relu", padding="same"),
                layers.GlobalMaxPooling1D(),
                layers.Dense(64, activation="relu"),
                layers.Dropout(0.4),
                layers.Dense(num_classes, activation="softmax"),
            ]
        )

    def compiled(model: Any) -> Any:
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def accuracy(model: Any, rows: Any) -> float:
        return float(model.evaluate(*rows, batch_size=256, verbose=0)[1])

    class Best(keras.callbacks.Callback):
        def __init__(self, first: int) -> None:
            super().__init__()
            self.first, self.best, self.weights = first, -1.0, None

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            found = (logs or {})["val_accuracy"]
            if epoch >= self.first and found > self.best:
                self.best, self.weights = found, self.model.get_weights()

    def file_bytes(model: Any) -> int:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.h5"
            model.save(file, include_optimizer=False)
            return len(gzip.compress(file.read_bytes(), 9))

    keras.utils.set_random_seed(seed)
    dense = compiled(build())
    dense.fit(*train, batch_size=_BATCH, epochs=_EPOCHS, verbose=0)
    before, bytes_before = accuracy(dense, test), file_bytes(dense)
    steps = -(-len(train[0]) // 32) * _PRUNING_EPOCHS
    outcomes = []
    for sparsity in SPARSITIES:
        keras.utils.set_random_seed(seed + 1)
        copy = build()
        copy.set_weights(dense.get_weights())
        end = steps * 2 // 3
        schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, 0, end, frequency=20)
        pruned = compiled(tfmot.sparsity.keras.prune_low_magnitude(copy, schedule))
        best = Best(_PRUNING_EPOCHS * 2 // 3)
        callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), best]
        pruned.fit(
            *train, batch_size=32, epochs=_PRUNING_EPOCHS, validation_data=validation, verbose=0,
            callbacks=callbacks,
        )  # fmt: skip
        pruned.set_weights(best.weights)
        stripped = compiled(tfmot.sparsity.keras.strip_pruning(pruned))
        outcomes.append(
            {
                "before": before, "after": accuracy(stripped, test),
                "bytes_before": bytes_before, "bytes_after": file_bytes(stripped),
            }
        )  # fmt: skip
    print(json.dumps(outcomes))


if __name__ == "__main__":
    _serve(sys.argv[1])
