"""`save` and `load`: one file for pruned models and for plain arrays.

Keras is imported only when a model goes in or comes out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from secateur.errors import MissingDependencyError
from secateur.pruning import Pruned
from secateur.storage import Header, Profile, ShortFloat, load_arrays, read_header, save_arrays
from secateur.storage.config_text import KEY as _KERAS_CONFIG

_KEPT_ZEROS = "kept_zeros"


def save(
    path: str | os.PathLike[str],
    what: Any,
    *,
    profile: Profile = "fast",
    values: ShortFloat | None = None,
) -> Header:
    """Write a model or arrays into one safetensors file, each tensor in its smallest encoding.

    The file is written under a temporary name, synced and renamed: a crash leaves the old file or the
    new one.

    Args:
        path: Where to; `.safetensors` is the customary suffix.
        what: The result of `prune` or `prune_arrays`, a Keras model, or a mapping or list of arrays
            (NumPy, or SciPy sparse) of any dtype NumPy's floats, bfloat16, integers or booleans have.
        profile: "fast" stores parts that are read as they stand; "small" entropy-codes them, for
            files near the limit of what a lossless one can take. `load` reads either.
        values: Lossy, so never by default: "float16" or "bfloat16" rounds float32 and float64
            weights of two axes or more. They load with the dtype they had. Needs profile="small".

    Returns:
        What is in the file: of each tensor its encoding, bits per weight, and what rounding cost
        (`.tensors[i].rounding`), which the file also keeps.

    Raises:
        ArgumentTypeError: Something else.
        InvalidArgumentError: An unknown profile, or weights too large for `values`.
        UnsupportedModelError: The model's configuration cannot be written down; it says which layer.
        OSError: The file cannot be written.

    Example:
        >>> import numpy as np
        >>> path = getfixture("tmp_path") / "arrays.safetensors"
        >>> _ = save(path, {"w": np.array([0, 0, 1.5], np.float32)})
        >>> load(path)
        {'w': array([0. , 0. , 1.5], dtype=float32)}
        >>> weights = np.where(np.arange(90_000) % 9 == 0, 1 / 3, 0).astype(np.float32)
        >>> (info,) = save(path, [weights.reshape(300, 300)], profile="small", values="float16").tensors
        >>> info.bits_per_weight < 1, info.rounding.max_relative_error < 5e-4
        (True, True)
    """
    if isinstance(what, Pruned):
        what = what.weights
    if isinstance(what, (list, tuple)):
        what = {str(index): array for index, array in enumerate(what)}
    if isinstance(what, Mapping):
        arrays = {str(name): array for name, array in what.items()}
        return save_arrays(path, arrays, profile=profile, values=values)
    model = getattr(what, "model", what)
    config, arrays = _keras_files().model_to_file_parts(model)
    kept = _keras_files().kept_names(model)
    metadata = {_KERAS_CONFIG: config, **({_KEPT_ZEROS: kept} if kept else {})}
    return save_arrays(path, arrays, metadata=metadata, profile=profile, values=values)


def load(
    path: str | os.PathLike[str],
    *,
    custom_objects: Mapping[str, Any] | None = None,
    max_bytes: int | None = None,
) -> Any:
    """Read what `save` wrote: an ordinary Keras model, or arrays by name.

    Args:
        path: A file of ours, or any plain safetensors file.
        custom_objects: Class name -> class, for models with layers of your own. Nothing else is
            looked up outside Keras's own registry, and nothing in the file is executed.
        max_bytes: Refuse files whose decoded tensors take more; None for no limit of our own.

    Returns:
        A Keras model with bit-equal weights (compiled if it was; zeros that were kept through training
        are kept again), or a dict of name -> ndarray.

    Raises:
        FileFormatError: The file is truncated, damaged, hostile, or too large when decoded.
        FileNotFoundError: There is no such file.
        MissingDependencyError: The file holds a model and Keras is not installed.
    """
    header = read_header(path)

    def read_all() -> dict[str, Any]:
        return load_arrays(path, dense=True, max_bytes=max_bytes)

    if _KERAS_CONFIG not in header.metadata:
        return read_all()
    shapes = {info.name: (info.shape, info.dtype.name) for info in header.tensors}
    config = header.metadata[_KERAS_CONFIG]
    model = _keras_files().model_from_file_parts(config, shapes, read_all, custom_objects)
    if _KEPT_ZEROS in header.metadata:
        _keras_files().keep_named(model, header.metadata[_KEPT_ZEROS])
    return model


def holds_model(path: str | os.PathLike[str]) -> bool:
    """Whether a file of ours holds a Keras model (and not just arrays)."""
    return _KERAS_CONFIG in read_header(path).metadata


def _keras_files() -> Any:
    try:
        from secateur.keras import files
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("keras", "tensorflow"):
            raise
        raise MissingDependencyError(
            f"A Keras model needs Keras, and {error.name} is not installed; "
            "install it with: pip install 'secateur[tensorflow]'"
        ) from error
    return files
