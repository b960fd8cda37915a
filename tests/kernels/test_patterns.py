import functools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from secateur import _core
from secateur._kernels.native import patterns as native
from secateur._kernels.reference import patterns as reference
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SIZES = [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65]


def tied_matrix(shape, dtype, order="C", seed=0):
    """Few different magnitudes, both signs, both zeros."""
    values = np.random.default_rng(seed).integers(-5, 6, shape).astype(np.float64) / 2
    values[values == 0] = -0.0
    values.flat[::3] = np.abs(values.flat[::3])
    return np.array(values.astype(dtype), order=order)


@functools.cache
def expected_mask(shape, dtype, seed, n, m, order):
    """The oracle's answer. It depends on neither level, threads nor memory order."""
    return reference.nm_mask(tied_matrix(shape, dtype, seed=seed), n, m, order)


def check_mask(shape, dtype, memory, n, m, order, seed=0):
    mask = native.nm_mask(tied_matrix(shape, dtype, memory, seed), n, m, order)
    np.testing.assert_array_equal(mask, expected_mask(shape, dtype, seed, n, m, order))


def assert_same_mask(matrix, n, m, order):
    mask = native.nm_mask(matrix, n, m, order)
    assert mask.dtype == np.bool_
    assert mask.flags.c_contiguous == matrix.flags.c_contiguous
    assert mask.flags.f_contiguous == matrix.flags.f_contiguous
    np.testing.assert_array_equal(mask, reference.nm_mask(matrix, n, m, order))


@pytest.mark.usefixtures("num_threads")
@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nm_mask_at_tail_sizes(simd_level, dtype, memory):
    for size in SIZES:
        for n, m in [(1, 2), (2, 4), (1, 4), (4, 8), (3, 7), (8, 16), (16, 32)]:
            for shape in [(3, size), (size, 5)]:
                check_mask(shape, dtype, memory, n, m, "magnitude")


@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nm_mask_for_every_n_and_m(simd_level, dtype, memory):
    for m in range(1, 33):
        for n in range(m + 1):
            order = "magnitude" if n % 2 else "value"
            check_mask((2, 2 * m + 1), dtype, memory, n, m, order, seed=m)


@pytest.mark.parametrize("memory", ["C", "F"])
def test_nm_mask_of_many_tasks(simd_level, num_threads, memory):
    for n, m in [(2, 4), (5, 9), (20, 31)]:
        check_mask((70, 5000), np.float32, memory, n, m, "value")


def test_equal_weights_keep_the_later(simd_level):
    mask = native.nm_mask(np.zeros((1, 6), np.float32), 1, 4)
    np.testing.assert_array_equal(mask, [[False, False, False, True, False, True]])


def test_value_order_keeps_positive_and_equal_zeros(simd_level):
    matrix = np.array([[0.0, -0.0, -5.0, -1.0]])
    np.testing.assert_array_equal(
        native.nm_mask(matrix, 1, 4, "value"), [[False, True, False, False]]
    )


@given(
    matrix=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40),
        elements=st.floats(-4, 4, width=16),
    ),
    m=st.integers(1, 32),
    share=st.floats(0, 1),
    order=st.sampled_from(["magnitude", "value"]),
    memory=st.sampled_from(["C", "F"]),
)
def test_nm_mask_keeps_n_of_every_group(matrix, m, share, order, memory):
    n = round(share * m)
    matrix = np.array(matrix, order=memory)
    assert_same_mask(matrix, n, m, order)
    mask = native.nm_mask(matrix, n, m, order)
    for start in range(0, matrix.shape[1], m):
        group = mask[:, start : start + m]
        assert (group.sum(axis=1) == min(n, group.shape[1])).all()


@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nm_mask_refuses_what_cannot_be_ranked(simd_level, dtype, memory):
    for place in [(0, 0), (6, 40)]:
        for m in (4, 32):
            matrix = tied_matrix((7, 41), dtype, memory)
            matrix[place] = np.nan
            with pytest.raises(NonFiniteError, match="1 of 287"):
                native.nm_mask(matrix, 2, m, "value")
            matrix[place] = -np.inf
            native.nm_mask(matrix, 2, m, "value")
            with pytest.raises(NonFiniteError, match="1 of 287"):
                native.nm_mask(matrix, 2, m)


