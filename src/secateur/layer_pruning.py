"""Prune one weight matrix by what is known of its inputs. Nothing here knows Keras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from secateur._kernels.native.patterns import expand_block_mask
from secateur._kernels.native.saliency import block_scores
from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.patterns import NM, Block, Pattern
from secateur.reconstruction import LayerProblem, LayerSolution, LayerTarget, Refit, Solver
from secateur.reconstruction.problem import Ridge
from secateur.statistics import InputStatistics

Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Scorer(Protocol):
    """What ranks the weights of one matrix."""

    @property
    def name(self) -> str:
        """What users call it."""

    def scores(self, weight: Array, statistics: InputStatistics) -> Array:
        """(out, in) float32 or float64, >= 0, higher = keep."""


@dataclass(frozen=True)
class Recipe:
    """How matrices are pruned on data.

    Attributes:
        scorer: What chooses the weights that go; None leaves that to the solver.
        solver: What changes the weights that stay; None leaves them as they are.
        finish: Whether the kept weights are refitted exactly after the solver.
        asymmetric: Whether the dense network's output is what is kept, while inputs are those of the
            network as compressed so far.
        residual: Whether a weight whose output is added to something also makes up for what that has
            lost; with `asymmetric`.
        weighted: Whether the solver's choice heeds how much the model depends on each output.
        intercept: Whether biases are refitted, too, where there are any.
        damping: Size of the ridge that holds weights near what they were, > 0.
        ridge: What it is a part of: each "input"'s own square, or the "mean" of all.
    """

    scorer: Scorer | None = None
    solver: Solver | None = None
    finish: bool = False
    asymmetric: bool = True
    residual: bool = False
    weighted: bool = False
    intercept: bool = True
    damping: float = 0.2
    ridge: Ridge = "input"

    def __post_init__(self) -> None:
        if self.scorer is None and self.solver is None:
            raise InvalidArgumentError("A recipe needs a criterion, a solver, or both.")

    @property
    def name(self) -> str:
        """Names of what chooses and what repairs."""
        parts = [part.name for part in (self.scorer, self.solver) if part is not None]
        return " + ".join([*parts, *(["refit"] if self.finish else [])])


@dataclass(frozen=True)
class ThresholdTarget:
    """What scores strictly below a threshold goes; only where there are scores.

    Attributes:
        threshold: For weights, or for blocks of them.
        pattern: Unstructured or blocks.
    """

    threshold: float
    pattern: Pattern

    def mask_of(self, scores: Array) -> Array:
        """(out, in) bool, True = keep; scores by their absolute values."""
        if not isinstance(self.pattern, Block):
            kept: Array = np.abs(scores) >= self.threshold
            return kept
        rows, cols = self.pattern.rows, self.pattern.cols
        blocks = block_scores(scores, rows, cols, "l2")
        return expand_block_mask(
            blocks >= self.threshold, (scores.shape[0], scores.shape[1]), rows, cols
        )


Wanted: TypeAlias = LayerTarget | ThresholdTarget


@dataclass(frozen=True, eq=False)
class PrunedMatrix:
    """A matrix after pruning.

    Attributes:
        weight: (out, in) float32; of kept weights that nothing changed, what they were.
        mask: (out, in) bool, True = keep.
        error: Part of the output's energy on the data that is lost, 0 = nothing.
        bias_shift: (out,) to add to the bias, or None.
        changed: Whether kept weights were changed.
    """

    weight: Array
    mask: Array
    error: float
    bias_shift: Float64 | None
    changed: bool


def prune_matrix(
    weight: Array,
    statistics: Sequence[InputStatistics],
    target: Wanted,
    recipe: Recipe,
    *,
    has_bias: bool = False,
    scores: Array | None = None,
    outputs: bool = False,
    importance: Array | None = None,
) -> PrunedMatrix:
    """Prune a matrix whose rows fall into groups of equal size that have inputs of their own.

    Args:
        weight: (out, in); float16, bfloat16, float32 or float64.
        statistics: Of the inputs, one for each group of rows.
        target: What goes from the whole matrix; met exactly.
        recipe: How.
        has_bias: Whether there is a bias to be refitted.
        scores: (out, in); in place of those of the recipe's scorer.
        outputs: The statistics' companion rows are wanted outputs, less the bias, not dense inputs.
        importance: (out,) > 0: what a squared error of each output costs; alike where left out. It
            matters where a solver chooses, among the rows that are ranked together.

    Raises:
        InvalidArgumentError: A target that does not fit.
        FactorisationError: The data says too little for this damping; the message names the remedy.

    Example:
        >>> from secateur.reconstruction import ADMM
        >>> statistics = InputStatistics(2)
        >>> statistics.update(np.array([[1.0, 1.0], [1.0, 1.001]], np.float32))
        >>> weight = np.ones((1, 2), np.float32)
        >>> done = prune_matrix(weight, [statistics], LayerTarget(sparsity=0.5), Recipe(solver=ADMM()))
        >>> int(done.mask.sum())
        1
    """
    problems = make_problems(
        weight, statistics, recipe, has_bias=has_bias, outputs=outputs, importance=importance
    )
    return prune_problems(weight, problems, statistics, target, recipe, scores)


def make_problems(
    weight: Array,
    statistics: Sequence[InputStatistics],
    recipe: Recipe,
    *,
    has_bias: bool = False,
    outputs: bool = False,
    importance: Array | None = None,
) -> list[LayerProblem]:
    """The problems of a matrix, one for each group of its rows; see `prune_matrix`."""
    groups = len(statistics)
    shares = [None] * groups if importance is None else np.split(np.sqrt(importance), groups)
    return [
        LayerProblem(
            np.ascontiguousarray(part, np.float32),
            own,
            damping=recipe.damping,
            ridge=recipe.ridge,
            intercept=recipe.intercept and has_bias,
            asymmetric=recipe.asymmetric and own.has_cross and not outputs,
            outputs=outputs,
            output_weights=share,
        )
        for part, own, share in zip(np.split(weight, groups), statistics, shares, strict=True)
    ]


def prune_problems(
    weight: Array,
    problems: Sequence[LayerProblem],
    statistics: Sequence[InputStatistics],
    target: Wanted,
    recipe: Recipe,
    scores: Array | None = None,
) -> PrunedMatrix:
    """Prune a matrix whose problems are made; several targets can be tried on them."""
    parts = np.split(weight, len(problems))
    if isinstance(target, ThresholdTarget) or (recipe.scorer is not None and target.mask is None):
        if scores is None:
            scores = _scores(parts, statistics, recipe)
        target = LayerTarget(mask=target.mask_of(np.ascontiguousarray(scores)))
    targets = split_target(target, len(problems), parts[0].shape)
    solved = [_solve(p, t, recipe) for p, t in zip(problems, targets, strict=True)]
    return _joined(weight, problems, solved, recipe)


def _scores(parts: Sequence[Array], statistics: Sequence[InputStatistics], recipe: Recipe) -> Array:
    if recipe.scorer is None:
        raise InvalidArgumentError(
            f"A threshold needs scores to compare with, and {recipe.name!r} has none: it chooses "
            "weights together. Give a sparsity, or a criterion such as 'wanda'."
        )
    scorer = recipe.scorer
    pairs = zip(parts, statistics, strict=True)
    return np.concatenate([scorer.scores(part, own) for part, own in pairs])


def _solve(problem: LayerProblem, target: LayerTarget, recipe: Recipe) -> LayerSolution:
    if recipe.solver is None:
        assert target.mask is not None
        return problem.solution(problem.weight, target.mask, recipe.name)
    solved = recipe.solver.solve(problem, target)
    if recipe.finish:
        refit = Refit()
        found = refit.weights(problem, solved.mask, solved.weight)
        solved = problem.solution(found, solved.mask, recipe.name)
    return solved


def _joined(
    weight: Array,
    problems: Sequence[LayerProblem],
    solved: Sequence[LayerSolution],
    recipe: Recipe,
) -> PrunedMatrix:
    mask = _stacked([solution.mask for solution in solved])
    energies = [problem.energy for problem in problems]
    lost = sum(own.error * energy for own, energy in zip(solved, energies, strict=True))
    shifts = [solution.bias_shift for solution in solved if solution.bias_shift is not None]
    changed = recipe.solver is not None
    found = _stacked([solution.weight for solution in solved])
    return PrunedMatrix(
        # Weights that are only kept stay what they were to the last bit, float64 ones too.
        found if changed else np.where(mask, weight, np.zeros((), weight.dtype)),
        mask,
        lost / sum(energies) if sum(energies) > 0 else 0.0,
        np.concatenate(shifts) if shifts else None,
        changed,
    )


def _stacked(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def split_target(target: LayerTarget, num_parts: int, shape: tuple[int, ...]) -> list[LayerTarget]:
    """A target for each of so many equal runs of rows, which together meet it exactly.

    Args:
        target: For the whole matrix.
        num_parts: Runs of rows.
        shape: (out, in) of each.

    Example:
        >>> [part.count for part in split_target(LayerTarget(sparsity=0.7), 2, (1, 9))]
        [7, 6]
    """
    if target.mask is not None:
        return [
            LayerTarget(mask=np.ascontiguousarray(part))
            for part in np.split(target.mask, num_parts)
        ]
    pattern = target.parsed
    if num_parts == 1 or isinstance(pattern, NM) or target.scope == "row":
        return [target] * num_parts
    height, width = (pattern.rows, pattern.cols) if isinstance(pattern, Block) else (1, 1)
    units = -(-shape[0] // height) * -(-shape[1] // width)
    whole, rest = divmod(target.num_removed(units * num_parts), num_parts)
    return [
        replace(target, sparsity=None, count=whole + (number < rest)) for number in range(num_parts)
    ]
