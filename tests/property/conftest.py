"""Sound files in both profiles, which the tests of damaged and forged files start from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.property.storage_files import make_arrays

from secateur.storage import read_header, save_arrays


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory where there is such a place: thousands of files are written."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


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
