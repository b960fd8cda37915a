"""Keras variables to NumPy arrays and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras.src.utils.module_utils import tensorflow

from secateur.errors import InvalidArgumentError

if TYPE_CHECKING:
    from secateur.keras.protocols import Variable

_ALIGNMENT = 64
# What NumPy can hand over by the DLPack protocol.
_SHAREABLE = ("float16", "float32", "float64")


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


def read_tensor(variable: Variable) -> Any:
    """The values of a variable as a tensor of the backend, without a copy where the backend can.

    A later `assign` gives the variable new memory and leaves the tensor as it was; assigned back, the
    tensor becomes the variable's memory again.

    Args:
        variable: A built `keras.Variable` of any dtype.

    Example:
        >>> import keras
        >>> variable = keras.Variable([1.0, 2.0])
        >>> tensor = read_tensor(variable)
        >>> _ = variable.assign([3.0, 4.0])
        >>> np.asarray(tensor).tolist()
        [1.0, 2.0]
    """
    value = variable.value
    # A tf.Variable counts as a tensor, but stays the variable.
    return (
        value.read_value() if hasattr(value, "read_value") else keras.ops.convert_to_tensor(value)
    )


def writable_copy(variable: Variable) -> np.ndarray[Any, Any]:
    """A copy of a variable's values to change and then hand to `give_array`.

    Args:
        variable: A built `keras.Variable` of any dtype.

    Returns:
        C-contiguous array of the variable's shape and dtype that starts on a cache line.

    Example:
        >>> import keras
        >>> writable_copy(keras.Variable([[1.0, 2.0]])).tolist()
        [[1.0, 2.0]]
    """
    values = read_array(variable)
    copy = empty_like(values)
    np.copyto(copy, values)
    return copy


def empty_like(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array to fill and then hand to `give_array`.

    Args:
        array: Whose shape and dtype it gets.

    Returns:
        C-contiguous array of undefined content that starts on a cache line.

    Example:
        >>> empty_like(np.ones((3, 2), np.float32)).shape
        (3, 2)
    """
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    run: np.ndarray[Any, Any] = memory[start : start + array.nbytes].view(array.dtype)
    return run.reshape(array.shape)


def give_array(variable: Variable, array: np.ndarray[Any, Any]) -> None:
    """Make an array the values of a variable, without a copy where the backend can.

    The array is given away: neither it nor a view of it may be changed afterwards, as it may have
    become the variable's memory.

    Args:
        variable: A built `keras.Variable`.
        array: Values of exactly the variable's shape and dtype, best from `writable_copy` or
            `empty_like`.

    Raises:
        InvalidArgumentError: Shape or dtype differ.

    Example:
        >>> import keras
        >>> variable = keras.Variable([[1.0, 2.0]])
        >>> array = writable_copy(variable)
        >>> array[0, 0] = 0.0
        >>> give_array(variable, array)
        >>> read_array(variable).tolist()
        [[0.0, 2.0]]
    """
    _check_fit(variable, array)
    # TensorFlow aborts the process when it computes with memory that is aligned less.
    is_aligned = array.ctypes.data % _ALIGNMENT == 0 and array.flags.c_contiguous
    is_known = array.dtype.name in _SHAREABLE and array.flags.writeable and array.size > 0
    if keras.backend.backend() == "tensorflow" and is_aligned and is_known:
        variable.assign(tensorflow.experimental.dlpack.from_dlpack(array.__dlpack__()))
    else:
        variable.assign(array)


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
    _check_fit(variable, array)
    variable.assign(array)


def _check_fit(variable: Variable, array: np.ndarray[Any, Any]) -> None:
    shape, dtype = variable_shape(variable), variable_dtype(variable)
    if array.shape != shape or array.dtype.name != dtype:
        raise InvalidArgumentError(
            f"Variable {variable.name!r} takes an array of shape {shape} and dtype {dtype}, "
            f"got {array.shape} and {array.dtype.name}; reshape or cast it first."
        )
