"""Who may import what beyond the package: compiled kernels, Numba, frameworks."""

import ast
from pathlib import Path

import pytest

import secateur

ROOT = Path(secateur.__file__).parent
ALLOWED = {
    "secateur._core": ("_kernels/native/",),
    "numba": ("_kernels/jit.py",),
    "keras": (
        "keras/",
        "compression/",
        "searching/",
        "demo/",
        "cli/sources.py",
        "runtime/sparse_dense.py",
    ),
    "tensorflow": ("keras/", "runtime/sparse_dense.py"),
}


def imports_of(path):
    """Modules a file imports, at its top or later, `from package import module` included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", ALLOWED)
def test_only_these_rooms_import(module):
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if any(name == module or name.startswith(module + ".") for name in imports_of(path))
    }
    strangers = {name for name in importers if not name.startswith(ALLOWED[module])}
    assert not strangers
    assert importers or module == "tensorflow"
