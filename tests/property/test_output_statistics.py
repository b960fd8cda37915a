"""What must hold of output statistics whatever the data, the splits and the masks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secateur._kernels.reference import outputs as oracle
from secateur.outputs import MEASURES, OutputStatistics

BATCHES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 40), st.integers(1, 9)),
    elements=st.floats(-1e6, 1e6, allow_nan=False, width=32),
)


def assert_same(ours, theirs, scale):
    assert ours.count == theirs.count
    for measure in MEASURES:
        atol = 1e-12 * scale
        np.testing.assert_allclose(
            ours.measure(measure), theirs.measure(measure), rtol=1e-12, atol=atol
        )
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-12, atol=1e-12 * scale)


@settings(max_examples=60, deadline=None)
@given(batch=BATCHES, data=st.data())
def test_splits_and_their_order_do_not_matter(batch, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(batch)), max_size=5)))
    parts = data.draw(st.permutations(np.split(batch, cuts)))
    whole = OutputStatistics(batch.shape[1])
    whole.update(batch)
    pieces = OutputStatistics(batch.shape[1])
    for part in parts:
        pieces.update(part)
    assert_same(pieces, whole, np.abs(batch).max())


@settings(max_examples=60, deadline=None)
@given(batch=BATCHES, data=st.data())
def test_merging_is_as_good_as_counting(batch, data):
    cut = data.draw(st.integers(0, len(batch)))
    whole, left, right = (OutputStatistics(batch.shape[1]) for _ in range(3))
    whole.update(batch)
    left.update(batch[:cut])
    right.update(batch[cut:])
    left.merge(right)
    assert_same(left, whole, np.abs(batch).max())


@settings(max_examples=60, deadline=None)
@given(batch=BATCHES, data=st.data())
def test_masked_positions_leave_no_trace(batch, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch))))
    spoilt = batch.copy()
    spoilt[~mask] = np.nan
    masked, kept = OutputStatistics(batch.shape[1]), OutputStatistics(batch.shape[1])
    masked.update(spoilt, mask=mask)
    kept.update(batch[mask])
    assert masked.count == mask.sum()
    if mask.any():
        assert_same(masked, kept, np.abs(batch).max())


@settings(max_examples=60, deadline=None)
@given(batch=BATCHES)
def test_measures_agree_with_two_passes_and_with_each_other(batch):
    statistics = OutputStatistics(batch.shape[1])
    statistics.update(batch)
    expected = oracle.output_statistics(batch)
    scale = np.abs(batch).max()
    for measure in MEASURES:
        np.testing.assert_allclose(
            statistics.measure(measure), expected[measure], rtol=1e-12, atol=1e-12 * scale
        )
    slack = 1e-9 * scale
    mean, rms, largest = (statistics.measure(name) for name in ("mean", "rms", "max"))
    assert (mean <= rms + slack).all()
    assert (rms <= largest + slack).all()
    assert (statistics.measure("std") <= rms + slack).all()


@settings(max_examples=60, deadline=None)
@given(
    value=st.floats(-(2.0**99), 2.0**99, width=32),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
)
def test_a_constant_deviates_by_exactly_nothing(value, sizes):
    statistics = OutputStatistics(3)
    for size in sizes:
        statistics.update(np.full((size, 3), value, np.float32))
    assert (statistics.measure("std") == 0).all()
    assert (statistics.mean == np.float32(value)).all()


@settings(max_examples=30, deadline=None)
@given(shift=st.sampled_from([0.0, 1e3, -1e6, 1e8]), seed=st.integers(0, 99))
def test_small_deviations_of_large_values_are_right(shift, seed):
    noise = np.random.default_rng(seed).standard_normal((500, 2))
    batch = shift + noise
    statistics = OutputStatistics(2)
    for part in np.split(batch, 10):
        statistics.update(part)
    np.testing.assert_allclose(statistics.measure("std"), (batch - shift).std(axis=0), rtol=1e-12)
