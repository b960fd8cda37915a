"""The selection kernels against a stable sort, at every instruction set and thread count."""

import math
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur._kernels.native import select
from secateur._kernels.reference import select as oracle
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
ORDERS = ["magnitude", "value"]
TAIL_SIZES = [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65]
CHUNK_BYTES = 1 << 18

dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
orders = pytest.mark.parametrize("order", ORDERS)
everywhere = pytest.mark.usefixtures("every_setting")


def normal(rng, size):
    return rng.standard_normal(size)


def few_values(rng, size):
    return np.round(rng.standard_normal(size) * 4) / 4


def mostly_zero(rng, size):
    return np.where(rng.random(size) < 0.9, -0.0, rng.standard_normal(size))


def all_equal(rng, size):
    return np.full(size, -1.5)


def all_zero(rng, size):
    return np.where(rng.random(size) < 0.5, -0.0, 0.0)


def heavy_tail(rng, size):
    return np.clip(rng.standard_cauchy(size) ** 3, -6e4, 6e4)


def in_order(rng, size):
    return np.sort(rng.standard_normal(size))


def scaled_rows(rng, size):
    return rng.standard_normal(size) * np.logspace(-3, 3, size)


DISTRIBUTIONS = [
    normal,
    few_values,
    mostly_zero,
    all_equal,
    all_zero,
    heavy_tail,
    in_order,
    scaled_rows,
]


def make(sizes, dtype, distribution, seed=0):
    rng = np.random.default_rng(seed)
    flat = distribution(rng, sum(sizes)).astype(dtype)
    ends = np.cumsum([0, *sizes])
    return [flat[a:b].copy() for a, b in pairwise(ends)]


def assert_same_bits(got, expected):
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(
        got.view(f"u{got.itemsize}"), expected.view(f"u{expected.itemsize}")
    )


def check_against_oracle(arrays, k, order):
    """find_cut, then apply_cut to masks and values at once, bit for bit."""
    cut = select.find_cut(arrays, k, order)
    assert cut == oracle.find_cut(arrays, k, order)
    keep = oracle.keep_mask(arrays, k, order)
    masks = [np.empty(array.shape, np.bool_) for array in arrays]
    out = [np.empty_like(array) for array in arrays]
    statistics = select.apply_cut(arrays, cut, order, out=out, masks=masks)
    assert sum(row.num_removed for row in statistics) == k
    for i, array in enumerate(arrays):
        np.testing.assert_array_equal(masks[i], keep[i])
        assert_same_bits(out[i], np.where(keep[i], array, np.zeros((), array.dtype)))
        assert statistics[i] == oracle.statistics(array, keep[i], order)


@everywhere
@orders
@dtypes
def test_tail_sizes(dtype, order):
    for size in TAIL_SIZES:
        arrays = make([size, 3], dtype, few_values)
        for k in {0, 1, size // 2, size, size + 3}:
            check_against_oracle(arrays, k, order)


@everywhere
@dtypes
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_chunk_sizes(extra, dtype):
    size = CHUNK_BYTES // np.dtype(dtype).itemsize + extra
    check_against_oracle(make([size, 5], dtype, normal), size * 9 // 10, "magnitude")


@everywhere
@orders
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_distributions_over_several_chunks(distribution, order):
    arrays = make([1000, 70_000, 0, 1, 65_536, 20_000], np.float32, distribution)
    for share in (0.001, 0.5, 0.9):
        check_against_oracle(arrays, int(share * 156_537), order)


@everywhere
@given(
    sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=5),
    dtype=st.sampled_from(DTYPES),
    distribution=st.sampled_from(DISTRIBUTIONS),
    order=st.sampled_from(ORDERS),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_any_arrays(sizes, dtype, distribution, order, share, seed):
    arrays = make(sizes, dtype, distribution, seed)
    check_against_oracle(arrays, int(share * sum(sizes)), order)


@everywhere
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=16), min_size=1),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    order=st.sampled_from(ORDERS),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_any_values(values, dtype, order, data):
    k = data.draw(st.integers(0, len(values)))
    check_against_oracle([np.array(values, dtype)], k, order)


def test_ties_at_the_border_of_exact_zeros():
    array = make([100_000], np.float32, mostly_zero)[0]
    num_zeros = int((array == 0).sum())
    for k in (num_zeros - 1, num_zeros, num_zeros + 1):
        check_against_oracle([array], k, "magnitude")


def test_any_shape_is_ranked_flat():
    array = make([24], np.float32, normal)[0]
    shaped = [array[:23].reshape(23, 1, 1), array[23:].reshape(())]
    assert select.find_cut(shaped, 12) == select.find_cut([array[:23], array[23:]], 12)


