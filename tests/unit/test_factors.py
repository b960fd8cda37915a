"""Factors of large float32 matrices, which are made by blocks, against float64 LAPACK."""

import numpy as np
import pytest

from secateur.errors import FactorisationError
from secateur.factors import cholesky, inverse, inverse_factor, upper_factor

SIZES = [1, 2, 50, 128, 129, 384, 517, 900]


def hessian(size, dtype=np.float32):
    """Positive definite, of unit diagonal, condition number some hundreds."""
    rows = np.random.default_rng(size).standard_normal((2 * size, size))
    rows += rows[:, :1]
    gram = rows.T @ rows / len(rows)
    scale = np.sqrt(np.diagonal(gram))
    return (gram / scale / scale[:, None] + 0.1 * np.eye(size)).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_cholesky(size):
    matrix = hessian(size)
    before = matrix.copy()
    factor = cholesky(matrix, "layer")
    assert factor.dtype == np.float32
    np.testing.assert_array_equal(factor, np.tril(factor))
    np.testing.assert_array_equal(matrix, before)
    expected = np.linalg.cholesky(matrix.astype(np.float64))
    np.testing.assert_allclose(factor, expected, atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
def test_inverse(size):
    matrix = hessian(size)
    found = inverse(matrix, "layer")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_allclose(found, np.linalg.inv(matrix.astype(np.float64)), atol=2e-4)
    wide = inverse(matrix.astype(np.float64), "layer")
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide @ matrix, np.eye(size), atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_reversed_factors(size):
    matrix = hessian(size)
    upper = upper_factor(matrix, "layer")
    np.testing.assert_allclose(upper @ upper.T, matrix, atol=2e-5)
    whole = inverse_factor(matrix, "layer").astype(np.float64)
    np.testing.assert_allclose(whole.T @ whole @ matrix, np.eye(size), atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("row", [0, 130, 383, 384, 450, 899])
@pytest.mark.parametrize("factorise", [cholesky, inverse])
def test_the_first_bad_row_is_named(factorise, row, dtype):
    matrix = np.eye(900, dtype=dtype)
    matrix[row, row] = -1.0
    with pytest.raises(FactorisationError, match=rf"'layer'.*row {row + 1} of 900.*Raise damping"):
        factorise(matrix, "layer")
