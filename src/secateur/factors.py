"""Cholesky factors and what is solved with them; a failure is an error that says what to do."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import lapack

from secateur.errors import FactorisationError

Matrix: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def cholesky(matrix: Matrix, name: str) -> Matrix:
    """Lower L with L L^T = matrix, (n, n), in the matrix's own precision; above the diagonal: zeros.

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    (potrf,) = lapack.get_lapack_funcs(("potrf",), (matrix,))
    # A symmetric C-ordered matrix is its own transpose: as Fortran order it costs no copy to read.
    factor, info = potrf(matrix.T, lower=True, clean=True)
    if info:
        raise FactorisationError(
            f"The Hessian of layer {name!r} is not positive definite (row {info} of {len(matrix)}). "
            "Raise damping (ten times as much is a good next try) or calibrate with more data."
        )
    return np.asarray(factor)


def cholesky_solve(matrix: Matrix, right: Matrix, name: str) -> Matrix:
    """Solve matrix @ x = right for a positive definite matrix; right is (n, columns).

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    factor = cholesky(matrix, name)
    (potrs,) = lapack.get_lapack_funcs(("potrs",), (factor,))
    solved, _ = potrs(factor, right, lower=True)
    return np.asarray(solved)


def inverse(matrix: Matrix, name: str) -> Matrix:
    """Inverse of a positive definite matrix, symmetric to the last bit.

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    factor = cholesky(matrix, name)
    (potri,) = lapack.get_lapack_funcs(("potri",), (factor,))
    lower, _ = potri(factor, lower=True)
    lower = np.tril(lower)
    return np.asarray(lower + np.tril(lower, -1).T)


def inverse_factor(matrix: Matrix, name: str) -> Matrix:
    """Upper U with U^T U = matrix^-1, C-ordered.

    The factor of the matrix with both axes reversed, reversed back, is R with R R^T = matrix and R upper,
    so U = R^-1: one Cholesky and one triangular inverse, half the work of inverting first.

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    factor = cholesky(np.ascontiguousarray(matrix[::-1, ::-1]), name)
    (trtri,) = lapack.get_lapack_funcs(("trtri",), (factor,))
    inverted, _ = trtri(factor, lower=True)
    return np.ascontiguousarray(inverted[::-1, ::-1])


def damped(gram: Matrix, damping: float) -> tuple[Matrix, Matrix]:
    """H = Gram + lambda I and which inputs are dead; lambda is `damping` of the live mean diagonal.

    Returns:
        H, (n, n) float64, positive definite for a Gram matrix; and (n,) bool, inputs that are zero.

    Example:
        >>> damped(np.diag([2.0, 0.0]), 0.5)[0]
        array([[3., 0.],
               [0., 1.]])
    """
    diagonal = np.diagonal(gram)
    dead = diagonal <= 0
    live = diagonal[~dead]
    ridge = damping * float(live.mean()) if live.size else damping
    hessian = gram.copy()
    np.einsum("ii->i", hessian)[...] += ridge
    return hessian, dead
