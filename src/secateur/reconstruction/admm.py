"""Mask and weights together: ADMM on the layer problem, then a refit on the mask it settles on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np

from secateur._kernels.native.gemm import matmul
from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.factors import inverse
from secateur.reconstruction.problem import LayerProblem, LayerSolution
from secateur.reconstruction.refit import masked_gradients, scaled_hessian, scales
from secateur.reconstruction.target import LayerTarget

Float32: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class ADMM:
    """ADMM in the manner of ALPS: W* split into a dense and a sparse copy that are drawn together.

    In coordinates where H has unit diagonal (each input scaled by sqrt(H_jj)):

        B <- (H + rho I)^-1 (H W* - V + rho D)
        D <- the target's projection of B + V / rho (largest magnitudes stay)
        V <- V + rho (B - D)

    with a penalty rho that grows. Then weights are refitted on the support of D.

    Attributes:
        max_iterations: Of ADMM.
        rho: First penalty, > 0 (1 is the diagonal of H).
        growth: Factor of the penalty, > 1, every `every` iterations.
        every: Iterations between two growths: each costs a factorisation.
        refit_iterations: Of conjugate gradients on the final support.

    References:
        Meng, Behdin, Wang, Mazumder, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning
        for Large Language Models" (arXiv 2406.07831), algorithm 1 and 2.
        Differs from the paper: rho grows by a fixed factor instead of by how much the support moved, and
        (H + rho I) is factored anew at each growth, not diagonalised once.
    """

    name: ClassVar[str] = "admm"
    max_iterations: int = 60
    rho: float = 0.1
    growth: float = 1.3
    every: int = 3
    refit_iterations: int = 20

    def __post_init__(self) -> None:
        if self.max_iterations < 1 or self.every < 1 or self.refit_iterations < 0:
            raise InvalidArgumentError("ADMM needs at least one iteration, and every >= 1.")
        if not self.rho > 0 or not self.growth > 1:
            raise InvalidArgumentError(
                f"ADMM needs rho > 0 and growth > 1, got {self.rho} and {self.growth}."
            )

    def solve(self, problem: LayerProblem, target: LayerTarget) -> LayerSolution:
        """See `secateur.reconstruction.solve`."""
        fitted, mask = self._fitted(problem, target)
        return problem.solution(fitted, mask, self.name)

    def _fitted(self, problem: LayerProblem, target: LayerTarget) -> tuple[Float32, Array]:
        wanted = problem.target * scales(problem)  # (out, in)
        # Each row is a problem of its own, so its weight changes what is compared and nothing else.
        wanted *= problem.output_weights[:, None]
        hessian = scaled_hessian(problem)
        mask, start = self._split(hessian, wanted, target, problem.name)
        fitted, _ = masked_gradients(
            hessian, wanted, mask, start, tolerance=1e-5, max_iterations=self.refit_iterations
        )
        fitted /= scales(problem)
        fitted /= problem.output_weights[:, None]
        return fitted, mask

    def _split(
        self, hessian: Float32, wanted: Float32, target: LayerTarget, name: str
    ) -> tuple[Array, Float32]:
        """The mask of D, and D. Both D and V follow from S = B + V / rho and the mask.

        Where the mask keeps, D = S and V = 0; elsewhere D = 0 and V = rho S.
        """
        rho = before = np.float32(self.rho)
        pull = matmul(wanted, hessian)  # (out, in)
        mask = target.mask_of(wanted)
        sum_ = wanted * mask
        right = np.empty_like(wanted)
        for iteration in range(self.max_iterations):
            if iteration % self.every == 0:
                if iteration:
                    rho *= np.float32(self.growth)
                damped = hessian.copy()
                damped[np.diag_indices_from(damped)] += rho
                solver = inverse(damped, name, overwrite=True)  # (in, in)
                del damped
                support = mask
            np.multiply(sum_, np.where(mask, rho, -before), out=right)  # rho D - V
            right += pull
            sum_ *= np.where(mask, np.float32(0), before / rho)  # V / rho
            sum_ += matmul(right, solver)
            before = rho
            mask = target.mask_of(sum_)
            if iteration % self.every == self.every - 1 and np.array_equal(mask, support):
                break
        sum_ *= mask
        return mask, sum_
