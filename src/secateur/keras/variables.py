"""Keras variables to NumPy arrays and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from secateur.errors import InvalidArgumentError

if TYPE_CHECKING:
    from secateur.keras.protocols import Variable


def variable_shape(variable: Variable) -> tuple[int, ...]:
    """Shape of a variable as plain integers, whatever the backend's own shape type is."""
    return tuple(int(size) for size in variable.shape)


def variable_dtype(variable: Variable) -> str:
    """Dtype name of a variable as it is stored, untouched by any autocast scope."""
    return str(keras.backend.standardize_dtype(getattr(variable, "_dtype", variable.dtype)))


def read_array(variable: Variable) -> np.ndarray[Any, Any]:
    """The values of a variable, without a copy where the backend can.

    With TensorFlow the array is a read-only window on the variable's own memory; a later `assign`
    gives the variable new memory and leaves the array as it was. bfloat16 comes as
    `ml_dtypes.bfloat16`.

    Args:
        variable: A built `keras.Variable` of any dtype.

    Returns:
        C-contiguous array of the variable's shape and dtype, read-only.

    Example:
        >>> import keras
        >>> read_array(keras.Variable([[1.0, 2.0]])).tolist()
        [[1.0, 2.0]]
    """
    value = variable.value
    if hasattr(value, "read_value"):
        # tf.Variable.__array__ copies; the tensor that read_value returns shares the memory.
        array = np.asarray(value.read_value())
    else:
        array = np.asarray(keras.ops.convert_to_numpy(value))
    array = np.ascontiguousarray(array).view()
    array.flags.writeable = False
    return array.reshape(variable_shape(variable))


def write_array(variable: Variable, array: np.ndarray[Any, Any]) -> None:
    """Give a variable new values; the array is copied.

    Args:
        variable: A built `keras.Variable`.
        array: Values of exactly the variable's shape and dtype.

    Raises:
        InvalidArgumentError: Shape or dtype differ; nothing is cast or broadcast silently.

    Example:
        >>> import keras
        >>> variable = keras.Variable([[1.0, 2.0]])
        >>> write_array(variable, np.zeros((1, 2), np.float32))
        >>> read_array(variable).tolist()
        [[0.0, 0.0]]
    """
    shape, dtype = variable_shape(variable), variable_dtype(variable)
    if array.shape != shape or array.dtype.name != dtype:
        raise InvalidArgumentError(
            f"Variable {variable.name!r} takes an array of shape {shape} and dtype {dtype}, "
            f"got {array.shape} and {array.dtype.name}; reshape or cast it first."
        )
    variable.assign(array)
