"""Criteria that see data: how much a weight matters given what its layer is fed, or its gradients.

All follow one protocol: `init` makes empty statistics for a layer, `accumulate` counts a batch in,
`decide` turns weights and statistics into saliencies (higher = keep). `Informed` binds a criterion to
its statistics, and then goes wherever a criterion that looks at weights alone goes: `saliency`,
`prune_arrays`, every pattern and scope.

Saliencies of methods whose score is a loss (w^2 times something) are given as its root: the order is the
same, and the l2 norm of a block's saliencies is then the root of its summed loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from secateur.arrays import Array
from secateur.criteria import check_chain, check_finite_weights
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.factors import cholesky, damped, inverse_factor
from secateur.gradient_statistics import GradientStatistics
from secateur.statistics import DiagonalStatistics, InputStatistics

Statistics: TypeAlias = DiagonalStatistics | InputStatistics | GradientStatistics
Needs: TypeAlias = Literal["norms", "gram", "gradients"]
Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@runtime_checkable
class DataCriterion(Protocol):
    """What ranks weights by data.

    Attributes:
        name: What users call it, and what reports print.
        needs: What has to be gathered: "norms" or the "gram" of the layer's inputs, or "gradients".
    """

    @property
    def name(self) -> str:
        """What users call it, and what reports print."""

    @property
    def needs(self) -> Needs:
        """What has to be gathered."""

    def init(self, shape: tuple[int, int], *, name: str = "") -> Statistics:
        """Empty statistics for a layer whose weights are an (out, in) matrix of this shape."""

    def accumulate(self, statistics: Any, batch: Array, mask: Array | None = None) -> None:
        """Count in a batch of input rows (..., in), or of one gradient (out, in)."""

    def decide(self, weights: Sequence[Array], statistics: Sequence[Any]) -> list[Array]:
        """Score (out, in) matrices that are ranked together.

        Args:
            weights: In network order; float16, bfloat16, float32 or float64. Left as they are.
            statistics: One for each, of what the criterion needs (or more).

        Returns:
            One array per matrix, of its shape: finite, >= 0, higher = keep; float64 for float64, else
            float32.

        Raises:
            InvalidArgumentError: Shapes that do not fit, or nothing was counted.
            ArgumentTypeError: Statistics that do not hold what the criterion needs.
            NonFiniteError: A weight is not finite. Errors call the i-th array `weights[i]`.
        """


class _FromInputs(ABC):
    """What criteria over input statistics share: each matrix is scored by its own statistics."""

    needs: ClassVar[Needs]
    name: ClassVar[str]

    def init(self, shape: tuple[int, int], *, name: str = "") -> Statistics:
        """Empty statistics of rows as wide as the matrix."""
        if self.needs == "norms":
            return DiagonalStatistics(shape[1], name=name)
        return InputStatistics(shape[1], name=name)

    def accumulate(self, statistics: Any, batch: Array, mask: Array | None = None) -> None:
        """Count input rows (..., in) in; True in the mask = counted."""
        statistics.update(batch, mask=mask)

    def decide(self, weights: Sequence[Array], statistics: Sequence[Any]) -> list[Array]:
        """See `DataCriterion.decide`."""
        kinds = {"norms": (DiagonalStatistics, InputStatistics), "gram": (InputStatistics,)}
        _check_pairs(weights, statistics, self.name, kinds[self.needs])
        return [
            _like(weight, self._score(np.abs(np.ascontiguousarray(weight, np.float64)), known))
            for weight, known in zip(weights, statistics, strict=True)
        ]

    @abstractmethod
    def _score(self, magnitude: Float64, statistics: Any) -> Float64:
        """Saliencies of one matrix, given |w|."""


class _FromGradients(ABC):
    """What criteria over gradients share."""

    needs: ClassVar[Needs] = "gradients"
    name: ClassVar[str]

    def init(self, shape: tuple[int, int], *, name: str = "") -> Statistics:
        """Empty statistics of gradients of the matrix's shape."""
        return GradientStatistics(shape, name=name)

    def accumulate(self, statistics: Any, batch: Array, mask: Array | None = None) -> None:
        """Count one gradient (out, in) in, of a batch or a sample; a mask has no meaning here."""
        if mask is not None:
            raise InvalidArgumentError(
                f"Criterion {self.name!r} takes gradients, which have no positions to mask."
            )
        statistics.update(batch)

    def decide(self, weights: Sequence[Array], statistics: Sequence[Any]) -> list[Array]:
        """See `DataCriterion.decide`."""
        _check_pairs(weights, statistics, self.name, (GradientStatistics,))
        return [
            _like(weight, np.abs(np.ascontiguousarray(weight, np.float64)) * self._size(known))
            for weight, known in zip(weights, statistics, strict=True)
        ]

    @abstractmethod
    def _size(self, statistics: GradientStatistics) -> Float64:
        """What |w| is multiplied by."""


