"""From weights to saliencies: how much each weight matters. Higher is kept.

The criteria here look at the weights alone. Each is a small frozen value with a name; new ones are
added with `register_criterion` and must pass `check_criterion` of the conformance tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native.matrices import count_non_finite
from secateur._kernels.native.saliency import all_finite, scaled_magnitude
from secateur.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    NonFiniteError,
    SecateurError,
)
from secateur.paths import PATH_WINDOWS, as_contiguous

Array: TypeAlias = NDArray[Any]


@runtime_checkable
class Criterion(Protocol):
    """What ranks weights.

    Attributes:
        name: What users call it, and what reports print.
    """

    @property
    def name(self) -> str:
        """What users call it, and what reports print."""

    def saliencies(self, weights: Sequence[Array]) -> list[Array]:
        """Score arrays that are ranked together.

        Args:
            weights: Arrays in network order; float16, bfloat16, float32 or float64. Left as they
                are.

        Returns:
            One array per weight array, of its shape: finite, >= 0, higher = keep; float64 for
            float64, else float32. The same input always gives the same bits.

        Raises:
            NonFiniteError: A weight is not finite. Errors call the i-th array `weights[i]`.
        """


@dataclass(frozen=True)
class Magnitude:
    """|w|, the simplest case of the source, and what its sample code uses.

    Selection ranks weights by magnitude straight from their bits, so where the criterion is an
    instance of this class, saliencies need not be computed at all.

    Example:
        >>> Magnitude().saliencies([np.array([-2.0, 1.0])])
        [array([2., 1.])]
    """

    name: ClassVar[str] = "magnitude"

    def saliencies(self, weights: Sequence[Array]) -> list[Array]:
        """|w| of every weight; any number of dimensions. See `Criterion.saliencies`."""
        with _naming_non_finite(weights):
            return [_magnitude(array) for array in weights]


@dataclass(frozen=True)
class Path:
    """Root of the squared path strength that is lost if the weight goes.

    Matrices are (out, in), in network order; each one's inputs are the outputs of the one before.

    Attributes:
        window: "pair" looks at windows of two adjacent matrices, as the source does: |w[o, i]|
            times the root of ||W_{l-1}[i, :]||^2 + ||W_{l+1}[:, o]||^2. "depth" takes all paths
            from the network's inputs to its outputs: the weight's share of the l2 path norm.

    References:
        Neyshabur et al., "Path-SGD" (2015), the path norm; Park et al., "Lookahead" (ICLR 2020),
        whose score for a middle matrix is the product of both norms where ours is the root of their
        squared sum; Tanaka et al., "SynFlow" (2020), the l1 kin; Garson (1991).

    Example:
        >>> Path().saliencies([np.array([[1.0], [2.0]]), np.array([[3.0, 2.0]])])[1]
        array([[3., 4.]])
    """

    window: Literal["pair", "depth"] = "pair"
    name: ClassVar[str] = "path"

    def __post_init__(self) -> None:
        if self.window not in PATH_WINDOWS:
            raise InvalidArgumentError(
                f"window must be one of {', '.join(map(repr, PATH_WINDOWS))}, got {self.window!r}."
            )

    def saliencies(self, weights: Sequence[Array]) -> list[Array]:
        """Path saliencies of a chain of matrices. See `Criterion.saliencies`.

        Raises:
            InvalidArgumentError: An array is not a matrix, two neighbours do not fit, or window
                "pair" is given one matrix alone.
        """
        for index, array in enumerate(weights):
            _check_weights(array, index)
        check_chain(weights)
        with _naming_non_finite(weights):
            return PATH_WINDOWS[self.window]([as_contiguous(array) for array in weights])


@dataclass(frozen=True)
class Random:
    """Uniform noise in [0, 1): the baseline that every other criterion has to beat.

    The value of a weight depends on the seed, the number of its array and its position in it.

    Attributes:
        seed: Any whole number >= 0.

    Example:
        >>> bool((Random(1).saliencies([np.ones(9)])[0] < 1).all())
        True
    """

    seed: int = 0
    name: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InvalidArgumentError(f"seed must be a whole number >= 0, got {self.seed!r}.")

    def saliencies(self, weights: Sequence[Array]) -> list[Array]:
        """Noise of every weight's shape. See `Criterion.saliencies`."""
        return [self._noise(index, array) for index, array in enumerate(weights)]

    def _noise(self, index: int, array: Array) -> Array:
        _check_weights(array, index)
        if not all_finite(_as_run(array)):
            raise NonFiniteError(_non_finite_message(index, array))
        dtype = np.float64 if array.dtype == np.float64 else np.float32
        noise: Array = np.empty_like(array, dtype=dtype, subok=False)
        noise[...] = np.random.default_rng([self.seed, index]).random(array.shape, dtype)
        return noise


