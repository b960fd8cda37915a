"""What commands print: tables and JSON on stdout, a progress bar on stderr."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from secateur.storage import Rounding

_WIDE = 240


def print_sizes(summary: Mapping[str, Any]) -> None:
    """Say what was written, how its size compares, and what rounding cost.

    Reads `output`, `bytes_before`, `bytes_after` and, if it is there, `rounding`.
    """
    before, after = summary["bytes_before"], summary["bytes_after"]
    print_text(
        f"wrote {summary['output']}: {after:,} bytes, {after / before:.1%} of the file it came from"
    )
    for name, rounding in summary.get("rounding", {}).items():
        print_text(f"{name}: {Rounding(**rounding)}")


def print_json(data: Any) -> None:
    """Print data as JSON."""
    print(json.dumps(data, indent=2))


def print_text(text: str) -> None:
    """Print text as it is: no line is broken, nothing in it is markup."""
    console().print(text, highlight=False, markup=False, soft_wrap=True)


def table(*columns: str) -> Table:
    """A table with these columns; ">" before a name sets its column to the right."""
    made = Table()
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if right else "left", overflow="fold")
    return made


def console() -> Console:
    """Where tables and text go: a file or a pipe has no width that names need be broken for."""
    shown = Console()
    return shown if shown.is_terminal or "COLUMNS" in os.environ else Console(width=_WIDE)


@contextmanager
def progress(options: Namespace) -> Iterator[Any]:
    """A progress bar on stderr; `advance(step, total)` names the step, and moves on if it counts.

    A bar that is full begins anew with the next step that counts: things are gone through twice.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    errors = Console(stderr=True)
    with Progress(
        *columns, console=errors, transient=True, disable=options.json or not errors.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=None)
        known: int | None = None

        def advance(step: str, total: int | None) -> None:
            nonlocal known
            full = total is not None and bar.tasks[0].completed >= total
            if full or (total is not None and known not in (None, total)):
                bar.reset(task)
            known = total if total is not None else known
            bar.update(task, description=step, total=total)
            if total is not None:
                bar.advance(task)

        yield advance


@contextmanager
def share_bar(options: Namespace) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr for work of long steps; `tell(step, share)` names a step and the share done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("elapsed"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    errors = Console(stderr=True)
    with Progress(
        *columns,
        console=errors,
        transient=True,
        disable=options.json or not errors.is_terminal,
        speed_estimate_period=86_400.0,  # steps take minutes: time left is judged by all of them
    ) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda step, share: bar.update(task, description=step, completed=share)
