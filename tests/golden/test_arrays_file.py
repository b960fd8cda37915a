"""Files of format version 1 are read for ever, and written as they were."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from secateur.sparse import is_sparse, to_dense
from secateur.storage import load_arrays, read_header, save_arrays


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return runpy.run_path(str(Path(__file__).with_name("make.py")))


def test_the_golden_file_still_decodes(made: dict[str, Any]) -> None:
    expected = made["arrays"]()
    for dense in (True, False):
        loaded = load_arrays(made["GOLDEN"], dense=dense)
        assert list(loaded) == list(expected)
        for name, array in expected.items():
            got = to_dense(loaded[name]) if is_sparse(loaded[name]) else loaded[name]
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
            assert got.tobytes() == array.tobytes()
    header = read_header(made["GOLDEN"])
    assert header.version == 1
    assert header.metadata == made["METADATA"]
    for info in header.tensors:
        assert info.encoding == (info.name.split("/")[0] if "/" in info.name else "dense")


def test_the_same_arrays_still_give_the_same_bytes(made: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "again.safetensors"
    save_arrays(path, made["arrays"](), metadata=made["METADATA"])
    assert path.read_bytes() == made["GOLDEN"].read_bytes()
