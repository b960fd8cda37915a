"""Oracle of the output statistics: two passes in float64, activations by formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import erf, expit

from secateur.activations import ActivationLike, parse_activation

Array = np.ndarray[Any, np.dtype[Any]]


def _low(x: Array) -> Array:
    return np.expm1(np.minimum(x, 0.0))


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
_FORMULAS: dict[str, Callable[[Array, float, float], Array]] = {
    "linear": lambda x, _slope, _ceiling: x,
    "relu": lambda x, slope, ceiling: np.where(x > 0, np.minimum(x, ceiling), slope * x),
    "tanh": lambda x, _slope, _ceiling: np.tanh(x),
    "sigmoid": lambda x, _slope, _ceiling: expit(x),
    "hard_sigmoid": lambda x, _slope, _ceiling: np.clip(x + 3, 0, 6) / 6,
    "silu": lambda x, _slope, _ceiling: x * expit(x),
    "hard_silu": lambda x, _slope, _ceiling: x * np.clip(x + 3, 0, 6) / 6,
    "gelu": lambda x, _slope, _ceiling: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x, _slope, _ceiling: (
        x * expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    ),
    "elu": lambda x, slope, _ceiling: np.where(x > 0, x, slope * _low(x)),
    "selu": lambda x, _slope, _ceiling: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * _low(x)),
    "softplus": lambda x, _slope, _ceiling: np.logaddexp(x, 0.0),
    "exponential": lambda x, _slope, _ceiling: np.exp(x),
}


def activate(z: Array, activation: ActivationLike = "linear") -> Array:
    """Apply an activation in float64."""
    known = parse_activation(activation)
    return _FORMULAS[known.kernel](z.astype(np.float64), known.slope, known.ceiling)


def output_statistics(
    batch: Array, mask: Array | None = None, activation: ActivationLike = "linear"
) -> dict[str, Array]:
    """Compute every measure of outputs (..., units) over all kept positions.

    Returns:
        "mean", "rms", "max", "std" and the signed "signed_mean", each (units,) float64.
    """
    outputs = activate(batch, activation).reshape(-1, batch.shape[-1])
    if mask is not None:
        outputs = outputs[mask.reshape(-1)]
    return {
        "mean": np.abs(outputs).mean(axis=0),
        "rms": np.sqrt((outputs**2).mean(axis=0)),
        "max": np.abs(outputs).max(axis=0),
        "std": outputs.std(axis=0),
        "signed_mean": outputs.mean(axis=0),
    }


def grouped_output_statistics(batch: Array, mask: Array | None = None) -> dict[str, Array]:
    """Compute every measure of vector outputs (..., units, dim): |o| is the l2 norm over dim.

    Returns:
        "mean", "rms", "max", "std" (units,) and "signed_mean" (units, dim), float64.
    """
    outputs = batch.astype(np.float64).reshape(-1, *batch.shape[-2:])
    if mask is not None:
        outputs = outputs[mask.reshape(-1)]
    norms = np.linalg.norm(outputs, axis=-1)
    centre = outputs.mean(axis=0)
    return {
        "mean": norms.mean(axis=0),
        "rms": np.sqrt((norms**2).mean(axis=0)),
        "max": norms.max(axis=0),
        "std": np.sqrt((np.linalg.norm(outputs - centre, axis=-1) ** 2).mean(axis=0)),
        "signed_mean": centre,
    }


def subnetwork_outputs(
    weights: Array, bias: Array | None, inputs: Array, activation: ActivationLike = "linear"
) -> Array:
    """Compute f(sum_p w_qp o_p + b_q) in float64, one product at a time."""
    total = np.zeros((inputs.shape[0], weights.shape[0]))
    for p in range(weights.shape[1]):
        total += np.outer(inputs[:, p].astype(np.float64), weights[:, p].astype(np.float64))
    if bias is not None:
        total += bias.astype(np.float64)
    return activate(total, activation)
