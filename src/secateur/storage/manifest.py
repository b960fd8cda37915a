"""The manifest: what a file of ours says of itself, as JSON under one metadata key.

One key, because the library that writes the container keeps its metadata in a hash map: with two
keys the bytes would differ from run to run. Checksums cover the manifest itself and every stored
array; what they do not cover, the container's own header, must agree with the manifest in every
entry.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native import codec
from secateur.errors import FileFormatError
from secateur.storage.container import DTYPES, MAX_DIMS, Entry
from secateur.storage.encodings import FAST_ENCODINGS, ROLES, Encoding, part_layout
from secateur.storage.rounding import Rounding

KEY = "secateur"
FORMAT_VERSION = 2
"""The newest that is read. Files are written in the oldest that can say what is in them: version 1
knows the encodings of the profile "fast"; version 2 adds "coded", and what rounding cost.
"""
_MAX_BYTES = 2**63 - 1


@dataclass(frozen=True)
class TensorInfo:
    """One stored tensor.

    Attributes:
        name: As given to `save_arrays`.
        shape: Of the dense array.
        dtype: Of the dense array.
        encoding: "dense", "bitmask", "csr16" or "coded".
        stored_bytes: Bytes that its parts take in the file.
        nonzeros: Elements with any bit set; None in plain safetensors files, which do not say.
        rounding: What rounding its values cost, if that was asked for.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    encoding: Encoding
    stored_bytes: int
    nonzeros: int | None
    rounding: Rounding | None = None

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per element of the dense array; 0 for an empty one."""
        return 8 * self.stored_bytes / self.size if self.size else 0.0

    @property
    def size(self) -> int:
        """Number of elements of the dense array."""
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense array."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """What can be known of a file without decoding it.

    Attributes:
        version: Format version; None for a plain safetensors file.
        metadata: As given to `save_arrays`; of a plain file its own metadata.
        tensors: In the order they were saved in.
    """

    version: int | None
    metadata: Mapping[str, str]
    tensors: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Part:
    """One stored array: its name in the container, and the checksum of its bytes if it has one."""

    name: str
    checksum: str | None


@dataclass(frozen=True)
class Manifest:
    """The header, and for each tensor its parts in the order of `ROLES`."""

    header: Header
    parts: tuple[tuple[Part, ...], ...]


def checksum(data: bytes | NDArray[Any]) -> str:
    """CRC-32 of the bytes, 8 lower-case hexadecimal digits.

    zlib's runs at some 2 GB/s and finds every error of up to 32 bits in a row; the hashes of
    hashlib take twice as long or more, and no checksum keeps out who can write a new one beside the
    data.
    """
    raw = data if isinstance(data, bytes) else data.reshape(-1).view(np.uint8).data
    return f"{zlib.crc32(raw):08x}"


def version_for(infos: Iterable[TensorInfo]) -> int:
    """The oldest format version that can say what these tensors are."""
    is_new = any(info.encoding not in FAST_ENCODINGS or info.rounding for info in infos)
    return 2 if is_new else 1


def _tensor_to_json(info: TensorInfo, parts: tuple[Part, ...], version: int) -> dict[str, Any]:
    added = {} if version == 1 else {"rounding": info.rounding and info.rounding.to_json()}
    return {
        "name": info.name,
        "shape": list(info.shape),
        "dtype": info.dtype.name,
        "encoding": info.encoding,
        "nonzeros": info.nonzeros,
        "parts": [{"name": part.name, "checksum": part.checksum} for part in parts],
        **added,
    }


def to_text(manifest: Manifest) -> str:
    """The manifest as the container keeps it: `CHECKSUM:JSON`."""
    version = manifest.header.version or version_for(manifest.header.tensors)
    document = {
        "format": KEY,
        "version": version,
        "metadata": dict(sorted(manifest.header.metadata.items())),
        "tensors": [
            _tensor_to_json(info, parts, version)
            for info, parts in zip(manifest.header.tensors, manifest.parts, strict=True)
        ],
    }
    text = json.dumps(document, separators=(",", ":"))
    return f"{checksum(text.encode())}:{text}"


def _refuse(problem: str) -> FileFormatError:
    return FileFormatError(f"The file's manifest is damaged or forged: {problem}.")


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise _refuse(problem)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _expect(len({key for key, _ in pairs}) == len(pairs), "a key is given twice")
    return dict(pairs)


def _no_float(text: str) -> None:
    raise _refuse(f"{text} stands where no such number belongs")


def _parse_json(text: str) -> Any:
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_float=_no_float,
            parse_constant=_no_float,
        )
    except RecursionError as error:
        raise _refuse("it is nested too deeply") from error
    except FileFormatError:
        raise
    except ValueError as error:
        raise _refuse(f"not JSON ({error})") from error


def _checked_document(text: str) -> dict[str, Any]:
    stored, colon, body = text.partition(":")
    raw = body.encode("utf-8", "surrogatepass")
    _expect(colon == ":" and stored == checksum(raw), "its checksum is wrong")
    document = _parse_json(body)
    _expect(isinstance(document, dict) and document.get("format") == KEY, "it is not one of ours")
    version = document.get("version")
    _expect(_is_count(version) and version >= 1, "the format version is not a number")
    if version > FORMAT_VERSION:
        raise FileFormatError(
            f"The file has format version {version}, this secateur reads up to {FORMAT_VERSION}: "
            "it was written by a newer one; upgrade to read it."
        )
    return dict(document)


def _is_count(value: Any) -> bool:
    """A whole number of at least 0, and not True or False, which are numbers in Python."""
    return type(value) is int and value >= 0


def _has_keys(value: Any, *keys: str) -> bool:
    return isinstance(value, dict) and set(value) == set(keys)


def _parse_shape(value: Any, name: str) -> tuple[int, ...]:
    _expect(
        isinstance(value, list) and len(value) <= MAX_DIMS and all(_is_count(n) for n in value),
        f"tensor {name!r} has no shape",
    )
    return tuple(value)


def _parse_parts(value: Any, encoding: Encoding, name: str) -> tuple[Part, ...]:
    _expect(
        isinstance(value, list)
        and len(value) == len(ROLES[encoding])
        and all(_has_keys(part, "name", "checksum") for part in value)
        and all(isinstance(text, str) for part in value for text in part.values()),
        f"tensor {name!r} has not the parts of its encoding",
    )
    return tuple(Part(part["name"], part["checksum"]) for part in value)


def _fits(entry: Entry | None, info: TensorInfo) -> bool:
    """Whether coded bytes could be those of the tensor. How many they are only they know."""
    return (
        entry is not None
        and entry.dtype == np.uint8
        and len(entry.shape) == 1
        and entry.num_bytes >= codec.least_bytes(info.size)
    )


def _check_entries(info: TensorInfo, parts: tuple[Part, ...], entries: Mapping[str, Entry]) -> None:
    found = [entries.get(part.name) for part in parts]
    if info.encoding == "coded":
        good = [_fits(found[0], info)]
    else:
        layout = part_layout(info.encoding, info.shape, info.dtype, info.nonzeros or 0)
        good = [
            entry == Entry(shape, dtype)
            for entry, (shape, dtype) in zip(found, layout, strict=True)
        ]
    for part, fits in zip(parts, good, strict=True):
        _expect(
            fits,
            f"part {part.name!r} of tensor {info.name!r} is missing or of another shape or dtype",
        )


def _parse_rounding(value: Any, name: str, size: int) -> Rounding | None:
    if value is None:
        return None
    rounding = Rounding.from_json(value, size)
    _expect(rounding is not None, f"tensor {name!r} does not say how it was rounded")
    return rounding


def _parse_tensor(
    value: Any, entries: Mapping[str, Entry], version: int
) -> tuple[TensorInfo, tuple[Part, ...]]:
    added = () if version == 1 else ("rounding",)
    keys = ("name", "shape", "dtype", "encoding", "nonzeros", "parts", *added)
    _expect(_has_keys(value, *keys) and isinstance(value["name"], str), "a tensor is ill described")
    name, encoding, nonzeros = value["name"], value["encoding"], value["nonzeros"]
    known = FAST_ENCODINGS if version == 1 else tuple(ROLES)
    _expect(isinstance(encoding, str) and encoding in known, f"{name!r} has an unknown encoding")
    _expect(
        isinstance(value["dtype"], str) and value["dtype"] in DTYPES, f"{name!r} has no known dtype"
    )
    shape, dtype = _parse_shape(value["shape"], name), DTYPES[value["dtype"]]
    size = math.prod(shape)
    _expect(size * dtype.itemsize <= _MAX_BYTES, f"tensor {name!r} is larger than any memory")
    _expect(_is_count(nonzeros) and nonzeros <= size, f"tensor {name!r} has no count of non-zeros")
    _expect(size > 0 or encoding == "dense", f"the empty tensor {name!r} is stored sparse")
    parts = _parse_parts(value["parts"], encoding, name)
    rounding = _parse_rounding(value.get("rounding"), name, size)
    info = TensorInfo(name, shape, dtype, encoding, 0, nonzeros, rounding)
    _check_entries(info, parts, entries)
    stored = sum(entries[part.name].num_bytes for part in parts)
    return replace(info, stored_bytes=stored), parts


def _parse_metadata(value: Any) -> dict[str, str]:
    _expect(
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values()),
        "its metadata are not strings",
    )
    return dict(value)


def _parse(text: str, entries: Mapping[str, Entry]) -> Manifest:
    document = _checked_document(text)
    _expect(
        _has_keys(document, "format", "version", "metadata", "tensors")
        and isinstance(document["tensors"], list),
        "it has not the fields it should have",
    )
    version, metadata = document["version"], _parse_metadata(document["metadata"])
    found = [_parse_tensor(value, entries, version) for value in document["tensors"]]
    infos, parts = tuple(info for info, _ in found), tuple(part for _, part in found)
    names = [part.name for group in parts for part in group]
    _expect(len({info.name for info in infos}) == len(infos), "two tensors have the same name")
    _expect(
        len(set(names)) == len(names) == len(entries),
        "it does not account for every stored array exactly once",
    )
    return Manifest(Header(version, metadata, infos), parts)


def _looks_like_manifest(text: str) -> bool:
    """Whether this was written by `to_text`, be it damaged."""
    return re.match(r"[0-9a-f]{8}:\{", text) is not None or f'"format":"{KEY}"' in text


def _plain(metadata: Mapping[str, str], entries: Mapping[str, Entry]) -> Manifest:
    infos = tuple(
        TensorInfo(name, entry.shape, entry.dtype, "dense", entry.num_bytes, None)
        for name, entry in entries.items()
    )
    parts = tuple((Part(name, None),) for name in entries)
    return Manifest(Header(None, dict(metadata), infos), parts)


def read_manifest(metadata: Mapping[str, str], entries: Mapping[str, Entry]) -> Manifest:
    """The manifest of a file of ours, or one made up for a plain safetensors file.

    Args:
        metadata: The container's.
        entries: The container's.

    Raises:
        FileFormatError: The manifest is damaged, is not of this format, or disagrees with the
            container.
    """
    if set(metadata) == {KEY}:
        return _parse(metadata[KEY], entries)
    # Damage to the key must not turn a file of ours into a plain one.
    if KEY in metadata or any(_looks_like_manifest(text) for text in metadata.values()):
        raise _refuse(f"it is not the only metadata, under the key {KEY!r}")
    return _plain(metadata, entries)
