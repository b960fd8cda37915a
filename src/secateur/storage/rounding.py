"""Values rounded to a shorter float, on request only, and what that costs them.

The array keeps its dtype: a float32 that float16 can hold has 13 mantissa bits that are 0, and the
profile "small" does not store those. So a rounded file takes the room of its shorter values, and
loads as what the model expects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from secateur.errors import InvalidArgumentError

ShortFloat: TypeAlias = Literal["float16", "bfloat16"]

SHORT_FLOATS: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

_BLOCK = 1 << 20
_NUMBER = re.compile(r"\d(\.\d+)?(e[+-]\d{2,3})?")


@dataclass(frozen=True)
class Rounding:
    """What rounding did to one array.

    Attributes:
        values: What its values were rounded to.
        max_relative_error: The largest |rounded - w| / |w| of all weights that were not zero; 1
            where a weight became zero.
        rms_relative_error: sqrt(sum (rounded - w)^2 / sum w^2) over all finite weights.
        num_zeroed: Weights that were not zero and are now.
    """

    values: str
    max_relative_error: float
    rms_relative_error: float
    num_zeroed: int

    def __str__(self) -> str:
        zeroed = f", {self.num_zeroed:,} became zero" if self.num_zeroed else ""
        return (
            f"rounded to {self.values}: relative error at most {self.max_relative_error:.1e}, "
            f"rms {self.rms_relative_error:.1e}{zeroed}"
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest, which knows no floats: the errors as text, to nine digits."""
        return {
            "values": self.values,
            "max_relative_error": f"{self.max_relative_error:.9g}",
            "rms_relative_error": f"{self.rms_relative_error:.9g}",
            "num_zeroed": self.num_zeroed,
        }

    @staticmethod
    def from_json(value: Any, size: int) -> Rounding | None:
        """What `to_json` wrote for an array of `size` items, or None if this is not that."""
        keys = {"values", "max_relative_error", "rms_relative_error", "num_zeroed"}
        if not isinstance(value, dict) or set(value) != keys:
            return None
        largest, rms = value["max_relative_error"], value["rms_relative_error"]
        zeroed = value["num_zeroed"]
        if (
            value["values"] not in list(SHORT_FLOATS)
            or not all(isinstance(text, str) and _NUMBER.fullmatch(text) for text in (largest, rms))
            or type(zeroed) is not int
            or not 0 <= zeroed <= size
        ):
            return None
        return Rounding(value["values"], float(largest), float(rms), zeroed)


def check_short_float(values: object) -> None:
    """Raise unless `values` names a float to round to.

    Raises:
        InvalidArgumentError: It does not.
    """
    if values not in list(SHORT_FLOATS):
        raise InvalidArgumentError(
            f"values must be one of {', '.join(map(repr, SHORT_FLOATS))}, or None to keep every "
            f"bit; got {values!r}."
        )


def is_rounded(array: NDArray[Any]) -> bool:
    """Whether rounding is for this array: float32 and float64 of two axes or more.

    Biases, normalisation and single numbers take little room and matter much, so they stay exact.
    """
    return array.ndim >= 2 and array.dtype.name in ("float32", "float64")


def round_values(
    name: str, array: NDArray[Any], values: ShortFloat
) -> tuple[NDArray[Any], Rounding]:
    """The nearest array of the same dtype whose values the shorter float can hold.

    Args:
        name: For errors.
        array: float32 or float64, C-contiguous.
        values: "float16" or "bfloat16". Rounded to nearest, ties to even.

    Returns:
        A new array, and what it cost.

    Raises:
        InvalidArgumentError: A finite weight is too large for the shorter float.

    Example:
        >>> rounded, cost = round_values("w", np.array([[1 / 3, 0.5]], np.float32), "float16")
        >>> cost.max_relative_error < 2**-11
        True
    """
    out = np.empty_like(array)
    flat, rounded = array.reshape(-1), out.reshape(-1)
    largest, error, norm, zeroed = 0.0, 0.0, 0.0, 0
    for begin in range(0, flat.size, _BLOCK):
        given = flat[begin : begin + _BLOCK]
        with np.errstate(over="ignore"):
            near = given.astype(SHORT_FLOATS[values]).astype(given.dtype)
        finite = np.isfinite(given)
        if not np.isfinite(near[finite]).all():
            peak = float(np.abs(given[finite]).max())
            raise InvalidArgumentError(
                f"Array {name!r} has values up to {peak:.3g}, too large for {values}; "
                "values='bfloat16' reaches as far as float32, values=None keeps every bit."
            )
        rounded[begin : begin + _BLOCK] = near
        kept = finite & (given != 0)
        weights = given[kept].astype(np.float64)
        differences = near[kept].astype(np.float64) - weights
        if weights.size:
            largest = max(largest, float(np.abs(differences / weights).max()))
        error += float(differences @ differences)
        norm += float(weights @ weights)
        zeroed += int((near[kept] == 0).sum())
    rms = (error / norm) ** 0.5 if norm else largest  # squares of tiny weights are 0
    return out, Rounding(values, _nine_digits(largest), _nine_digits(rms), zeroed)


def _nine_digits(number: float) -> float:
    """What is left of a number after a trip through the manifest."""
    return float(f"{number:.9g}")
