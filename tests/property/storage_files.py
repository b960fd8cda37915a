"""Files of ours taken apart, changed and put together again, with right checksums over wrong content."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse

from secateur.errors import FileFormatError
from secateur.storage import load_arrays

MAX_BYTES = 1 << 20


class Raw(NamedTuple):
    """A file taken apart: the container's header, the manifest in it, and the data."""

    header: dict[str, Any]
    manifest: dict[str, Any]
    data: bytes


def take_apart(content: bytes) -> Raw:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    manifest = json.loads(header.pop("__metadata__")["secateur"].partition(":")[2])
    return Raw(header, manifest, content[8 + length :])


def put_together(raw: Raw, manifest_text: str | None = None) -> bytes:
    text = json.dumps(raw.manifest) if manifest_text is None else manifest_text
    stamped = f"{zlib.crc32(text.encode()):08x}:{text}"
    header = {"__metadata__": {"secateur": stamped}, **raw.header}
    packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    return struct.pack("<Q", len(packed)) + packed + raw.data


def stamp_parts(raw: Raw) -> None:
    """Give every part the checksum of the bytes that its entry points to."""
    for tensor in raw.manifest["tensors"]:
        for part in tensor["parts"]:
            begin, end = raw.header[part["name"]]["data_offsets"]
            part["checksum"] = f"{zlib.crc32(raw.data[begin:end]):08x}"


def make_arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    csr16 = np.zeros((50, 60), np.float32)
    csr16[rng.random(csr16.shape) < 0.005] = 1.5
    bitmask = rng.standard_normal((30, 40)).astype(np.float16)
    bitmask[rng.random(bitmask.shape) < 0.75] = 0
    return {'a/é"\\': csr16, "b": bitmask, "c": np.arange(6, dtype=np.int16), "d": np.array(True)}


def load(path: Path, content: bytes) -> dict[str, Any] | None:
    """The arrays, or None where the file was refused. Any other error fails the test."""
    path.write_bytes(content)
    try:
        return load_arrays(path, max_bytes=MAX_BYTES)
    except FileFormatError:
        return None


def same_as_saved(loaded: dict[str, Any]) -> bool:
    saved = make_arrays()
    if list(loaded) != list(saved):
        return False
    dense = (a.toarray() if scipy.sparse.issparse(a) else a for a in loaded.values())
    return all(a.tobytes() == b.tobytes() for a, b in zip(dense, saved.values(), strict=True))


def refused(folder: Path, content: bytes, **arguments: Any) -> str:
    (folder / "hostile").write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        load_arrays(folder / "hostile", **arguments)
    return str(caught.value)


def forged(content: bytes, change: Callable[[Raw], Any]) -> bytes:
    raw = take_apart(content)
    change(raw)
    return put_together(raw)


def first_tensor(key: str, value: Any) -> Callable[[Raw], Any]:
    return lambda raw: raw.manifest["tensors"][0].update({key: value})
