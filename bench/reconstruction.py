"""Seconds of gathering Gram matrices and of SparseGPT, beside the authors' algorithm written plainly.

    python bench/reconstruction.py                 # BERT-base's matrices once, 128 x 128 tokens; times 12
    python bench/reconstruction.py --width 64 --tokens 512      # a check that it works

The plain algorithm runs in torch where that is installed, else in NumPy. Each pair of times is taken in
one run, one after the other; only their ratios count. Errors are asserted: ours must not be worse.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from secateur.reconstruction import LayerProblem, LayerTarget, solve
from secateur.statistics import InputStatistics

SPARSITY = 0.5
BLOCK = 128
DAMPING = 0.01
LAYERS = 12


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def rows_of(tokens: int, inputs: int) -> np.ndarray:
    """Correlated inputs: half of the variance lies in an eighth of the directions."""
    rng = np.random.default_rng(inputs)
    narrow = rng.normal(size=(tokens, inputs // 8)) @ rng.normal(size=(inputs // 8, inputs))
    noise = rng.normal(size=(tokens, inputs))
    return (narrow / np.sqrt(inputs // 8) + noise).astype(np.float32)


def gather(rows: np.ndarray) -> InputStatistics:
    statistics = InputStatistics(rows.shape[1])
    for start in range(0, len(rows), 2048):
        statistics.update(rows[start : start + 2048])
    assert statistics.gram.shape == (rows.shape[1],) * 2
    return statistics


def plain_gram(rows: np.ndarray) -> np.ndarray:
    """A running float32 average with a full product per batch, as the authors' add_batch."""
    gram, count = np.zeros((rows.shape[1],) * 2, np.float32), 0
    for start in range(0, len(rows), 2048):
        batch = rows[start : start + 2048].T.copy()
        gram *= np.float32(count / (count + batch.shape[1]))
        count += batch.shape[1]
        scaled = np.float32(np.sqrt(2 / count)) * batch
        gram += matmul(scaled, scaled.T.copy())
    return gram


def matmul(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if find_spec("torch") is None:
        return left @ right
    import torch

    return (torch.from_numpy(left) @ torch.from_numpy(right)).numpy()


def plain_sweep(weight: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Algorithm 1 column by column, in torch or in NumPy."""
    if find_spec("torch") is None:
        return _sweep_numpy(weight.copy(), gram.copy())
    import torch

    w, h = torch.from_numpy(weight).clone(), torch.from_numpy(gram).clone()
    diagonal = torch.arange(len(h))
    h[diagonal, diagonal] += DAMPING * torch.mean(torch.diag(h))
    h = torch.cholesky_inverse(torch.linalg.cholesky(h))
    upper = torch.linalg.cholesky(h, upper=True)
    for i1 in range(0, w.shape[1], BLOCK):
        i2 = min(i1 + BLOCK, w.shape[1])
        part, local = w[:, i1:i2].clone(), upper[i1:i2, i1:i2]
        errors = torch.zeros_like(part)
        scores = part**2 / torch.diag(local).reshape(1, -1) ** 2
        limit = torch.sort(scores.flatten())[0][int(scores.numel() * SPARSITY)]
        gone = scores <= limit
        for i in range(i2 - i1):
            column = part[:, i]
            kept = column.clone()
            kept[gone[:, i]] = 0
            error = (column - kept) / local[i, i]
            part[:, i:] -= error.unsqueeze(1).matmul(local[i, i:].unsqueeze(0))
            errors[:, i] = error
            part[:, i] = kept
        w[:, i1:i2] = part
        w[:, i2:] -= errors.matmul(upper[i1:i2, i2:])
    return w.numpy()


def _sweep_numpy(w: np.ndarray, h: np.ndarray) -> np.ndarray:
    h[np.diag_indices_from(h)] += DAMPING * np.diagonal(h).mean()
    upper = np.linalg.cholesky(np.linalg.inv(h)).T.copy()
    for i1 in range(0, w.shape[1], BLOCK):
        i2 = min(i1 + BLOCK, w.shape[1])
        part, local = w[:, i1:i2].copy(), upper[i1:i2, i1:i2]
        errors = np.zeros_like(part)
        scores = part**2 / np.diagonal(local) ** 2
        gone = scores <= np.sort(scores.reshape(-1))[int(scores.size * SPARSITY)]
        for i in range(i2 - i1):
            kept = np.where(gone[:, i], 0, part[:, i])
            errors[:, i] = (part[:, i] - kept) / local[i, i]
            part[:, i:] -= errors[:, i, None] * local[i, i:]
            part[:, i] = kept
        w[:, i1:i2] = part
        w[:, i2:] -= errors @ upper[i1:i2, i2:]
    return w


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--tokens", type=int, default=128 * 128)
    options = parser.parse_args()
    width, tokens = options.width, options.tokens
    plain = "torch" if find_spec("torch") else "NumPy"
    print(f"{'matrix':>12}  {'gram':>8}  {'of peak':>7}  {'sweep':>8}  {plain:>8} (gram, sweep)")
    ours_total = plain_total = 0.0
    # (out, in), how many of them a layer has, and how many of those are fed alike.
    for outputs, inputs, matrices, grams in (
        (width, width, 4, 2),
        (4 * width, width, 1, 1),
        (width, 4 * width, 1, 1),
    ):
        rows = rows_of(tokens, inputs)
        weight = np.random.default_rng(1).normal(size=(outputs, inputs)).astype(np.float32)
        peak, _ = seconds(lambda rows=rows: rows.T @ rows)
        gathering, statistics = seconds(lambda rows=rows: gather(rows))
        settings: dict[str, Any] = {"damping": DAMPING, "ridge": "mean"}
        problem = LayerProblem(weight, statistics, **settings)
        sweeping, found = seconds(
            lambda problem=problem: solve(problem, LayerTarget(sparsity=SPARSITY), "sparsegpt")
        )
        plain_gathering, gram = seconds(lambda rows=rows: plain_gram(rows))
        plain_sweeping, rival = seconds(lambda w=weight, g=gram: plain_sweep(w, g))
        assert found.error <= problem.error(rival) * 1.02, (found.error, problem.error(rival))
        assert int((~found.mask).sum()) == round(SPARSITY * weight.size)
        print(
            f"{outputs:>5} x{inputs:>5}  {gathering:7.3f}s  {peak / gathering:6.0%}  {sweeping:7.3f}s"
            f"  {plain_gathering:7.3f}s {plain_sweeping:7.3f}s"
        )
        ours_total += LAYERS * (grams * gathering + matrices * sweeping)
        plain_total += LAYERS * (grams * plain_gathering + matrices * plain_sweeping)
    print(
        f"all of {LAYERS} layers: ours {ours_total:.1f} s, plain {plain} {plain_total:.1f} s: "
        f"{plain_total / ours_total:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
