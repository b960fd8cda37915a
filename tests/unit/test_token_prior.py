"""Which ids a table of embeddings holds likely."""

import numpy as np
import pytest

from secateur.keras.token_prior import likely_ids

RNG = np.random.default_rng(0)


def table(sizes):
    return RNG.normal(size=(len(sizes), 8)) * np.asarray(sizes)[:, None]


def test_ids_come_in_their_order_where_the_table_has_a_trend():
    shares = likely_ids(table(np.linspace(2, 1, 600)), np.arange(600))
    assert shares.sum() == pytest.approx(1)
    np.testing.assert_allclose(shares / shares[0], 2.7 / (np.arange(600) + 2.7))
    grows = likely_ids(
        table(np.linspace(1, 2, 600)), np.arange(600)
    )  # the direction does not count
    np.testing.assert_allclose(grows, shares)


def test_without_a_trend_the_farthest_rows_come_first():
    rows = table(np.ones(600))
    ids = np.arange(1, 600)
    shares = likely_ids(rows, ids)
    distances = np.linalg.norm(rows[ids] - rows[ids].mean(0), axis=1)
    assert (np.argsort(-shares) == np.argsort(-distances)).all()


def test_letters_are_all_alike():
    assert set(likely_ids(table(np.linspace(2, 1, 30)), np.arange(30))) == {1 / 30}
