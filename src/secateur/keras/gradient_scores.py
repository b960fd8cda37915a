"""Scores that are collected from the gradients of a training that is going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.keras.tensors import WeightTensor
from secateur.keras.variables import read_array

GRADIENT_SCORES = ("movement", "taylor")


class GradientScores:
    """Sums over training steps of what each weight's gradient says of it; a `Criterion`.

    "movement" sums -w * dL/dw: positive where training moves a weight away from zero, so that
    weights that shrink go first, however large they are. "taylor" sums (w * dL/dw)^2, the squared
    first-order change of the loss if the weight goes. Weights that are zero already go first.

    Args:
        name: "movement" or "taylor".
        tensors: The weights that are to be ranked, in order.

    References:
        Sanh et al., "Movement Pruning" (arXiv 2005.07683), eq. 4 with the learning rate left out.
        Differs from the paper: removed weights are zero and stay so, where the paper lets masked
        weights come back. Molchanov et al., "Importance Estimation" (arXiv 1906.10771), eq. 8.
    """

    def __init__(self, name: str, tensors: Sequence[WeightTensor]) -> None:
        if name not in GRADIENT_SCORES:
            raise InvalidArgumentError(f"name must be one of {GRADIENT_SCORES}, got {name!r}.")
        self.name = name
        self.num_steps = 0
        self._tensors = tuple(tensors)
        self._sums = [
            keras.Variable(np.zeros(t.shape, np.float32), trainable=False) for t in self._tensors
        ]

    def listen(self, optimizer: Any) -> None:
        """Add up what passes through an optimizer from now on, until `stop`."""
        own = _innermost(optimizer)
        apply = own.apply

        def observed(grads: Any, trainable_variables: Any = None) -> Any:
            variables = own._trainable_variables if trainable_variables is None else None
            self._add(grads, list(trainable_variables) if variables is None else variables)
            return apply(grads, trainable_variables)

        own.__dict__["apply"] = observed

    def stop(self, optimizer: Any) -> None:
        """Undo `listen`."""
        _innermost(optimizer).__dict__.pop("apply", None)

    def _add(self, grads: Sequence[Any], variables: Sequence[Any]) -> None:
        given = {id(v): g for v, g in zip(variables, grads, strict=True) if g is not None}
        for tensor, total in zip(self._tensors, self._sums, strict=True):
            gradient = given.get(id(tensor.variable))
            if gradient is None:
                continue
            product = ops.cast(ops.convert_to_tensor(gradient), "float32") * ops.cast(
                ops.convert_to_tensor(tensor.variable), "float32"
            )
            total.assign_add(-product if self.name == "movement" else ops.square(product))

    def saliencies(self, weights: Sequence[Array]) -> list[Array]:
        """Scores as saliencies of the (out, in) matrices, shifted so that the least is above zero.

        Args:
            weights: The matrices of the tensors, in their order.
        """
        sums = [read_array(total).astype(np.float64) for total in self._sums]
        matrices = [t.to_matrix(s) for t, s in zip(self._tensors, sums, strict=True)]
        lowest = min((float(m.min()) for m in matrices if m.size), default=0.0)
        return [
            np.where(weight == 0, 0.0, matrix - lowest + np.finfo(np.float64).tiny)
            for weight, matrix in zip(weights, matrices, strict=True)
        ]


def _innermost(optimizer: Any) -> Any:
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.inner_optimizer if scaled else optimizer
