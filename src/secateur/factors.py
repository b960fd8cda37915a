"""Cholesky factors and what is solved with them; a failure is an error that says what to do."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from scipy.linalg import lapack

from secateur._kernels.native.gemm import matmul
from secateur.errors import FactorisationError

Matrix: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_MIRRORED = 256


# Larger float32 matrices are factored by blocks of so many rows, so that nearly all of the work is
# products: with few, what LAPACK does alone is as quick.
_LAPACK_MOST = 128
_BLOCK = 128


def cholesky(matrix: Matrix, name: str, *, overwrite: bool = False) -> Matrix:
    """Lower L with L L^T = matrix, (n, n), in the matrix's own precision; above the diagonal: zeros.

    Args:
        matrix: Symmetric, C-ordered.
        name: The layer, for messages.
        overwrite: Whether the matrix may be destroyed, which saves its copy.

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    if _is_large(matrix):
        return _cholesky_by_blocks(matrix, name)
    return _cholesky_at_once(matrix, name, 0, len(matrix), overwrite=overwrite)


def _is_large(matrix: Matrix) -> bool:
    return matrix.dtype == np.float32 and len(matrix) > _LAPACK_MOST


def _cholesky_at_once(
    matrix: Matrix, name: str, first: int, total: int, *, overwrite: bool = False
) -> Matrix:
    """The same by LAPACK; rows `first` on of a matrix of `total`. Reads what is above the diagonal."""
    (potrf,) = lapack.get_lapack_funcs(("potrf",), (matrix,))
    # A symmetric C-ordered matrix is its own transpose: as Fortran order it costs no copy to read.
    factor, info = potrf(matrix.T, lower=True, clean=True, overwrite_a=overwrite)
    if info:
        raise FactorisationError(
            f"The Hessian of layer {name!r} is not positive definite (row {first + info} of {total}). "
            "Raise damping (ten times as much is a good next try) or calibrate with more data."
        )
    return np.asarray(factor)


def _cholesky_by_blocks(matrix: Matrix, name: str) -> Matrix:
    """Left-looking: what all columns before a block do to it is one product."""
    total = len(matrix)
    factor = np.zeros_like(matrix)
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        panel = matrix[start:, start:stop]  # (rows left, block)
        if start:
            panel = panel - matmul(factor[start:, :start], factor[start:stop, :start].T)
        corner = np.ascontiguousarray(panel[: stop - start].T)
        local = _cholesky_at_once(corner, name, start, total)
        factor[start:stop, start:stop] = local
        if stop < total:
            factor[stop:, start:stop] = matmul(panel[stop - start :], triangle_inverse(local.T))
    return factor


def cholesky_solve(matrix: Matrix, right: Matrix, name: str, *, overwrite: bool = False) -> Matrix:
    """Solve matrix @ x = right for a positive definite matrix.

    Args:
        matrix: Symmetric, C-ordered.
        right: (n, columns); in Fortran order no copy is needed.
        name: The layer, for messages.
        overwrite: Whether both may be destroyed, which saves their copies.

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    factor = cholesky(matrix, name, overwrite=overwrite)
    (potrs,) = lapack.get_lapack_funcs(("potrs",), (factor,))
    solved, _ = potrs(factor, right, lower=True, overwrite_b=overwrite)
    return np.asarray(solved)


def inverse(matrix: Matrix, name: str, *, overwrite: bool = False) -> Matrix:
    """Inverse of a positive definite matrix, C-ordered, symmetric to the last bit.

    Args:
        matrix: Symmetric, C-ordered.
        name: The layer, for messages.
        overwrite: Whether the matrix may be destroyed, which saves its copy.

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    return _inverse_part(matrix, name, 0, len(matrix), overwrite=overwrite)


def _inverse_part(
    matrix: Matrix, name: str, first: int, total: int, *, overwrite: bool = False
) -> Matrix:
    """Inverse of rows and columns `first` on of `total`, less what those before explain of them.

    Large matrices are halved: with A, B, D their quarters and S = D - B^T A^-1 B, products are all but
    what remains at the ends. Reads what is above the diagonal only.
    """
    if not _is_large(matrix):
        factor = _cholesky_at_once(matrix, name, first, total, overwrite=overwrite)
        (potri,) = lapack.get_lapack_funcs(("potri",), (factor,))
        lower, _ = potri(factor, lower=True, overwrite_c=True)
        _mirror(lower)
        return np.asarray(lower).T
    half = -(-len(matrix) // 2)
    above = _inverse_part(matrix[:half, :half], name, first, total)  # A^-1
    right = matrix[:half, half:]  # B
    pulled = matmul(above, right)  # A^-1 B
    schur = matrix[half:, half:] - matmul(right.T, pulled)
    below = _inverse_part(schur, name, first + half, total, overwrite=True)  # S^-1
    across = matmul(pulled, below)
    inverted = np.empty_like(matrix, order="C")
    np.add(above, matmul(across, pulled.T), out=inverted[:half, :half])
    np.negative(across, out=inverted[:half, half:])
    inverted[half:, half:] = below
    _mirror(inverted.T)
    return inverted


def _mirror(lower: Matrix) -> None:
    """Write a lower triangle into the upper, in place; by blocks, which stay in cache."""
    for start in range(0, len(lower), _MIRRORED):
        here = slice(start, start + _MIRRORED)
        lower[:start, here] = lower[here, :start].T
        corner = lower[here, here]
        corner[...] = np.tril(corner) + np.tril(corner, -1).T


def upper_factor(matrix: Matrix, name: str, dtype: Any = None) -> Matrix:
    """Upper R with R R^T = matrix, (n, n): its inverse is the U of `inverse_factor`.

    It is the Cholesky factor of the matrix with both axes reversed, reversed back: a view, not
    contiguous.

    Args:
        matrix: Symmetric.
        name: The layer, for messages.
        dtype: To factor in; the matrix's own by default.

    Raises:
        FactorisationError: The matrix is not positive definite.

    Example:
        >>> upper_factor(np.array([[5.0, 2.0], [2.0, 4.0]]), "dense")
        array([[2., 1.],
               [0., 2.]])
    """
    backwards = np.array(matrix[::-1, ::-1], dtype=dtype, order="C")
    return cholesky(backwards, name, overwrite=True)[::-1, ::-1]


def inverse_factor(matrix: Matrix, name: str) -> Matrix:
    """Upper U with U^T U = matrix^-1, C-ordered.

    With R of `upper_factor`, U = R^-1: one Cholesky and one triangular inverse, half the work of
    inverting first.

    Raises:
        FactorisationError: The matrix is not positive definite.
    """
    return triangle_inverse(upper_factor(matrix, name))


def triangle_inverse(upper: Matrix) -> Matrix:
    """Inverse of an upper triangle, (n, n), C-ordered; what is below the diagonal counts as zero."""
    (trtri,) = lapack.get_lapack_funcs(("trtri",), (upper,))
    # In Fortran order the transpose of a C-ordered upper triangle is a lower one.
    inverted, _ = trtri(np.ascontiguousarray(np.triu(upper)).T, lower=True, overwrite_c=True)
    return np.asarray(inverted).T


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
