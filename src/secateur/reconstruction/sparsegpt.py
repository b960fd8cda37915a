"""SparseGPT: one sweep over the inputs that removes weights and corrects those not yet seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from secateur._kernels.native.gemm import matmul
from secateur._kernels.native.obs import sweep_block
from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.factors import triangle_inverse
from secateur.patterns import NM, Block
from secateur.reconstruction.problem import LayerProblem, LayerSolution
from secateur.reconstruction.target import LayerTarget

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class SparseGPT:
    """The blocked OBS sweep.

    With U^T U = H^-1 (U upper), inputs j go by in order; a weight that goes leaves the error
    e = w_j / U_jj, and all later weights of its row change by -e U_j,later. Masks are chosen a block of
    inputs at a time by w_j^2 / U_jj^2, each block losing its share of the target.

    U is never made. Its inverse is the R of R R^T = H, one Cholesky factor; what all errors E before a
    block do to it, -E U, is (W* - V) R U_here by the changes W* - V they made, since (W* - V) R = E. So
    only the diagonal blocks of R are inverted. And E is what is lost: tr((W* - V) H (W* - V)^T) = |E|^2.

    Attributes:
        block: Inputs per block, rounded up to whole groups or blocks of the pattern.

    References:
        Frantar & Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot"
        (arXiv 2301.00774), algorithm 1.
        Differs from the paper: exactly k weights go, not as many as a threshold with ties catches;
        weights of dead inputs go before all others; blocks are scored by the sum of their members'.
    """

    name: ClassVar[str] = "sparsegpt"
    block: int = 128

    def __post_init__(self) -> None:
        if self.block < 1:
            raise InvalidArgumentError(f"block must be at least 1, got {self.block}.")

    def solve(self, problem: LayerProblem, target: LayerTarget) -> LayerSolution:
        """See `secateur.reconstruction.solve`."""
        upper = problem.upper_factor
        wanted = problem.target  # (out, in)
        found, mask = np.empty_like(wanted), np.empty(wanted.shape, np.bool_)
        changes = np.empty_like(wanted)  # (out, in): W* - V so far
        width = _whole(self.block, target)
        rows = problem.output_weights[:, None]
        chooser = _Chooser(target, problem.dead, wanted.shape[0])
        lost = 0.0
        for start in range(0, wanted.shape[1], width):
            here = slice(start, start + width)
            local = triangle_inverse(upper[here, here]).astype(np.float32, copy=False)
            above = np.ascontiguousarray(upper[:start, here].T, np.float32)  # (width, start)
            # What earlier blocks did to this one, at once: (out, start) @ (start, width).
            shift = matmul(matmul(changes[:, :start], above.T), local)
            part = np.asarray(wanted[:, here] + shift, np.float32)
            mask_here = chooser.mask(part * rows / np.diagonal(local), here)
            errors = sweep_block(part, local, mask_here, chooser.group)
            lost += float(np.square(errors).sum(dtype=np.float64))
            np.subtract(wanted[:, here], part, out=changes[:, here])
            found[:, here], mask[:, here] = part, mask_here
        return problem.solution(found, mask, self.name, lost)


def _whole(block: int, target: LayerTarget) -> int:
    pattern = target.parsed
    unit = pattern.m if isinstance(pattern, NM) else 1
    unit = pattern.cols if isinstance(pattern, Block) else unit
    return -(-block // unit) * unit


class _Chooser:
    """Masks of blocks of inputs: each gives its share of the target, dead inputs all before others.

    Attributes:
        group: n and m, where the sweep itself chooses.
    """

    def __init__(self, target: LayerTarget, dead: Array, outputs: int) -> None:
        self._target = target
        pattern = target.parsed
        free = target.mask is None
        self.group = (pattern.n, pattern.m) if isinstance(pattern, NM) and free else None
        rows, self._cols = (pattern.rows, pattern.cols) if isinstance(pattern, Block) else (1, 1)
        starts = np.arange(0, len(dead), self._cols)
        dead_units = np.logical_and.reduceat(dead, starts)  # one entry a column of units
        height = -(-outputs // rows) if target.scope == "layer" else 1
        ranked = free and self.group is None
        total = target.num_removed(height * len(starts)) if ranked else 0
        from_dead = min(total, height * int(dead_units.sum()))
        self._dead_gone = _shares(dead_units, from_dead)
        self._live_gone = _shares(~dead_units, total - from_dead)

    def mask(self, scores: Array, here: slice) -> Array:
        """(out, width) bool of the block of inputs `here`; scores are w / U_jj, zero where dead."""
        if self._target.mask is not None:
            return np.ascontiguousarray(self._target.mask[:, here])
        if self.group is not None:
            return np.ones(scores.shape, np.bool_)
        first, last = here.start // self._cols, -(-here.stop // self._cols)
        gone = (self._dead_gone + self._live_gone)[[first, min(last, len(self._dead_gone) - 1)]]
        share = LayerTarget(
            self._target.pattern, count=int(gone[1] - gone[0]), scope=self._target.scope
        )
        return share.mask_of(np.ascontiguousarray(scores))


def _shares(columns: Array, total: int) -> Array:
    """How many of `total` have gone before each column when each of `columns` gives its share."""
    so_far = np.concatenate([[0], np.cumsum(columns)])
    return np.asarray(np.rint(so_far * (total / max(so_far[-1], 1))), np.int64)
