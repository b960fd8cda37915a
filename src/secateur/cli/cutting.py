"""`secateur cut`: remove subnetworks from a model and write what is left."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import secateur as sc
from secateur.cli import sources
from secateur.cli.calibration import mask_of
from secateur.cli.display import print_json, print_sizes, print_text, progress
from secateur.errors import InvalidArgumentError

# What says how much goes, and what: a plan from a file has settled all that.
_DECISIONS = (
    "threshold", "ratio", "relative", "scope", "measure", "align", "granularity", "include", "exclude",
    "repair", "damping", "no_fold",
)  # fmt: skip


def cut(options: Namespace) -> None:
    """Cut a model and write it, as `.keras` or as a file of ours; or only tell what would go."""
    _check(options)
    with progress(options) as advance:
        advance(f"loading {options.model}", None)
        model = sources.load_model(options.model)
        data = None if options.data is None else sources.load_data(options.data, model)
        plan = _plan(options, model, data, mask_of(options, model), advance)
        if options.plan_out is not None:
            options.plan_out.write_text(plan.to_json() + "\n", encoding="utf-8")
        if options.dry_run:
            result = None
        else:
            advance("building and proving the smaller model", None)
            result = plan.apply()
            bytes_before = options.model.stat().st_size
            advance(f"writing {options.output}", None)
            sources.write_model(options.output, result.model)
    if result is None:
        _print_plan(options, plan)
        return
    _print_result(options, result, bytes_before)


def _check(options: Namespace) -> None:
    """Refuse, before any work is done, arguments that do not go together."""
    if options.output is not None:
        sources.check_output(options.output)
    elif not options.dry_run:
        raise InvalidArgumentError("Name the file to write with -o OUT, or pass --dry-run.")
    if options.plan_out is not None:
        sources.check_output(options.plan_out)
    given = [name for name in _DECISIONS if getattr(options, name) not in (None, False)]
    given += ["keep"] if options.keep else []
    words = ", --".join(given).replace("_", "-")
    if options.plan is not None and given:
        raise InvalidArgumentError(
            f"--plan has settled what goes; leave out --{words}, or make a new plan."
        )
    if options.plan is None and not any(
        getattr(options, name) not in (None, []) for name in ("threshold", "ratio", "keep")
    ):
        raise InvalidArgumentError(
            "Say how much goes: --ratio 0.5, --threshold 0.01 (with --data), --keep NAME=32, or --plan."
        )


def _plan(
    options: Namespace, model: Any, data: Any, mask: Any, advance: Callable[..., None]
) -> sc.CutPlan:
    if options.plan is not None:
        if not options.plan.exists():
            raise InvalidArgumentError(f"There is no file {options.plan}.")
        try:
            text = options.plan.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InvalidArgumentError(f"{options.plan} is not a plan: it is no text.") from None
        return sc.bind_plan(sc.CutPlan.from_json(text), model, data, mask=mask)
    given = {name: getattr(options, name) for name in (*_DECISIONS, "batch_size", "max_samples")}
    given["mask"] = mask
    given["keep"] = _keep(options.keep) if options.keep else None
    given["align"] = _align(options.align)
    given["fold"] = False if given.pop("no_fold") else None
    chosen = {name: value for name, value in given.items() if value is not None}
    return sc.plan_cut(model, data, progress=advance, **chosen)


def _keep(given: list[str]) -> dict[str, int]:
    """`NAME=N` as a dict."""
    counts = {}
    for entry in given:
        name, _, number = entry.rpartition("=")
        if not name or not number.isdigit():
            raise InvalidArgumentError(
                f"--keep takes NAME=NUMBER, such as dense=32; got {entry!r}."
            )
        counts[name] = int(number)
    return counts


def _align(given: str | None) -> int | str | None:
    if given is None or not given.lstrip("-").isdigit():
        return given
    return int(given)


def _print_plan(options: Namespace, plan: sc.CutPlan) -> None:
    if options.json:
        print_json({"plan": json.loads(plan.to_json())})
    else:
        print_text(str(plan))


def _print_result(options: Namespace, result: Any, bytes_before: int) -> None:
    summary = {
        "output": str(options.output),
        "bytes_before": bytes_before,
        "bytes_after": options.output.stat().st_size,
        "parameters_before": result.parameters[0],
        "parameters_after": result.parameters[1],
        "proof": None if result.proof is None else asdict(result.proof),
        "plan": json.loads(result.plan.to_json()),
    }
    if options.json:
        print_json(summary)
        return
    print_text(f"{result.plan}\n{result}")
    print_sizes(summary)
