"""Oracle of the runtime's products: float64, one formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_erf = np.vectorize(math.erf, otypes=[np.float64])


def activate(x: NDArray[Any], name: str, slope: float, ceiling: float) -> NDArray[np.float64]:
    """An activation by its kernel's name, in float64."""
    x = x.astype(np.float64)
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-x))
        if name == "relu":
            return np.minimum(np.where(x < 0, slope * x, x), ceiling)
        table: dict[str, Callable[[], Any]] = {
            "linear": lambda: x,
            "tanh": lambda: np.tanh(x),
            "sigmoid": lambda: sigmoid,
            "silu": lambda: x * sigmoid,
            "gelu": lambda: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
            "gelu_tanh": lambda: (
                0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            ),
            "hard_sigmoid": lambda: np.clip(x / 6 + 0.5, 0, 1),
            "hard_silu": lambda: x * np.clip(x / 6 + 0.5, 0, 1),
            "elu": lambda: np.where(x < 0, slope * np.expm1(np.minimum(x, 0)), x),
            "selu": lambda: (
                1.0507009873554805
                * np.where(x < 0, 1.6732632423543772 * np.expm1(np.minimum(x, 0)), x)
            ),
            "softplus": lambda: np.logaddexp(x, 0),
            "exponential": lambda: np.exp(x),
            "softsign": lambda: x / (1 + np.abs(x)),
        }
        return np.asarray(table[name](), np.float64)


def multiply(
    weights: NDArray[Any],
    x: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    activation: tuple[str, float, float],
) -> NDArray[np.float64]:
    """activation(x W^T + bias) + residual, W (outputs, inputs), x (rows, inputs)."""
    sums = x.astype(np.float64) @ weights.astype(np.float64).T
    if bias is not None:
        sums = sums + bias
    y = activate(sums, *activation)
    return y if residual is None else y + residual
