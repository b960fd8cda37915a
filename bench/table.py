"""What was measured, and how it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_HEADINGS = ("step", "ours ms", "T ms", "ratio", "bound", "met", "other tool", "its ms", "speed-up")


@dataclass(frozen=True)
class Rival:
    """Another tool at the same step; `seconds` is None where it is not installed."""

    name: str
    seconds: float | None
    at_least: float | None

    def cells(self, ours: float | None) -> tuple[str, ...]:
        if self.seconds is None:
            return (f"{self.name}: not installed", "", "")
        if not ours:
            return (self.name, f"{self.seconds * 1e3:.1f}", "")
        times = self.seconds / ours
        verdict = ""
        if self.at_least is not None:
            verdict = f" (>= {self.at_least:g}: {_yes(times >= self.at_least)})"
        return (self.name, f"{self.seconds * 1e3:.1f}", f"{times:.1f}x{verdict}")


@dataclass
class Entry:
    """One step: medians in seconds, the median of all rounds' ratios to T, and the bound."""

    step: str
    ours: float | None = None
    read_pass: float | None = None
    ratio: float | None = None
    bound: float | None = None
    rivals: list[Rival] = field(default_factory=list)

    def rows(self) -> list[tuple[str, ...]]:
        own = (
            self.step,
            "" if self.ours is None else f"{self.ours * 1e3:.1f}",
            "" if self.read_pass is None else f"{self.read_pass * 1e3:.1f}",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.bound is None else f"<= {self.bound:g}",
            _met(self.ratio, self.bound),
        )
        rivals = [rival.cells(self.ours) for rival in self.rivals] or [("", "", "")]
        return [(own if i == 0 else ("",) * len(own)) + cells for i, cells in enumerate(rivals)]


@dataclass(frozen=True)
class Figure:
    """A figure that is no multiple of T, with its bound and what it is to be read beside."""

    what: str
    value: float
    unit: str
    bound: float | None = None
    beside: str = ""

    def row(self) -> tuple[str, ...]:
        bound = "" if self.bound is None else f"<= {self.bound:g}"
        return (
            self.what,
            f"{self.value:.3g} {self.unit}",
            bound,
            _met(self.value, self.bound),
            self.beside,
        )


def time_table(entries: Sequence[Entry]) -> list[str]:
    return _aligned([_HEADINGS, *(row for entry in entries for row in entry.rows())])


def figure_table(figures: Sequence[Figure]) -> list[str]:
    headings = ("figure", "value", "bound", "met", "beside")
    return _aligned([headings, *(figure.row() for figure in figures)])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _met(value: float | None, bound: float | None) -> str:
    return "" if value is None or bound is None else _yes(value <= bound)


def _yes(met: bool) -> str:
    return "yes" if met else "NO"