CRITERIA: dict[str, Callable[[], Criterion]] = {
    "magnitude": Magnitude,
    "path": Path,
    "random": Random,
}


def register_criterion(name: str, factory: Callable[[], Criterion]) -> None:
    """Make a criterion known by name.

    Args:
        name: A new name.
        factory: Called without arguments, gives the criterion.

    Raises:
        InvalidArgumentError: The name is taken.
        ArgumentTypeError: The factory cannot be called.

    Example:
        >>> register_criterion("noise", lambda: Random(7))
        >>> get_criterion("noise")
        Random(seed=7)
        >>> del CRITERIA["noise"]
    """
    if name in CRITERIA:
        raise InvalidArgumentError(
            f"There is a criterion named {name!r} already; choose another name."
        )
    if not callable(factory):
        raise ArgumentTypeError(f"factory must be callable, got {type(factory).__name__}.")
    CRITERIA[name] = factory


def get_criterion(criterion: str | Criterion) -> Criterion:
    """Look a criterion up by name; criteria pass through.

    Raises:
        InvalidArgumentError: No criterion of that name.
        ArgumentTypeError: Neither a name nor a criterion.

    Example:
        >>> get_criterion("path")
        Path(window='pair')
    """
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            raise InvalidArgumentError(
                f"Unknown criterion {criterion!r}; expected one of "
                f"{', '.join(map(repr, sorted(CRITERIA)))}, or a criterion object."
            )
        return CRITERIA[criterion]()
    if isinstance(criterion, type) or not isinstance(criterion, Criterion):
        raise ArgumentTypeError(
            "criterion must be a name or an object with `name` and `saliencies`, got "
            f"{criterion!r}."
        )
    return criterion


@overload
def saliency(weights: Array, criterion: str | Criterion = ...) -> Array: ...
@overload
def saliency(weights: list[Array], criterion: str | Criterion = ...) -> list[Array]: ...
@overload
def saliency(weights: tuple[Array, ...], criterion: str | Criterion = ...) -> tuple[Array, ...]: ...
@overload
def saliency(
    weights: Mapping[str, Array], criterion: str | Criterion = ...
) -> dict[str, Array]: ...


