"""What compressed models are still good for: tasks, methods and amounts, over three calibration seeds.

    python -m bench.quality                                # both tables: pruning and cutting
    python -m bench.quality --cuts                         # units cut; --zeros: weights pruned
    python -m bench.quality lemmatiser --zeros --sparsities .5 .7 --seeds 0 --methods default

Prints a row for each task and method as soon as it is known: mean over the seeds, the largest distance
from it, and the seconds one run took at most. Models and texts come from packages (see `bench.zoo`); a
task whose package cannot be had is skipped with a word.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from bench.tasks import LOADERS, Task, load_task
from bench.zoo import UnavailableError

import secateur as sc
from secateur.errors import MissingDependencyError, SecateurWarning

Options = Mapping[str, Any]

PRUNING: dict[str, Options] = {
    "magnitude": {"criterion": "magnitude"},
    "Wanda": {"criterion": "wanda", "scope": "row"},
    "SparseGPT": {"criterion": "sparsegpt"},
    "SparseGPT, asymmetric": {"criterion": "sparsegpt", "asymmetric": True},
    "default": {},
}
CUTTING: dict[str, Options] = {
    "weight norms, no repair": {"data": None},
    **{
        f"{measure}, no repair": {"measure": measure, "fold": False}
        for measure in ("mean", "wanda_sp", "flap", "obs")
    },
    **{f"{measure}, mean folded": {"measure": measure} for measure in ("std", "flap", "obs")},
    **{
        f"{measure}, repair": {"measure": measure, "repair": True}
        for measure in ("std", "wanda_sp", "flap")
    },
    "repair": {"repair": True},  # the default: obs
}
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
RATIOS = (0.3, 0.5, 0.7)


@dataclass(frozen=True)
class Cell:
    """Figures of one method at one amount over all seeds."""

    values: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Largest distance from the mean."""
        return max(abs(value - self.mean) for value in self.values)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ±{self.spread:.3f}"


@dataclass(frozen=True)
class Table:
    """A kind of compression: its methods, and how much of a model goes.

    Attributes:
        title: In the heading.
        methods: By name, what the call is told.
        amounts: By heading, what the call is told beside.
        compress: From task, method, amount, and calibration to a model.
    """

    title: str
    methods: Mapping[str, Options]
    amounts: Mapping[str, Options]
    compress: Callable[[Task, Options, Options, Options], keras.Model]

    def rows(self, names: Sequence[str], seeds: Sequence[int]) -> Iterator[str]:
        """Lines of the table."""
        yield f"| {self.title} | method | {' | '.join(self.amounts)} | slowest |"
        yield "|---" * (3 + len(self.amounts)) + "|"
        for name in names:
            try:
                task = load_task(name)
            except (UnavailableError, MissingDependencyError) as error:
                yield f"| {name} | skipped: {error} |"
                continue
            whole = task.evaluate(task.model)
            yield f"| {task.name} | untouched | {whole:.3f} ({task.measure}) |"
            for method, how in self.methods.items():
                cells = [
                    None if _lacks(task, amount) else self._cell(task, how, amount, seeds)
                    for amount in self.amounts.values()
                ]
                seconds = max(cell.seconds for cell in cells if cell is not None)
                listed = " | ".join("" if cell is None else str(cell) for cell in cells)
                yield f"| {task.name} | {method} | {listed} | {seconds:.1f} s |"

    def _cell(self, task: Task, how: Options, amount: Options, seeds: Sequence[int]) -> Cell:
        values, seconds = [], 0.0
        for seed in seeds:
            given = task.calibration(seed)
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecateurWarning)
                compressed = self.compress(task, how, amount, given)
            seconds += time.perf_counter() - start
            values.append(task.evaluate(compressed))
        return Cell(tuple(values), seconds / len(seeds))


def _lacks(task: Task, amount: Options) -> bool:
    return "pattern" in amount and amount["pattern"] not in task.patterns


def prune(task: Task, how: Options, amount: Options, given: Options) -> keras.Model:
    """The task's model with zeros."""
    return sc.prune(task.model, **{**given, **amount, **how}).model


def cut(task: Task, how: Options, amount: Options, given: Options) -> keras.Model:
    """The task's model with fewer units; how many is to the letter, so widths are not rounded."""
    options = {**given, "align": 1, **task.cut, **amount, **how}
    if options["data"] is None:
        options.pop("mask", None)
    return sc.cut(task.model, **options).model


def tables(options: argparse.Namespace) -> list[Table]:
    """What is asked for."""

    def chosen(methods: Mapping[str, Options]) -> dict[str, Options]:
        return {
            name: how
            for name, how in methods.items()
            if not options.methods or name in options.methods
        }

    zeros: dict[str, Options] = {f"{s:.0%}": {"sparsity": s} for s in options.sparsities}
    if options.patterns:
        zeros["2:4"] = {"pattern": "2:4"}
    ratios: dict[str, Options] = {f"{r:.0%}": {"ratio": r} for r in options.ratios}
    both = options.zeros == options.cuts
    found = []
    if both or options.zeros:
        found.append(Table("pruned", chosen(PRUNING), zeros, prune))
    if both or options.cuts:
        found.append(Table("cut", chosen(CUTTING), ratios, cut))
    return [table for table in found if table.methods]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(LOADERS)}; all")
    parser.add_argument("--zeros", action="store_true", help="only the table of pruning")
    parser.add_argument("--cuts", action="store_true", help="only the table of cutting")
    parser.add_argument("--sparsities", nargs="*", type=float, default=SPARSITIES)
    parser.add_argument("--ratios", nargs="*", type=float, default=RATIOS)
    parser.add_argument("--methods", nargs="*", choices=[*PRUNING, *CUTTING], default=[])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--no-patterns", dest="patterns", action="store_false")
    options = parser.parse_args()
    if unknown := set(options.tasks) - set(LOADERS):
        parser.error(f"unknown tasks {sorted(unknown)}; there are {', '.join(LOADERS)}")
    for table in tables(options):
        for line in table.rows(options.tasks or list(LOADERS), options.seeds):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
