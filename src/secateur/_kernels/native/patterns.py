"""Masks of n:m and block patterns, by the compiled kernels.

Masks are the same bit for bit on every instruction set and with any number of threads.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secateur import _core
from secateur._kernels.native.matrices import memory_matrix, raise_non_finite
from secateur.errors import InvalidArgumentError

Order = Literal["magnitude", "value"]
Mask = NDArray[np.bool_]

_MAX_M = 32


def nm_mask(
    matrix: NDArray[Any], n: int, m: int, order: Order = "magnitude", out: Mask | None = None
) -> Mask:
    """Keep the n largest of every m consecutive inputs of each output.

    Of equal ones the later is kept. A last group shorter than m keeps its n largest, or all it has.

    Args:
        matrix: (out, in), C- or Fortran-contiguous; float16, bfloat16, float32 or float64.
        n: Weights kept per group, 0 <= n <= m.
        m: Group length, 1 <= m <= 32.
        order: What is compared: "magnitude" is |x|, "value" is x itself (-0.0 equals 0.0).
        out: Optional bool array of the matrix's shape and memory order, written to and returned.

    Returns:
        bool mask, True = keep, of the matrix's shape and memory order.

    Raises:
        InvalidArgumentError: n or m out of range, an unknown order, or an `out` that does not fit.
        NonFiniteError: A NaN, or by magnitude also an infinity.

    Example:
        >>> nm_mask(np.array([[1.0, -3.0, 2.0, 0.5]]), 2, 4)
        array([[False,  True,  True, False]])
    """
    if not 1 <= m <= _MAX_M or not 0 <= n <= m:
        raise InvalidArgumentError(f"Expected 0 <= n <= m <= {_MAX_M} and m >= 1, got {n}:{m}.")
    if order not in ("magnitude", "value"):
        raise InvalidArgumentError(f"order must be 'magnitude' or 'value', got {order!r}.")
    memory = memory_matrix(matrix)
    mask = memory.empty(np.bool_)
    if out is not None:
        mask = _checked_out(out, matrix.shape, memory.transposed)
    by_value = order == "value"
    if not _core.nm_mask(memory.bits, memory.dtype, memory.transposed, n, m, by_value, mask):
        raise_non_finite(matrix, f"{n}:{m} mask")
    return memory.as_matrix(mask)


def expand_block_mask(
    block_mask: Mask,
    shape: tuple[int, int],
    rows: int,
    cols: int,
    order: Literal["C", "F"] = "C",
    out: Mask | None = None,
) -> Mask:
    """Give every weight the mask of its block.

    Args:
        block_mask: (ceil(out / rows), ceil(in / cols)) bool, C-contiguous.
        shape: (out, in) of the result.
        rows: Outputs per block, at least 1.
        cols: Inputs per block, at least 1.
        order: Memory order of the result.
        out: Optional bool array of that shape and memory order, written to and returned.

    Returns:
        (out, in) bool mask in that memory order.

    Raises:
        InvalidArgumentError: The block mask or `out` does not fit the shape, or an unknown order.

    Example:
        >>> expand_block_mask(np.array([[True, False]]), (2, 3), rows=2, cols=2)
        array([[ True,  True, False],
               [ True,  True, False]])
    """
    if rows < 1 or cols < 1 or order not in ("C", "F"):
        raise InvalidArgumentError(
            "Expected rows and cols of at least 1 and order 'C' or 'F', "
            f"got {rows}x{cols}, {order!r}."
        )
    rows, cols = min(rows, max(1, shape[0])), min(cols, max(1, shape[1]))
    expected = (-(-shape[0] // rows), -(-shape[1] // cols))
    if block_mask.dtype != np.bool_ or block_mask.shape != expected:
        raise InvalidArgumentError(
            f"A {shape} matrix in {rows}x{cols} blocks needs a bool block mask of shape "
            f"{expected}, got {block_mask.dtype} of shape {block_mask.shape}."
        )
    if not block_mask.flags.c_contiguous:
        raise InvalidArgumentError(
            "The block mask must be C-contiguous; pass np.ascontiguousarray(block_mask)."
        )
    transposed = order == "F"
    if out is None:
        mask = np.empty(shape[::-1] if transposed else shape, np.bool_)
    else:
        mask = _checked_out(out, shape, transposed)
    _core.expand_blocks(block_mask, transposed, rows, cols, mask)
    return mask.T if transposed else mask


def _checked_out(out: Mask, shape: tuple[int, ...], transposed: bool) -> Mask:
    """The memory of an output, (in, out) if transposed."""
    memory = out.T if transposed else out
    fits = out.dtype == np.bool_ and out.shape == shape
    if not fits or not memory.flags.c_contiguous or not memory.flags.writeable:
        raise InvalidArgumentError(
            f"out must be a writeable bool array of shape {shape} in {'F' if transposed else 'C'} "
            f"order, got {out.dtype} of shape {out.shape}, strides {out.strides}."
        )
    return memory
