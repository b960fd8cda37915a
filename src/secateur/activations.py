"""Which activations the output kernels can apply themselves, and with which parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from secateur.errors import ArgumentTypeError, InvalidArgumentError

_DEFAULTS: dict[str, dict[str, float | bool | None]] = {
    "linear": {},
    "relu": {"negative_slope": 0.0, "max_value": None},
    "relu6": {},
    "leaky_relu": {"negative_slope": 0.2},
    "tanh": {},
    "sigmoid": {},
    "hard_sigmoid": {},
    "silu": {},
    "hard_silu": {},
    "gelu": {"approximate": False},
    "elu": {"alpha": 1.0},
    "selu": {},
    "softplus": {},
    "exponential": {},
}
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}
ACTIVATION_NAMES = (*_DEFAULTS, *_ALIASES)


@dataclass(frozen=True)
class Activation:
    """An elementwise activation by its Keras 3 name, with Keras's defaults for what is not given.

    Attributes:
        name: One of `ACTIVATION_NAMES`; an alias is replaced by the name it stands for.
        parameters: By name: `negative_slope` (relu, leaky_relu), `max_value` (relu), `alpha` (elu),
            `approximate` (gelu).

    Raises:
        InvalidArgumentError: An unknown name, or a parameter that it does not take.

    Example:
        >>> Activation("swish").name
        'silu'
        >>> Activation("leaky_relu", {"negative_slope": 0.1}).slope
        0.1
    """

    name: str
    parameters: Mapping[str, float | bool | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = _ALIASES.get(self.name, self.name)
        defaults = _DEFAULTS.get(name)
        if defaults is None:
            raise InvalidArgumentError(
                f"The activation {self.name!r} is not one that the output check can apply; known "
                f"are {', '.join(ACTIVATION_NAMES)}. Pass post-activation values instead, and "
                "leave activation='linear'."
            )
        unknown = sorted(set(self.parameters) - set(defaults))
        if unknown:
            raise InvalidArgumentError(
                f"The activation {name!r} takes {sorted(defaults) or 'no parameters'}, "
                f"got {', '.join(unknown)}. Pass post-activation values instead if that "
                "parameter changes the result."
            )
        for key, value in self.parameters.items():
            _check_parameter(name, key, value)
        object.__setattr__(self, "name", name)
        merged = MappingProxyType({**defaults, **self.parameters})
        object.__setattr__(self, "parameters", merged)

    @property
    def kernel(self) -> str:
        """Which kernel computes it: the relu family shares one, and so do both gelu's of a name."""
        if self.name in ("relu6", "leaky_relu"):
            return "relu"
        if self.name == "gelu" and self.parameters["approximate"]:
            return "gelu_tanh"
        return self.name

    @property
    def slope(self) -> float:
        """The kernel's first parameter: the slope below zero, or elu's alpha."""
        return float(self.parameters.get("negative_slope", self.parameters.get("alpha")) or 0.0)

    @property
    def ceiling(self) -> float:
        """The kernel's second parameter: the largest value of the relu family, else infinity."""
        if self.name == "relu6":
            return 6.0
        value = self.parameters.get("max_value")
        return math.inf if value is None else float(value)


ActivationLike: TypeAlias = str | Activation | None


def parse_activation(value: ActivationLike) -> Activation:
    """Turn a Keras activation name, an `Activation`, or None (linear) into an `Activation`.

    Raises:
        ArgumentTypeError: Something else, such as a function.
        InvalidArgumentError: An unknown name.
    """
    if isinstance(value, Activation):
        return value
    if value is None:
        return Activation("linear")
    if isinstance(value, str):
        return Activation(value)
    raise ArgumentTypeError(
        f"activation must be a Keras activation name or a secateur Activation, got "
        f"{type(value).__name__}. Pass its name, such as 'relu', or post-activation values."
    )


def _check_parameter(name: str, key: str, value: float | bool | None) -> None:
    if key == "max_value" and value is None:
        return
    if key == "approximate":
        if isinstance(value, bool):
            return
        raise ArgumentTypeError(f"approximate of {name!r} must be True or False, got {value!r}.")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidArgumentError(f"{key} of {name!r} must be a finite number, got {value!r}.")
    if value < 0 and key != "alpha":
        raise InvalidArgumentError(f"{key} of {name!r} must be at least 0, got {value!r}.")
