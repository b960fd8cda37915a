"""The solvers by name, and the one call that runs any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from secateur.errors import InvalidArgumentError
from secateur.reconstruction.admm import ADMM
from secateur.reconstruction.problem import LayerProblem, LayerSolution
from secateur.reconstruction.refit import Refit
from secateur.reconstruction.sparsegpt import SparseGPT
from secateur.reconstruction.swap import Swap
from secateur.reconstruction.target import LayerTarget


class Solver(Protocol):
    """What finds sparse weights for a layer; a small frozen value."""

    @property
    def name(self) -> str:
        """What users call it, and what reports print."""

    def solve(self, problem: LayerProblem, target: LayerTarget) -> LayerSolution:
        """Find weights for the problem that meet the target exactly."""


SOLVERS: dict[str, Callable[[], Solver]] = {
    "admm": ADMM,
    "refit": Refit,
    "sparsegpt": SparseGPT,
    "swap": Swap,
}


def solve(
    problem: LayerProblem, target: LayerTarget, method: str | Solver = "admm"
) -> LayerSolution:
    """Prune one layer by what is known of its inputs.

    Args:
        problem: The layer.
        target: What goes; met exactly.
        method: A name in `SOLVERS`, or a solver with settings of its own.

    Returns:
        Weights, mask, error and what to add to the bias.

    Raises:
        InvalidArgumentError: No solver of that name, or a target that does not fit the layer.
        FactorisationError: The Hessian is not positive definite; the message names the remedy.

    Example:
        >>> import numpy as np
        >>> from secateur.statistics import InputStatistics
        >>> statistics = InputStatistics(2)
        >>> statistics.update(np.array([[1.0, 1.0], [1.0, 1.001]], np.float32))
        >>> problem = LayerProblem(np.ones((1, 2), np.float32), statistics, damping=1e-6)
        >>> solve(problem, LayerTarget(sparsity=0.5)).weight.round(2)
        array([[0., 2.]], dtype=float32)
    """
    if isinstance(method, str):
        if method not in SOLVERS:
            raise InvalidArgumentError(
                f"Unknown method {method!r}; expected one of {', '.join(map(repr, sorted(SOLVERS)))}, "
                "or a solver object."
            )
        method = SOLVERS[method]()
    return method.solve(problem, target)