@pytest.mark.parametrize("memory", ["C", "F"])
def test_nm_mask_writes_to_out(memory):
    matrix = tied_matrix((4, 8), np.float32, memory)
    out = np.ones((4, 8), bool, order=memory)
    mask = native.nm_mask(matrix, 0, 4, out=out)
    assert np.shares_memory(mask, out)
    assert not out.any()


@pytest.mark.parametrize(
    "out",
    [
        np.ones((4, 8), np.uint8),
        np.ones((8, 4), bool),
        np.ones((4, 8), bool, order="F"),
        np.ones((4, 16), bool)[:, ::2],
        np.broadcast_to(np.True_, (4, 8)),
    ],
)
def test_nm_mask_refuses_an_out_that_does_not_fit(out):
    with pytest.raises(InvalidArgumentError, match="out must be"):
        native.nm_mask(np.ones((4, 8), np.float32), 2, 4, out=out)


@pytest.mark.parametrize(("n", "m"), [(-1, 4), (5, 4), (0, 0), (1, 33)])
def test_nm_mask_refuses_bad_groups(n, m):
    with pytest.raises(InvalidArgumentError, match="n <= m"):
        native.nm_mask(np.ones((4, 8)), n, m)
    with pytest.raises(ValueError, match="n <= m"):
        _core.nm_mask(np.ones((4, 8), np.uint64), 3, False, n, m, False, np.ones((4, 8), bool))


def test_nm_mask_refuses_an_unknown_order():
    with pytest.raises(InvalidArgumentError, match="'size'"):
        native.nm_mask(np.ones((4, 8)), 2, 4, "size")


@pytest.mark.parametrize("matrix", [np.ones((4, 8), np.int32), [[1.0]], np.ones((2, 2), complex)])
def test_other_types_are_refused(matrix):
    with pytest.raises(ArgumentTypeError, match="float32"):
        native.nm_mask(matrix, 2, 4)


@pytest.mark.parametrize(
    "matrix", [np.ones((4, 16))[:, ::2], np.ones(4), np.ones((2, 2), ">f4"), np.ones((2, 2, 2))]
)
def test_other_layouts_are_refused(matrix):
    with pytest.raises(InvalidArgumentError, match=r"2-D|contiguous"):
        native.nm_mask(matrix, 2, 4)


BLOCKS = [(1, 1), (4, 1), (1, 4), (4, 4), (16, 1), (1, 16), (2, 8), (3, 5), (100, 100)]


@pytest.mark.parametrize("memory", ["C", "F"])
@pytest.mark.parametrize("block", BLOCKS)
def test_expand_block_mask(simd_level, num_threads, block, memory):
    rows, cols = block
    for shape in [(3, size) for size in SIZES] + [(size, 5) for size in SIZES] + [(530, 270)]:
        grid = (-(-shape[0] // rows), -(-shape[1] // cols))
        blocks = np.random.default_rng(0).random(grid) < 0.5
        mask = native.expand_block_mask(blocks, shape, rows, cols, memory)
        assert mask.flags[f"{memory}_CONTIGUOUS"]
        expected = reference.expand_block_mask(blocks, shape, rows, cols)
        np.testing.assert_array_equal(mask, expected)


def test_expand_block_mask_refuses_what_does_not_fit():
    blocks = np.ones((2, 2), bool)
    with pytest.raises(InvalidArgumentError, match=r"\(3, 2\)"):
        native.expand_block_mask(blocks, (5, 4), 2, 2)
    with pytest.raises(InvalidArgumentError, match="int8"):
        native.expand_block_mask(blocks.astype(np.int8), (4, 4), 2, 2)
    with pytest.raises(InvalidArgumentError, match="order"):
        native.expand_block_mask(blocks, (4, 4), 2, 2, "A")
    with pytest.raises(InvalidArgumentError, match="rows"):
        native.expand_block_mask(blocks, (4, 4), 0, 2)
    with pytest.raises(InvalidArgumentError, match="ascontiguousarray"):
        native.expand_block_mask(np.ones((2, 4), bool)[:, ::2], (4, 4), 2, 2)
    with pytest.raises(ValueError, match="extent 2"):
        _core.expand_blocks(np.ones((3, 2), bool), False, 2, 2, np.ones((4, 4), bool))
