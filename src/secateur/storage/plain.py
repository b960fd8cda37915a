"""Plain safetensors files, which any reader understands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from secateur.storage.arrays_file import StrPath, storable
from secateur.storage.atomic import replacing
from secateur.storage.container import write_container


def save_plain(path: StrPath, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays densely, with nothing of ours in the file; atomically, as `save_arrays` does.

    Args:
        path: The file to write, commonly named `*.safetensors`.
        arrays: Name -> array of a dtype that `save_arrays` stores.

    Raises:
        InvalidArgumentError: A dtype or name that cannot be stored.
        OSError: The system refuses to write; the old file is left as it was.

    Example:
        >>> import numpy
        >>> path = getfixture("tmp_path") / "plain.safetensors"
        >>> save_plain(path, {"w": numpy.eye(2)})
        >>> path.stat().st_size > 32
        True
    """
    stored = {name: storable(name, array) for name, array in arrays.items()}
    with replacing(Path(path)) as temporary:
        write_container(temporary, stored, {})
