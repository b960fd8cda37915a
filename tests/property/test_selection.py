"""Exactly k, ties by (tensor, position), the same as a stable sort of everything."""

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import secateur as sc

ELEMENTS = st.sampled_from([0.0, -0.0, 0.25, -0.25, 0.5, 1.0, -1.0, 3.0, 1e-38, -1e30])
ARRAYS = st.lists(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=ELEMENTS),
    min_size=1,
    max_size=5,
)


def oracle_masks(arrays, k):
    keys = np.concatenate([np.abs(a).ravel() for a in arrays])
    keep = np.ones(keys.size, bool)
    keep[np.argsort(keys, kind="stable")[:k]] = False
    ends = np.cumsum([a.size for a in arrays])[:-1]
    return [m.reshape(a.shape) for m, a in zip(np.split(keep, ends), arrays, strict=True)]


@given(ARRAYS, st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_global_ranking_is_a_stable_sort(arrays, sparsity):
    pruned = sc.prune_arrays(arrays, sparsity=sparsity)
    k = round(sparsity * sum(a.size for a in arrays))
    for mask, expected in zip(pruned.masks, oracle_masks(arrays, k), strict=True):
        np.testing.assert_array_equal(mask, expected)
    for out, array, mask in zip(pruned.weights, arrays, pruned.masks, strict=True):
        np.testing.assert_array_equal(out, np.where(mask, array, 0))


@given(ARRAYS, st.floats(0, 4))
@settings(max_examples=100, deadline=None)
def test_threshold_is_a_comparison(arrays, threshold):
    for mask, array in zip(sc.prune_arrays(arrays, threshold=threshold).masks, arrays, strict=True):
        np.testing.assert_array_equal(mask, np.abs(array).astype(np.float64) >= threshold)


@given(ARRAYS, st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_report_agrees_with_the_weights(arrays, sparsity):
    pruned = sc.prune_arrays(arrays, sparsity=sparsity)
    for row, out, mask, array in zip(
        pruned.report, pruned.weights, pruned.masks, arrays, strict=True
    ):
        assert row.num_zeros == np.count_nonzero(out == 0)
        assert row.num_removed == np.count_nonzero(~mask)
        if row.num_removed:
            assert row.largest_removed == np.abs(array[~mask]).max()
        if mask.any():
            assert row.smallest_kept == np.abs(array[mask]).min()
