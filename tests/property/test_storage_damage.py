"""Damaged, truncated and hostile files raise FileFormatError: no other error, no more memory.

Hostile files here know the format: they carry right checksums over wrong content.
"""

from __future__ import annotations

import copy
import json
import random
import re
import struct
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur._kernels.native import packing
from secateur.errors import FileFormatError
from secateur.storage import load_arrays, read_header, save_arrays

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


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: thousands of files are written."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


def make_arrays() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    csr16 = np.zeros((50, 60), np.float32)
    csr16[rng.random(csr16.shape) < 0.005] = 1.5
    bitmask = rng.standard_normal((30, 40)).astype(np.float16)
    bitmask[rng.random(bitmask.shape) < 0.75] = 0
    return {'a/é"\\': csr16, "b": bitmask, "c": np.arange(6, dtype=np.int16), "d": np.array(True)}


@pytest.fixture(scope="module")
def content(folder: Path) -> bytes:
    path = folder / "good"
    save_arrays(path, make_arrays(), metadata={"config": '{"x": [1, "\\n"]}'})
    infos = read_header(path).tensors
    assert [info.encoding for info in infos] == ["csr16", "bitmask", "dense", "dense"]
    return path.read_bytes()


@pytest.fixture(scope="module")
def small_content(folder: Path) -> bytes:
    path = folder / "good small"
    header = save_arrays(path, make_arrays(), metadata={"config": "{}"}, profile="small")
    assert [info.encoding for info in header.tensors] == ["coded", "coded", "dense", "dense"]
    return path.read_bytes()


@pytest.fixture(scope="module", params=["fast", "small"])
def any_content(request: pytest.FixtureRequest, content: bytes, small_content: bytes) -> bytes:
    return content if request.param == "fast" else small_content


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


# ---- Damage ----


@pytest.mark.parametrize("bit", range(8))
def test_every_single_flipped_bit_is_found(folder: Path, any_content: bytes, bit: int) -> None:
    damaged = bytearray(any_content)
    for place in range(len(any_content)):
        damaged[place] ^= 1 << bit
        assert load(folder / "flipped", bytes(damaged)) is None, (place, bit)
        damaged[place] ^= 1 << bit


def test_every_truncation_is_found(folder: Path, any_content: bytes) -> None:
    for length in range(len(any_content)):
        assert load(folder / "cut", any_content[:length]) is None, length


def test_anything_after_the_end_is_found(folder: Path, any_content: bytes) -> None:
    for tail in (b"\0", b" ", b"\0" * 8, any_content):
        assert load(folder / "long", any_content + tail) is None


# ---- Mutations ----


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(2, 16)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def splice(rng: random.Random, content: bytes) -> bytes:
    begin, end = sorted(rng.randrange(len(content)) for _ in range(2))
    to = rng.randrange(len(content))
    piece = content[begin:end]
    return rng.choice(
        [
            content[:to] + piece + content[to + len(piece) :],
            content[:to] + piece + content[to:],
            content[:begin] + content[end:],
            content[:to] + rng.randbytes(rng.randint(1, 40)) + content[to + rng.randint(0, 40) :],
        ]
    )


HOSTILE: list[Any] = [
    *(-1, 0, 1, 2, 3, 7, 65536, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**30),
    *(True, False, None, "", "F32", "float32", "dense", "bitmask", "csr16", "coded", "é", "\ud800"),
    *("a" * 300, 1.5, 1e300, float("nan"), float("inf"), [], {}, [[]], [0], [0, 0], [-1]),
    *([2**62, 4], [1] * 70, {"a": 1}, {"name": "b", "checksum": "00000000"}, [2**40, 0]),
    *([0, 2**40], [3000], [60, 50]),
]


