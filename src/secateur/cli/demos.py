"""`secateur demo`: a real model, pruned or cut, stored, loaded back and measured."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from secateur.cli import sources
from secateur.cli.display import console, print_json, progress, table

Column = tuple[str, Callable[[Any], str]]
"""Its heading, and the text of its cell for a row."""

_PRUNE_COLUMNS: Sequence[Column] = (
    (">zeros", lambda row: f"{row.reached:.1%}"),
    (">accuracy before", lambda row: f"{row.before:.4f}"),
    (">after", lambda row: f"{row.after:.4f}"),
    (">.keras", lambda row: f"{row.keras_bytes:,}"),
    (">.keras gzip", lambda row: f"{row.keras_gzip_bytes:,}"),
    (">ours", lambda row: f"{row.our_bytes:,}"),
    (">seconds", lambda row: f"{row.seconds:.2f}"),
)
_CUT_COLUMNS: Sequence[Column] = (
    (">ratio", lambda row: f"{row.asked:.0%}"),
    (">units", lambda row: str(row.units)),
    (">weights", lambda row: f"{row.parameters:,}"),
    (">before", lambda row: f"{row.before:.4f}"),
    (">cut", lambda row: f"{row.after:.4f}"),
    (">tuned", lambda row: f"{row.tuned:.4f}"),
    (">ms", lambda row: f"{row.milliseconds_before:.2f} -> {row.milliseconds_after:.2f}"),
    (">.keras", lambda row: f"{row.keras_bytes:,}"),
)


def demo(options: Namespace) -> None:
    """Prune or cut a real model by several amounts, store each, load it back and measure."""
    # The first import of Keras, without what its backend prints; the demos import it, too.
    sources.import_keras()
    from secateur.demo import cut_demo, prune_demo

    if options.cut:
        _run(options, cut_demo.run, len(cut_demo.RATIOS), _CUT_COLUMNS, cut_demo.NOTE)
    else:
        _run(options, prune_demo.run, len(prune_demo.SPARSITIES), _PRUNE_COLUMNS, prune_demo.NOTE)


def _run(
    options: Namespace, run: Callable[..., Any], amounts: int, columns: Sequence[Column], note: str
) -> None:
    with progress(options) as advance:
        rows = list(run(options.output, lambda step: advance(step, 1 + amounts)))
    if options.json:
        print_json([row.to_dict() for row in rows])
        return
    shown = table(*(heading for heading, _ in columns))
    for row in rows:
        shown.add_row(*(cell(row) for _, cell in columns))
    out = console()
    out.print(shown)
    out.print(note)
    out.print(f"The files are in {options.output}/", highlight=False)
