"""Oracle of the swap search: every pair of a row is tried by evaluating the loss itself."""

from __future__ import annotations

from typing import Any

import numpy as np


def best_swap(hessian: Any, target: Any, weight: Any, mask: Any, group: int) -> Any:
    """The best exchange in one row.

    Returns:
        Change of the loss (t - v)^T H (t - v), the weight taken out, the one put in, its value; the
        change is 0 and the rest None if there is no pair.
    """
    before = (target - weight) @ hessian @ (target - weight)
    best: Any = (0.0, None, None, None)
    for p in np.flatnonzero(mask):
        for q in np.flatnonzero(~mask):
            if p // group != q // group:
                continue
            trial = weight.astype(np.float64)
            trial[p] = 0.0
            trial[q] = ((target - trial) @ hessian)[q] / hessian[q, q]
            change = (target - trial) @ hessian @ (target - trial) - before
            if change < best[0]:
                best = (change, p, q, trial[q])
    return best
