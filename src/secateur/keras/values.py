"""Read the values of Keras variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops


def read(variable: Any) -> npt.NDArray[Any]:
    """The value as an array of its own, in the variable's dtype."""
    value = variable.value
    if hasattr(value, "read_value"):
        # np.array of a tf.Variable warns under NumPy 2; of the tensor behind it, it does not.
        value = value.read_value()
    return np.array(ops.convert_to_numpy(value))