@dataclass(frozen=True)
class Wanda(_FromInputs):
    """|w_ij| ||x_j||, x_j being input j over all samples.

    References:
        Sun, Liu, Bair, Kolter, "A Simple and Effective Pruning Approach for Large Language Models" (arXiv
        2306.11695), equation 1; ranked per output there: scope "row".
        Differs from the paper: the norm is divided by sqrt(N), so that layers that saw different numbers
        of samples can be ranked together; exactly k go, where its code takes one more.

    Example:
        >>> statistics = Wanda().init((1, 2))
        >>> Wanda().accumulate(statistics, np.array([[3.0, 1.0]], np.float32))
        >>> Wanda().decide([np.array([[1.0, -2.0]])], [statistics])
        [array([[3., 2.]])]
    """

    name: ClassVar[str] = "wanda"
    needs: ClassVar[Needs] = "norms"

    def _score(self, magnitude: Float64, statistics: Any) -> Float64:
        return np.asarray(magnitude * statistics.norms)


@dataclass(frozen=True)
class RIA(_FromInputs):
    """(|w_ij| / sum_i |w_ij| + |w_ij| / sum_j |w_ij|) ||x_j||^a: relative importance and activations.

    Attributes:
        power: a, 0 to 1.

    References:
        Zhang, Bai, Lin, Zhao, Hou, Cannistraci, "Plug-and-Play: An Efficient Post-training Pruning Method
        for Large Language Models" (ICLR 2024; arXiv 2402.09948), equation 4, a = 0.5.
        Differs from the paper: the norm is divided by sqrt(N).
    """

    power: float = 0.5
    name: ClassVar[str] = "ria"
    needs: ClassVar[Needs] = "norms"

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise InvalidArgumentError(f"power must be from 0 to 1, got {self.power}.")

    def _score(self, magnitude: Float64, statistics: Any) -> Float64:
        by_input = _share(magnitude, axis=0)
        by_output = _share(magnitude, axis=1)
        return np.asarray((by_input + by_output) * statistics.norms**self.power)


@dataclass(frozen=True)
class OBS(_FromInputs):
    """w_q^2 / [H^-1]_qq: what the layer's output loses if q goes and all others make up for it.

    Attributes:
        damping: lambda of H = X^T X / N + lambda I, as a part of the mean diagonal, > 0.

    References:
        Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon" (NIPS 1992),
        equation 5, with the layer-wise H of Frantar & Alistarh, "Optimal Brain Compression" (arXiv
        2208.11580), equation 3.
        Differs from the paper: one shot, no update after each removal; the factor 1/2 is left out, and
        the root is given; weights of dead inputs score 0.
    """

    damping: float = 0.01
    name: ClassVar[str] = "obs"
    needs: ClassVar[Needs] = "gram"

    def __post_init__(self) -> None:
        _check_damping(self.damping)

    def _score(self, magnitude: Float64, statistics: Any) -> Float64:
        hessian, dead = damped(statistics.gram, self.damping)
        factor = inverse_factor(hessian, statistics.name)  # U, upper: U^T U = H^-1
        spread = np.sqrt(np.einsum("kq,kq->q", factor, factor))  # sqrt([H^-1]_qq)
        return np.asarray(magnitude / spread * ~dead)


