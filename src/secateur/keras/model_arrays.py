"""All state of a model as named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from secateur.errors import FileFormatError
from secateur.keras.deferred import set_value
from secateur.keras.variables import read_array, variable_dtype, variable_shape
from secateur.keras.walk import named_variables, walk_layers

if TYPE_CHECKING:
    from secateur.keras.protocols import Model

_MAX_SHOWN = 5


def model_arrays(model: Model) -> dict[str, np.ndarray[Any, Any]]:
    """Every variable of a model by its name: weights, statistics and states of random generators.

    Args:
        model: A built model.

    Returns:
        Name, as `find_tensors` gives it -> read-only array of the variable's own dtype, not copied
        where the backend can avoid it.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> {name: array.shape for name, array in model_arrays(model).items()}
        {'out/kernel': (3, 2), 'out/bias': (2,)}
    """
    return {named.name: read_array(named.variable) for named in named_variables(model)}


def set_model_arrays(model: Model, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Give a model the state that `model_arrays` returned; nothing is changed if it does not fit.

    Args:
        model: A model of the same layers.
        arrays: Name -> array, one for every variable, of its exact shape and dtype.

    Raises:
        FileFormatError: Names are missing or superfluous, or a shape or dtype differs.
    """
    check_shapes(model, {name: (array.shape, array.dtype.name) for name, array in arrays.items()})
    for named in named_variables(model):
        set_value(named.variable, arrays[named.name])
    finish_loading(model)


def finish_loading(model: Model) -> None:
    """Let layers that keep figures beside their variables, such as Normalization, renew them."""
    for place in walk_layers(model):
        layer: Any = place.layer
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            layer.finalize_state()


def check_shapes(model: Model, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
    """Raise unless the model's variables have exactly these names, shapes and dtypes.

    Args:
        model: A model, whose variables need no values yet.
        shapes: Name -> (shape, dtype name).

    Raises:
        FileFormatError: They differ; the message names which.
    """
    own = {
        named.name: (variable_shape(named.variable), variable_dtype(named.variable))
        for named in named_variables(model)
    }
    missing = [name for name in own if name not in shapes]
    superfluous = [name for name in shapes if name not in own]
    if missing or superfluous:
        raise FileFormatError(
            f"The arrays do not fit the model: missing {_shown(missing)}; "
            f"superfluous {_shown(superfluous)}."
        )
    for name, (shape, dtype) in own.items():
        given_shape, given_dtype = tuple(shapes[name][0]), str(shapes[name][1])
        if given_shape != shape or given_dtype != dtype:
            raise FileFormatError(
                f"Array {name!r} is {given_shape} {given_dtype}, but the model has {shape} {dtype}."
            )


def _shown(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(repr(name) for name in names[:_MAX_SHOWN]) + more
