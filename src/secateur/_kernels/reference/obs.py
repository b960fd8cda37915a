"""Oracle of the OBS sweep: column by column, as the paper writes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur._kernels.reference.patterns import nm_mask


def sweep_block(weight: Any, factor: Any, mask: Any, group: tuple[int, int] | None = None) -> Any:
    """Remove weights of a block of inputs and correct the later ones of the block.

    Args:
        weight: (out, width) float32, changed in place.
        factor: U of the block, (width, width) float32, upper.
        mask: (out, width) bool, True = keep; written if `group` is given.
        group: n and m, to choose masks as the sweep comes to each group.

    Returns:
        (out, width) float32: w_j / U_jj of what went, 0 where a weight stays.
    """
    errors = np.zeros_like(weight)
    for column in range(weight.shape[1]):
        if group is not None and column % group[1] == 0:
            here = slice(column, column + group[1])
            scores = np.abs(weight[:, here] / np.diagonal(factor)[here])
            mask[:, here] = nm_mask(np.ascontiguousarray(scores), *group)
        gone = np.where(mask[:, column], np.float32(0), weight[:, column])
        errors[:, column] = gone / factor[column, column]
        weight[:, column:] -= errors[:, column, None] * factor[column, column:]
        weight[~mask[:, column], column] = 0
    return errors
