"""A Keras model as a configuration text and arrays, for our file, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from secateur.arrays import Array
from secateur.errors import ArgumentTypeError, FileFormatError
from secateur.keras.keeping import keep_zeros, kept_masks
from secateur.keras.model_config import describe_model, model_from_config
from secateur.keras.tensors import find_tensors
from secateur.keras.variables import read_array
from secateur.storage.config_text import pack_config, unpack_config

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
    config, arrays = describe_for_runtime(model)
    return pack_config(config), arrays


def describe_for_runtime(model: Model) -> tuple[str, Mapping[str, Array]]:
    """The configuration, as plain text, and the arrays of a model."""
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
        unpack_config(config),
        shapes,
        custom_objects=custom_objects,
        values=lambda name: arrays()[name],
    )


def kept_names(model: Model) -> str:
    """Names of the weights whose zeros are kept through training, as text; "" for none."""
    names = list(kept_masks(model))
    return json.dumps(names) if names else ""


def keep_named(model: Model, text: str) -> None:
    """Keep the zeros of weights that a file names.

    Args:
        model: The model of the file.
        text: What `kept_names` gave; not trusted.

    Raises:
        FileFormatError: It is no list of names of this model's weights.
    """
    tensors = {tensor.name: tensor for tensor in find_tensors(model).tensors}
    try:
        names = json.loads(text)
        masks = {name: read_array(tensors[name].variable) != 0 for name in names}
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise FileFormatError(
            f"The file's list of weights with kept zeros is damaged: {error!r}."
        ) from error
    keep_zeros(model, masks)
