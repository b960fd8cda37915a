"""What each command does. Each prints either a table or JSON on stdout; progress goes to stderr."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import secateur as sc
from secateur.cli import sources
from secateur.cli.calibration import data_options
from secateur.cli.compressing import compress
from secateur.cli.cutting import cut
from secateur.cli.demos import demo
from secateur.cli.display import console, print_json, print_sizes, print_text, progress, table
from secateur.errors import InvalidArgumentError
from secateur.storage import Header

__all__ = ["compress", "cut", "demo", "inspect", "pack", "prune", "unpack"]


def inspect(options: Namespace) -> None:
    """Show the weights of a model, which of them are pruned, and what they take on disk."""
    rows, totals = sources.describe(options.model)
    if options.json:
        print_json({"weights": rows, **totals})
        return
    shown = table(
        "weight", "shape", "dtype", "zeros", "pruned", ">bytes in file", "encoding, bits per weight"
    )
    shown.columns[0].no_wrap = True  # names can be searched for, and copied
    for row in rows:
        shown.add_row(
            row["name"],
            "x".join(map(str, row["shape"])) or "()",
            row["dtype"],
            "-" if row["sparsity"] is None else f"{row['sparsity']:.1%}",
            "yes" if row["default"] else f"no: {row['why_not']}" if row["why_not"] else "no",
            "-" if row["stored_bytes"] is None else f"{row['stored_bytes']:,}",
            _encoding_cell(row),
        )
    out = console()
    out.print(shown)
    out.print(
        f"{totals['parameters']:,} parameters, {totals['prunable']:,} of them pruned by default; "
        f"{totals['file_bytes']:,} bytes on disk"
    )


def _encoding_cell(row: Mapping[str, Any]) -> str:
    if row["encoding"] is None:
        return "-"
    rounding = row["rounding"]
    words = [row["encoding"], rounding and rounding["values"], f"{row['bits_per_weight']:.2f}"]
    return ", ".join(word for word in words if word)


def _storage(options: Namespace) -> sources.Storage:
    storage = sources.Storage(options.profile, options.values)
    sources.check_storage(options.output, storage)
    return storage


def _roundings(header: Header | None) -> dict[str, dict[str, Any]]:
    infos = () if header is None else header.tensors
    return {info.name: asdict(info.rounding) for info in infos if info.rounding is not None}


def prune(options: Namespace) -> None:
    """Prune a model and write it, as `.keras` or as a file of ours."""
    sources.check_output(options.output)
    storage = _storage(options)
    with progress(options) as advance:
        advance(f"loading {options.model}", None)
        model = sources.load_model(options.model)
        total = _num_weights(model)
        result = sc.prune(
            model,
            sparsity=_sparsity(options.sparsity),
            threshold=options.threshold,
            count=options.count,
            criterion=options.criterion,
            pattern=options.pattern,
            scope=options.scope,
            include=options.include,
            exclude=options.exclude,
            **data_options(options, model),
            inplace=True,
            progress=lambda name: advance(name, total),
        )
        advance(f"writing {options.output}", None)
        header = sources.write_model(options.output, result, storage)
    summary = {
        "output": str(options.output),
        "bytes_before": options.model.stat().st_size,
        "bytes_after": options.output.stat().st_size,
        "report": result.report.to_dict(),
        "rounding": _roundings(header),
    }
    if options.json:
        print_json(summary)
        return
    print_text(str(result.report))
    print_sizes(summary)


def pack(options: Namespace) -> None:
    """Store a Keras model or plain arrays in our format."""
    sources.check_output(options.output)
    storage = _storage(options)
    with progress(options) as advance:
        advance(f"packing {options.source}", None)
        header = sources.pack(options.source, options.output, storage)
    _report_sizes(options, header)


def unpack(options: Namespace) -> None:
    """Turn a file of ours into a `.keras` file or plain `.safetensors`."""
    sources.check_output(options.output)
    with progress(options) as advance:
        advance(f"unpacking {options.source}", None)
        sources.unpack(options.source, options.output)
    _report_sizes(options)


def _sparsity(given: list[str] | None) -> float | dict[str, float] | None:
    if given is None:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return _fraction(given[0])
    pairs = [entry.rpartition("=") for entry in given]
    if not all(name for name, _, _ in pairs):
        raise InvalidArgumentError(
            f"--sparsity takes one fraction, or NAME=FRACTION once per name; got {given}."
        )
    return {name: _fraction(value) for name, _, value in pairs}


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidArgumentError(
            f"--sparsity takes a fraction such as 0.9, or NAME=0.9; got {text!r}."
        ) from None


def _num_weights(model: Any) -> int:
    from secateur.keras import find_tensors

    return sum(tensor.default for tensor in find_tensors(model).tensors)


def _report_sizes(options: Namespace, header: Header | None = None) -> None:
    summary = {
        "output": str(options.output),
        "bytes_before": options.source.stat().st_size,
        "bytes_after": options.output.stat().st_size,
        "rounding": _roundings(header),
    }
    if options.json:
        print_json(summary)
    else:
        print_sizes(summary)
