"""Arrays by key: in memory up to a budget, beyond it in a temporary file.

A calibration walk comes by every array in turn, again and again. The least recently used one is then
the one that is needed next, so nothing is ever evicted: what came first stays in memory, the rest is
read from the file each time.
"""

from __future__ import annotations

import bisect
import errno
import math
import tempfile
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from secateur.arrays import Array
from secateur.errors import InvalidArgumentError

GIGABYTE = 1 << 30


@dataclass(frozen=True)
class _Spilled:
    """Where an array lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class ActivationStore:
    """A mapping of arrays that takes no more than a budget of memory.

    The file has no name from the moment it is made (on Windows it goes when it is closed), so it
    cannot outlive the process however that ends. It lies in the folder for temporary files (`TMPDIR`).

    Args:
        budget: Bytes of arrays that are kept in memory.
        folder: Where the file is made; None for the system's folder for temporary files.

    Raises:
        InvalidArgumentError: A negative budget.

    Example:
        >>> with ActivationStore(budget=100) as store:
        ...     store.put("small", np.arange(3.0))
        ...     store.put("large", np.arange(30.0))
        ...     store.num_spilled, store.get("large").sum()
        (1, np.float64(435.0))
    """

    def __init__(self, budget: int = GIGABYTE, folder: str | Path | None = None) -> None:
        if budget < 0:
            raise InvalidArgumentError(f"budget is a number of bytes, at least 0; got {budget}.")
        self.budget = budget
        self.in_memory = 0
        self._folder = folder
        self._held: dict[Hashable, Array] = {}
        self._spilled: dict[Hashable, _Spilled] = {}
        self._file: IO[bytes] | None = None
        self._space = FreeSpace()

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held or key in self._spilled

    def __len__(self) -> int:
        return len(self._held) + len(self._spilled)

    @property
    def num_spilled(self) -> int:
        """How many arrays lie in the file."""
        return len(self._spilled)

    @property
    def file_size(self) -> int:
        """Bytes of the file: the most that ever lay in it at once, and gaps."""
        return self._space.end

    def put(self, key: Hashable, array: Array) -> None:
        """Keep an array; it must not be changed afterwards.

        Args:
            key: A new key.
            array: Any shape and dtype; arrays of objects stay in memory.

        Raises:
            InvalidArgumentError: The key is taken.
            OSError: The disk is full; the message says how to need less of it.
        """
        if key in self:
            raise InvalidArgumentError(f"There is an array under {key!r} already; drop it first.")
        fits = self.in_memory + array.nbytes <= self.budget
        if fits or array.dtype.hasobject or not array.nbytes:
            self._held[key] = array
            self.in_memory += array.nbytes
        else:
            self._spilled[key] = self._write(np.ascontiguousarray(array).reshape(array.shape))

    def get(self, key: Hashable) -> Array:
        """The array under a key; one from the file is read anew each time."""
        if key in self._held:
            return self._held[key]
        place = self._spilled[key]
        assert self._file is not None
        memory = np.empty(place.nbytes, np.uint8)
        self._file.seek(place.offset)
        self._file.readinto(memory.data)  # type: ignore[attr-defined]
        array: Array = memory.view(place.dtype).reshape(place.shape)
        return array

    def drop(self, key: Hashable) -> None:
        """Forget an array; its place is used again."""
        if key in self._held:
            self.in_memory -= self._held.pop(key).nbytes
            return
        place = self._spilled.pop(key)
        self._space.release(place.offset, place.nbytes)

    def close(self) -> None:
        """Forget everything, and the file."""
        self._held.clear()
        self._spilled.clear()
        self.in_memory = 0
        if self._file is not None:
            self._file.close()
            self._file = None
        self._space = FreeSpace()

    def _write(self, array: Array) -> _Spilled:
        if self._file is None:
            # Unbuffered: arrays are large, and a buffer would only copy them once more.
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
        place = _Spilled(self._space.take(array.nbytes), array.shape, array.dtype)
        try:
            self._file.seek(place.offset)
            _write_all(self._file, array.reshape(-1).view(np.uint8).data)
        except OSError as error:
            self._space.release(place.offset, place.nbytes)
            if error.errno != errno.ENOSPC:
                raise
            folder = self._folder or tempfile.gettempdir()
            raise OSError(
                error.errno,
                f"There is no room in {folder} for the activations of the calibration data, which do "
                f"not fit the {self.budget:,} bytes of memory they are allowed. Pass fewer samples "
                "(max_samples), allow more memory, or point TMPDIR at a larger disk.",
            ) from error
        return place


def _write_all(file: IO[bytes], data: memoryview) -> None:
    written = 0
    while written < len(data):  # one call may write less, and no more than 2 GiB
        written += file.write(data[written:])


class FreeSpace:
    """Which parts of a file are free.

    Example:
        >>> space = FreeSpace()
        >>> space.take(10), space.take(5)
        (0, 10)
        >>> space.release(0, 10)
        >>> space.take(4), space.take(6), space.end
        (0, 4, 15)
    """

    def __init__(self) -> None:
        self.end = 0
        self._gaps: list[tuple[int, int]] = []  # (offset, size), in order, never touching

    def take(self, size: int) -> int:
        """Offset of a free part of this size: of the first gap that is large enough, or the end."""
        for index, (offset, room) in enumerate(self._gaps):
            if room >= size:
                self._gaps[index : index + 1] = [(offset + size, room - size)] * (room > size)
                return offset
        self.end += size
        return self.end - size

    def release(self, offset: int, size: int) -> None:
        """Give a part back; it is joined with the gaps beside it."""
        index = bisect.bisect(self._gaps, (offset, size))
        start, stop, first, last = offset, offset + size, index, index
        if index and sum(self._gaps[index - 1]) == start:
            start, first = self._gaps[index - 1][0], index - 1
        if index < len(self._gaps) and self._gaps[index][0] == stop:
            stop, last = sum(self._gaps[index]), index + 1
        self._gaps[first:last] = [(start, stop - start)]
