"""How strongly the paths of a network run through its neurons and weights, in the l2 sense.

A path's strength is the product of its weights; strengths of several paths add up as squares. Over
two adjacent matrices this is the source's |w_ij| = sqrt(sum_k w_ik^2 w_jk^2).

References:
    Neyshabur, Salakhutdinov, Srebro, "Path-SGD" (2015): over the whole depth the sum of squared
        path products is the squared l2 path norm.
    Park et al., "Lookahead: a far-sighted alternative of magnitude-based pruning" (ICLR 2020): the
        marginal of a window of matrices on a single weight.
    Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
        flow" (2020): the same with l1 path sums.
    Garson, "Interpreting neural-network connection weights" (1991): the oldest relative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native.saliency import all_finite, scaled_magnitude, squared_sums
from secateur.errors import InvalidArgumentError, NonFiniteError

Matrix = NDArray[Any]
Vector = NDArray[np.float64]


class NeuronPathSaliency(NamedTuple):
    """Path saliencies of the neurons around two adjacent matrices A (I, K) and B (K, J).

    Attributes:
        input: ||S[i, :]||, shape (I,), S being `path_strength(A, B)`.
        hidden: ||A[:, k]|| * ||B[k, :]||, shape (K,).
        output: ||S[:, j]||, shape (J,).
    """

    input: Matrix
    hidden: Matrix
    output: Matrix


def path_strength(first: Matrix, second: Matrix) -> Matrix:
    """Strength of all two-step paths from i to j: S = sqrt((A*A) @ (B*B)).

    Its Frobenius norm is the l2 path norm of the two layers (Neyshabur et al. 2015). Takes float64
    copies of both matrices while it runs.

    Args:
        first: A, shape (I, K): weight from i to k. float16, bfloat16, float32 or float64.
        second: B, shape (K, J): weight from k to j.

    Returns:
        (I, J), >= 0; summed in float64, given as float64 if A or B is, else as float32.

    Raises:
        InvalidArgumentError: Not two matrices, or A's columns are not B's rows.
        NonFiniteError: A weight or a strength is not finite.

    Example:
        >>> path_strength(np.array([[1.0, 2.0]]), np.array([[3.0], [2.0]]))
        array([[5.]])
    """
    first, second = _adjacent(first, second)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.square(first, dtype=np.float64) @ np.square(second, dtype=np.float64)
        # squares: (I, J)
        return _rounded(np.sqrt(squares), (first, second), "path_strength")


def neuron_path_saliency(first: Matrix, second: Matrix) -> NeuronPathSaliency:
    """Path saliencies of the input, hidden and output neurons of two adjacent matrices.

    S itself is never formed: ||S[i, :]||^2 = sum_k A[i, k]^2 ||B[k, :]||^2, and outputs likewise.

    Args:
        first: A, shape (I, K): weight from i to k. float16, bfloat16, float32 or float64.
        second: B, shape (K, J): weight from k to j.

    Returns:
        Three vectors >= 0; float64 if A or B is, else float32.

    Raises:
        InvalidArgumentError: Not two matrices, or A's columns are not B's rows.
        NonFiniteError: A weight or a saliency is not finite.

    Example:
        >>> neuron_path_saliency(np.array([[1.0, 2.0]]), np.array([[3.0], [2.0]]))
        NeuronPathSaliency(input=array([5.]), hidden=array([3., 4.]), output=array([5.]))
    """
    first, second = _adjacent(first, second)
    into_hidden = squared_sums(first, axis=0)  # (K,)
    out_of_hidden = squared_sums(second, axis=1)  # (K,)
    squares = (
        squared_sums(first, axis=1, weights=out_of_hidden),  # (I,)
        into_hidden * out_of_hidden,  # (K,)
        squared_sums(second, axis=0, weights=into_hidden),  # (J,)
    )
    pair = (first, second)
    return NeuronPathSaliency(*(_rounded(np.sqrt(s), pair, "neuron saliency") for s in squares))


def pair_saliencies(weights: Sequence[Matrix]) -> list[Matrix]:
    """Root of the squared path strength lost over the two-matrix windows around each weight.

    |w[o, i]| * sqrt(r[i]^2 + c[o]^2), where r[i] = ||W_{l-1}[i, :]|| is the norm of what comes into
    input i and c[o] = ||W_{l+1}[:, o]|| of what leaves output o; a matrix at an end has one.

    Args:
        weights: At least two contiguous (out, in) matrices in network order, each one's `in` being
            the one before's `out`.

    Raises:
        InvalidArgumentError: A single matrix: a window needs two.
        NonFiniteError: A weight or a saliency is not finite.

    Example:
        >>> pair_saliencies([np.array([[1.0], [2.0]]), np.array([[3.0, 2.0]])])
        [array([[3.],
               [4.]]), array([[3., 4.]])]
    """
    if not weights:
        return []
    if len(weights) == 1:
        raise InvalidArgumentError(
            "A window of two adjacent matrices was asked for, but weights[0] stands alone. "
            "Pass the next matrix too, or use window='depth' or criterion 'magnitude'."
        )
    into = [None, *(squared_sums(w, axis=1) for w in weights[:-1])]
    out_of = [*(squared_sums(w, axis=0) for w in weights[1:]), None]
    return [
        scaled_magnitude(w, row, col, combine="root_sum")
        for w, row, col in zip(weights, out_of, into, strict=True)
    ]


def depth_saliencies(weights: Sequence[Matrix]) -> list[Matrix]:
    """Root of the summed squared products of all input-to-output paths through each weight.

    |w[o, i]| * sqrt(P[i] * N[o]), where P = 1 at the input and (W*W) @ P after each matrix, and N
    the same from the output backwards. Squared, the saliencies of any one matrix sum to the squared
    l2 path norm of the network. For one matrix this is |w|.

    Args:
        weights: Contiguous (out, in) matrices in network order, each one's `in` the one before's
            `out`.

    Raises:
        NonFiniteError: A weight is not finite, or the path norm is outside the result type's range.

    Example:
        >>> depth_saliencies([np.array([[1.0], [2.0]]), np.array([[3.0, 2.0]])])
        [array([[3.],
               [4.]]), array([[3., 4.]])]
    """
    forward = _flow(weights, axis=1)
    backward = _flow(weights[::-1], axis=0)[::-1]
    if weights:
        _check_path_norm(forward[-1], weights)
    return [
        scaled_magnitude(w, _root(after, before.exponent), np.sqrt(before.scaled))
        for w, before, after in zip(weights, forward[:-1], backward[1:], strict=True)
    ]


class _Flow(NamedTuple):
    """Sums of squared path products, `scaled` * 2**`exponent`; the exponent is even."""

    scaled: Vector
    exponent: int


def _flow(weights: Sequence[Matrix], axis: Any) -> list[_Flow]:
    """The flow before the first matrix and after each one."""
    if not weights:
        return []
    flows = [_Flow(np.ones(weights[0].shape[axis]), 0)]
    for matrix in weights:
        before = flows[-1]
        sums = squared_sums(matrix, axis=axis, weights=before.scaled)
        _, exponent = np.frexp(sums.max(initial=0.0))
        even = int(exponent) + int(exponent) % 2
        # Powers of two are exact: no rounding comes between layers that will be ranked together.
        flows.append(_Flow(np.ldexp(sums, -even), before.exponent + even))
    return flows


def _root(flow: _Flow, other_exponent: int) -> Vector:
    """The root of the flow, with the other flow's exponent taken in."""
    with np.errstate(over="ignore", under="ignore"):
        root: Vector = np.ldexp(np.sqrt(flow.scaled), (flow.exponent + other_exponent) // 2)
    return root


def _check_path_norm(last: _Flow, weights: Sequence[Matrix]) -> None:
    """Every matrix's saliencies have the path norm as their l2 norm, so one check serves all."""
    total = float(last.scaled.sum())
    narrow = any(w.dtype != np.float64 for w in weights)
    limits = np.finfo(np.float32 if narrow else np.float64)
    norm_exponent = (np.log2(total) + last.exponent) / 2 if total > 0 else 0.0
    # 24 bits above the smallest normal number, so that smaller saliencies still differ.
    if not limits.minexp + 24 <= norm_exponent < limits.maxexp:
        raise NonFiniteError(
            f"The path norm over all {len(weights)} matrices is 2**{norm_exponent:.0f}, outside "
            f"what {limits.dtype} saliencies can hold. Use window='pair', or scale the weights."
        )


def _adjacent(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[0]:
        raise InvalidArgumentError(
            f"Expected adjacent matrices A (I, K) and B (K, J), got shapes {first.shape} and "
            f"{second.shape}. Transpose (out, in) matrices."
        )
    first, second = as_contiguous(first), as_contiguous(second)
    for name, matrix in (("A", first), ("B", second)):
        if not all_finite(matrix):
            raise NonFiniteError(f"{name} holds NaN or infinite weights; mend them first.")
    return first, second


def as_contiguous(array: Matrix) -> Matrix:
    """The array itself where it lies in C or Fortran order without gaps, else a C-order copy."""
    if array.flags.c_contiguous or array.flags.f_contiguous:
        return array
    return np.ascontiguousarray(array)


def _rounded(values: NDArray[np.float64], sources: Sequence[Matrix], what: str) -> Matrix:
    if any(source.dtype == np.float64 for source in sources):
        rounded: Matrix = values
    else:
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise NonFiniteError(
            f"{what}: a result is too large for {rounded.dtype}. Scale the weights down, or pass "
            "them as float64."
        )
    return rounded


PATH_WINDOWS: dict[str, Callable[[Sequence[Matrix]], list[Matrix]]] = {
    "pair": pair_saliencies,
    "depth": depth_saliencies,
}
