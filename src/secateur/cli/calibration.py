"""Calibration data of `secateur prune`: its options, and what they mean."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from secateur.cli.sources import load_data

_LABELS = "y"


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of pruning on data."""
    group = parser.add_argument_group("with data")
    group.add_argument(
        "-d",
        "--data",
        type=Path,
        metavar="FILE",
        help=".npy, or .npz with an array for each input (or one, x), and perhaps labels, y",
    )
    group.add_argument(
        "--reconstruction",
        metavar="METHOD",
        help="how the weights that stay make up for those that go: admm, refit, sparsegpt or none",
    )
    group.add_argument(
        "--allocation",
        metavar="NAME",
        help="how one sparsity is shared out: loss (default), uniform, ...",
    )
    group.add_argument("--damping", type=float, help="ridge of the least squares (0.2)")
    group.add_argument(
        "--mask", metavar="NAME", help="input (or array of the .npz) that says what is no padding"
    )
    group.add_argument("--batch-size", type=int, default=32, metavar="N")
    group.add_argument("--max-samples", type=int, metavar="N", help="read no more than so many")


def data_options(options: argparse.Namespace, model: Any) -> dict[str, Any]:
    """What `prune` is to be given: the data that the options name, and how it is used.

    Raises:
        InvalidArgumentError: No such file, or not arrays.
    """
    given: dict[str, Any] = {
        "reconstruction": options.reconstruction,
        "allocation": options.allocation,
        "damping": options.damping,
        "mask": options.mask,
    }
    if options.data is None:
        return given
    data = load_data(options.data, model)
    extras = _extras(options.data, {_LABELS} - set(_input_names(model)))
    if _LABELS in extras:
        data = (data, extras[_LABELS])
    given["mask"] = mask_of(options, model)
    return {
        **given,
        "data": data,
        "batch_size": options.batch_size,
        "max_samples": options.max_samples,
    }


def mask_of(options: argparse.Namespace, model: Any) -> Any:
    """The mask that is named: an array of the data's file, or an input of the model by its name.

    Raises:
        InvalidArgumentError: The file cannot be read.
    """
    if options.mask is None or options.data is None or options.mask in _input_names(model):
        return options.mask
    return _extras(options.data, {options.mask}).get(options.mask, options.mask)


def _input_names(model: Any) -> list[str]:
    structure = getattr(model, "input", None) if getattr(model, "inputs", None) else None
    keys = list(structure) if isinstance(structure, dict) else []
    return [*keys, *(str(tensor.name) for tensor in getattr(model, "inputs", None) or ())]


def _extras(path: Path, names: Collection[str | None]) -> dict[str | None, Any]:
    """Arrays of a .npz that are no inputs."""
    if path.suffix != ".npz":
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name in names}
