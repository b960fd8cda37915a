"""SparseGPT as its paper writes it (Frantar & Alistarh 2023, arXiv 2301.00774, algorithm 1), in torch.

    python bench/plain_sparsegpt.py FOLDER ROUNDS      # by an interpreter that has torch and NumPy

Reads rows.npy (tokens, in) and weight.npy (out, in) of FOLDER, leaves pruned.npy there, and prints the
best seconds of gathering the Hessian and of pruning. Needs nothing of this project.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

SPARSITY = 0.5
BLOCK = 128
DAMPING = 0.01
BATCH = 2048


def gather(rows: torch.Tensor) -> torch.Tensor:
    """2 X^T X / N in float32: a full product per batch is added to a running mean."""
    hessian, seen = torch.zeros(rows.shape[1], rows.shape[1]), 0
    for batch in rows.split(BATCH):
        hessian *= seen / (seen + len(batch))
        seen += len(batch)
        scaled = batch.t() * (2 / seen) ** 0.5
        hessian += scaled @ scaled.t()
    return hessian


def prune(weight: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Algorithm 1: columns in order, the mask of a block by w^2 / [U]_jj^2, errors handed on."""
    weight, hessian = weight.clone(), hessian.clone()
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    for start in range(0, weight.shape[1], BLOCK):
        stop = min(start + BLOCK, weight.shape[1])
        block, local = weight[:, start:stop].clone(), factor[start:stop, start:stop]
        errors = torch.zeros_like(block)
        losses = block**2 / local.diagonal() ** 2
        gone = losses <= losses.flatten().sort().values[int(losses.numel() * SPARSITY) - 1]
        for column in range(stop - start):
            pruned = block[:, column].masked_fill(gone[:, column], 0)
            errors[:, column] = (block[:, column] - pruned) / local[column, column]
            block[:, column:] -= errors[:, column, None] * local[column, None, column:]
            block[:, column] = pruned
        weight[:, start:stop] = block
        weight[:, stop:] -= errors @ factor[start:stop, stop:]
    return weight


def main() -> None:
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    rows, weight = (torch.from_numpy(np.load(folder / f"{n}.npy")) for n in ("rows", "weight"))
    gathering, pruning = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        hessian = gather(rows)
        gathering.append(time.perf_counter() - start)
        start = time.perf_counter()
        pruned = prune(weight, hessian)
        pruning.append(time.perf_counter() - start)
    np.save(folder / "pruned.npy", pruned.numpy())
    print(min(gathering), min(pruning))


if __name__ == "__main__":
    main()
