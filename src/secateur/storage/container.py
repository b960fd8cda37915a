"""The safetensors file around the stored arrays: all calls to the `safetensors` library."""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from numpy.typing import NDArray

from secateur.errors import FileFormatError

_CODES = {
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
}

DTYPES = {dtype.name: dtype for dtype in _CODES.values()}
"""The dtypes that can be stored, by name. All have items of 1, 2, 4 or 8 bytes."""

RESERVED_NAME = "__metadata__"
"""The one name that a tensor in a safetensors file cannot have."""

MAX_HEADER_BYTES = 100_000_000
"""Longer headers are refused by every reader of safetensors files."""

MAX_DIMS = 32
"""More dimensions than every NumPy version can hold are refused."""


def booleans_are_sound(array: NDArray[Any]) -> bool:
    """Whether a boolean array holds nothing but 0 and 1 in its bytes; any other array is sound."""
    if array.dtype != np.bool_ or array.size == 0:
        return True
    return bool(array.view(np.uint8).max() <= 1)


@dataclass(frozen=True)
class Entry:
    """What the container's header says of one stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Bytes of the stored array."""
        return math.prod(self.shape) * self.dtype.itemsize


def _os_error(error: safetensors.SafetensorError, path: Path) -> OSError:
    """The library wraps what the system said into text; take the number out again."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    code = int(found[1]) if found else errno.EIO
    return OSError(code, os.strerror(code) if found else str(error), str(path))


def write_container(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Write arrays from their own memory, without a copy.

    Args:
        path: A file to create or overwrite; not atomic and not synced, see `atomic`.
        arrays: C-contiguous, in native byte order, of dtypes in `DTYPES`.
        metadata: Of one entry, if the bytes are to be the same each time: the library keeps no
            order.

    Raises:
        OSError: The system refuses.
    """
    specs = {
        name: safetensors.TensorSpec(
            dtype=array.dtype.name,
            shape=list(array.shape),
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in arrays.items()
    }
    try:
        safetensors.serialize_file(specs, path, dict(metadata))
    except safetensors.SafetensorError as error:
        raise _os_error(error, path) from error


class Container:
    """An open safetensors file whose offsets are known to fit its shapes and its size."""

    def __init__(self, handle: Any, path: Path) -> None:
        self._handle = handle
        self.path = path
        self.metadata: dict[str, str] = handle.metadata() or {}
        self.entries = {name: self._entry(name) for name in handle.offset_keys()}

    def _entry(self, name: str) -> Entry:
        part = self._handle.get_slice(name)
        code, shape = part.get_dtype(), tuple(part.get_shape())
        if code not in _CODES:
            raise FileFormatError(
                f"{self.path}: tensor {name!r} has dtype {code}, which is not read here; "
                f"expected one of {', '.join(_CODES)}."
            )
        if len(shape) > MAX_DIMS:
            raise FileFormatError(
                f"{self.path}: tensor {name!r} has {len(shape)} dimensions, at most {MAX_DIMS} "
                "can be read."
            )
        return Entry(shape, _CODES[code])

    def read(self, name: str) -> NDArray[Any]:
        """A copy of one array; of the file only its pages are touched.

        Raises:
            FileFormatError: A boolean that is neither 0 nor 1.
        """
        array: NDArray[Any] = self._handle.get_tensor(name)
        if not booleans_are_sound(array):
            raise FileFormatError(f"{self.path}: {name!r} has booleans that are neither 0 nor 1.")
        return array


def _check_regular(path: Path) -> None:
    """Named pipes would block, devices give no end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise FileFormatError(f"{path} is not a regular file.")


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Map a safetensors file and check its header.

    Raises:
        FileNotFoundError: No such file.
        OSError: The system refuses to open it.
        FileFormatError: Not a whole and sound safetensors file.
    """
    _check_regular(path)
    with path.open("rb"):  # what the system has against it comes as its own error, with the path
        pass
    try:
        with safetensors.safe_open(path, framework="np") as handle:
            yield Container(handle, path)
    except safetensors.SafetensorError as error:
        raise FileFormatError(
            f"{path} is not a whole safetensors file: {error}. It is truncated, damaged or of "
            "another format."
        ) from error
