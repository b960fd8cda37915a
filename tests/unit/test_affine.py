"""Scale and offset of a normalisation, refitted."""

import numpy as np
import pytest

from secateur.errors import InvalidArgumentError, NonFiniteError
from secateur.reconstruction import AffineStatistics, affine


def data(count=500, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, 5)) + np.arange(5)
    y = z * [1, 2, -3, 0.5, 0] + [7, 0, 1, -1, 4] + 0.3 * rng.normal(size=z.shape)
    return z.astype(np.float32), y.astype(np.float32)


def test_it_is_least_squares(monkeypatch):
    monkeypatch.setattr(affine, "_BLOCK_ROWS", 64)
    z, y = data()
    statistics = AffineStatistics(5)
    for start in range(0, 500, 130):
        statistics.update(z[start : start + 130], y[start : start + 130])
    assert statistics.count == 500
    scale, offset = statistics.fit(np.ones(5), damping=1e-9)
    for feature in range(5):
        expected = np.polyfit(z[:, feature].astype(float), y[:, feature].astype(float), 1)
        np.testing.assert_allclose(
            [scale[feature], offset[feature]], expected, rtol=1e-5, atol=1e-6
        )


def test_noise_is_scaled_down():
    z, _ = data()
    noisy = (z + np.random.default_rng(1).normal(size=z.shape)).astype(np.float32)
    statistics = AffineStatistics(5)
    statistics.update(noisy, z)
    scale, _ = statistics.fit(np.ones(5))
    np.testing.assert_allclose(scale, 0.5, atol=0.1)


def test_ridge_and_features_without_variation():
    z, y = data()
    z[:, 1] = 3.0
    statistics = AffineStatistics(5)
    statistics.update(z, y)
    before = np.full(5, 1.5)
    scale, offset = statistics.fit(before, damping=1e12)
    np.testing.assert_allclose(scale, before, rtol=1e-6)
    np.testing.assert_allclose(offset, y.mean(0) - before * z.mean(0), atol=1e-4)
    assert statistics.fit(before)[0][1] == 1.5


def test_masked_positions_are_left_out():
    z, y = data()
    mask = np.arange(500) % 3 > 0
    hidden = z.copy()
    hidden[~mask] = np.nan
    first, second = AffineStatistics(5), AffineStatistics(5)
    first.update(hidden, y, mask)
    second.update(z[mask], y[mask])
    np.testing.assert_array_equal(first.fit(np.ones(5)), second.fit(np.ones(5)))


def test_bad_input():
    z, y = data()
    statistics = AffineStatistics(5, name="norm")
    for call in (
        lambda: statistics.fit(np.ones(5)),
        lambda: statistics.update(z, y[:9]),
        lambda: AffineStatistics(0),
    ):
        with pytest.raises(InvalidArgumentError):
            call()
    statistics.update(z, y)
    with pytest.raises(InvalidArgumentError, match="damping"):
        statistics.fit(np.ones(5), damping=0)
    with pytest.raises(InvalidArgumentError, match="shape"):
        statistics.fit(np.ones(4))
    y[0, 0] = np.inf
    with pytest.raises(NonFiniteError, match="'norm'"):
        statistics.update(z, y)
