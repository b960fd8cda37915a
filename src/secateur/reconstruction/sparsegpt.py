"""SparseGPT: one sweep over the inputs that removes weights and corrects those not yet seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from secateur._kernels.reference.obs import sweep_block
from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.patterns import NM, Block
from secateur.reconstruction.factors import inverse_factor
from secateur.reconstruction.problem import LayerProblem, LayerSolution
from secateur.reconstruction.target import LayerTarget

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class SparseGPT:
    """The blocked OBS sweep.

    With U^T U = H^-1 (U upper), inputs j go by in order; a weight that goes leaves the error
    e = w_j / U_jj, and all later weights of its row change by -e U_j,later. Masks are chosen a block of
    inputs at a time by w_j^2 / U_jj^2, each block losing its share of the target.

    Attributes:
        block: Inputs per block, rounded up to whole groups or blocks of the pattern.

    References:
        Frantar & Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot"
        (arXiv 2301.00774), algorithm 1.
        Differs from the paper: exactly k weights go, not "as many as a threshold with ties catches"; weights
        of dead inputs go before all others; blocks of weights are scored by the sum of their members'.
    """

    name: ClassVar[str] = "sparsegpt"
    block: int = 128

    def __post_init__(self) -> None:
        if self.block < 1:
            raise InvalidArgumentError(f"block must be at least 1, got {self.block}.")

    def solve(self, problem: LayerProblem, target: LayerTarget) -> LayerSolution:
        """See `secateur.reconstruction.solve`."""
        factor = inverse_factor(problem.hessian, problem.name).astype(np.float32)
        weight = problem.target.copy()
        mask = np.ones(weight.shape, np.bool_)
        width = _whole(self.block, target)
        inputs = weight.shape[1]
        quota = _Quota(target, problem.dead, weight.shape[0])
        for start in range(0, inputs, width):
            here = slice(start, min(start + width, inputs))
            part = np.ascontiguousarray(weight[:, here])
            local = np.ascontiguousarray(factor[here, here])
            pattern = target.parsed
            kept: Array
            if target.mask is not None:
                kept = np.ascontiguousarray(target.mask[:, here])
            elif isinstance(pattern, NM):
                kept = np.ones(part.shape, np.bool_)
            else:
                kept = quota.mask(part / np.diagonal(local), here)
            group = (pattern.n, pattern.m) if isinstance(pattern, NM) and target.mask is None else None
            errors = sweep_block(part, local, kept, group)
            weight[:, here], mask[:, here] = part, kept
            weight[:, here.stop :] -= errors @ factor[here, here.stop :]
        return problem.solution(weight, mask, self.name)


def _whole(block: int, target: LayerTarget) -> int:
    pattern = target.parsed
    unit = pattern.m if isinstance(pattern, NM) else 1
    unit = pattern.cols if isinstance(pattern, Block) else unit
    return -(-block // unit) * unit


class _Quota:
    """Shares a target out over blocks of inputs, exactly; dead inputs lose everything first."""

    def __init__(self, target: LayerTarget, dead: Array, outputs: int) -> None:
        self._target = target
        pattern = target.parsed
        rows, cols = (pattern.rows, pattern.cols) if isinstance(pattern, Block) else (1, 1)
        self._cols = cols
        starts = np.arange(0, len(dead), cols)
        self._dead = np.logical_and.reduceat(dead, starts)  # per column of units
        height = -(-outputs // rows) if target.scope == "layer" else 1
        self._height = height
        total = 0
        if target.mask is None and not isinstance(pattern, NM):
            total = target.num_removed(height * len(self._dead))
        dead_units = height * int(self._dead.sum())
        from_dead = min(total, dead_units)
        self._dead_left = _shares(self._dead, from_dead)
        self._live_left = _shares(~self._dead, total - from_dead)

    def mask(self, scores: Array, here: slice) -> Array:
        """Mask of the weights of one block of inputs, (out, width)."""
        columns = slice(here.start // self._cols, -(-here.stop // self._cols))
        forced = self._dead_left[columns.stop] - self._dead_left[columns.start]
        others = self._live_left[columns.stop] - self._live_left[columns.start]
        target = LayerTarget(self._target.pattern, count=int(forced + others), scope=self._target.scope)
        return target.mask_of(np.ascontiguousarray(scores))


def _shares(columns: Array, total: int) -> Array:
    """How many of `total` have gone before each column when each of `columns` gives its share."""
    so_far = np.concatenate([[0], np.cumsum(columns)])
    return np.rint(so_far * (total / max(so_far[-1], 1))).astype(np.int64)
