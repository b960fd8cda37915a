from __future__ import annotations

import subprocess
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from numpy.typing import NDArray

from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.patterns import Block
from secateur.sparse import to_dense, to_sparse


@pytest.fixture
def matrix() -> NDArray[np.float32]:
    rng = np.random.default_rng(3)
    dense = rng.standard_normal((60, 84)).astype(np.float32)
    dense[rng.random(dense.shape) < 0.8] = 0
    return dense


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csr_is_what_scipy_makes(matrix: NDArray[Any], dtype: Any) -> None:
    ours, theirs = to_sparse(matrix.astype(dtype)), scipy.sparse.csr_array(matrix.astype(dtype))
    assert isinstance(ours, scipy.sparse.csr_array)
    assert ours.dtype == dtype
    assert ours.indices.dtype == ours.indptr.dtype == np.int32
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.has_canonical_format
    assert np.array_equal(to_dense(ours), matrix.astype(dtype))


def test_negative_zero_is_zero_and_nan_is_not() -> None:
    dense = np.array([[0.0, -0.0], [np.nan, 1.0]])
    ours = to_sparse(dense)
    assert ours.nnz == 2
    assert np.array_equal(to_dense(ours), dense, equal_nan=True)


def test_strided_and_byte_swapped_matrices_are_taken(matrix: NDArray[Any]) -> None:
    for view in (matrix.T, matrix[::2, ::-3], matrix.astype(">f4"), np.asfortranarray(matrix)):
        assert np.array_equal(to_dense(to_sparse(view)), view)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_types_are_refused_until_told_what_to_hold_them_as(
    matrix: NDArray[Any], dtype: Any
) -> None:
    half = matrix.astype(dtype)
    with pytest.raises(InvalidArgumentError, match="pass dtype='float32'"):
        to_sparse(half)
    held = to_sparse(half, dtype="float32")
    assert held.dtype == np.float32
    assert np.array_equal(to_dense(held), half.astype(np.float32))


@pytest.mark.parametrize("blocksize", [(4, 7), (1, 1), Block(3, 2), "block:60x84"])
def test_bsr_holds_the_blocks_that_are_not_zero(matrix: NDArray[Any], blocksize: Any) -> None:
    matrix[:12] = 0
    ours = to_sparse(matrix, "bsr", blocksize=blocksize)
    rows, cols = ours.blocksize
    assert isinstance(ours, scipy.sparse.bsr_array)
    theirs = scipy.sparse.csr_array(matrix).tobsr((rows, cols))
    theirs.sort_indices()
    assert np.array_equal(ours.indices, theirs.indices)
    assert np.array_equal(ours.indptr, theirs.indptr)
    assert np.array_equal(ours.data, theirs.data)
    assert np.array_equal(to_dense(ours), matrix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "csc"}, "'csr' or 'bsr'"),
        ({"format": "bsr"}, "needs the size of its blocks"),
        ({"format": "bsr", "blocksize": (7, 7)}, "blocksize that divides it"),
        ({"format": "bsr", "blocksize": (0, 2)}, "needs the size"),
        ({"format": "bsr", "blocksize": (2.0, 2)}, "needs the size"),
        ({"format": "bsr", "blocksize": "2:4"}, "must be a block"),
        ({"blocksize": (2, 2)}, "csr_array has no blocks"),
        ({"dtype": np.int32}, "float32 and float64"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    matrix: NDArray[Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        to_sparse(matrix, **arguments)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_only_matrices_are_taken(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match="reshape"):
        to_sparse(np.zeros(shape))


@pytest.mark.parametrize("value", [[[1.0]], np.ma.masked_array([[1.0]]), None])
def test_only_arrays_are_taken(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="NumPy array"):
        to_sparse(value)
    with pytest.raises(ArgumentTypeError, match="sparse array"):
        to_dense(value)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_empty_matrices_come_back(shape: tuple[int, int]) -> None:
    assert to_dense(to_sparse(np.zeros(shape))).shape == shape


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
def test_every_scipy_format_becomes_dense(matrix: NDArray[Any], format: str) -> None:
    matrix = matrix[:40, :44]
    sparse = scipy.sparse.csr_array(matrix).asformat(format)
    out = np.full(matrix.shape, 7, np.float32)
    assert np.array_equal(to_dense(sparse), matrix)
    assert to_dense(sparse, out=out) is out
    assert np.array_equal(out, matrix)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.complex64, np.bool_])
def test_other_dtypes_become_dense(matrix: NDArray[Any], dtype: Any) -> None:
    dense = (matrix * 10).astype(dtype)
    assert np.array_equal(to_dense(scipy.sparse.csr_array(dense)), dense)


def test_unsorted_and_repeated_entries_are_taken_as_scipy_does() -> None:
    sparse = scipy.sparse.csr_array(
        (np.array([1.0, 2.0, 4.0]), np.array([2, 0, 2]), np.array([0, 3])), shape=(1, 3)
    )
    before = sparse.indices.copy()
    assert to_dense(sparse).tolist() == [[2.0, 0.0, 5.0]]
    out = np.full((1, 3), 9.0)
    assert to_dense(sparse, out=out).tolist() == [[2.0, 0.0, 5.0]]
    assert np.array_equal(sparse.indices, before)


@pytest.mark.parametrize("bad", [-1, 3, 2**31 - 1])
def test_indices_out_of_range_are_an_error(bad: int) -> None:
    sparse = scipy.sparse.csr_array(np.eye(3))
    sparse.indices[1] = bad
    with pytest.raises(InvalidArgumentError, match="not sound"):
        to_dense(sparse)


def test_a_bad_indptr_is_an_error() -> None:
    sparse = scipy.sparse.csr_array(np.eye(3))
    sparse.indptr[1] = 100
    with pytest.raises(InvalidArgumentError, match="not sound"):
        to_dense(sparse)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((3, 4)),
        np.zeros((3, 3), np.float32),
        np.zeros((3, 3)).T[::1],
        np.zeros((3, 6))[:, ::2],
        [[0.0] * 3] * 3,
    ],
)
def test_an_output_that_does_not_fit_is_refused(out: Any) -> None:
    if isinstance(out, np.ndarray) and out.flags.c_contiguous and out.shape == (3, 3):
        out.flags.writeable = False
    with pytest.raises(InvalidArgumentError, match="out must be"):
        to_dense(scipy.sparse.csr_array(np.eye(3)), out=out)


def test_scipy_is_imported_only_when_it_is_needed() -> None:
    code = (
        "import sys, numpy as np; from secateur.sparse import is_sparse; "
        "assert not is_sparse(np.zeros(3)); assert 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
