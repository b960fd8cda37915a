"""How good a model is: one metric on one set of held-out data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from secateur.errors import InvalidArgumentError

Mode = Literal["max", "min"]
_RISING = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "r2", "similarity", "dice")
_FALLING = (
    "loss",
    "error",
    "mse",
    "mae",
    "mape",
    "msle",
    "rmse",
    "entropy",
    "divergence",
    "poisson",
)


def mode_of(metric: str) -> Mode:
    """Whether a metric is better when it is larger or smaller, by its name.

    Raises:
        InvalidArgumentError: The name does not tell.

    Example:
        >>> mode_of("val_sparse_categorical_accuracy")
        'max'
    """
    name = metric.lower()
    rising, falling = (any(part in name for part in known) for known in (_RISING, _FALLING))
    if rising == falling:
        raise InvalidArgumentError(
            f"The name of metric {metric!r} does not tell whether more is better; pass mode='max' "
            "or mode='min'."
        )
    return "max" if rising else "min"


@dataclass(frozen=True)
class Quality:
    """One metric of compiled models on held-out data.

    Attributes:
        data: What `evaluate` takes: (x, y), (x, y, sample_weight), a dataset.
        metric: Name as `evaluate(return_dict=True)` gives it.
        mode: Whether more is better.
        batch_size: For data given as arrays.
    """

    data: Any
    metric: str
    mode: Mode
    batch_size: int = 256

    def of(self, model: Any) -> float:
        """The metric of a model.

        Raises:
            InvalidArgumentError: The model has no such metric.
        """
        found = self._evaluate(model)
        if self.metric not in found:
            raise InvalidArgumentError(
                f"Metric {self.metric!r} is not there; the compiled model has {sorted(found)}. "
                "Compile it with the metric, or name one of these."
            )
        return float(found[self.metric])

    def _evaluate(self, model: Any) -> dict[str, float]:
        arrays = self.data if isinstance(self.data, tuple) else (self.data,)
        size = {"batch_size": self.batch_size} if isinstance(self.data, tuple) else {}
        weights = {"sample_weight": arrays[2]} if len(arrays) > 2 else {}
        result = model.evaluate(*arrays[:2], verbose=0, return_dict=True, **size, **weights)
        return {name: float(value) for name, value in result.items()}

    def drop(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`, in the metric's own unit; below 0 if better."""
        if math.isnan(after):
            return math.inf
        return before - after if self.mode == "max" else after - before
