"""Samples are chosen by what they hold."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from secateur.keras.sampling import some_samples


def cut(data, sizes):
    ends = np.cumsum(sizes)
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 60), st.randoms())
def test_neither_order_nor_batches_matter(sizes, wanted, random):
    data = np.arange(sum(sizes), dtype=np.int64) * 7
    batches, rows = some_samples(cut(data, sizes), wanted, batch_size=5)
    found = np.concatenate(batches)
    assert len(found) == len(rows) == min(wanted, len(data))
    assert all(len(batch) <= 5 for batch in batches)
    np.testing.assert_array_equal(found, data[rows])
    shuffled = list(data)
    random.shuffle(shuffled)
    again, _ = some_samples([np.array(shuffled)], wanted, batch_size=5)
    np.testing.assert_array_equal(found, np.concatenate(again))


def test_samples_of_one_shape_share_a_batch_and_nests_stay():
    batches = [
        {
            "ids": np.zeros((3, 4)) + np.arange(3)[:, None],
            "text": np.array(["a", "b", "c"], object),
        },
        {"ids": np.ones((2, 6)) + np.arange(2)[:, None], "text": np.array(["d", "e"], object)},
    ]
    found, rows = some_samples(batches, 5)
    assert sorted(batch["ids"].shape for batch in found) == [(2, 6), (3, 4)]
    texts = np.concatenate([batch["text"] for batch in found])
    assert [list("abcde")[row] for row in rows] == list(texts)
