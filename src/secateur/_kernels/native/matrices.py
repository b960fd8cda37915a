"""How a 2-D array is handed to a kernel: its bits, as they lie in memory, never copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError

_DTYPE_CODES = {"float16": 0, "bfloat16": 1, "float32": 2, "float64": 3}
_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True)
class MemoryMatrix:
    """An (out, in) matrix as a kernel sees it.

    Attributes:
        bits: C-contiguous unsigned integers; (in, out) if `transposed`, else (out, in).
        dtype: The kernels' number for the floating-point type.
        transposed: True if the matrix lies in Fortran order.
        score_dtype: float64 for float64, else float32: what saliencies of it are made of.
    """

    bits: NDArray[Any]
    dtype: int
    transposed: bool
    score_dtype: type[np.float32] | type[np.float64]

    def empty(self, dtype: Any) -> NDArray[Any]:
        """A new array of the same memory layout, C-contiguous."""
        return np.empty(self.bits.shape, dtype)

    def as_matrix(self, memory: NDArray[Any]) -> NDArray[Any]:
        """The (out, in) view of an array that has this memory layout."""
        return memory.T if self.transposed else memory


def memory_matrix(matrix: NDArray[Any]) -> MemoryMatrix:
    """See the bits of a 2-D float array in memory order.

    Args:
        matrix: (out, in), C- or Fortran-contiguous, float16, bfloat16, float32 or float64.

    Raises:
        ArgumentTypeError: Not a NumPy array of one of these types.
        InvalidArgumentError: Not 2-D, not contiguous, or not aligned.

    Example:
        >>> memory_matrix(np.zeros((2, 3), np.float32, order="F")).bits.shape
        (3, 2)
    """
    if not isinstance(matrix, np.ndarray) or matrix.dtype.name not in _DTYPE_CODES:
        came = getattr(matrix, "dtype", type(matrix).__name__)
        raise ArgumentTypeError(
            f"Expected a NumPy array of {', '.join(_DTYPE_CODES)}, got {came}. "
            "Convert it with .astype(np.float32)."
        )
    if matrix.ndim != 2:
        raise InvalidArgumentError(
            f"Expected a 2-D (out, in) matrix, got shape {matrix.shape}. Reshape it first."
        )
    transposed = not matrix.flags.c_contiguous
    memory = matrix.T if transposed else matrix
    if not memory.flags.c_contiguous or not memory.flags.aligned or not memory.dtype.isnative:
        raise InvalidArgumentError(
            "Expected a contiguous, aligned matrix in C or Fortran order and native byte order, "
            f"got shape {matrix.shape}, strides {matrix.strides}, dtype {matrix.dtype!r}. "
            "Pass np.ascontiguousarray(matrix)."
        )
    return MemoryMatrix(
        bits=memory.view(_BITS[memory.dtype.itemsize]),
        dtype=_DTYPE_CODES[memory.dtype.name],
        transposed=transposed,
        score_dtype=np.float64 if memory.dtype.itemsize == 8 else np.float32,
    )


def count_non_finite(array: NDArray[Any]) -> int:
    """How many elements are NaN or infinite.

    Example:
        >>> count_non_finite(np.array([1.0, np.nan]))
        1
    """
    with np.errstate(invalid="ignore"):  # bfloat16's isfinite complains of signalling NaNs
        return array.size - int(np.count_nonzero(np.isfinite(array)))


def raise_non_finite(matrix: NDArray[Any], what: str) -> NoReturn:
    """Say why a kernel's result is not finite: its input, or an overflow on the way.

    Raises:
        NonFiniteError: Always.
    """
    count = count_non_finite(matrix)
    if count:
        raise NonFiniteError(
            f"{what}: {count} of {matrix.size} values of the matrix are NaN or infinite. "
            "Mend them first, for example with np.nan_to_num."
        )
    raise NonFiniteError(
        f"{what}: the result is too large for its type although the matrix is finite. "
        "Scale the weights down, or pass them as float64."
    )