@dataclass(frozen=True)
class SparseGPTScore(_FromInputs):
    """w_q^2 / U_qq^2, U^T U = H^-1: the OBS loss where only later inputs may make up for it.

    Attributes:
        damping: lambda of H = X^T X / N + lambda I, as a part of the mean diagonal, > 0.

    References:
        Frantar & Alistarh, "SparseGPT" (arXiv 2301.00774), algorithm 1.
        Differs from the paper: the score alone, of all weights as they are before the sweep; weights that
        stay are not changed (`secateur.reconstruction.SparseGPT` does that); the root is given; weights
        of dead inputs score 0.
    """

    damping: float = 0.01
    name: ClassVar[str] = "sparsegpt"
    needs: ClassVar[Needs] = "gram"

    def __post_init__(self) -> None:
        _check_damping(self.damping)

    def _score(self, magnitude: Float64, statistics: Any) -> Float64:
        hessian, dead = damped(statistics.gram, self.damping)
        # 1 / U_qq is the diagonal of H's own factor with both axes reversed: no inverse is needed.
        factor = cholesky(np.ascontiguousarray(hessian[::-1, ::-1]), statistics.name)
        return np.asarray(magnitude * np.diagonal(factor)[::-1] * ~dead)


@dataclass(frozen=True)
class ActivationPath(_FromInputs):
    """|w_oi| ||x_i|| ||W_next[:, o]||: the source's path strength, its first half measured on data.

    Over a chain of matrices; the last has no next one, and its norm is 1.

    References:
        Park et al., "Lookahead" (ICLR 2020), equation 4.
        Differs from the paper: the norm of the matrix before is replaced by that of what really comes in.
    """

    name: ClassVar[str] = "path"
    needs: ClassVar[Needs] = "norms"

    def decide(self, weights: Sequence[Array], statistics: Sequence[Any]) -> list[Array]:
        """See `DataCriterion.decide`."""
        check_chain(weights)
        scores = super().decide([np.ascontiguousarray(w, np.float64) for w in weights], statistics)
        for score, following in zip(scores, weights[1:], strict=False):
            score *= np.linalg.norm(following.astype(np.float64), axis=0)[:, None]
        return [_like(weight, score) for weight, score in zip(weights, scores, strict=True)]

    def _score(self, magnitude: Float64, statistics: Any) -> Float64:
        return np.asarray(magnitude * statistics.norms)


@dataclass(frozen=True)
class Taylor(_FromGradients):
    """|w g|, g being the loss's gradient: the first-order change of the loss if w goes.

    References:
        Molchanov, Mallya, Tyree, Frosio, Kautz, "Importance Estimation for Neural Network Pruning" (CVPR
        2019; arXiv 1906.10771), equation 8.
        Differs from the paper: the mean over batches is of |w g|, not of its square.

    Example:
        >>> statistics = Taylor().init((1, 2))
        >>> Taylor().accumulate(statistics, np.array([[0.5, -1.0]]))
        >>> Taylor().decide([np.array([[4.0, 1.0]])], [statistics])
        [array([[2., 1.]])]
    """

    name: ClassVar[str] = "taylor"

    def _size(self, statistics: GradientStatistics) -> Float64:
        return statistics.mean_absolute


@dataclass(frozen=True)
class Fisher(_FromGradients):
    """w^2 F with the diagonal of the empirical Fisher matrix, F = mean g^2: a second-order loss.

    References:
        LeCun, Denker, Solla, "Optimal Brain Damage" (NIPS 1989), with F in the Hessian's place as in
        Theis, Korshunova, Tejani, Huszar, "Faster gaze prediction with dense networks and Fisher
        pruning" (arXiv 1801.05787), equation 7.
        Differs from the paper: the factor 1/2 is left out, and the root is given. The mean is over what
        `accumulate` is given: gradients of single samples make it the Fisher matrix proper.
    """

    name: ClassVar[str] = "fisher"

    def _size(self, statistics: GradientStatistics) -> Float64:
        return np.asarray(np.sqrt(statistics.mean_square))


