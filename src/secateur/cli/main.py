"""Arguments in, exit code out; every expected failure is one line on stderr."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

import secateur
from secateur.cli.calibration import add_data_arguments
from secateur.cli.compressing import add_compress_arguments
from secateur.errors import SecateurError, TargetNotReachedWarning


class ExitCode(IntEnum):
    """What scripts can tell apart."""

    OK = 0
    ERROR = 1
    USAGE = 2
    TARGET_NOT_REACHED = 3


_EPILOG = """exit codes:
  0  done
  1  failed; one line on stderr says why and how to mend it
  2  wrong arguments
  3  done, but less was removed than asked for; a warning on stderr says why
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="secateur",
        description="Prune and cut trained Keras models; store what is left as small as it is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=secateur.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    inspect = commands.add_parser("inspect", help="layers, what can be pruned, sizes")
    inspect.add_argument("model", type=Path, help=".keras, .h5 or a file of ours")

    prune = commands.add_parser("prune", help="zero the least salient weights")
    _add_prune_arguments(prune)

    cut = commands.add_parser("cut", help="remove neurons, channels, units, heads: a smaller model")
    _add_cut_arguments(cut)

    compress = commands.add_parser(
        "compress", help="prune or cut and fine-tune under a goal, while the quality holds"
    )
    add_compress_arguments(compress)

    pack = commands.add_parser("pack", help="dense to ours: a Keras model or plain .safetensors")
    pack.add_argument("source", type=Path)
    pack.add_argument("-o", "--output", type=Path, required=True)
    _add_storage_arguments(pack)

    unpack = commands.add_parser("unpack", help="ours to dense: .keras, or plain .safetensors")
    unpack.add_argument("source", type=Path)
    unpack.add_argument("-o", "--output", type=Path, required=True)

    demo = commands.add_parser("demo", help="prune or cut a real model, store and measure it")
    demo.add_argument("--cut", action="store_true", help="cut it; pruned otherwise")
    demo.add_argument(
        "-o", "--output", type=Path, default=Path("secateur-demo"), help="folder for the files"
    )
    for command in (inspect, prune, cut, compress, pack, unpack, demo):
        command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def _add_prune_arguments(prune: argparse.ArgumentParser) -> None:
    prune.add_argument("model", type=Path, help=".keras, .h5 or a file of ours")
    prune.add_argument("-o", "--output", type=Path, required=True, help=".keras, else ours")
    amount = prune.add_mutually_exclusive_group()
    amount.add_argument(
        "-s",
        "--sparsity",
        metavar="FRACTION|NAME=FRACTION",
        action="append",
        help="fraction of zeros; or, repeatable, for layers of that name or pattern",
    )
    amount.add_argument("-t", "--threshold", type=float, help="saliencies strictly below it go")
    amount.add_argument("-k", "--count", type=int, help="exactly so many weights (or blocks) go")
    prune.add_argument(
        "--criterion",
        help="magnitude (default), path or random; with --data also wanda, ria, obs, sparsegpt, taylor, "
        "fisher or admm (default)",
    )
    prune.add_argument(
        "--pattern", default="unstructured", help="unstructured, 2:4, block:4x1, ..."
    )
    prune.add_argument(
        "--scope",
        choices=["global", "layer", "row"],
        help="what is ranked together (default global, with --data layer)",
    )
    prune.add_argument("--include", action="append", metavar="NAME", help="only these; repeatable")
    prune.add_argument("--exclude", action="append", metavar="NAME", help="not these; repeatable")
    add_data_arguments(prune)
    _add_storage_arguments(prune)


def _add_storage_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--profile",
        default="fast",
        choices=["fast", "small"],
        help="fast: parts that are read as they stand; small: entropy-coded, the smallest file",
    )
    command.add_argument(
        "--values",
        choices=["float16", "bfloat16"],
        help="lossy: round weight matrices to this; needs --profile small",
    )


def _add_cut_arguments(cut: argparse.ArgumentParser) -> None:
    cut.add_argument("model", type=Path, help=".keras, .h5 or a file of ours")
    cut.add_argument("-o", "--output", type=Path, help=".keras, else ours")
    cut.add_argument(
        "-d", "--data", type=Path, help=".npy, or .npz with an array for each input (or one, x)"
    )
    amount = cut.add_mutually_exclusive_group()
    amount.add_argument("-t", "--threshold", type=float, help="units whose output is below it go")
    amount.add_argument("-r", "--ratio", type=float, help="fraction of each layer's units that go")
    amount.add_argument(
        "-k", "--keep", metavar="NAME=N", action="append", help="units that stay; repeatable"
    )
    amount.add_argument("--plan", type=Path, metavar="JSON", help="make the cut of this plan")
    cut.add_argument(
        "--relative", action="store_true", help="threshold in multiples of the layer's mean"
    )
    cut.add_argument("--scope", choices=["layer", "global"], help="what a ratio is a ratio of")
    cut.add_argument(
        "--measure",
        help="with data: mean, rms, max, std, obs, flap, wanda_sp; without: path, incoming, outgoing",
    )
    cut.add_argument(
        "--repair", action="store_true", help="refit what reads removed units by least squares"
    )
    cut.add_argument("--damping", type=float, help="ridge of the least squares of obs and --repair")
    cut.add_argument(
        "--no-fold", action="store_true", help="hold removed units at zero, not at their means"
    )
    cut.add_argument(
        "--align",
        metavar="N|auto",
        help="widths are multiples of it (default 8); auto times them here, for 20 s at most",
    )
    cut.add_argument(
        "--granularity",
        action="append",
        metavar="KIND",
        help="only neuron, head, branch, ...; repeatable",
    )
    cut.add_argument("--include", action="append", metavar="NAME", help="only these; repeatable")
    cut.add_argument("--exclude", action="append", metavar="NAME", help="not these; repeatable")
    cut.add_argument(
        "--mask", metavar="NAME", help="input (or array of the .npz) that says what is no padding"
    )
    cut.add_argument("--batch-size", type=int, metavar="N", help="samples at a time (32)")
    cut.add_argument("--max-samples", type=int, metavar="N", help="read so many samples at most")
    cut.add_argument("--dry-run", action="store_true", help="print the plan, write no model")
    cut.add_argument("--plan-out", type=Path, metavar="JSON", help="write the plan, to be edited")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code (argparse itself exits with 2 on wrong arguments).

    Args:
        arguments: Words of the command line without the program's name; None for `sys.argv`.
    """
    options = build_parser().parse_args(arguments)
    from secateur.cli import commands

    run = getattr(commands, options.command)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", secateur.errors.SecateurWarning)
        try:
            run(options)
        except KeyboardInterrupt:
            print("secateur: interrupted; nothing was half written", file=sys.stderr)
            return ExitCode.ERROR
        except (SecateurError, OSError) as error:
            print(f"secateur: error: {_one_line(error)}", file=sys.stderr)
            return ExitCode.ERROR
    ours = [w for w in caught if issubclass(w.category, secateur.errors.SecateurWarning)]
    # What is said of several passes over the same data is said once.
    for message in dict.fromkeys(_one_line(warning.message) for warning in ours):
        print(f"secateur: warning: {message}", file=sys.stderr)
    if any(issubclass(warning.category, TargetNotReachedWarning) for warning in ours):
        return ExitCode.TARGET_NOT_REACHED
    return ExitCode.OK


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
