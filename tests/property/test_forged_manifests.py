"""Containers and manifests that say what cannot be are refused with the reason, and cost nothing."""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.property.storage_files import (
    Raw,
    first_tensor,
    forged,
    put_together,
    refused,
    stamp_parts,
    take_apart,
)

from secateur._kernels.native import packing
from secateur.storage import load_arrays, save_arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.manifest.update(version=3), "written by a newer one"),
        (lambda raw: raw.manifest.update(version=2), "ill described"),
        (first_tensor("rounding", None), "ill described"),
        (first_tensor("encoding", "coded"), "unknown encoding"),
        (lambda raw: raw.manifest.update(version=0), "not a number"),
        (lambda raw: raw.manifest.update(version=True), "not a number"),
        (lambda raw: raw.manifest.update(format="other"), "not one of ours"),
        (lambda raw: raw.manifest.update(extra=1), "fields it should have"),
        (lambda raw: raw.manifest.update(metadata={"a": 1}), "not strings"),
        (lambda raw: raw.manifest["tensors"].pop(), "every stored array exactly once"),
        (lambda raw: raw.manifest["tensors"].append(raw.manifest["tensors"][0]), "same name"),
        (first_tensor("encoding", "zip"), "unknown encoding"),
        (first_tensor("encoding", ["dense"]), "unknown encoding"),
        (first_tensor("dtype", "float128"), "no known dtype"),
        (first_tensor("shape", [50, -60]), "no shape"),
        (first_tensor("shape", [50, 60.0]), "no such number"),
        (first_tensor("shape", [50, True]), "no shape"),
        (first_tensor("shape", [1] * 33), "no shape"),
        (first_tensor("shape", [2**62, 2**62]), "larger than any memory"),
        (first_tensor("shape", [0, 2**40]), "stored sparse|no count"),
        (first_tensor("nonzeros", 3001), "no count"),
        (first_tensor("nonzeros", 1), "another shape"),
        (first_tensor("parts", []), "parts of its encoding"),
    ],
)
def test_forged_manifests_are_refused_with_the_reason(
    folder: Path, content: bytes, change: Callable[[Raw], Any], message: str
) -> None:
    text = refused(folder, forged(content, change))
    assert re.search(message, text), text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": 1, "version": 1', "given twice"),
        ('"version": 1', '"version": NaN', "no such number"),
        ('"version": 1', '"version": ' + "9" * 5000, "not JSON"),
        ('"version": 1', '"version": ' + "[" * 100_000, "nested too deeply"),
        ("{", "", "not JSON"),
    ],
)
def test_manifests_that_are_no_strict_json_are_refused(
    folder: Path, content: bytes, old: str, new: str, message: str
) -> None:
    raw = take_apart(content)
    text = json.dumps(raw.manifest)
    assert old in text
    assert message in refused(folder, put_together(raw, text.replace(old, new, 1)))


def test_a_manifest_beside_other_metadata_is_refused(folder: Path, content: bytes) -> None:
    for old, new in ((b'"secateur":', b'"secateuR":'), (b'{"secateur":', b'{"x":"","secateur":')):
        (length,) = struct.unpack("<Q", content[:8])
        header = content[8 : 8 + length].replace(old, new, 1)
        header = header.rstrip() + b" " * (-len(header.rstrip()) % 8)
        hostile = struct.pack("<Q", len(header)) + header + content[8 + length :]
        assert "not the only metadata" in refused(folder, hostile)


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**63, 2**64 - 1, 100_000_001])
def test_header_lengths_that_cannot_be_are_refused(
    folder: Path, content: bytes, length: int
) -> None:
    hostile = struct.pack("<Q", length) + content[8:]
    assert "not a whole safetensors file" in refused(folder, hostile)


@pytest.mark.parametrize(
    "offsets", [[0, 10**18], [4, 0], [-1, 4], [0, 0], [1, 5], [0, 2**64], [0.0, 4.0], None]
)
def test_offsets_that_cannot_be_are_refused(folder: Path, content: bytes, offsets: Any) -> None:
    raw = take_apart(content)
    raw.header["c"]["data_offsets"] = offsets
    assert "not a whole safetensors file" in refused(folder, put_together(raw))


def test_parts_that_overlap_are_refused(folder: Path, content: bytes) -> None:
    raw = take_apart(content)
    raw.header["c"]["data_offsets"] = raw.header["b:values"]["data_offsets"]
    assert "not a whole safetensors file" in refused(folder, put_together(raw))


def zeros_declaring(folder: Path, size: int) -> bytes:
    """A file of `size / 65536` counts that declares `size` zeros."""
    path = folder / "seed"
    save_arrays(path, {"w": np.zeros((200, 300), np.float32)})
    raw = take_apart(path.read_bytes())
    chunks = packing.num_chunks(size)
    raw.manifest["tensors"][0].update(shape=[size, 1], nonzeros=0)
    counts = bytes(4 * chunks)
    for name, entry in raw.header.items():
        is_counts = name.endswith(":counts")
        entry["shape"] = [chunks] if is_counts else [0]
        entry["data_offsets"] = [0, len(counts)] if is_counts else [len(counts)] * 2
    raw = raw._replace(data=counts)
    stamp_parts(raw)
    return put_together(raw)


@pytest.mark.parametrize("dense", [True, False])
def test_max_bytes_stops_a_small_file_that_declares_much(folder: Path, dense: bool) -> None:
    hostile = zeros_declaring(folder, 2**33)
    assert len(hostile) < 600_000
    tracemalloc.start()
    message = refused(folder, hostile, dense=dense, max_bytes=2**30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "max_bytes=1,073,741,824" in message
    assert f"{2**35:,}" in message or not dense
    assert peak < 4_000_000


def test_what_a_file_declares_is_given_to_it_without_max_bytes(folder: Path) -> None:
    (folder / "zeros").write_bytes(zeros_declaring(folder, 2**20))
    loaded = load_arrays(folder / "zeros")["w"]
    assert loaded.shape == (2**20, 1)
    assert loaded.nnz == 0


def test_too_little_memory_is_an_error_of_the_file(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(packing, "csr16_to_csr", no_memory)
    assert "declares 12,000 bytes" in refused(folder, content)