DATA_CRITERIA: dict[str, Callable[[], DataCriterion]] = {
    "fisher": Fisher,
    "obs": OBS,
    "path": ActivationPath,
    "ria": RIA,
    "sparsegpt": SparseGPTScore,
    "taylor": Taylor,
    "wanda": Wanda,
}


def get_data_criterion(criterion: str | DataCriterion) -> DataCriterion:
    """Look a criterion that sees data up by name; criteria pass through.

    Raises:
        InvalidArgumentError: No such criterion of that name.
        ArgumentTypeError: Neither a name nor such a criterion.

    Example:
        >>> get_data_criterion("ria")
        RIA(power=0.5)
    """
    if isinstance(criterion, str):
        if criterion not in DATA_CRITERIA:
            raise InvalidArgumentError(
                f"Unknown criterion {criterion!r}; those that see data are "
                f"{', '.join(map(repr, sorted(DATA_CRITERIA)))}."
            )
        return DATA_CRITERIA[criterion]()
    if isinstance(criterion, type) or not isinstance(criterion, DataCriterion):
        raise ArgumentTypeError(
            "criterion must be a name or an object with `name`, `needs`, `init`, `accumulate` and "
            f"`decide`, got {criterion!r}."
        )
    return criterion


class Informed:
    """A criterion and what it was told, as a `Criterion`: scores weights without asking for data.

    Args:
        criterion: One of `DATA_CRITERIA` by name, or such a criterion.
        statistics: One for each array that will be scored, in the same order.

    Example:
        >>> statistics = Wanda().init((1, 2))
        >>> statistics.update(np.array([[3.0, 1.0]], np.float32))
        >>> Informed("wanda", [statistics]).saliencies([np.array([[1.0, -2.0]])])
        [array([[3., 2.]])]
    """

    def __init__(self, criterion: str | DataCriterion, statistics: Sequence[Statistics]) -> None:
        self.criterion = get_data_criterion(criterion)
        self.statistics = list(statistics)

    @property
    def name(self) -> str:
        """Name of the criterion."""
        return self.criterion.name

    def saliencies(self, weights: Sequence[Array]) -> list[Array]:
        """See `secateur.criteria.Criterion.saliencies`."""
        return self.criterion.decide(weights, self.statistics)

    def __repr__(self) -> str:
        return f"Informed({self.criterion!r}, {len(self.statistics)} layers)"


def _check_pairs(
    weights: Sequence[Array], statistics: Sequence[Any], name: str, kinds: tuple[type, ...]
) -> None:
    if len(weights) != len(statistics):
        raise InvalidArgumentError(
            f"Criterion {name!r} needs statistics for each of {len(weights)} matrices, got "
            f"{len(statistics)}."
        )
    check_finite_weights(weights)
    for index, (weight, known) in enumerate(zip(weights, statistics, strict=True)):
        if not isinstance(known, kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise ArgumentTypeError(
                f"Criterion {name!r} needs {wanted}, got {type(known).__name__} for weights[{index}]."
            )
        _check_shape(weight, known, index)


def _check_shape(weight: Array, known: Any, index: int) -> None:
    if isinstance(known, GradientStatistics):
        fits, expected = weight.shape == known.shape, f"{known.shape}"
    else:
        fits = weight.ndim == 2 and weight.shape[1] == known.inputs
        expected = f"(out, {known.inputs})"
    if not fits:
        raise InvalidArgumentError(
            f"weights[{index}] has shape {weight.shape}, but its statistics are of {expected}."
        )


def _check_damping(damping: float) -> None:
    if not 0 < damping < np.inf:
        raise InvalidArgumentError(
            f"damping must be a positive number, got {damping}; 0.01 is the usual one."
        )


def _like(weight: Array, score: Float64) -> Array:
    return np.asarray(score, np.float64 if weight.dtype == np.float64 else np.float32)


def _share(magnitude: Float64, axis: int) -> Float64:
    total = magnitude.sum(axis=axis, keepdims=True)
    return np.asarray(np.divide(magnitude, total, out=np.zeros_like(magnitude), where=total > 0))
