"""A Keras model as a configuration text and arrays, for our file, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from secateur.arrays import Array
from secateur.errors import ArgumentTypeError
from secateur.keras.model_config import describe_model, model_from_config

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


def model_to_file_parts(model: Any) -> tuple[str, Mapping[str, Array]]:
    """The configuration and the arrays of a model, whatever its kind.

    Raises:
        ArgumentTypeError: Not a Keras model.
        UnsupportedModelError: It is not built, or holds what no configuration can say.
    """
    import keras

    if not isinstance(model, keras.Model):
        raise ArgumentTypeError(
            f"save takes the result of prune, a Keras model or arrays, got {type(model).__name__}."
        )
    description = describe_model(model)
    return description.config, description.arrays


def model_from_file_parts(
    config: str,
    shapes: Mapping[str, tuple[tuple[int, ...], str]],
    read_all: Callable[[], Mapping[str, Array]],
    custom_objects: Mapping[str, Any] | None = None,
) -> Model:
    """Build the model of a file, once its configuration is found to fit the arrays of the file.

    Args:
        config: The configuration text; not trusted.
        shapes: Name -> (shape, dtype name) of every array in the file.
        read_all: Reads the arrays; called only once the configuration is found sound.
        custom_objects: Class name -> class, besides Keras's own.

    Raises:
        FileFormatError: The configuration is not one of ours or does not fit.
    """
    arrays = cache(read_all)
    return model_from_config(
        config, shapes, custom_objects=custom_objects, values=lambda name: arrays()[name]
    )
