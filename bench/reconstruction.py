"""Seconds of gathering Gram matrices and of SparseGPT, beside the authors' algorithm written plainly.

    python bench/reconstruction.py --torch-python PYTHON   # BERT-base's matrices, 128 x 128 tokens
    python bench/reconstruction.py --width 64 --tokens 512 # a check that it works; ours alone

The plain algorithm (`plain_sparsegpt.py`) runs in a process of its own, by an interpreter that has
torch, right after ours, on the same arrays. It has a Hessian for each matrix, as published; what it
would take if matrices that are fed alike shared one, as ours do, is printed, too. Times are the best of
some rounds; only ratios of one run count. Errors are asserted: ours must not be worse.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import blas

from secateur.reconstruction import LayerProblem, LayerSolution, LayerTarget, solve
from secateur.statistics import InputStatistics

SPARSITY, DAMPING = 0.5, 0.01  # as in plain_sparsegpt.py
LAYERS = 12
PLAIN = Path(__file__).with_name("plain_sparsegpt.py")


@dataclass(frozen=True)
class Fed:
    """Matrices of one layer of an encoder that are fed alike; sizes in widths of the encoder."""

    name: str
    inputs: int
    outputs: int
    count: int


FED = (
    Fed("query, key, value", 1, 1, 3),
    Fed("attention's output", 1, 1, 1),
    Fed("feed-forward, in", 1, 4, 1),
    Fed("feed-forward, out", 4, 1, 1),
)


@dataclass(frozen=True)
class Times:
    """Best seconds: of one Gram matrix, and of pruning all matrices that its rows feed."""

    gathering: float
    pruning: float


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """How long it takes, and what comes out."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def rows_of(tokens: int, inputs: int) -> np.ndarray:
    """Correlated inputs: half of the variance lies in an eighth of the directions."""
    rng = np.random.default_rng(inputs)
    shape = (tokens, inputs // 8), (inputs // 8, inputs), (tokens, inputs)
    left, right, noise = (rng.standard_normal(own, np.float32) for own in shape)
    return np.asarray(left @ right / np.float32(np.sqrt(inputs // 8)) + noise)


def gather(rows: np.ndarray) -> InputStatistics:
    """Statistics as a calibration walk makes them, from batches of 2,048 positions."""
    statistics = InputStatistics(rows.shape[1])
    for start in range(0, len(rows), 2048):
        statistics.update(rows[start : start + 2048])
    assert statistics.gram.shape == (rows.shape[1],) * 2
    return statistics


def ours(weights: list[np.ndarray], rows: np.ndarray, rounds: int) -> tuple[Times, LayerSolution]:
    """Our times, and the solution of the first matrix."""
    taken = []
    for _ in range(rounds):
        gathering, statistics = seconds(lambda: gather(rows))
        pruning, found = seconds(lambda s=statistics: [sweep(weight, s) for weight in weights])
        taken.append((gathering, pruning))
    return Times(*np.min(taken, axis=0)), found[0]


def sweep(weight: np.ndarray, statistics: InputStatistics) -> LayerSolution:
    """SparseGPT with the authors' damping."""
    problem = LayerProblem(weight, statistics, damping=DAMPING, ridge="mean")
    return solve(problem, LayerTarget(sparsity=SPARSITY), "sparsegpt")


def plain(python: str, weight: np.ndarray, rows: np.ndarray, rounds: int) -> tuple[Times, Any]:
    """The plain algorithm's times for one matrix, and its weights."""
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("rows", rows), ("weight", weight)):
            np.save(Path(folder) / f"{name}.npy", array)
        command = [python, str(PLAIN), folder, str(rounds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return Times(*map(float, done.stdout.split())), np.load(Path(folder) / "pruned.npy")


def peak(rows: np.ndarray, rounds: int) -> float:
    """Operations a second of float32 BLAS on these rows: of ssyrk or of sgemm, whichever is faster."""
    tokens, width = rows.shape
    turned = np.asfortranarray(rows[: width * 2])
    half = min(seconds(lambda: blas.ssyrk(1.0, rows.T))[0] for _ in range(rounds))
    whole = min(seconds(lambda: turned.T @ rows[: len(turned)])[0] for _ in range(rounds))
    return max(tokens * width * (width + 1) / half, 2 * len(turned) * width**2 / whole)


def check(weight: np.ndarray, rows: np.ndarray, found: LayerSolution, rival: np.ndarray) -> float:
    """Our error as a part of the plain algorithm's, both in float64 on the rows themselves."""

    def lost(pruned: np.ndarray) -> float:
        change = (weight - pruned).astype(np.float64)
        parts = (rows[start : start + 2048] @ change.T for start in range(0, len(rows), 2048))
        return sum(float(np.square(part).sum()) for part in parts)

    assert int((~found.mask).sum()) == round(SPARSITY * weight.size)
    ratio = lost(found.weight) / lost(rival)
    assert ratio <= 1.01, f"our error is {ratio:.4f} of the plain algorithm's"
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=128 * 128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--torch-python", metavar="PYTHON", help="an interpreter that has torch")
    options = parser.parse_args()
    print(
        "| one layer | gram s | of peak | sweep s | torch gram s | sweep s | error, ours / torch |"
    )
    print("|---" * 7 + "|")
    own = published = shared = 0.0
    for fed in FED:
        rows = rows_of(options.tokens, fed.inputs * options.width)
        shape = (fed.outputs * options.width, rows.shape[1])
        rng = np.random.default_rng(1)
        weights = [rng.standard_normal(shape, np.float32) for _ in range(fed.count)]
        rate = peak(rows, options.rounds)
        times, found = ours(weights, rows, options.rounds)
        part = len(rows) * shape[1] * (shape[1] + 1) / times.gathering / rate
        own += times.gathering + times.pruning
        line = (
            f"| {fed.count} x {shape} | {times.gathering:.2f} | {part:.0%} | {times.pruning:.2f} "
        )
        if options.torch_python:
            rival, pruned = plain(options.torch_python, weights[0], rows, options.rounds)
            ratio = check(weights[0], rows, found, pruned)
            published += fed.count * (rival.gathering + rival.pruning)
            shared += rival.gathering + fed.count * rival.pruning
            line += f"| {rival.gathering:.2f} | {fed.count * rival.pruning:.2f} | {ratio:.4f} "
        print(line + "|", flush=True)
    print(f"all of {LAYERS} layers: ours {LAYERS * own:.1f} s")
    if options.torch_python:
        print(
            f"plain in torch {LAYERS * published:.1f} s: {published / own:.2f} times ours; if its "
            f"Hessians were shared {LAYERS * shared:.1f} s: {shared / own:.2f} times ours"
        )


if __name__ == "__main__":
    main()
