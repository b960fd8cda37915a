"""Scores of units without data: norms of the weights that lead to a unit, from it, or both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from secateur.errors import InvalidArgumentError
from secateur.groups import Units
from secateur.network import Network

WeightMeasure: TypeAlias = Literal["incoming", "outgoing", "path"]
WEIGHT_MEASURES: tuple[str, ...] = ("incoming", "outgoing", "path")


def weight_scores(
    network: Network,
    units: Units,
    arrays: Mapping[str, npt.NDArray[np.float32]],
    measure: WeightMeasure = "path",
) -> npt.NDArray[np.float64]:
    """Score every unit by the l2 norm of its weights.

    Args:
        network: Says which weights a unit indexes.
        units: What goes together.
        arrays: The weights by key.
        measure: "incoming" ||A[:, k]||, "outgoing" ||B[k, :]||, or "path" ||A[:, k]|| * ||B[k,
            :]||,
            the root of the squared two-step path strength that is lost with unit k.

    Returns:
        (units,), float64, at least 0.

    Raises:
        InvalidArgumentError: Unknown measure.
    """
    if measure not in WEIGHT_MEASURES:
        raise InvalidArgumentError(f"measure must be one of {WEIGHT_MEASURES}, got {measure!r}.")
    squares = {made: np.zeros(units.num_units) for made in (True, False)}
    seen = {made: np.zeros(units.num_units, np.bool_) for made in (True, False)}
    for key, weight in network.weights.items():
        if sum(size > 1 for size in weight.shape) < 2:
            continue
        for axis, (labels, made) in enumerate(zip(weight.axes, weight.made, strict=True)):
            if labels is None:
                continue
            own = _squares_along(arrays[key], axis)
            members = units.unit_of[labels]
            np.add.at(squares[made], members, own)
            seen[made][members] = True
    norms = {made: np.sqrt(total) for made, total in squares.items()}
    if measure == "path":
        # Where one side has no matrix (a depthwise kernel, say), the other side stands alone.
        one, two = (np.where(seen[made], norms[made], 1.0) for made in (True, False))
        return np.asarray(one * two, np.float64)
    made = measure == "incoming"
    return np.where(seen[made], norms[made], norms[not made])


def _squares_along(array: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float64]:
    """Sum of squares over all other axes, float64."""
    matrix = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1).astype(np.float64)
    return np.asarray(np.einsum("ij,ij->i", matrix, matrix))
