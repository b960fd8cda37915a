"""Dense products against their oracle, at every instruction set, at every order in memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur._kernels.native import gemm, runtime
from secateur._kernels.reference import gemm as reference
from secateur.errors import ArgumentTypeError, InvalidArgumentError

SIZES = [0, 1, 2, 6, 12, 13, 15, 16, 17, 33, 100, 145]


def integers(rows, cols, seed=0):
    """Small whole numbers: their products are exact in float32 however they are summed."""
    rng = np.random.default_rng([seed, rows, cols])
    return rng.integers(-4, 5, (rows, cols)).astype(np.float32)


def in_order(matrix, order):
    """The same matrix, otherwise in memory: with gaps, off any alignment, in steps of two."""
    if order == "F":
        return np.asfortranarray(matrix)
    if order == "C":
        return matrix.copy()
    step = 2 if order == "steps" else 1
    whole = np.full((matrix.shape[0] + 2, step * matrix.shape[1] + 3), np.nan, np.float32)
    inside = whole[1:-1, 1 : 1 + step * matrix.shape[1] : step]
    inside[:] = matrix
    return inside


@pytest.mark.parametrize("orders", ["CC", "CF", "FC", "FF", ("gaps", "steps"), ("steps", "gaps")])
@pytest.mark.parametrize(
    "shape", [(m, k, n) for m in SIZES for k, n in [(7, 33), (16, 1), (300, 100)]], ids=str
)
def test_multiply(simd_level, shape, orders):
    m, k, n = shape
    a, b = integers(m, k), integers(k, n, 1)
    expected = reference.matmul(a, b)
    a, b = in_order(a, orders[0]), in_order(b, orders[1])
    before = integers(m, n, 2)
    for update, sign, start in (("set", 1, 0), ("add", 1, before), ("subtract", -1, before)):
        out = before.copy()
        gemm.multiply_into(a, b, out, update)
        np.testing.assert_array_equal(out, start + sign * expected)


@pytest.mark.parametrize(
    "shape", [(144, 1024, 192), (150, 1030, 200), (3100, 5, 40), (30, 3, 3100), (289, 2050, 385)]
)
def test_multiply_beyond_each_block(every_setting, shape):
    m, k, n = shape
    a, b = integers(m, k), integers(k, n, 1)
    out = np.full((m, n), np.nan, np.float32)
    gemm.multiply_into(a, b, out)
    np.testing.assert_array_equal(out, reference.matmul(a, b))
    wide = np.ones((m, n))
    gemm.add_product(a, b, wide)
    np.testing.assert_array_equal(wide, 1 + reference.matmul(a, b))


@pytest.mark.parametrize("rows", [0, 1, 15, 1025])
@pytest.mark.parametrize("width", [*SIZES, 200, 385])
def test_gram(simd_level, rows, width):
    x = integers(rows, width)
    before = integers(width, width, 1).astype(np.float64)
    out = before.copy()
    gemm.add_upper_gram(x, out)
    upper = np.triu(np.ones((width, width), bool))
    np.testing.assert_array_equal(out[upper], (before + reference.gram(x))[upper])
    np.testing.assert_array_equal(out[~upper], before[~upper])
    expected = reference.mirror_upper(out)
    gemm.mirror_upper(out)
    np.testing.assert_array_equal(out, expected)


def test_a_wide_gram(every_setting):
    x = integers(20, 3200)
    out = np.zeros((3200, 3200))
    gemm.add_upper_gram(x, out)
    gemm.mirror_upper(out)
    np.testing.assert_array_equal(out, reference.gram(x))


@given(
    st.tuples(*[st.integers(1, 70)] * 3), st.sampled_from(["CC", "CF", "FC", "FF"]), st.integers(0)
)
@settings(max_examples=50, deadline=None)
def test_rounding(simd_level, shape, orders, seed):
    """As near as the terms and their number allow."""
    rng = np.random.default_rng(seed)
    m, k, n = shape
    a = in_order(rng.standard_normal((m, k), np.float32), orders[0])
    b = in_order(rng.standard_normal((k, n), np.float32), orders[1])
    bound = reference.matmul(np.abs(a), np.abs(b)) * (k + 1) * 2.0**-24
    out = np.empty((m, n), np.float32)
    gemm.multiply_into(a, b, out)
    assert (np.abs(out - reference.matmul(a, b)) <= bound).all()
    assert (np.abs(gemm.matmul(a, b) - reference.matmul(a, b)) <= bound).all()


def test_threads_and_order_in_memory_do_not_change_a_bit(simd_level):
    rng = np.random.default_rng(0)
    a, b = (
        rng.standard_normal((500, 1500), np.float32),
        rng.standard_normal((1500, 400), np.float32),
    )
    before, found = runtime.num_threads(), []
    for threads in (1, 2, 3):
        runtime.set_num_threads(threads)
        for order in "CF":
            out = np.empty((500, 400), np.float32)
            gemm.multiply_into(in_order(a, order), in_order(b, order), out)
            gram = np.zeros((400, 400))
            gemm.add_upper_gram(in_order(b, order), gram)
            found.append((out.tobytes(), gram.tobytes()))
    runtime.set_num_threads(before)
    assert len(set(found)) == 1


def test_a_gram_is_a_part_of_the_whole_product(simd_level):
    """So it is symmetric to the bit: which tiles are left out changes nothing."""
    x = np.random.default_rng(1).standard_normal((1100, 500), np.float32)
    whole, half = np.zeros((500, 500)), np.zeros((500, 500))
    gemm.add_product(x.T, x, whole)
    gemm.add_upper_gram(x, half)
    gemm.mirror_upper(half)
    np.testing.assert_array_equal(half, whole)
    np.testing.assert_array_equal(half, half.T)


def test_not_a_number_goes_where_it_belongs(simd_level):
    a, b = integers(40, 50), integers(50, 60)
    a[7, 3] = np.nan
    b[4, 9] = np.inf
    a[:, 4] = 0
    out = np.empty((40, 60), np.float32)
    gemm.multiply_into(a, b, out)
    expected = np.zeros((40, 60), bool)
    expected[7] = expected[:, 9] = True
    np.testing.assert_array_equal(np.isnan(out), expected)


@pytest.mark.parametrize(
    "shape", [(3, 40, 50), (40, 3, 50), (40, 50, 3), (40, 50, 60), (0, 20, 20)]
)
def test_what_others_call(simd_level, shape):
    m, k, n = shape
    a, b = integers(m, k), integers(k, n, 1)
    np.testing.assert_array_equal(gemm.matmul(a, b), reference.matmul(a, b))
    cross = np.ones((m, n))
    gemm.add_cross(np.ascontiguousarray(a.T), b, cross)
    np.testing.assert_array_equal(cross, 1 + reference.matmul(a, b))
    gram = np.zeros((k, k))
    gemm.add_gram(a, gram)
    gemm.mirror_upper(gram)
    np.testing.assert_array_equal(gram, reference.gram(a))


def test_arrays_that_do_not_fit(simd_level):
    a, b, out = integers(20, 30), integers(30, 40), np.zeros((20, 40), np.float32)
    with pytest.raises(ArgumentTypeError, match="float64"):
        gemm.matmul(a.astype(np.float64), b)
    with pytest.raises(ArgumentTypeError, match="float64"):
        gemm.add_cross(a.T, b, out)
    with pytest.raises(InvalidArgumentError, match=r"inner extents|shapes"):
        gemm.matmul(a, b[1:])
    with pytest.raises(InvalidArgumentError, match="extent 20"):
        gemm.multiply_into(a, b, out[1:])
    with pytest.raises(InvalidArgumentError, match="C-contiguous"):
        gemm.multiply_into(a, b, np.asfortranarray(out))
    with pytest.raises(InvalidArgumentError, match="forward strides"):
        gemm.multiply_into(a[::-1], b, out)
    with pytest.raises(InvalidArgumentError, match="shares memory"):
        gemm.multiply_into(out[:, :30], b, out)
    with pytest.raises(InvalidArgumentError, match="update"):
        gemm.multiply_into(a, b, out, "divide")
    with pytest.raises(InvalidArgumentError, match="Expected matrices"):
        gemm.multiply_into(a[None], b, out)
    with pytest.raises(InvalidArgumentError, match=r"extent|shape"):
        gemm.add_gram(a, np.zeros((20, 20)))
    frozen = np.zeros((30, 30))
    frozen.flags.writeable = False
    with pytest.raises(InvalidArgumentError, match="writeable"):
        gemm.mirror_upper(frozen)
    with pytest.raises(InvalidArgumentError, match="float64"):
        gemm.mirror_upper(out)
