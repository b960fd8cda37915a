"""Swap search: a finish that exchanges kept against removed weights where that lowers the error."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from secateur._kernels.native.gemm import matmul
from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.patterns import NM
from secateur.reconstruction.admm import ADMM
from secateur.reconstruction.problem import LayerProblem, LayerSolution
from secateur.reconstruction.refit import masked_gradients, scaled_hessian, scales
from secateur.reconstruction.target import LayerTarget

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


class _First(Protocol):
    @property
    def name(self) -> str: ...

    def solve(self, problem: LayerProblem, target: LayerTarget) -> LayerSolution: ...


@dataclass(frozen=True)
class Swap:
    """Another solver's solution, then swaps within each row, then a refit; the error never rises.

    A swap takes out a kept weight and puts its row's best removed one in its place (of the same group for
    n:m), all others fixed; counts by layer, row and group stay as they are.

    Attributes:
        first: The solver whose solution is taken.
        candidates: How many of a row's kept weights, those cheapest to take out, are tried.
        max_swaps: Per row and round.
        rounds: Of swaps and refit.
        refit_iterations: Of conjugate gradients after each round.

    References:
        Hazimeh & Mazumder, "Fast Best Subset Selection: Coordinate Descent and Local Combinatorial
        Optimization Algorithms" (Operations Research 2020): partial swap inescapable minima, size 1.
        Differs from the paper: only the cheapest kept weights are tried.
    """

    name: ClassVar[str] = "swap"
    first: _First = field(default_factory=ADMM)
    candidates: int = 16
    max_swaps: int = 8
    rounds: int = 2
    refit_iterations: int = 20

    def __post_init__(self) -> None:
        counts = (self.candidates, self.max_swaps, self.rounds)
        if min(counts) < 1 or self.refit_iterations < 0:
            raise InvalidArgumentError(
                f"candidates, max_swaps and rounds must be at least 1, got {counts}."
            )

    def solve(self, problem: LayerProblem, target: LayerTarget) -> LayerSolution:
        """See `secateur.reconstruction.solve`.

        Raises:
            InvalidArgumentError: The target is a mask, or blocks: nothing can then be swapped.
        """
        if target.mask is not None or target.is_block:
            raise InvalidArgumentError(
                "Swaps exchange single weights, so they need an unstructured or n:m target; use method "
                "'admm' for blocks and 'refit' for a mask."
            )
        pattern = target.parsed
        group = pattern.m if isinstance(pattern, NM) else problem.weight.shape[1]
        start = self.first.solve(problem, target)
        hessian, scale = scaled_hessian(problem), scales(problem)
        wanted = problem.target * scale
        weight, mask = start.weight * scale * ~problem.dead, start.mask.copy()
        for _ in range(self.rounds):
            if not self._exchange(hessian, wanted, weight, mask, group):
                break
            weight, _ = masked_gradients(
                hessian, wanted, mask, weight, tolerance=1e-5, max_iterations=self.refit_iterations
            )
        found = problem.solution(weight / scale, mask, self.name)
        return found if found.error < start.error else replace(start, method=self.name)

    def _exchange(
        self, hessian: Float32, wanted: Float32, weight: Float32, mask: Array, group: int
    ) -> int:
        """Swap in place; returns how many swaps there were."""
        from secateur._kernels import jit  # imports Numba

        residual = matmul(wanted - weight, hessian)
        # What rounding could feign: a millionth of the row's own energy is no gain.
        energy = float(np.mean(np.einsum("oi,oi->o", matmul(wanted, hessian), wanted)))
        swaps = np.zeros(len(weight), np.int64)
        jit.swap_kernel()(
            hessian, weight, residual, mask, group, self.candidates, self.max_swaps,
            1e-6 * max(energy, 0.0), swaps,
        )  # fmt: skip
        return int(swaps.sum())
