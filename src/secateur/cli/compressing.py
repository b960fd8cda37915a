"""`secateur compress`: smaller step by step, for as long as the quality holds."""

from __future__ import annotations

import argparse
import json
import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import secateur as sc
from secateur.cli import sources
from secateur.cli.display import print_json, print_text, share_bar
from secateur.cli.labelled import load_labelled
from secateur.errors import InvalidArgumentError

if TYPE_CHECKING:
    from secateur.compression import CompressionResult, Goal

_OURS, _KERAS, _HISTORY = "model.safetensors", "model.keras", "history.json"
_SMALL = sources.Storage("small")
_BY_LABELS = {"accuracy", "acc", "crossentropy", "ce"}
"""Names that Keras turns into a metric by the shape of the labels."""


def add_compress_arguments(compress: argparse.ArgumentParser) -> None:
    """The options of `secateur compress`."""
    compress.add_argument("model", type=Path, help=".keras, .h5 or a file of ours")
    for name in ("train", "validation"):
        compress.add_argument(
            f"--{name}",
            type=Path,
            required=True,
            metavar="NPZ",
            help=f".npz to {'train on' if name == 'train' else 'judge by'}: x (or an array for each "
            "input), y, and perhaps sample_weight",
        )
    compress.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f".keras, .safetensors (ours), or a folder for {_OURS}, {_KERAS} and {_HISTORY}",
    )
    compress.add_argument("--force", action="store_true", help="write over an output that exists")
    _add_goals(compress)
    _add_judgement(compress)
    _add_training(compress)


def _add_goals(compress: argparse.ArgumentParser) -> None:
    group = compress.add_argument_group("goal, one of them")
    goal = group.add_mutually_exclusive_group(required=True)
    goal.add_argument(
        "-r",
        "--ratio",
        type=float,
        help="so many times smaller than the gzip of the .keras file (the same as --size RATIOx)",
    )
    amount: Any = {"type": _amount, "metavar": "N|Nx"}
    goal.add_argument("--size", **amount, help="bytes of our file: at most N, or N times fewer")
    goal.add_argument("--parameters", **amount, help="weights that are not zero")
    goal.add_argument("--macs", **amount, help="multiplications by such weights, for one sample")
    goal.add_argument(
        "--latency", **amount, help="seconds of a call, which only cutting brings down"
    )
    goal.add_argument("-s", "--sparsity", type=float, help="fraction of zeros in weight matrices")


def _add_judgement(compress: argparse.ArgumentParser) -> None:
    compress.add_argument(
        "--max-drop", type=float, default=0.01, help="how much worse the metric may become (0.01)"
    )
    compress.add_argument(
        "--metric", help="a metric the model is compiled with, or loss; its first metric by default"
    )
    compress.add_argument(
        "--mode", choices=["max", "min"], help="what is better, where the name does not tell"
    )
    compress.add_argument(
        "--method", help="prune, cut, both or auto; by default cut for a latency, else prune"
    )


def _add_training(compress: argparse.ArgumentParser) -> None:
    group = compress.add_argument_group("training")
    group.add_argument("--epochs", type=int, help="of each step")
    group.add_argument("--batch-size", type=int, metavar="N")
    group.add_argument("--learning-rate", type=float, help="by default the compiled optimizer's")
    group.add_argument(
        "--no-distillation",
        action="store_true",
        help="learn from the labels alone, not the original",
    )
    group.add_argument("--loss", help="compile the model with this loss, such as mse")
    group.add_argument("--optimizer", help="with --loss; adam by default")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="the state is written there after every step",
    )
    group.add_argument("--resume", action="store_true", help="go on from --checkpoint")


def _amount(text: str) -> tuple[str, float]:
    """`10x` as a ratio, `10` as a value: the argument's name, and the number."""
    kind, number = ("ratio", text[:-1]) if text.endswith("x") else ("value", text)
    try:
        return kind, float(number.replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"takes a number, or a number and an x for how many times fewer, such as 10x; got {text!r}"
        ) from None


def compress(options: Namespace) -> None:
    """Compress a model under a goal and write the smallest whose quality held."""
    _check(options)
    sources.import_keras()  # quietly, before goals import it
    goal = _goal(options)
    tuning = _tuning(options)
    with share_bar(options) as tell:
        tell(f"loading {options.model}", 0.0)
        model = sources.load_model(options.model)
        train, validation = (
            load_labelled(getattr(options, name), model, f"--{name}")
            for name in ("train", "validation")
        )
        _compile(options, model)
        result = sc.compress(
            model,
            train,
            validation,
            target=goal,
            metric=options.metric,
            mode=options.mode,
            max_drop=options.max_drop,
            method=options.method,
            tuning=tuning,
            checkpoint=options.checkpoint,
            resume=options.resume,
            seed=options.seed,
            progress=tell,
        )
        tell(f"writing {options.output}", 1.0)
        files = _write(options.output, result)
    if options.json:
        print_json({"output": str(options.output), "files": files, **_summary(result)})
        return
    print_text(str(result))
    for path, size in files.items():
        print_text(f"wrote {path}: {size:,} bytes")


