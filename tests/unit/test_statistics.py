"""Statistics of inputs and gradients, streamed."""

import ml_dtypes
import numpy as np
import pytest

from secateur import counted_rows
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError
from secateur.gradient_statistics import GradientStatistics
from secateur.statistics import DiagonalStatistics, InputStatistics


def rows(count=300, inputs=6, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, inputs)) @ rng.normal(size=(inputs, inputs)) + offset).astype(
        np.float32
    )


def gather(batches, cross=False, **settings):
    statistics = InputStatistics(6, cross=cross, **settings)
    for batch in batches:
        statistics.update(*batch) if cross else statistics.update(batch)
    return statistics


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks from few rows."""
    monkeypatch.setattr(counted_rows, "_BLOCK_ROWS", 64)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
def test_against_float64(count):
    x, dense = rows(count, offset=3.0), rows(count, seed=1)
    statistics = gather([(x, dense)], cross=True)
    wide, wide_dense = x.astype(np.float64), dense.astype(np.float64)
    assert statistics.count == count
    expected = {
        "gram": wide.T @ wide / count,
        "cross": wide.T @ wide_dense / count,
        "mean": wide.mean(0),
        "dense_mean": wide_dense.mean(0),
        "norms": np.sqrt((wide**2).mean(0)),
        "covariance": np.atleast_2d(np.cov(wide.T, bias=True)),
        "cross_covariance": (wide - wide.mean(0)).T @ (wide_dense - wide_dense.mean(0)) / count,
    }
    for name, value in expected.items():
        found = getattr(statistics, name)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=2e-5)
    np.testing.assert_array_equal(statistics.gram, statistics.gram.T)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("sizes", [[1] * 300, [299, 1], [100] * 3, [64, 236], [7, 293]])
def test_the_split_into_batches_changes_no_bit(sizes):
    x, dense = rows(), rows(seed=1)
    whole = gather([(x, dense)], cross=True)
    cuts = np.cumsum(sizes)[:-1]
    split = gather(zip(np.split(x, cuts), np.split(dense, cuts), strict=True), cross=True)
    np.testing.assert_array_equal(whole.gram, split.gram)
    np.testing.assert_array_equal(whole.cross, split.cross)


@pytest.mark.usefixtures("small_blocks")
def test_order_and_merge_change_rounding_only():
    x, dense = rows(offset=2.0), rows(seed=1)
    whole = gather([(x, dense)], cross=True)
    order = np.random.default_rng(0).permutation(len(x))
    shuffled = gather([(x[order], dense[order])], cross=True)
    first, second = (
        gather([(x[part], dense[part])], cross=True) for part in (slice(90), slice(90, 300))
    )
    first.merge(second)
    assert first.count == 300
    for other in (shuffled, first):
        np.testing.assert_allclose(other.gram, whole.gram, rtol=1e-5)
        np.testing.assert_allclose(other.cross_covariance, whole.cross_covariance, atol=1e-4)
    assert second.count == 210
    empty = InputStatistics(6, cross=True)
    empty.merge(first)
    np.testing.assert_array_equal(empty.gram, first.gram)


def test_a_large_constant_does_not_drown_small_variation():
    x = (1000.0 + 0.01 * rows(4000).astype(np.float64)).astype(np.float32)
    found = gather([x]).covariance
    wide = x.astype(np.float64)
    np.testing.assert_allclose(found, np.cov(wide.T, bias=True), rtol=1e-3, atol=1e-8)


def test_masked_positions_are_left_out():
    x = rows().reshape(30, 10, 6)
    mask = np.arange(10) < np.random.default_rng(0).integers(1, 11, size=(30, 1))
    padded = x.copy()
    padded[~mask] = np.nan
    statistics = InputStatistics(6)
    statistics.update(padded, mask=mask)
    np.testing.assert_allclose(statistics.gram, gather([x[mask]]).gram, rtol=1e-6)
    assert statistics.count == mask.sum()
    diagonal = DiagonalStatistics(6)
    diagonal.update(padded, mask)
    np.testing.assert_allclose(diagonal.norms, statistics.norms, rtol=1e-5)
    np.testing.assert_allclose(diagonal.mean, statistics.mean, rtol=1e-4, atol=1e-6)


def test_companions_of_another_width():
    x, outputs = rows(), rows(inputs=3, seed=4)
    statistics = InputStatistics(6, cross=3)
    statistics.update(x, outputs)
    np.testing.assert_allclose(
        statistics.cross, x.T.astype(np.float64) @ outputs / len(x), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_dtypes(dtype):
    x = rows().astype(dtype)
    np.testing.assert_array_equal(gather([x]).gram, gather([x.astype(np.float32)]).gram)


def test_the_caller_may_reuse_its_batch():
    batch = rows()
    statistics = gather([batch])
    expected = gather([batch.copy()]).gram
    batch[:] = 0
    np.testing.assert_array_equal(statistics.gram, expected)


def test_reading_early_counts_on():
    x = rows()
    statistics = gather([x[:100]])
    assert statistics.gram.shape == (6, 6)
    statistics.update(x[100:])
    np.testing.assert_allclose(statistics.gram, gather([x]).gram, rtol=1e-5)


def test_what_is_remembered_is_of_all_that_was_counted():
    statistics = gather([rows()[:100]])
    made = [statistics.remember("gram", lambda: statistics.gram) for _ in range(2)]
    assert made[0] is made[1]
    statistics.update(rows()[100:])
    np.testing.assert_array_equal(
        statistics.remember("gram", lambda: statistics.gram), statistics.gram
    )
    statistics.forget()
    assert statistics.remember("gram", lambda: 5) == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_non_finite_inputs_name_the_layer_and_are_not_counted(bad):
    statistics = InputStatistics(6, name="encoder/dense")
    batch = rows()
    batch[5, 2] = bad
    with pytest.raises(NonFiniteError, match=r"'encoder/dense'.*1 of 6 inputs \(2\)"):
        statistics.update(batch)
    assert statistics.count == 0
    with pytest.raises(InvalidArgumentError, match="encoder/dense"):
        _ = statistics.gram


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda s: s.update(rows(inputs=5)), InvalidArgumentError),
        (lambda s: s.update([[1.0] * 6]), ArgumentTypeError),
        (lambda s: s.update(rows().astype(int)), ArgumentTypeError),
        (lambda s: s.update(rows(), rows()), InvalidArgumentError),
        (lambda s: s.update(rows(), mask=np.ones(300)), ArgumentTypeError),
        (lambda s: s.update(rows(), mask=np.ones(299, bool)), InvalidArgumentError),
        (lambda s: s.merge(InputStatistics(5)), InvalidArgumentError),
        (lambda s: s.cross, InvalidArgumentError),
        (lambda s: s.mean, InvalidArgumentError),
        (lambda s: InputStatistics(0), InvalidArgumentError),
    ],
)
def test_what_does_not_fit(call, error):
    with pytest.raises(error):
        call(InputStatistics(6))


def test_companions_must_be_the_same_positions():
    statistics = InputStatistics(6, cross=True)
    with pytest.raises(InvalidArgumentError, match="same positions"):
        statistics.update(rows(), rows(299))
    with pytest.raises(InvalidArgumentError, match="not given"):
        statistics.update(rows())


def test_gradients():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(5, 3, 4)).astype(np.float32)
    first, second = GradientStatistics((3, 4)), GradientStatistics((3, 4), name="w")
    for gradient in gradients[:2]:
        first.update(gradient)
    for gradient in gradients[2:]:
        second.update(gradient)
    first.merge(second)
    assert first.count == 5
    np.testing.assert_allclose(first.mean_absolute, np.abs(gradients).mean(0), rtol=1e-6)
    np.testing.assert_allclose(first.mean_square, (gradients.astype(float) ** 2).mean(0), rtol=1e-6)
    for call in (
        lambda: second.update(gradients[0][:2]),
        lambda: second.merge(GradientStatistics((2,))),
        lambda: GradientStatistics((2,)).mean_square,
    ):
        with pytest.raises(InvalidArgumentError):
            call()
    with pytest.raises(NonFiniteError, match="'w'"):
        second.update(np.full((3, 4), np.nan, np.float32))
