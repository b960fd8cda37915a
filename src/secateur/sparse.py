"""Dense matrices to SciPy sparse arrays and back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secateur._kernels.native import sparse as kernels
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.patterns import Block, parse_pattern

if TYPE_CHECKING:
    import scipy.sparse

SparseFormat: TypeAlias = Literal["csr", "bsr"]

_HALF = ("float16", "bfloat16")
_FULL = ("float32", "float64")


def is_sparse(value: object) -> bool:
    """Whether a value is a SciPy sparse array or matrix. Does not import SciPy to find out."""
    if "scipy.sparse" not in sys.modules:
        return False
    import scipy.sparse

    return bool(scipy.sparse.issparse(value))


def csr_from_parts(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], shape: tuple[int, int]
) -> scipy.sparse.csr_array:
    """A `csr_array` around arrays that the kernels made, without a copy."""
    import scipy.sparse

    matrix = scipy.sparse.csr_array((data, indices, indptr), shape=shape)
    # SciPy would go through all indices once more to find this out.
    matrix.has_canonical_format = True
    return matrix


def _checked_matrix(array: object, dtype: DTypeLike | None) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise ArgumentTypeError(
            f"to_sparse takes a NumPy array, got {type(array).__name__}; "
            "numpy.asarray makes one of most things."
        )
    if array.ndim != 2:
        raise InvalidArgumentError(
            f"to_sparse takes matrices, got shape {array.shape}; array.reshape(-1, n) makes one."
        )
    matrix = array if dtype is None else array.astype(dtype, copy=False)
    if matrix.dtype.name in _HALF:
        raise InvalidArgumentError(
            f"SciPy's sparse arrays cannot hold {matrix.dtype.name}; pass dtype='float32' to hold "
            "it as float32 (exact, twice the bytes), or keep it small in a file with save_arrays."
        )
    if matrix.dtype.name not in _FULL:
        raise InvalidArgumentError(
            f"to_sparse takes float32 and float64, got {matrix.dtype}; pass dtype='float32' or "
            "dtype='float64' to convert."
        )
    # A Keras kernel's (out, in) view is strided: this is the one place where it is copied.
    return np.asarray(matrix, matrix.dtype.newbyteorder("="), order="C")


def _block_size(blocksize: tuple[int, int] | Block | str | None) -> tuple[int, int]:
    if isinstance(blocksize, str):
        pattern = parse_pattern(blocksize)
        if not isinstance(pattern, Block):
            raise InvalidArgumentError(f"blocksize must be a block, got pattern {blocksize!r}.")
        blocksize = pattern
    if isinstance(blocksize, Block):
        return blocksize.rows, blocksize.cols
    if (
        not isinstance(blocksize, tuple)
        or len(blocksize) != 2
        or not all(isinstance(n, int) and n >= 1 for n in blocksize)
    ):
        raise InvalidArgumentError(
            "format='bsr' needs the size of its blocks, blocksize=(rows, cols) or a Block such as "
            f"'block:4x1'; got {blocksize!r}."
        )
    return blocksize


def _to_bsr(matrix: NDArray[Any], block: tuple[int, int]) -> scipy.sparse.bsr_array:
    import scipy.sparse

    rows, cols = block
    if matrix.shape[0] % rows or matrix.shape[1] % cols:
        raise InvalidArgumentError(
            f"A matrix of shape {matrix.shape} is not made of blocks of {rows}x{cols}, as SciPy's "
            "bsr_array must be; choose a blocksize that divides it, pad it, or use format='csr'."
        )
    # (bands, rows, blocks, cols) -> which blocks hold a non-zero
    tiles = matrix.reshape(matrix.shape[0] // rows, rows, matrix.shape[1] // cols, cols)
    kept = (tiles != 0).any(axis=(1, 3))
    _, indices, indptr = kernels.dense_to_csr(kept.astype(np.float32))
    data = tiles.transpose(0, 2, 1, 3)[kept]
    result = scipy.sparse.bsr_array(
        (np.ascontiguousarray(data), indices, indptr), shape=matrix.shape, blocksize=block
    )
    result.has_sorted_indices = True
    return result


def to_sparse(
    array: NDArray[Any],
    format: SparseFormat = "csr",
    *,
    blocksize: tuple[int, int] | Block | str | None = None,
    dtype: DTypeLike | None = None,
) -> Any:
    """The non-zeros of a matrix as a SciPy sparse array. -0.0 counts as zero, NaN does not.

    Args:
        array: Shape (rows, cols), float32 or float64. C-contiguous ones are read in place; of
            others, such as a transposed view, a copy is made first.
        format: "csr", or "bsr" for matrices pruned in blocks.
        blocksize: For "bsr": (rows, cols) of a block, a `Block` or its string form. It must divide
            the shape; a block is stored whole if it has any non-zero.
        dtype: Convert to this first. SciPy's sparse arrays have no float16 and bfloat16: they are
            refused unless this says what to hold them as.

    Returns:
        `scipy.sparse.csr_array` or `scipy.sparse.bsr_array`; indices are sorted, int32 where they
        can be.

    Raises:
        ArgumentTypeError: Not a NumPy array.
        InvalidArgumentError: Not a matrix, a dtype that cannot be held, or a blocksize that does
            not fit.

    Example:
        >>> to_sparse(np.array([[0, 2.0], [3, 0]])).indices.tolist()
        [1, 0]
        >>> to_sparse(np.eye(4), "bsr", blocksize="block:2x2").data.shape
        (2, 2, 2)
    """
    if format not in ("csr", "bsr"):
        raise InvalidArgumentError(f"format must be 'csr' or 'bsr', got {format!r}.")
    if format == "csr" and blocksize is not None:
        raise InvalidArgumentError("blocksize is for format='bsr'; a csr_array has no blocks.")
    block = _block_size(blocksize) if format == "bsr" else None
    matrix = _checked_matrix(array, dtype)
    if block is not None:
        return _to_bsr(matrix, block)
    return csr_from_parts(*kernels.dense_to_csr(matrix), (matrix.shape[0], matrix.shape[1]))


def _checked_out(out: object, sparse: Any) -> None:
    if not isinstance(out, np.ndarray) or out.shape != sparse.shape or out.dtype != sparse.dtype:
        raise InvalidArgumentError(
            f"out must be a NumPy array of shape {sparse.shape} and dtype {sparse.dtype}, got "
            f"{getattr(out, 'shape', type(out).__name__)} and {getattr(out, 'dtype', None)}."
        )
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise InvalidArgumentError("out must be C-contiguous and writeable.")


def _csr_to_dense(matrix: Any, out: NDArray[Any] | None) -> NDArray[Any]:
    def run(csr: Any) -> NDArray[Any]:
        return kernels.csr_to_dense(csr.data, csr.indices, csr.indptr, csr.shape, out)

    try:
        return run(matrix)
    except InvalidArgumentError:
        # Unsorted and repeated entries are legal in SciPy, rare, and not worth a kernel of their
        # own. SciPy's own code trusts indices blindly, so it comes after the check.
        matrix.check_format(full_check=True)
        tidy = matrix.copy()
        tidy.has_canonical_format = False
        tidy.has_sorted_indices = False
        tidy.sum_duplicates()
        return run(tidy)


def to_dense(sparse: Any, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """The dense matrix that a SciPy sparse array stands for.

    Repeated entries are summed, as SciPy does.

    Args:
        sparse: Any SciPy sparse array or matrix. float32 and float64 in CSR with sorted indices
            take the fast way; other formats and dtypes are converted by SciPy.
        out: Write here, C-contiguous, of the same shape and dtype. For large matrices about twice
            as fast as new memory, which the system has to clear first.

    Raises:
        ArgumentTypeError: Not a SciPy sparse array.
        InvalidArgumentError: Its index arrays contradict each other or its shape, or `out` does not
            fit.

    Example:
        >>> to_dense(to_sparse(np.array([[0, 2.0], [3, 0]])))
        array([[0., 2.],
               [3., 0.]])
    """
    if not is_sparse(sparse):
        raise ArgumentTypeError(
            f"to_dense takes a SciPy sparse array, got {type(sparse).__name__}."
        )
    if out is not None:
        _checked_out(out, sparse)
    if sparse.ndim != 2 or sparse.dtype.name not in _FULL:
        return np.asarray(sparse.toarray(out=out))
    try:
        return _csr_to_dense(sparse.tocsr(), out)
    except ValueError as error:
        raise InvalidArgumentError(f"The sparse array is not sound: {error}") from error