def _check(options: Namespace) -> None:
    """Refuse, before any work is done, arguments that do not go together."""
    output = options.output
    if not output.parent.is_dir():
        raise InvalidArgumentError(f"The folder {output.parent} does not exist; make it first.")
    if output.suffix not in ("", ".safetensors") and not sources.is_keras_file(output):
        raise InvalidArgumentError(
            f"Cannot tell what {output} is to be; name it .keras, .safetensors, or without a suffix for "
            "a folder."
        )
    if output.exists():
        _check_existing(output, options.force)
    if options.resume and options.checkpoint is None:
        raise InvalidArgumentError("--resume goes on from a folder: name it with --checkpoint.")
    if options.optimizer is not None and options.loss is None:
        raise InvalidArgumentError("--optimizer goes with --loss: both compile the model anew.")


def _check_existing(output: Path, force: bool) -> None:
    if output.is_dir() != (output.suffix == ""):
        kind = "folder" if output.is_dir() else "file"
        raise InvalidArgumentError(f"{output} exists and is a {kind}; name another output.")
    if output.is_dir() and not any(output.iterdir()):
        return
    if not force:
        raise InvalidArgumentError(
            f"{output} exists; name another output, or pass --force to write over it."
        )


def _goal(options: Namespace) -> Goal:
    kinds: dict[str, Callable[..., Goal]] = {
        "size": sc.Size, "parameters": sc.Parameters, "macs": sc.Macs, "latency": sc.Latency,
    }  # fmt: skip
    if options.ratio is not None:
        return sc.Size(ratio=options.ratio)
    if options.sparsity is not None:
        return sc.Sparsity(options.sparsity)
    name = next(name for name in kinds if getattr(options, name) is not None)
    kind, number = getattr(options, name)
    return kinds[name](**{kind: number})


def _tuning(options: Namespace) -> sc.FineTuning:
    names = ("epochs", "batch_size", "learning_rate")
    given = {name: getattr(options, name) for name in names}
    chosen = {name: value for name, value in given.items() if value is not None}
    if options.no_distillation:
        chosen["distillation"] = None
    return sc.FineTuning(**chosen)


def _compile(options: Namespace, model: Any) -> None:
    """Compile the model if a loss is named, with that and the metric."""
    if options.loss is None:
        if not model.compiled:
            raise InvalidArgumentError(
                f"The model in {options.model} is not compiled, so it cannot be trained; name its loss, "
                "such as --loss sparse_categorical_crossentropy --metric accuracy (and perhaps "
                "--optimizer)."
            )
        return
    keras = sources.import_keras()
    metrics = [options.metric] if options.metric not in (None, "loss") else []
    try:
        keras.losses.get(options.loss)  # `compile` looks at names only when the model is used
        for metric in set(metrics) - _BY_LABELS:
            keras.metrics.get(metric)
        model.compile(options.optimizer or "adam", options.loss, metrics=metrics)
    except (ValueError, TypeError) as error:
        raise InvalidArgumentError(
            f"Keras cannot compile the model with loss {options.loss!r}, optimizer "
            f"{options.optimizer or 'adam'!r} and metrics {metrics}: {error}"
        ) from error


def _summary(result: CompressionResult) -> dict[str, Any]:
    return {
        "metric": result.history.metric,
        "quality_before": result.quality[0],
        "quality_after": result.quality[1],
        "goal": result.history.goal,
        **asdict(result.comparison),
        "ratio": result.comparison.ratio,
        "reached": result.reached,
        "interrupted": result.interrupted,
        "history": result.history.to_dict()["steps"],
        "front": [step.number for step in result.history.front()],
        "explanation": None if result.explanation is None else result.explanation.to_dict(),
    }


def _write(output: Path, result: CompressionResult) -> dict[str, int]:
    """Write the output whole or not at all; returns the bytes of each file."""
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        made = Path(folder) / output.name
        if output.suffix:
            sources.write_model(made, result, _SMALL)
            made.replace(output)
            return {str(output): output.stat().st_size}
        made.mkdir()
        for name in (_OURS, _KERAS):
            sources.write_model(made / name, result, _SMALL)
        (made / _HISTORY).write_text(json.dumps(_summary(result), indent=2) + "\n")
        output.mkdir(exist_ok=True)
        names = sorted(path.name for path in made.iterdir())
        for name in names:
            (made / name).replace(output / name)
    return {str(output / name): (output / name).stat().st_size for name in names}
