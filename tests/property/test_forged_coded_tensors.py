"""Coded tensors that lie about what they hold, under checksums that are right, are refused."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.property.storage_files import (
    MAX_BYTES,
    Raw,
    first_tensor,
    forged,
    load,
    put_together,
    refused,
    stamp_parts,
    take_apart,
)

from secateur.storage import read_header, save_arrays


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
