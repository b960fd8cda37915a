"""The OBS sweep against its oracle, bit for bit, at every setting."""

import numpy as np
import pytest

from secateur._kernels.native.obs import sweep_block
from secateur._kernels.reference import obs as reference
from secateur.errors import InvalidArgumentError


def problem(rows, width, seed=0):
    rng = np.random.default_rng(seed)
    factor = np.triu(rng.normal(size=(width, width)))
    np.fill_diagonal(factor, 0.5 + rng.random(width))
    # Few different weights, so that ties are everywhere.
    weight = rng.integers(-3, 4, size=(rows, width)).astype(np.float32)
    return weight, factor.astype(np.float32), rng.random((rows, width)) < 0.5


@pytest.mark.parametrize("width", [1, 7, 8, 15, 16, 17, 31, 33, 64, 65, 128])
@pytest.mark.parametrize("group", [None, (2, 4), (1, 3), (0, 2), (3, 3), (16, 32)], ids=str)
def test_sweep(every_setting, width, group):
    weight, factor, mask = problem(rows=131, width=width)
    copies = weight.copy(), mask.copy()
    errors = sweep_block(weight, factor, mask, group)
    expected = reference.sweep_block(copies[0], factor, copies[1], group)
    np.testing.assert_array_equal(errors, expected)
    np.testing.assert_array_equal(weight, copies[0])
    np.testing.assert_array_equal(mask, copies[1])


@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_row_counts(num_threads, rows):
    weight, factor, mask = problem(rows, width=9)
    copy = weight.copy()
    errors = sweep_block(weight, factor, mask)
    np.testing.assert_array_equal(errors, reference.sweep_block(copy, factor, mask))


def test_one_row_is_exact_elimination():
    """With U^T U = H^-1, sweeping a whole row gives least squares on what stays, for a suffix."""
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(50, 6))
    hessian = inputs.T @ inputs
    factor = np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(hessian)).T, np.float32)
    weight = rng.normal(size=(1, 6)).astype(np.float32)
    mask = np.array([[False, False, True, True, True, True]])
    kept = hessian[2:, 2:]
    expected = np.linalg.solve(kept, (hessian @ weight[0].astype(np.float64))[2:])
    sweep_block(weight, factor, mask)
    np.testing.assert_allclose(weight[0, 2:], expected, rtol=1e-4)
    assert (weight[0, :2] == 0).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda w, f, m: (w.astype(np.float64), f, m),
        lambda w, f, m: (w, f[:3, :3].copy(), m),
        lambda w, f, m: (w, f, m[:, :2].copy()),
        lambda w, f, m: (np.asfortranarray(w), f, m),
        lambda w, f, m: (w, f, m.astype(np.uint8)),
    ],
)
def test_arrays_that_do_not_fit(change):
    with pytest.raises(InvalidArgumentError):
        sweep_block(*change(*problem(rows=5, width=4)))


def test_a_group_out_of_range():
    with pytest.raises(InvalidArgumentError, match="32"):
        sweep_block(*problem(rows=5, width=40), (3, 33))