def paths_in(node: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON document there is something to edit."""
    if not isinstance(node, (dict, list)):
        return []
    items = node.items() if isinstance(node, dict) else enumerate(node)
    found = []
    for key, child in items:
        found += [(*prefix, key), *paths_in(child, (*prefix, key))]
    return found


def edit(rng: random.Random, document: Any) -> None:
    *above, key = rng.choice(paths_in(document))
    node = document
    for step in above:
        node = node[step]
    action = rng.randrange(4)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    elif action == 2 and type(node[key]) is int:
        node[key] += rng.choice([-1, 1, 8, 2**32, -(2**63)])
    else:
        node[key] = copy.deepcopy(rng.choice(HOSTILE))


def edit_manifest(rng: random.Random, content: bytes) -> bytes:
    raw = take_apart(content)
    for _ in range(rng.randint(1, 2)):
        edit(rng, raw.manifest)
    return put_together(raw)


def edit_container(rng: random.Random, content: bytes) -> bytes:
    raw = take_apart(content)
    for _ in range(rng.randint(1, 2)):
        edit(rng, raw.header)
    return put_together(raw)


def edit_both(rng: random.Random, content: bytes) -> bytes:
    """Shapes that agree in both headers, over data of another size."""
    raw = take_apart(content)
    tensor = rng.choice(raw.manifest["tensors"])
    tensor["shape"] = rng.choice([[], [0], [1], [2**20], [2**31, 2**31], [50, 61], [7] * 5])
    for part in tensor["parts"]:
        raw.header[part["name"]]["shape"] = list(tensor["shape"])
    return put_together(raw)


def edit_data(rng: random.Random, content: bytes) -> bytes:
    """Counts, positions, bits and values that are wrong under checksums that are right."""
    raw = take_apart(content)
    data = bytearray(raw.data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        data[place] = rng.choice([0, 1, 0xFF, data[place] ^ 1, rng.randrange(256)])
    raw = raw._replace(data=bytes(data))
    stamp_parts(raw)
    return put_together(raw)


def edit_text(rng: random.Random, content: bytes) -> bytes:
    """A manifest that is no longer JSON, or only just."""
    raw = take_apart(content)
    text = json.dumps(raw.manifest)
    begin = rng.randrange(len(text))
    end = begin + rng.randint(0, 2)
    pieces = [
        '"',
        "{",
        "}",
        "[",
        ",",
        ":",
        "\\",
        "1e9",
        "NaN",
        "-",
        "0",
        " ",
        "\\ud800",
        "9" * 5000,
    ]
    return put_together(raw, text[:begin] + rng.choice(pieces) + text[end:])


MUTATORS = [flip_bits, splice, edit_manifest, edit_container, edit_both, edit_data, edit_text]


@pytest.mark.parametrize("mutate", MUTATORS, ids=lambda mutate: mutate.__name__)
def test_mutated_files_are_refused_or_harmless(
    folder: Path, any_content: bytes, mutate: Callable[[random.Random, bytes], bytes]
) -> None:
    rng = random.Random(mutate.__name__)
    refused = 0
    for step in range(1000):
        mutated = mutate(rng, any_content)
        watch = step % 20 == 0
        if watch:
            tracemalloc.start()
        loaded = load(folder / "mutated", mutated)
        if watch:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            # Decoded arrays, their stored parts, and some times the file for its two headers.
            assert peak < 2 * MAX_BYTES + 40 * len(mutated)
        if loaded is None:
            refused += 1
        elif mutate in (flip_bits, splice):
            assert mutated == any_content or same_as_saved(loaded)
    assert refused > 200


EDITS = st.tuples(st.integers(0, 2**16), st.binary(max_size=9))


@given(edits=st.lists(EDITS, min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_overwritten_bytes_are_refused(
    folder: Path, any_content: bytes, edits: list[tuple[int, bytes]]
) -> None:
    mutated = bytearray(any_content)
    for place, piece in edits:
        begin = place % len(any_content)
        mutated[begin : begin + len(piece)] = piece
    loaded = load(folder / "overwritten", bytes(mutated))
    assert loaded is None or same_as_saved(loaded)


# ---- What a hostile file may say, one by one ----


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


# ---- What a hostile coded tensor may say ----


def coded_data(raw: Raw) -> slice:
    return slice(*raw.header['a/é"\\:coded']["data_offsets"])


def rounded(**changes: Any) -> Callable[[Raw], Any]:
    cost = {
        "values": "float16",
        "max_relative_error": "0.0004",
        "rms_relative_error": "0.0002",
        "num_zeroed": 0,
    }
    return first_tensor("rounding", {**cost, **changes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.manifest.update(version=1), "ill described"),
        (first_tensor("nonzeros", 1), "number of non-zeros"),
        (first_tensor("shape", [50, 61]), "is damaged"),
        (first_tensor("shape", [50, 6000000]), "another shape"),
        (first_tensor("shape", [0, 60]), "no count|stored sparse"),
        (first_tensor("dtype", "float16"), "damaged"),
        (first_tensor("encoding", "bitmask"), "parts of its encoding"),
        (first_tensor("rounding", {}), "does not say how it was rounded"),
        (first_tensor("rounding", "float16"), "does not say how it was rounded"),
        (rounded(values="float8"), "does not say how it was rounded"),
        (rounded(values=["float16"]), "does not say how it was rounded"),
        (rounded(max_relative_error="-1"), "does not say how it was rounded"),
        (rounded(max_relative_error="9" * 999), "does not say how it was rounded"),
        (rounded(rms_relative_error="nan"), "does not say how it was rounded"),
        (rounded(rms_relative_error=1), "does not say how it was rounded"),
        (rounded(num_zeroed=-1), "does not say how it was rounded"),
        (rounded(num_zeroed=3001), "does not say how it was rounded"),
        (rounded(num_zeroed=True), "does not say how it was rounded"),
        (rounded(more=1), "does not say how it was rounded"),
    ],
)
def test_forged_coded_tensors_are_refused_with_the_reason(
    folder: Path, small_content: bytes, change: Callable[[Raw], Any], message: str
) -> None:
    text = refused(folder, forged(small_content, change))
    assert re.search(message, text), text


def test_a_sound_word_on_rounding_is_taken(folder: Path, small_content: bytes) -> None:
    path = folder / "rounded"
    path.write_bytes(forged(small_content, rounded()))
    rounding = read_header(path).tensors[0].rounding
    assert rounding is not None
    assert (rounding.values, rounding.max_relative_error) == ("float16", 0.0004)


def test_every_changed_byte_of_coded_data_is_found_under_a_right_checksum(
    folder: Path, small_content: bytes
) -> None:
    """What is decoded has a checksum of its own, so a stamp on wrong bytes does not help."""
    raw = take_apart(small_content)
    where = coded_data(raw)
    rng = random.Random(0)
    for place in range(where.start, where.stop):
        data = bytearray(raw.data)
        data[place] ^= rng.randrange(1, 256)
        changed = Raw(raw.header, copy.deepcopy(raw.manifest), bytes(data))
        stamp_parts(changed)
        assert load(folder / "changed", put_together(changed)) is None, place


def test_coded_booleans_that_are_neither_are_refused(folder: Path) -> None:
    path = folder / "booleans"
    numbers = np.zeros(5000, np.uint8)
    numbers[::9] = 2
    save_arrays(path, {"w": numbers}, profile="small")
    hostile = forged(path.read_bytes(), first_tensor("dtype", "bool"))
    assert "neither 0 nor 1" in refused(folder, hostile)


def test_a_small_file_of_very_many_zeros_is_refused_by_max_bytes(folder: Path) -> None:
    path = folder / "zeros"
    save_arrays(path, {"w": np.zeros((2000, 1000), np.float16)}, profile="small")
    assert path.stat().st_size < 1500
    assert "max_bytes" in refused(folder, path.read_bytes(), max_bytes=MAX_BYTES)
