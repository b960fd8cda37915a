"""Damaged, truncated and mutated files raise FileFormatError: no other error, no more memory."""

from __future__ import annotations

import copy
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.storage_files import (
    MAX_BYTES,
    load,
    put_together,
    same_as_saved,
    stamp_parts,
    take_apart,
)

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
