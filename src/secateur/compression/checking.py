"""Whether training and validation data are what a model can be trained on."""

from __future__ import annotations

import warnings
from typing import Any

from keras import tree

from secateur.errors import ArgumentTypeError, CalibrationWarning, InvalidArgumentError
from secateur.keras.data import calibration_data


def as_data(data: Any, name: str) -> Any:
    """Arrays as a tuple of (x, y) or (x, y, sample_weight); datasets pass.

    Raises:
        InvalidArgumentError: Another number of entries, or unequal numbers of samples.
        ArgumentTypeError: Neither arrays nor a dataset.
    """
    if isinstance(data, list):
        data = tuple(data)
    if isinstance(data, tuple):
        if len(data) not in (2, 3):
            raise InvalidArgumentError(
                f"{name} must be (x, y) or (x, y, sample_weight), got {len(data)} entries."
            )
        rows = {len(leaf) for leaf in tree.flatten(data)}
        if len(rows) != 1:
            raise InvalidArgumentError(f"{name} holds unequal numbers of samples: {sorted(rows)}.")
    elif not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
        raise ArgumentTypeError(
            f"{name} must be (x, y) arrays or a dataset, got {type(data).__name__}."
        )
    return data


def check_data(model: Any, data: Any, name: str) -> None:
    """Try a model on all samples, inputs and labels: hours of work must not end at a bad row.

    Args:
        model: A compiled Keras model.
        data: What `as_data` gave; datasets are looked at as they are used.
        name: What messages call it.

    Raises:
        InvalidArgumentError: Inputs or labels do not fit the model.
    """
    if not isinstance(data, tuple):
        return
    few = tree.map_structure(lambda leaf: leaf[:2], data)
    if getattr(model, "inputs", None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CalibrationWarning)  # two samples are few on purpose
            next(iter(calibration_data(model, few[0])))
    try:
        model.test_on_batch(*few)  # what has a wrong shape is found at once
        inputs, labels, weights = (*data, None)[:3]
        model.evaluate(inputs, labels, sample_weight=weights, batch_size=256, verbose=0)
    except Exception as error:  # whatever the backend raises, the user's labels are what is wrong
        raise InvalidArgumentError(
            f"Model {model.name!r} cannot be evaluated on the {name} data: labels of shape "
            f"{tree.map_structure(lambda leaf: tuple(leaf.shape), data[1])} do not fit its loss or "
            f"metrics ({type(error).__name__}: {_reason(error)})."
        ) from error


def _reason(error: Exception) -> str:
    """The line of a message that says what is wrong: TensorFlow's comes after a list of nodes."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("[[")] or [""]
    return told[-1 if told[0].startswith("Graph execution error") else 0][:200]
