"""Peak memory of pruning on data, each measured in a process of its own (Linux: it reads `/proc`).

    python bench/memory.py deep                     # a network of 24 layers: 227 MB of weights
    python bench/memory.py deep --criterion admm    # by the default method, which takes longer
    python bench/memory.py stream                   # 100,000 samples from a PyDataset

`deep` asserts that beside the model that is given, and with the pruned one, no more than twice the model
and the largest layer's statistics are in memory at any time. `stream` asserts that ten times the
samples take no more memory, however little of their activations fits the budget: the rest goes to a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, DEPTH, SAMPLES = 1536, 24, 2048
MANY, BUDGET = 100_000, 8 << 20
MEGABYTE = 1e6


def kilobytes(field: str) -> int:
    """A line of the process's status. Not ru_maxrss: a child inherits its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_of(function: Any) -> tuple[float, float]:
    """Bytes by which memory grew at most while something ran, and the seconds it took."""
    before = kilobytes("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = time.perf_counter()
    function()
    return (kilobytes("VmHWM:") - before) * 1024.0, time.perf_counter() - start


def deep(criterion: str) -> None:
    """Prune a deep network; its weights are drawn, so its figures say nothing of quality."""
    import keras
    from keras import layers

    import secateur as sc

    how: dict[str, Any] = {"sparsity": 0.7, "criterion": criterion}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, WIDTH), np.float32)
    hidden = [layers.Dense(WIDTH, activation="relu") for _ in range(DEPTH)]
    model = keras.Sequential([keras.Input((WIDTH,)), *hidden])
    # What is loaded or compiled once, at first use, is no part of the question.
    small = keras.Sequential([keras.Input((64,)), layers.Dense(64)])
    sc.prune(small, data=x[:, :64], **how)
    size = 4 * model.count_params()
    statistics = 2 * 8 * WIDTH**2  # Gram and cross product, float64
    extra, seconds = peak_of(lambda: sc.prune(model, data=x, **how))
    limit = 2 * size + statistics
    print(
        f"{criterion}: model {size / MEGABYTE:.0f} MB, statistics {statistics / MEGABYTE:.0f} MB, peak "
        f"beside the model {extra / MEGABYTE:.0f} MB of {limit / MEGABYTE:.0f}, {seconds:.0f} s"
    )
    assert extra <= limit, "more than twice the model and the statistics"


def stream(num_samples: int) -> None:
    """Prune a small network on samples that are made when they are asked for."""
    import keras
    from keras import layers

    import secateur as sc

    class Samples(keras.utils.PyDataset):
        def __len__(self) -> int:
            return num_samples // 500

        def __getitem__(self, number: int) -> np.ndarray:
            rng = np.random.default_rng(number)
            return rng.standard_normal((500, 64), np.float32)

    hidden = [layers.Dense(128, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])
    how: dict[str, Any] = {"sparsity": 0.7, "memory": BUDGET}
    sc.prune(model, data=np.zeros((512, 64), np.float32) + np.eye(64, dtype=np.float32)[0], **how)
    extra, seconds = peak_of(lambda: sc.prune(model, data=Samples(), **how))
    print(f"{extra} {seconds}")


def child(*words: str) -> str:
    """Run one of the above in a process of its own."""
    # glibc's own threshold, held where it starts: left alone it rises with each larger block that is
    # freed, freed memory stays with the process, and what is measured is the allocator's habits.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-W", "ignore", __file__, "--inside", *words]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("deep", "stream"))
    parser.add_argument("--criterion", default="sparsegpt")
    parser.add_argument("--samples", type=int, default=MANY)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        warnings.simplefilter("ignore")
        deep(options.criterion) if options.what == "deep" else stream(options.samples)
        return
    if options.what == "deep":
        print(child("deep", "--criterion", options.criterion), end="")
        return
    figures = {}
    for samples in (options.samples // 10, options.samples):
        extra, seconds = map(float, child("stream", "--samples", str(samples)).split())
        figures[samples] = extra
        activations = 4 * samples * (64 + 3 * 128)
        print(
            f"{samples:,} samples: {seconds:.0f} s, peak {extra / MEGABYTE:.0f} MB; their activations "
            f"would take {activations / MEGABYTE:.0f} MB, {BUDGET / MEGABYTE:.0f} MB may be kept"
        )
    few, many = figures.values()
    assert many <= few + 4 * BUDGET


if __name__ == "__main__":
    main()
