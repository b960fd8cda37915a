"""What the gradients of a weight are over batches: for criteria that see labels."""

from __future__ import annotations

import numpy as np

from secateur.arrays import Array, check_float_array
from secateur.counted_rows import Float64, whose
from secateur.errors import InvalidArgumentError, NonFiniteError


class GradientStatistics:
    """Mean |g| and mean g^2 of a weight's gradients over batches: for `taylor` and `fisher`.

    Args:
        shape: Shape of the weight.
        name: The layer, for messages.

    Example:
        >>> statistics = GradientStatistics((2,))
        >>> statistics.update(np.array([1.0, -2.0])); statistics.update(np.array([3.0, 2.0]))
        >>> statistics.mean_absolute, statistics.mean_square
        (array([2., 2.]), array([5., 4.]))
    """

    def __init__(self, shape: tuple[int, ...], *, name: str = "") -> None:
        self.shape = tuple(shape)
        self.name = name
        self.count = 0
        self._absolute: Float64 = np.zeros(self.shape)
        self._squares: Float64 = np.zeros(self.shape)

    @property
    def mean_absolute(self) -> Float64:
        """Mean |g| over the batches, of the weight's shape, float64."""
        return self._absolute / self._counted()

    @property
    def mean_square(self) -> Float64:
        """Mean g^2 over the batches, of the weight's shape, float64."""
        return self._squares / self._counted()

    def update(self, gradient: Array) -> None:
        """Count one batch's (or one sample's) gradient in.

        Raises:
            ArgumentTypeError: Not a float array.
            InvalidArgumentError: Not of the weight's shape.
            NonFiniteError: NaN or Inf; names the layer. The gradient is not counted.
        """
        check_float_array(gradient, f"The gradient of {whose(self.name)}")
        if gradient.shape != self.shape:
            raise InvalidArgumentError(
                f"The gradient of {whose(self.name)} has shape {gradient.shape}; the weight has "
                f"{self.shape}."
            )
        wide = np.abs(gradient.astype(np.float64))
        if not np.isfinite(wide).all():
            raise NonFiniteError(
                f"The gradient of {whose(self.name)} holds NaN or infinite values. Check the data, "
                "the labels and the loss."
            )
        self._absolute += wide
        self._squares += wide * wide
        self.count += 1

    def merge(self, other: GradientStatistics) -> None:
        """Count in what another has counted; raises InvalidArgumentError for another shape."""
        if self.shape != other.shape:
            raise InvalidArgumentError(
                f"Cannot merge gradients of shape {other.shape} into those of {self.shape}."
            )
        self._absolute += other._absolute
        self._squares += other._squares
        self.count += other.count

    def _counted(self) -> int:
        if not self.count:
            raise InvalidArgumentError(f"No gradient of {whose(self.name)} has been counted.")
        return self.count