@dtypes
def test_in_place_zeroing_leaves_the_rest(dtype):
    array = make([1000], dtype, normal)[0]
    before = array.copy()
    select.apply_cut([array], select.find_cut([array], 900), out=[array])
    assert (array == 0).sum() == 900
    assert_same_bits(array[array != 0], before[array != 0])
    assert not np.signbit(array[array == 0]).any()


def test_without_outputs_the_arrays_are_only_counted():
    array = np.float32([3, -1, 0.5])
    [statistics] = select.apply_cut([array], select.cut_at(1.0, np.float32))
    assert statistics == (1, 0.5, 1.0)
    np.testing.assert_array_equal(array, np.float32([3, -1, 0.5]))


def test_no_arrays_at_all():
    assert select.find_cut([], 0) == (0, 0, 0)
    assert select.apply_cut([], select.Cut(0, 0, 0)) == []
    select.check_finite([])
    with pytest.raises(InvalidArgumentError, match="between 0 and 0"):
        select.find_cut([], 1)


@orders
@dtypes
@pytest.mark.parametrize(
    "threshold", [0.0, 0.1, 0.3, 0.7, 1.0, 1e-8, 1e5, 1e300, math.inf, -1.0, -0.3, -math.inf]
)
def test_a_threshold_is_compared_exactly(threshold, dtype, order):
    array = make([5000], dtype, normal)[0]
    with np.errstate(over="ignore"):
        near = np.array([0.0, -0.0, threshold, 0.1]).astype(dtype)
    array[:4] = np.where(np.isfinite(near), near, np.ones((), dtype))
    numbers = array.astype(np.float64)
    keep = (np.abs(numbers) if order == "magnitude" else numbers) >= threshold
    mask = np.empty(array.shape, np.bool_)
    cut = select.cut_at(threshold, dtype, order)
    select.apply_cut([array], cut, order, masks=[mask])
    np.testing.assert_array_equal(mask, keep)


@dtypes
@given(threshold=st.floats(allow_nan=False))
@settings(max_examples=200)
def test_a_threshold_rounds_up_to_the_next_number(threshold, dtype):
    for order in ORDERS:
        value = select.cut_value(select.cut_at(threshold, dtype, order), dtype, order)
        assert value >= threshold
        if value > max(threshold, -math.inf if order == "value" else 0.0):
            with np.errstate(over="ignore"):
                below = np.nextafter(np.array(value, dtype), np.array(-np.inf, dtype))
            assert float(below) < threshold


@dtypes
@orders
def test_the_value_of_a_cut_is_the_smallest_that_stays(dtype, order):
    arrays = make([300, 200], dtype, normal)
    cut = select.find_cut(arrays, 450, order)
    smallest = min(row.smallest_kept for row in select.apply_cut(arrays, cut, order))
    assert select.cut_value(cut, dtype, order) == smallest


@everywhere
@dtypes
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_non_finite_numbers_are_named(bad, dtype):
    for size in (1, 100, 100_000):
        check_non_finite(bad, size, dtype)


def check_non_finite(bad, size, dtype):
    arrays = [np.ones(3, dtype), np.ones(size, dtype), np.ones(size, dtype)]
    arrays[1][-1] = bad
    arrays[2][0] = bad
    for k in (0, 1, size, 2 * size + 3):
        with pytest.raises(NonFiniteError, match=r"arrays\[1\]") as error:
            select.find_cut(arrays, k)
        assert error.value.index == 1
        if math.isnan(bad):
            with pytest.raises(NonFiniteError, match="NaN") as error:
                select.find_cut(arrays, k, "value")
            assert error.value.index == 1
        else:
            assert select.find_cut(arrays, k, "value") == oracle.find_cut(arrays, k, "value")
    with pytest.raises(NonFiniteError, match=r"arrays\[1\]"):
        select.check_finite(arrays)
    select.check_finite(arrays[:1])


@everywhere
@dtypes
def test_a_mask_is_applied(dtype):
    for size in [*TAIL_SIZES, 140_000]:
        values = make([size], dtype, normal)[0]
        mask = np.random.default_rng(1).random(size) < 0.5
        expected = np.where(mask, values, np.zeros((), dtype))
        out = np.empty_like(values)
        select.apply_mask(values, mask, out)
        assert_same_bits(out, expected)
        select.apply_mask(values, mask, values)
        assert_same_bits(values, expected)


