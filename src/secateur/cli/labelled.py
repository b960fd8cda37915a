"""Samples with labels, to train on and to judge by, out of `.npz` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur.cli.sources import by_input, read_arrays
from secateur.errors import InvalidArgumentError

_LABELS, _WEIGHTS = "y", "sample_weight"


def load_labelled(path: Path, model: Any, option: str) -> tuple[Any, ...]:
    """Read (x, y) or (x, y, sample_weight).

    Inputs stand by the names of the model's inputs, or as `x` where there is one. Labels are called
    `y`, or by the names of the model's outputs where there are several. `sample_weight` is optional.

    Args:
        path: A `.npz` file.
        model: A Keras model.
        option: What messages call the file.

    Raises:
        InvalidArgumentError: No such file, one that NumPy cannot read, or arrays that are missing.
    """
    named = read_arrays(path, option, (".npz",))
    labels = _labels(named, model, path)
    inputs = {name: array for name, array in named.items() if name not in (_LABELS, _WEIGHTS)}
    x = by_input(inputs, model, path)
    return (x, labels, named[_WEIGHTS]) if _WEIGHTS in named else (x, labels)


def _labels(named: dict[str, Any], model: Any, path: Path) -> Any:
    if _LABELS in named:
        return named[_LABELS]
    outputs = [str(name) for name in getattr(model, "output_names", None) or ()]
    if len(outputs) > 1 and set(outputs) <= set(named):
        arrays = {name: named[name] for name in outputs}
        return arrays if isinstance(model.output, dict) else list(arrays.values())
    several = f", or one for each of the outputs {outputs}" if len(outputs) > 1 else ""
    raise InvalidArgumentError(
        f"{path} holds arrays {sorted(named)} and no labels: write them as an array named y{several}, "
        "such as np.savez(path, x=x, y=y)."
    )
