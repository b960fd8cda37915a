import functools
import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secateur import _core
from secateur._kernels.native import saliency as native
from secateur._kernels.reference import saliency as reference
from secateur.errors import InvalidArgumentError, NonFiniteError

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SIZES = [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65]
SHAPES = [(3, size) for size in SIZES] + [(size, 5) for size in SIZES]
BLOCKS = [(1, 1), (4, 1), (1, 4), (4, 4), (16, 1), (2, 8), (3, 5), (1000, 1), (1, 1000)]


def random_matrix(shape, dtype, order="C"):
    values = np.random.default_rng(0).normal(size=shape)
    return np.array(values.astype(dtype), order=order)


@functools.cache
def expected(kernel, shape, dtype, *args):
    """The oracle's answer. It depends on neither level, threads nor memory order."""
    args = [factors(arg[0], arg[1]) if isinstance(arg, tuple) else arg for arg in args]
    return getattr(reference, kernel)(random_matrix(shape, dtype), *args)


def factors(size, seed):
    return np.random.default_rng(seed).random(size)


def assert_same_bits(result, expected):
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.usefixtures("simd_level", "num_threads")
@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_sums(dtype, memory):
    for shape in [*SHAPES, (70, 300), (2, 20_000), (20_000, 2)]:
        matrix = random_matrix(shape, dtype, memory)
        for axis in (0, 1):
            plain = native.squared_sums(matrix, axis)
            assert_same_bits(plain, expected("squared_sums", shape, dtype, axis))
            weights = (shape[axis], 1)
            weighted = native.squared_sums(matrix, axis, factors(*weights))
            assert_same_bits(weighted, expected("squared_sums", shape, dtype, axis, weights))


@pytest.mark.usefixtures("simd_level", "num_threads")
@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_scaled_magnitude(dtype, memory):
    for shape in [*SHAPES, (70, 5000)]:
        matrix = random_matrix(shape, dtype, memory)
        for row, col, combine in itertools.product(
            (None, (shape[0], 1)), (None, (shape[1], 2)), ("product", "root_sum")
        ):
            scales = [None if scale is None else factors(*scale) for scale in (row, col)]
            result = native.scaled_magnitude(matrix, *scales, combine)
            assert result.flags.c_contiguous == matrix.flags.c_contiguous
            answer = expected("scaled_magnitude", shape, dtype, row, col, combine)
            assert_same_bits(result, answer)


@pytest.mark.usefixtures("simd_level", "num_threads")
@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_block_scores(dtype, memory):
    for shape in [*SHAPES, (35, 70)]:
        matrix = random_matrix(shape, dtype, memory)
        for rows, cols in BLOCKS:
            result = native.block_scores(matrix, rows, cols)
            assert result.flags.c_contiguous
            assert_same_bits(result, expected("block_scores", shape, dtype, rows, cols))


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("memory", ["C", "F"])
def test_block_scores_of_many_tiles(num_threads, memory):
    matrix = random_matrix((300, 530), np.float32, memory)
    for rows, cols in [(4, 1), (1, 4), (200, 300)]:
        for norm in ("l1", "l2"):
            answer = expected("block_scores", matrix.shape, np.float32, rows, cols, norm)
            assert_same_bits(native.block_scores(matrix, rows, cols, norm), answer)


finite_matrices = st.sampled_from([np.float16, np.float32]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=30),
        elements=st.floats(-1000, 1000, width=16),
    )
)


@given(
    matrix=finite_matrices,
    rows=st.integers(1, 40),
    cols=st.integers(1, 40),
    norm=st.sampled_from(["l1", "l2"]),
    memory=st.sampled_from(["C", "F"]),
)
def test_any_block_of_any_matrix(matrix, rows, cols, norm, memory):
    matrix = np.array(matrix, order=memory)
    answer = reference.block_scores(matrix, rows, cols, norm)
    assert_same_bits(native.block_scores(matrix, rows, cols, norm), answer)


@given(matrix=finite_matrices, axis=st.sampled_from([0, 1]))
def test_sums_do_not_depend_on_the_memory_order(matrix, axis):
    sums = native.squared_sums(matrix, axis)
    assert_same_bits(native.squared_sums(np.asfortranarray(matrix), axis), sums)
    plain = np.square(matrix, dtype=np.float64).sum(axis=axis)
    np.testing.assert_allclose(sums, plain, rtol=1e-12)


@pytest.mark.usefixtures("simd_level")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_non_finite_weights_are_found(dtype, memory, bad):
    for place in [(0, 0), (16, 64), (8, 33)]:
        matrix = random_matrix((17, 65), dtype, memory)
        assert native.all_finite(matrix)
        matrix[place] = bad
        assert not native.all_finite(matrix)
        for call in (
            lambda m: native.squared_sums(m, 0),
            lambda m: native.squared_sums(m, 1),
            native.scaled_magnitude,
            lambda m: native.block_scores(m, 4, 4),
        ):
            with pytest.raises(NonFiniteError, match="1 of 1105"):
                call(matrix)


@pytest.mark.usefixtures("simd_level")
def test_overflow_is_an_error_of_its_own():
    huge = np.full((4, 20), 1e200)
    with pytest.raises(NonFiniteError, match="although the matrix is finite"):
        native.squared_sums(huge, 0)
    large = np.full((4, 20), 3e38, np.float32)
    with pytest.raises(NonFiniteError, match="although the matrix is finite"):
        native.block_scores(large, 2, 1)
    with pytest.raises(NonFiniteError, match="although the matrix is finite"):
        native.scaled_magnitude(large, np.full(4, 2.0))


@pytest.mark.usefixtures("simd_level")
def test_every_half_is_widened_exactly():
    for dtype in (np.float16, ml_dtypes.bfloat16):
        values = np.arange(1 << 16, dtype=np.uint16).view(dtype)
        with np.errstate(invalid="ignore"):
            finite = values[np.isfinite(values)].reshape(1, -1)
        assert_same_bits(native.scaled_magnitude(finite), np.abs(finite.astype(np.float32)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: native.squared_sums(m, 2), "axis"),
        (lambda m: native.squared_sums(m, 0, np.ones(3)), "weights"),
        (lambda m: native.squared_sums(m, 0, np.ones(2, np.float32)), "float64"),
        (lambda m: native.scaled_magnitude(m, np.ones(3)), "row_scale"),
        (lambda m: native.scaled_magnitude(m, None, np.ones(6)[::2]), "col_scale"),
        (lambda m: native.scaled_magnitude(m, combine="sum"), "combine"),
        (lambda m: native.block_scores(m, 0, 1), "at least 1"),
        (lambda m: native.block_scores(m, 1, 1, "max"), "norm"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call(np.ones((2, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, o: _core.all_finite(m, 4), "dtype"),
        (lambda m, o: _core.all_finite(m, 0), "bytes per item"),
        (lambda m, o: _core.all_finite(m[:, ::2], 2), "C-contiguous"),
        (lambda m, o: _core.squared_sums(m, 2, True, None, np.empty(3)), "extent 2"),
        (lambda m, o: _core.scaled_magnitude(m, 2, False, None, None, False, o.T), "contiguous"),
        (lambda m, o: _core.block_scores(m, 2, False, 1, 1, False, o[:1]), "extent 2"),
    ],
)
def test_the_core_checks_what_it_is_given(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((2, 3), np.uint32), np.empty((2, 3), np.float32))


def test_the_core_does_not_write_to_what_is_read_only():
    out = np.zeros((2, 3), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        _core.scaled_magnitude(np.ones((2, 3), np.uint32), 2, False, None, None, False, out)