@everywhere
@dtypes
@orders
def test_statistics_of_a_mask_are_the_oracles(dtype, order):
    rng = np.random.default_rng(3)
    for size in [*TAIL_SIZES, 70_003]:
        values = make([size], dtype, normal)[0]
        for share in (0.0, 0.5, 1.0):
            mask = rng.random(size) < share
            found = select.mask_statistics(values, mask, order)
            assert found == oracle.statistics(values, mask, order)


@everywhere
@dtypes
def test_zeros_of_both_signs_are_counted(dtype):
    smallest = np.array([1], np.dtype(f"u{np.dtype(dtype).itemsize}")).view(dtype)
    for size in [*TAIL_SIZES, 70_003]:
        values = make([size], dtype, mostly_zero)[0]
        assert select.count_zeros(values) == size - np.count_nonzero(values)
        assert select.count_zeros(np.concatenate([values, smallest, -smallest])) == (
            select.count_zeros(values)
        )


@everywhere
def test_a_read_pass_sums_words():
    for size in [*TAIL_SIZES, 300_001]:
        array = np.random.default_rng(2).integers(0, 256, size, np.uint8)
        padded = np.concatenate([array, np.zeros(-size % 8, np.uint8)])
        assert select.read_pass(array) == int(padded.view(np.uint64).sum(dtype=np.uint64))


ONES = np.ones((4, 6), np.float32)
CUT = select.cut_at(0.5, np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select.find_cut([ONES.T], 1), "np.ascontiguousarray"),
        (lambda: select.find_cut([ONES[:, ::2]], 1), "np.ascontiguousarray"),
        (lambda: select.find_cut([ONES], 25), "between 0 and 24"),
        (lambda: select.find_cut([ONES], -1), "between 0 and 24"),
        (lambda: select.find_cut([ONES, ONES.astype(np.float16)], 1), "one dtype"),
        (lambda: select.find_cut([ONES.astype(np.int32)], 1), "float16, bfloat16"),
        (lambda: select.find_cut([ONES.astype(">f4")], 1), "native byte order"),
        (lambda: select.find_cut([ONES], 1, "size"), "'magnitude' or 'value'"),
        (lambda: select.find_cut([np.frombuffer(bytes(9), "f4", 2, 1)], 1), "not aligned"),
        (lambda: select.cut_at(math.nan, np.float32), "NaN"),
        (lambda: select.cut_at(0.1, np.int8), "float16, bfloat16"),
        (lambda: select.cut_value(select.Cut(0x7F800001, 0, 0), np.float32), "has key"),
        (lambda: select.cut_value(select.Cut(-1, 0, 0), np.float32), "has key"),
        (lambda: select.apply_cut([ONES], select.Cut(1 << 32, 0, 0)), "has key"),
        (lambda: select.apply_cut([ONES], select.Cut(0x7F800001, 0, 0)), "key must be"),
        (lambda: select.apply_cut([ONES], select.Cut(5, -1, 0)), "must not be negative"),
        (lambda: select.apply_cut([ONES], CUT, out=[]), "out has 0 arrays for 1"),
        (lambda: select.apply_cut([ONES], CUT, masks=[ONES]), "dtype bool"),
        (lambda: select.apply_cut([ONES], CUT, out=[ONES[:2]]), "shape"),
        (lambda: select.apply_cut([ONES, ONES], CUT, out=[ONES, ONES]), "share memory"),
        (lambda: select.apply_cut([ONES[:3]], CUT, out=[ONES[1:]]), "share memory"),
        (lambda: select.apply_mask(ONES[:3], ONES[:3] > 0, ONES[1:]), "share memory"),
        (lambda: select.apply_mask(ONES, ONES > 0, ONES[:2]), "shape"),
        (lambda: select.mask_statistics(ONES, ONES[:2] > 0), "shape"),
        (lambda: select.mask_statistics(ONES, ONES), "bool"),
    ],
)
def test_unusable_arguments_are_refused_with_the_mend(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()
    np.testing.assert_array_equal(ONES, 1)


def test_read_only_outputs_are_refused():
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    select.find_cut([array], 1)
    with pytest.raises(InvalidArgumentError, match="read-only"):
        select.apply_cut([array], CUT, out=[array])


def test_what_is_no_array_is_refused():
    with pytest.raises(ArgumentTypeError, match="got list"):
        select.find_cut([[1.0, 2.0]], 1)


def test_a_search_leaves_the_arrays_as_they_are():
    arrays = make([1_000_000], np.float32, normal)
    before = arrays[0].copy()
    select.find_cut(arrays, 900_000)
    assert_same_bits(arrays[0], before)
