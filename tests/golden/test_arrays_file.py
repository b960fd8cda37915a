"""Files of every format version are read for ever, and written as they were."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from secateur._kernels.reference import codec as reference
from secateur.sparse import is_sparse, to_dense
from secateur.storage import load_arrays, read_header, save_arrays


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).with_name("make.py")))


def assert_holds(path: Path, expected: dict[str, Any]) -> None:
    for dense in (True, False):
        loaded = load_arrays(path, dense=dense)
        assert list(loaded) == list(expected)
        for name, array in expected.items():
            got = to_dense(loaded[name]) if is_sparse(loaded[name]) else loaded[name]
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            assert got.tobytes() == array.tobytes()


def test_the_golden_file_still_decodes(made: dict[str, Any]) -> None:
    assert_holds(made["GOLDEN"], made["arrays"]())
    header = read_header(made["GOLDEN"])
    assert header.version == 1
    assert header.metadata == made["METADATA"]
    for info in header.tensors:
        assert info.encoding == (info.name.split("/")[0] if "/" in info.name else "dense")


def test_the_same_arrays_still_give_the_same_bytes(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    save_arrays(path, made["arrays"](), metadata=made["METADATA"])
    assert path.read_bytes() == made["GOLDEN"].read_bytes()


def coded_parts(path: Path) -> dict[str, Any]:
    parts = safetensors.numpy.load_file(path)
    return {name.removesuffix(":coded"): part for name, part in parts.items() if ":" in name}


def test_the_golden_small_file_still_decodes(made: dict[str, Any]) -> None:
    expected = made["small_arrays"]()
    assert_holds(made["GOLDEN_SMALL"], expected)
    header = read_header(made["GOLDEN_SMALL"])
    assert (header.version, header.metadata) == (2, made["METADATA"])
    parts = coded_parts(made["GOLDEN_SMALL"])
    assert set(parts) == set(expected) - {"empty", "step"}
    for name, part in parts.items():
        assert reference.decode(part, expected[name].size, expected[name].dtype).tobytes() == (
            expected[name].tobytes()
        )


def test_the_golden_small_file_holds_every_form(made: dict[str, Any]) -> None:
    seen, flags = set(), 0
    for name, part in coded_parts(made["GOLDEN_SMALL"]).items():
        chunks = -(-made["small_arrays"]()[name].size // reference.CHUNK)
        reader = reference.Reader(part.tobytes())
        shared = reader.number("B")
        flags |= shared
        for flag in (1, 2, 4):
            if shared & flag:
                reader.take(10 if flag == 4 else 0)
                reference.read_table(reader)
        lengths = [reader.number("I") for _ in range(chunks)]
        for length in lengths:
            payload = reader.take(length)
            seen.add((payload[0] & 7, payload[0] >> 3 & 1, payload[0] >> 5 & 3))
    assert {positions for positions, _, _ in seen} == set(range(6))
    assert {coded for _, coded, _ in seen} == {0, 1}
    assert {own for _, coded, own in seen if coded} == {0, 1, 3}
    assert flags & 4
    assert flags & 3


def test_the_same_arrays_still_give_the_same_small_bytes(
    made: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "again.safetensors"
    save_arrays(path, made["small_arrays"](), metadata=made["METADATA"], profile="small")
    assert path.read_bytes() == made["GOLDEN_SMALL"].read_bytes()
