"""Which file is what: Keras models, files of ours, plain safetensors."""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from secateur.errors import InvalidArgumentError, MissingDependencyError
from secateur.files import holds_model, load, save
from secateur.storage import (
    Header,
    Profile,
    ShortFloat,
    TensorInfo,
    check_profile,
    load_arrays,
    read_header,
    save_plain,
)

_KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")


def check_output(path: Path) -> None:
    """Refuse, before any work is done, an output that cannot be written.

    Raises:
        InvalidArgumentError: Its folder does not exist, or it is a folder itself.
    """
    if not path.parent.is_dir():
        raise InvalidArgumentError(f"The folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise InvalidArgumentError(
            f"{path} is a folder; name a file, such as {path / 'out.keras'}."
        )


def is_keras_file(path: Path) -> bool:
    """Whether the name says that Keras wrote the file."""
    return path.suffix in _KERAS_SUFFIXES


def import_keras() -> Any:
    """Import Keras without the lines that its backend's libraries print while they start.

    Those come from C++ before any log level is read, and would drown our one line of error. If the
    import fails they are shown after all.

    Raises:
        MissingDependencyError: Keras or its backend is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as chatter, _stderr_to(chatter):
        try:
            import keras
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"This command needs Keras, and {error.name} is not installed; "
                "install it with: pip install 'secateur[tensorflow]'"
            ) from error
        except ImportError:
            chatter.seek(0)
            sys.stderr.write(chatter.read().decode(errors="replace"))
            raise
    return keras


@contextmanager
def _stderr_to(file: IO[bytes]) -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def load_model(path: Path) -> Any:
    """Read a Keras model from a `.keras` / `.h5` file or from one of ours.

    Raises:
        InvalidArgumentError: No such model in the file, or Keras cannot read it.
    """
    if not path.exists():
        raise InvalidArgumentError(f"There is no file {path}.")
    keras = import_keras()
    if is_keras_file(path):
        try:
            return keras.models.load_model(path)
        except (ValueError, TypeError, OSError, KeyError) as error:
            raise InvalidArgumentError(f"Keras cannot read {path}: {error}") from error
    if not holds_model(path):
        raise InvalidArgumentError(
            f"{path} holds arrays and no model; this command needs a model (.keras, .h5 or ours)."
        )
    return load(path)


def load_data(path: Path, model: Any) -> Any:
    """Read calibration samples from `.npy`, or from `.npz` by the names of the model's inputs.

    Returns:
        An array, or a dict of arrays for a model of several inputs.

    Raises:
        InvalidArgumentError: No such file, one that NumPy cannot read, or names that do not fit.
    """
    found = read_arrays(path, "--data", (".npy", ".npz"))
    return by_input(found, model, path) if isinstance(found, dict) else found


def read_arrays(path: Path, option: str, suffixes: Sequence[str]) -> Any:
    """The array of a `.npy` file, or a dict of those of a `.npz` file.

    Raises:
        InvalidArgumentError: No such file, another suffix, or one that NumPy cannot read.
    """
    if not path.exists():
        raise InvalidArgumentError(f"There is no file {path}.")
    if path.suffix not in suffixes:
        wanted = " or ".join(suffixes)
        raise InvalidArgumentError(f"{option} takes a {wanted} file of NumPy, got {path}.")
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidArgumentError(f"NumPy cannot read {path}: {error}") from error


def by_input(named: dict[str, Any], model: Any, path: Path) -> Any:
    """The arrays that the model takes: others in the file, labels say, are left alone.

    Raises:
        InvalidArgumentError: Names that do not fit.
    """
    inputs = [str(tensor.name) for tensor in getattr(model, "inputs", None) or ()]
    structure = getattr(model, "input", None) if inputs else None
    keys = [str(key) for key in structure] if isinstance(structure, dict) else inputs
    if len(keys) <= 1:
        for name in (*keys, "x"):
            if name in named:
                return named[name] if not isinstance(structure, dict) else {keys[0]: named[name]}
        if len(named) == 1:
            return next(iter(named.values()))
    elif set(keys) <= set(named):
        arrays = {key: named[key] for key in keys}
        return arrays if isinstance(structure, dict) else list(arrays.values())
    wanted = f"the inputs of the model, {keys}" if len(keys) > 1 else _one_of("x", *keys)
    raise InvalidArgumentError(f"{path} holds arrays {sorted(named)}; it should hold {wanted}.")


def _one_of(*names: str) -> str:
    return f"one array, or one named {' or '.join(names)}"


@dataclass(frozen=True)
class Storage:
    """How a file of ours is to be written: the arguments of `save`."""

    profile: Profile = "fast"
    values: ShortFloat | None = None


def check_storage(path: Path, storage: Storage) -> None:
    """Refuse, before any work is done, a profile and rounding that the file cannot have.

    Raises:
        InvalidArgumentError: The name is one of Keras's, and a profile or rounding is asked for; or
            they do not go together.
    """
    check_profile(storage.profile, storage.values)
    if is_keras_file(path) and storage != Storage():
        raise InvalidArgumentError(
            f"--profile and --values are of our format, and Keras writes {path}; name the output "
            ".safetensors."
        )


def write_model(path: Path, result: Any, storage: Storage | None = None) -> Header | None:
    """Write a model as `.keras` if the name says so, else in our format, and say what is in it."""
    how = storage or Storage()
    if not is_keras_file(path):
        return save(path, result, profile=how.profile, values=how.values)
    getattr(result, "model", result).save(path)
    return None


def pack(source: Path, output: Path, storage: Storage) -> Header:
    """Write a model or plain arrays in our format."""
    what = load_model(source) if is_keras_file(source) else load(source)
    return save(output, what, profile=storage.profile, values=storage.values)


def unpack(source: Path, output: Path) -> None:
    """Write a file of ours as `.keras`, or as safetensors that any reader understands.

    Raises:
        InvalidArgumentError: A `.keras` file is wanted of a file that holds only arrays.
    """
    if is_keras_file(output):
        write_model(output, load_model(source))
        return
    if output.suffix != ".safetensors":
        raise InvalidArgumentError(
            f"Cannot tell what {output} is to be; name it .keras (a model) or .safetensors (arrays)."
        )
    save_plain(output, load_arrays(source, dense=True))


def describe(path: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """One row for each weight of a model or array of a file, and totals.

    Raises:
        InvalidArgumentError: There is no such file, or it cannot be read.
    """
    if not path.exists():
        raise InvalidArgumentError(f"There is no file {path}.")
    if not is_keras_file(path) and not holds_model(path):
        rows = [_array_row(info) for info in read_header(path).tensors]
    else:
        rows = _model_rows(path)
    totals = {
        "parameters": sum(row["size"] for row in rows),
        "prunable": sum(row["size"] for row in rows if row["default"]),
        "file_bytes": path.stat().st_size,
    }
    return rows, totals


def _array_row(info: TensorInfo) -> dict[str, Any]:
    known = info.nonzeros is not None and info.size > 0
    return {
        "name": info.name,
        "shape": list(info.shape),
        "dtype": str(info.dtype),
        "size": info.size,
        "sparsity": 1 - (info.nonzeros or 0) / info.size if known else None,
        "default": False,
        "why_not": "",
        **_stored_columns(info),
    }


def _stored_columns(info: TensorInfo | None) -> dict[str, Any]:
    """How a tensor stands in a file of ours; None throughout if it stands in none."""
    rounding = None if info is None else info.rounding
    return {
        "encoding": None if info is None else info.encoding,
        "stored_bytes": None if info is None else info.stored_bytes,
        "bits_per_weight": None if info is None else info.bits_per_weight,
        "rounding": None if rounding is None else asdict(rounding),
    }


def _model_rows(path: Path) -> list[dict[str, Any]]:
    model = load_model(path)
    from secateur.keras import find_tensors, model_arrays

    tensors = {tensor.name: tensor for tensor in find_tensors(model).tensors}
    infos = () if is_keras_file(path) else read_header(path).tensors
    stored = {info.name: info for info in infos}
    rows = []
    for name, array in model_arrays(model).items():
        tensor = tensors.get(name)
        rows.append(
            {
                "name": name,
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "size": array.size,
                "sparsity": 1 - np.count_nonzero(array) / array.size if array.size else 0.0,
                "default": tensor is not None and tensor.default,
                "why_not": "" if tensor is None else tensor.why_not,
                **_stored_columns(stored.get(name)),
            }
        )
    return rows
