"""What can be cut: every model of keras.applications and backbones of keras-hub, at ratio 0.5.

Run `python -m bench.prunability [NAME ...]`: cut, proven, saved, loaded with plain Keras in
another process, trained one step. Prints one line a model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import keras
import numpy as np
from bench.architectures import applications, backbones, tasks
from keras import tree

from secateur.keras.cut_rules import is_leaf, opener_of
from secateur.keras.cutting import plan_cut
from secateur.keras.describe import describe
from secateur.keras.flatten import flatten
from secateur.keras.proof import random_samples


def latencies(models: Sequence[keras.Model], samples: Any, rounds: int = 7) -> list[float]:
    """Milliseconds of a call of each compiled model: medians over rounds in which all take turns."""
    import tensorflow as tf

    calls = [
        tf.function(lambda x, model=model: model(x, training=False), autograph=False)
        for model in models
    ]
    for call in calls:
        call(samples)
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            tree.map_structure(np.asarray, call(samples))
            own.append(1e3 * (time.perf_counter() - start))
    return [median(own) for own in times]


def waken(model: keras.Model, samples: Any) -> None:
    """Make a fresh model more like a trained one, so that the proof compares more than zeros.

    Vectors that start as zeros or ones are spread about them, and moving statistics become those of
    some samples, without which random networks let their signal die away or explode.
    """
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        value = np.array(keras.ops.convert_to_numpy(variable), "float32")
        if len(variable.shape) == 1 and value.size and float(np.ptp(value)) == 0.0:
            variable.assign(value + 0.2 * generator.standard_normal(value.shape))
    norms = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    if norms:
        model(samples, training=True)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def train_one_step(model: keras.Model, samples: Any) -> bool:
    """Whether a step of gradient descent changes the weights and leaves them finite."""
    outputs = model(samples, training=False)
    targets = tree.map_structure(lambda x: np.zeros(x.shape, "float32"), outputs)
    model.compile("sgd", "mse")
    history = model.fit(samples, targets, batch_size=2, verbose=0)
    return bool(np.isfinite(history.history["loss"][-1]))


def loads_elsewhere(model: keras.Model) -> bool:
    """Whether plain Keras loads the saved model in a process that knows nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cut.keras"
        model.save(path)
        code = f"import keras; keras.models.load_model({str(path)!r})"
        return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def rows(names: list[str], align: int, timed: bool) -> Iterator[str]:
    """Lines of the table."""
    makers = {**applications(), **backbones(), **tasks()}
    for name in names or makers:
        try:
            yield row(name, makers[name](), align, timed)
        except Exception as error:
            first = str(error).splitlines()[0][:120]
            yield f"| {name} | FAILED {type(error).__name__}: {first} |"
        keras.backend.clear_session()


def row(name: str, model: keras.Model, align: int, timed: bool) -> str:
    """One line of the table."""
    samples = random_samples(describe(flatten(model, is_leaf, opener_of)), 2)
    waken(model, samples)
    start = time.perf_counter()
    plan = plan_cut(model, ratio=0.5, align=align)
    seconds = time.perf_counter() - start
    result = plan.apply()
    before, after = result.parameters
    times = (
        [f"{own:.1f}" for own in latencies((model, result.model), samples)] if timed else ["", ""]
    )
    trained = train_one_step(result.model, samples)
    loaded = loads_elsewhere(result.model)
    left = "; ".join(f"{wall}: {why}"[:80] for wall, why in list(plan.walls.items())[:2])
    if not left and after > 0.6 * before:
        left = "; ".join(
            dict.fromkeys(f"{g.name}: {g.why}"[:80] for g in plan.groups if not g.removed)
        )[:160]
    assert result.proof is not None
    return (
        f"| {name} | {before:,} | {after:,} | {1 - after / before:.1%} | {seconds:.1f} | "
        f"{times[0]} | {times[1]} | "
        f"{result.proof.difference:.1e} | {'yes' if loaded and trained else 'NO'} | {left} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--align", type=int, default=8)
    parser.add_argument("--no-latency", action="store_true", help="measure no latency")
    options = parser.parse_args()
    print(
        "| model | parameters | after | gone | plan s | ms before | ms after | proof "
        "| loads, trains | left |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for line in rows(options.names, options.align, not options.no_latency):
        print(line, flush=True)


if __name__ == "__main__":
    main()
