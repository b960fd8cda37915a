"""The column sweep of SparseGPT, by the compiled kernel; the same bits at every setting."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur import _core
from secateur.errors import InvalidArgumentError


def sweep_block(
    weight: NDArray[np.float32],
    factor: NDArray[np.float32],
    mask: NDArray[np.bool_],
    group: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Remove weights of a block of inputs and correct the later ones of the block.

    Args:
        weight: (out, width), C-contiguous, changed in place; what goes becomes zero.
        factor: U of the block, (width, width), C-contiguous, upper, of positive diagonal.
        mask: (out, width), C-contiguous, True = keep; written if `group` is given.
        group: n and m, to keep the n largest |w / U_jj| of every m as the sweep comes to them.

    Returns:
        (out, width): w_j / U_jj of what went, 0 where a weight stays.

    Raises:
        InvalidArgumentError: Arrays that cannot be used; the message says why.

    Example:
        >>> weight = np.float32([[2.0, 5.0]])
        >>> sweep_block(weight, np.float32([[1.0, 0.5], [0.0, 1.0]]), np.array([[False, True]]))
        array([[2., 0.]], dtype=float32)
        >>> weight
        array([[0., 4.]], dtype=float32)
    """
    if any(array.dtype != np.float32 for array in (weight, factor)) or mask.dtype != np.bool_:
        raise InvalidArgumentError(
            "Expected float32 weight and factor and a boolean mask, got "
            f"{weight.dtype}, {factor.dtype} and {mask.dtype}."
        )
    errors: NDArray[Any] = np.empty(weight.shape, np.float32)
    try:
        _core.obs_sweep(weight, factor, mask, errors, *(group or (0, 0)))
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot sweep: {error}.") from error
    return errors
