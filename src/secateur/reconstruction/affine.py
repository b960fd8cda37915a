"""Scale and offset of a normalisation, refitted so that its output is near the dense network's.

After pruning, a normalised hidden state is the dense one plus an error. Per feature, least squares finds
the scale and offset that bring it nearest; what is mostly error is scaled down.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from secateur.arrays import Array
from secateur.counted_rows import checked_rows
from secateur.errors import InvalidArgumentError

Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_BLOCK_ROWS = 4096


class AffineStatistics:
    """Per-feature moments of normalised values z and of what scale * z + offset should give.

    Args:
        features: Width of a row, at least 1.
        name: The layer, for messages.

    Example:
        >>> statistics = AffineStatistics(1)
        >>> z = np.array([[-1.0], [0.0], [1.0]], np.float32)
        >>> statistics.update(z, 3 * z + 2)
        >>> scale, offset = statistics.fit(np.ones(1), damping=1e-9)
        >>> float(scale[0].round(3)), float(offset[0].round(3))
        (3.0, 2.0)
    """

    def __init__(self, features: int, *, name: str = "") -> None:
        if features < 1:
            raise InvalidArgumentError(f"features must be at least 1, got {features}.")
        self.features = features
        self.name = name
        self.count = 0
        self._means: Float64 = np.zeros((2, features))
        self._square: Float64 = np.zeros(features)
        self._product: Float64 = np.zeros(features)

    def update(self, rows: Array, wanted: Array, mask: Array | None = None) -> None:
        """Count rows z (..., features) in, and what is wanted of them, of the same shape.

        Args:
            rows: What comes out of the normalisation before scale and offset.
            wanted: The dense network's output of the layer, at the same positions.
            mask: Boolean, of the leading axes' shape; True = counted.

        Raises:
            InvalidArgumentError: Shapes that do not fit.
            NonFiniteError: NaN or Inf among the counted; names the layer.
        """
        if np.shape(rows) != np.shape(wanted):
            raise InvalidArgumentError(
                f"rows have shape {np.shape(rows)}, wanted {np.shape(wanted)}; they must be the same "
                "positions."
            )
        z = checked_rows(rows, mask, self.features, self.name)
        y = checked_rows(wanted, mask, self.features, self.name)
        for start in range(0, len(z), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            self._merge(z[block].astype(np.float64), y[block].astype(np.float64))

    def fit(self, scale: Array, *, damping: float = 0.01) -> tuple[Float64, Float64]:
        """The least-squares scale and offset.

        Args:
            scale: The layer's scale as it is, (features,): what the ridge draws to, and what features
                without variation keep.
            damping: Ridge as a part of each feature's variance, > 0.

        Returns:
            Scale and offset, (features,) float64 each.

        Raises:
            InvalidArgumentError: Nothing was counted, a scale of another width, or no damping.
        """
        if not self.count:
            raise InvalidArgumentError(f"Nothing of layer {self.name!r} has been counted.")
        if np.shape(scale) != (self.features,) or not 0 < damping < np.inf:
            raise InvalidArgumentError(
                f"Expected a scale of shape ({self.features},) and damping > 0, got "
                f"{np.shape(scale)} and {damping}."
            )
        before = np.asarray(scale, np.float64)
        ridge = damping * self._square
        fitted = np.divide(
            self._product + ridge * before,
            self._square + ridge,
            out=before.copy(),
            where=self._square > 0,
        )
        return fitted, self._means[1] - fitted * self._means[0]

    def _merge(self, z: Float64, y: Float64) -> None:
        means = np.stack([z.mean(axis=0), y.mean(axis=0)])
        total = self.count + len(z)
        share = len(z) / total
        delta = means - self._means
        z -= means[0]
        y -= means[1]
        self._square += np.einsum("nf,nf->f", z, z) + delta[0] ** 2 * (self.count * share)
        self._product += np.einsum("nf,nf->f", z, y) + delta[0] * delta[1] * (self.count * share)
        self._means += delta * share
        self.count = total