def saliency(
    weights: Array | list[Array] | tuple[Array, ...] | Mapping[str, Array],
    criterion: str | Criterion = "magnitude",
) -> Array | list[Array] | tuple[Array, ...] | dict[str, Array]:
    """Score weights: how much each one matters.

    Args:
        weights: One array, or a list, tuple or mapping of arrays in network order; float16,
            bfloat16, float32 or float64. Left as they are.
        criterion: A name in `CRITERIA`, or a criterion object.

    Returns:
        Saliencies in the same kind of container (a dict for any mapping), in the same order and
        shapes; >= 0, higher = keep; float64 for float64 weights, else float32.

    Raises:
        ArgumentTypeError: Weights or criterion of a type that cannot be used.
        InvalidArgumentError: The criterion is unknown or cannot score these arrays.
        NonFiniteError: A weight is not finite; the message names the array.

    Example:
        >>> saliency({"a": np.array([-3.0, 2.0])})
        {'a': array([3., 2.])}
    """
    scorer = get_criterion(criterion)
    if isinstance(weights, Mapping):
        labels = [f"weights[{name!r}]" for name in weights]
        return dict(zip(weights, _labelled(scorer, list(weights.values()), labels), strict=True))
    if isinstance(weights, np.ndarray):
        return _labelled(scorer, [weights], ["weights"])[0]
    if isinstance(weights, tuple):
        return tuple(scorer.saliencies(weights))
    if isinstance(weights, list):
        return scorer.saliencies(weights)
    raise ArgumentTypeError(
        "weights must be a NumPy array, or a list, tuple or mapping of arrays, got "
        f"{type(weights).__name__}."
    )


def _labelled(scorer: Criterion, weights: list[Array], labels: list[str]) -> list[Array]:
    """Score, and let errors call the arrays what the caller calls them."""
    try:
        return scorer.saliencies(weights)
    except SecateurError as error:
        message = re.sub(r"weights\[(\d+)\]", lambda found: labels[int(found[1])], str(error))
        raise type(error)(message) from error


def _magnitude(array: Array) -> Array:
    run = _as_run(array)
    magnitudes = scaled_magnitude(run).reshape(-1)
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        return magnitudes.reshape(array.shape[::-1]).T
    return magnitudes.reshape(array.shape)


def _as_run(array: Array) -> Array:
    """All elements in memory order, as a matrix of one row."""
    contiguous = as_contiguous(array)
    memory = contiguous if contiguous.flags.c_contiguous else contiguous.T
    return memory.reshape(1, -1)


def _check_weights(array: Any, index: int) -> None:
    names = ("float16", "bfloat16", "float32", "float64")
    if not isinstance(array, np.ndarray) or array.dtype.name not in names:
        came = getattr(array, "dtype", type(array).__name__)
        raise ArgumentTypeError(
            f"weights[{index}] must be a NumPy array of {', '.join(names)}, got {came}."
        )


def check_chain(weights: Sequence[Array]) -> None:
    """Raise unless the arrays are a chain of (out, in) matrices in network order."""
    for index, array in enumerate(weights):
        if array.ndim != 2:
            raise InvalidArgumentError(
                f"Path saliencies need (out, in) matrices, but weights[{index}] has shape "
                f"{array.shape}. Reshape it, or use criterion 'magnitude'."
            )
        if index and array.shape[1] != weights[index - 1].shape[0]:
            raise InvalidArgumentError(
                f"weights[{index - 1}] of shape {weights[index - 1].shape} has "
                f"{weights[index - 1].shape[0]} outputs, but weights[{index}] of shape "
                f"{array.shape} takes {array.shape[1]} inputs. Path saliencies need a chain of "
                "(out, in) matrices in network order."
            )


def check_finite_weights(weights: Sequence[Array]) -> None:
    """Raise unless all are finite float arrays; errors call the i-th one `weights[i]`."""
    for index, array in enumerate(weights):
        _check_weights(array, index)
        if not all_finite(_as_run(array)):
            raise NonFiniteError(_non_finite_message(index, array))


@contextmanager
def _naming_non_finite(weights: Sequence[Array]) -> Iterator[None]:
    """Turn a kernel's complaint into one that says which array it was."""
    for index, array in enumerate(weights):
        _check_weights(array, index)
    try:
        yield
    except NonFiniteError as error:
        for index, array in enumerate(weights):
            if not all_finite(_as_run(array)):
                raise NonFiniteError(_non_finite_message(index, array)) from error
        raise


def _non_finite_message(index: int, array: Array) -> str:
    return (
        f"weights[{index}] of shape {array.shape} holds {count_non_finite(array)} NaN or infinite "
        "values. "
        "Mend them first, for example with np.nan_to_num."
    )
