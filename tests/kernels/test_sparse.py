from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur._kernels.native import sparse
from secateur._kernels.native.packing import CHUNK, index_dtype
from secateur._kernels.reference import sparse as reference
from secateur.errors import InvalidArgumentError

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
SHAPES = [
    *((1, n) for n in (0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65)),
    *((n, 1) for n in (0, 1, 65, CHUNK + 1)),
    (0, 0),
    (3, 5),
    (70, 33),
    (17, 4099),
    (2, CHUNK - 1),
    (3, CHUNK + 1),
    (1, 3 * CHUNK),
]

pytestmark = pytest.mark.usefixtures("every_setting")


def make(shape: tuple[int, int], dtype: Any, density: float) -> NDArray[Any]:
    rng = np.random.default_rng(shape)
    matrix = rng.standard_normal(shape).astype(dtype)
    matrix[rng.random(shape) >= density] = 0
    flat = matrix.reshape(-1)
    for place, value in enumerate((-0.0, np.nan, np.inf, -np.inf)):
        flat[place * 3 : place * 3 + 1] = value
    return matrix


def assert_same(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back_equals_the_oracle(shape: tuple[int, int], dtype: Any) -> None:
    for density in (0.0, 0.1, 0.6, 1.0):
        matrix = make(shape, dtype, density)
        data, indices, indptr = reference.dense_to_csr(matrix)
        dense = reference.csr_to_dense(data, indices, indptr, shape)
        for index in (np.int32, np.int64):
            got = sparse.dense_to_csr(matrix, index)
            assert_same(got[0], data)
            assert_same(got[1], indices.astype(index))
            assert_same(got[2], indptr.astype(index))
            assert_same(sparse.csr_to_dense(*got, shape), dense)
            out = np.full(shape, 7, dtype)
            assert sparse.csr_to_dense(*got, shape, out) is out
            assert_same(out, dense)


def test_a_large_matrix_is_written_around_the_cache_and_stays_right() -> None:
    # 32 MiB is where streaming stores begin; an odd offset takes them off their alignment.
    shape = (1031, 8209)
    matrix = make(shape, np.float32, 0.02)
    matrix[np.signbit(matrix) & (matrix == 0)] = 0
    room = np.full(matrix.size + 3, 7, np.float32)
    out = room[3:].reshape(shape)
    sparse.csr_to_dense(*sparse.dense_to_csr(matrix), shape, out)
    assert_same(out, matrix)
    assert room[:3].tolist() == [7, 7, 7]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ["even", "uneven", "full", "empty"])
def test_large_matrices_are_read_once_or_twice_with_the_same_result(kind: str, dtype: Any) -> None:
    rows, cols = 1300, 4001  # more than the 64 chunks from which on a sample is taken
    matrix = np.zeros((rows, cols), dtype)
    flat = matrix.reshape(-1)
    flat[::7] = 1 if kind == "even" else 0
    if kind == "uneven":  # between the samples, and so unforeseen
        for chunk in (1, 3, 5):
            flat[chunk * CHUNK : (chunk + 1) * CHUNK] = 2
    if kind == "full":
        flat[:] = 3
    got = sparse.dense_to_csr(matrix)
    foreseen = sparse._guess(matrix.view(f"u{matrix.itemsize}")) >= got[0].size
    assert foreseen == (kind != "uneven")
    assert got[1].dtype == got[2].dtype == np.int32
    for actual, expected in zip(got, reference.dense_to_csr(matrix), strict=True):
        assert_same(actual, expected.astype(actual.dtype))


@given(
    matrix=hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=40),
        elements=st.sampled_from([0.0, -0.0, 1.5, -2.0, np.nan]),
    )
)
@settings(max_examples=30, deadline=None)
def test_any_matrix_equals_the_oracle(matrix: NDArray[Any]) -> None:
    got = sparse.dense_to_csr(matrix)
    for actual, expected in zip(got, reference.dense_to_csr(matrix), strict=True):
        assert actual.tobytes() == expected.astype(actual.dtype).tobytes()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_indices_from_outside_are_taken_or_refused_and_nothing_else_is_written(
    data: st.DataObject,
) -> None:
    rows, cols, entries = (data.draw(st.integers(0, 5)) for _ in range(3))
    index = data.draw(st.sampled_from([np.int32, np.int64]))
    near = st.integers(-2, 7) | st.sampled_from([np.iinfo(index).min, np.iinfo(index).max])
    indices = np.array(data.draw(st.lists(near, min_size=entries, max_size=entries)), index)
    indptr = np.array(data.draw(st.lists(near, min_size=rows + 1, max_size=rows + 1)), index)
    good = indptr[0] == 0 and (np.diff(indptr.astype(object)) >= 0).all() and indptr[-1] <= entries
    if good:
        for row in range(rows):
            mine = indices[indptr[row] : indptr[row + 1]].astype(object)
            good = good and all((mine >= 0) & (mine < cols)) and all(np.diff(mine) > 0)
    values = np.arange(1, entries + 1, dtype=np.float32)
    room = np.full(rows * cols + 20, 7, np.float32)
    out = room[10 : 10 + rows * cols].reshape(rows, cols)
    if good:
        sparse.csr_to_dense(values, indices, indptr, (rows, cols), out)
        assert_same(out, reference.csr_to_dense(values, indices, indptr, (rows, cols)))
    else:
        with pytest.raises(InvalidArgumentError, match="Not a CSR matrix"):
            sparse.csr_to_dense(values, indices, indptr, (rows, cols), out)
    assert (room[:10] == 7).all()
    assert (room[10 + rows * cols :] == 7).all()


@pytest.mark.parametrize("bad", [-1, 5 * CHUNK, 2**31 - 1])
def test_a_bad_index_in_a_row_that_is_cut_between_tasks_is_found(bad: int) -> None:
    cols = 5 * CHUNK
    for place in range(0, 40, 3):
        indices = np.linspace(0, cols - 1, 40).astype(np.int32)
        indices[place] = bad
        with pytest.raises(InvalidArgumentError, match="strictly increase"):
            sparse.csr_to_dense(
                np.ones(40, np.float32), indices, np.array([0, 40], np.int32), (1, cols)
            )


def test_entries_out_of_order_in_a_row_that_is_cut_between_tasks_are_found() -> None:
    cols = 5 * CHUNK
    for place in range(0, 39, 3):
        indices = np.linspace(0, cols - 1, 40).astype(np.int32)
        indices[[place, place + 1]] = indices[[place + 1, place]]
        with pytest.raises(InvalidArgumentError, match="strictly increase"):
            sparse.csr_to_dense(
                np.ones(40, np.float32), indices, np.array([0, 40], np.int32), (1, cols)
            )


@pytest.mark.parametrize(
    ("rows", "cols", "nonzeros", "expected"),
    [
        (10, 10, 10, np.int32),
        (1, 2**31 - 1, 5, np.int32),
        (1, 2**31, 5, np.int64),
        (2**31, 1, 5, np.int64),
        (2**20, 2**20, 2**31, np.int64),
    ],
)
def test_wide_indices_are_used_where_they_are_needed(
    rows: int, cols: int, nonzeros: int, expected: Any
) -> None:
    assert index_dtype(rows, cols, nonzeros) == expected


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((2, 2, 2)), np.zeros((2, 2), np.uint8)])
def test_what_is_no_matrix_of_floats_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="matrices"):
        sparse.dense_to_csr(array)
