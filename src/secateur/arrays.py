"""What arrays are let in, and how a collection of them is taken apart and put together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import ml_dtypes
import numpy as np

from secateur.errors import ArgumentTypeError, InvalidArgumentError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Arrays: TypeAlias = Mapping[str, Array] | Sequence[Array]
_T = TypeVar("_T")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT_DTYPES = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))


def named_arrays(arrays: Arrays, what: str = "weights") -> dict[str, Array]:
    """Give every array a name: a mapping's keys, or "0", "1", ... for a sequence.

    Raises:
        ArgumentTypeError: Not a mapping or sequence of NumPy arrays of a supported float dtype.
        InvalidArgumentError: Byte order is not this machine's.
    """
    if isinstance(arrays, np.ndarray) or not isinstance(arrays, (Mapping, Sequence)):
        raise ArgumentTypeError(
            f"{what} must be a mapping or a sequence of NumPy arrays, got {type(arrays).__name__}; "
            "wrap a single array in a list."
        )
    if isinstance(arrays, Mapping):
        named = {str(name): array for name, array in arrays.items()}
        if len(named) != len(arrays):
            raise InvalidArgumentError(f"The names of {what} are not unique as strings.")
    else:
        named = {str(index): array for index, array in enumerate(arrays)}
    for name, array in named.items():
        check_float_array(array, f"{what}[{name!r}]")
    return named


def check_float_array(array: object, what: str) -> None:
    """Raise unless `array` is an ndarray of a supported float dtype in native byte order."""
    if not isinstance(array, np.ndarray):
        raise ArgumentTypeError(
            f"{what} must be a NumPy array, got {type(array).__name__}; "
            "convert it with numpy.asarray(x, dtype=numpy.float32)."
        )
    if not array.dtype.isnative:
        raise InvalidArgumentError(
            f"{what} has the foreign byte order {array.dtype.str!r}; convert it with "
            "x.astype(x.dtype.newbyteorder('='))."
        )
    if array.dtype not in FLOAT_DTYPES:
        raise ArgumentTypeError(
            f"{what} has dtype {array.dtype}; supported are float16, bfloat16, float32 and float64. "
            "Convert it with x.astype(numpy.float32)."
        )


def like(original: Arrays, values: Mapping[str, _T]) -> dict[str, _T] | list[_T]:
    """Put named values back into the kind of collection that `named_arrays` took apart."""
    if isinstance(original, Mapping):
        return {key: values[str(key)] for key in original}
    return list(values.values())


def matrix_view(array: Array) -> Array:
    """View an array as an (out, in) matrix: first axis out, all others in; a vector is one row."""
    if array.ndim == 2:
        return array
    if array.ndim < 2:
        return array.reshape(1, -1)
    return array.reshape(array.shape[0], int(np.prod(array.shape[1:])))


def contiguous(array: Array) -> Array:
    """The array itself if it is C-contiguous, else a copy that is."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def check_writable(named: Mapping[str, Array]) -> None:
    """Raise unless every array can be changed in place, and none stands there twice.

    Raises:
        InvalidArgumentError: Read-only, not C-contiguous, or the same memory under two names.
    """
    seen: dict[int, str] = {}
    for name, array in named.items():
        if not array.flags.writeable or not array.flags.c_contiguous:
            state = "not C-contiguous" if array.flags.writeable else "read-only"
            raise InvalidArgumentError(
                f"Array {name!r} is {state} and cannot be pruned in place; "
                "leave inplace out, or pass numpy.array(x, order='C')."
            )
        address = array.__array_interface__["data"][0]
        if array.size and seen.setdefault(address, name) != name:
            raise InvalidArgumentError(
                f"Arrays {seen[address]!r} and {name!r} share their memory; give it once."
            )
