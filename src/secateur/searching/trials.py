"""Trials: one set of options on one fold. Cached on disk, and run in processes of their own."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import tree

from secateur.compression.finetuning import FineTuning, fine_tune
from secateur.compression.goals import Goal
from secateur.compression.quality import Quality
from secateur.errors import ArgumentTypeError, TargetNotReachedWarning
from secateur.files import load, save
from secateur.keras.cutting import cut
from secateur.keras.pruning import prune
from secateur.searching.folds import Fold, part
from secateur.searching.points import Options
from secateur.storage.atomic import replacing


@dataclass(frozen=True)
class Trials:
    """What all trials of a search share.

    Attributes:
        model: The compiled model.
        data: (x, y) or (x, y, sample_weight).
        folds: The splits.
        action: "prune" or "cut".
        metric: Name of the metric.
        mode: Whether more is better.
        goal: What a model costs, None for nothing.
        tuning: Fine-tuning on the fold's training part, None for none.
        calibrate: Whether the fold's training inputs are given to `cut` and `prune` as data.
        seed: Of the fine-tuning.
    """

    model: Any
    data: Any
    folds: Sequence[Fold]
    action: str
    metric: str
    mode: Any
    goal: Goal | None = None
    tuning: FineTuning | None = None
    calibrate: bool = True
    seed: int = 0

    def run(self, options: Options, fold: int) -> tuple[float, float | None]:
        """Score of one set of options on one fold, and what the model costs."""
        keras.utils.set_random_seed(self.seed)
        split = self.folds[fold]
        train, held_out = part(self.data, split.train), part(self.data, split.held_out)
        smaller = self._smaller(options, train[0])
        quality = Quality(held_out, self.metric, self.mode)
        if self.tuning is not None:
            # The best epoch is chosen on a part of the training rows: held-out ones only score.
            inner, watch = _halved(train)
            fine_tune(
                smaller, self.model, inner, Quality(watch, self.metric, self.mode), self.tuning
            )
        score = quality.of(smaller)
        if self.goal is None:
            return score, None
        sample = tree.map_structure(lambda leaf: leaf[:32], train[0])
        return score, self.goal.compare(self.model, smaller, sample, before=math.inf).after

    def _smaller(self, options: Options, inputs: Any) -> Any:
        with warnings.catch_warnings():
            # What an option removes shows in the point's cost.
            warnings.simplefilter("ignore", TargetNotReachedWarning)
            if self.action == "cut":
                return cut(self.model, inputs if self.calibrate else None, **options).model
            return prune(self.model, **options).model


def _halved(train: Any) -> tuple[Any, Any]:
    """Nine tenths to train on, one tenth to choose the epoch by."""
    rows = np.random.default_rng(0).permutation(len(tree.flatten(train)[0]))
    cut_at = max(1, len(rows) // 10)
    return part(train, rows[cut_at:]), part(train, rows[:cut_at])


class Runner:
    """Runs trials, each once: what was run before is read from the cache.

    Args:
        trials: What they share.
        cache: A folder; None keeps results in memory only.
        digest: Of model, data and settings; results of another are not read.
        num_workers: Processes; 1 runs in this one.
    """

    def __init__(
        self,
        trials: Trials,
        cache: str | os.PathLike[str] | None,
        digest: str,
        num_workers: int = 1,
    ) -> None:
        self._trials = trials
        self._folder = None if cache is None else Path(cache)
        self._digest = digest
        self._num_workers = num_workers
        self._known: dict[str, tuple[float, float | None]] = {}
        self.num_run = 0

    def run(
        self, jobs: Sequence[tuple[Options, int]], done: Callable[[], None] | None = None
    ) -> list[tuple[float, float | None]]:
        """Results of jobs (options, fold), in their order.

        Args:
            jobs: What to run.
            done: Called after each one that had to be run.
        """
        waiting = [job for job in jobs if self._lookup(job) is None]
        for job, result in self._results(waiting):
            self._keep(job, result)
            self.num_run += 1
            if done is not None:
                done()
        found = [self._lookup(job) for job in jobs]
        return [result for result in found if result is not None]

    def _results(self, jobs: Sequence[tuple[Options, int]]) -> Iterator[Any]:
        if self._num_workers == 1 or len(jobs) < 2:
            for job in jobs:
                yield job, self._trials.run(*job)
            return
        yield from self._in_processes(jobs)

    def _in_processes(self, jobs: Sequence[tuple[Options, int]]) -> Iterator[Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            save(path, self._trials.model)
            config = self._trials.model.get_compile_config()
            plain = {k: v for k, v in vars(self._trials).items() if k != "model"}
            context = multiprocessing.get_context("spawn")
            workers = min(self._num_workers, len(jobs))
            with ProcessPoolExecutor(
                workers, context, initializer=_begin, initargs=(str(path), config, plain)
            ) as pool:
                futures = {pool.submit(_run_here, *job): job for job in jobs}
                for future in as_completed(futures):
                    yield futures[future], future.result()

    def _key(self, job: tuple[Options, int]) -> str:
        options, fold = job
        try:
            text = json.dumps([self._digest, options, fold], sort_keys=True)
        except TypeError as error:
            raise ArgumentTypeError(
                f"Options must be plain values (numbers, texts, lists, dicts), got {options!r}."
            ) from error
        return hashlib.sha256(text.encode()).hexdigest()

    def _lookup(self, job: tuple[Options, int]) -> tuple[float, float | None] | None:
        key = self._key(job)
        if key not in self._known and self._folder is not None:
            path = self._folder / f"{key}.json"
            if path.exists():
                score, cost = json.loads(path.read_text())["result"]
                self._known[key] = (float(score), None if cost is None else float(cost))
        return self._known.get(key)

    def _keep(self, job: tuple[Options, int], result: tuple[float, float | None]) -> None:
        key = self._key(job)
        self._known[key] = result
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            entry = {"options": dict(job[0]), "fold": job[1], "result": result}
            with replacing(self._folder / f"{key}.json") as temporary:
                temporary.write_text(json.dumps(entry))


_HERE: list[Trials] = []


def _begin(path: str, config: Any, plain: dict[str, Any]) -> None:
    """Set a worker process up: the model comes from a file, TensorFlow gets one thread."""
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    model = load(path)
    if not model.compiled:
        model.compile_from_config(config)
    _HERE[:] = [Trials(model=model, **plain)]


def _run_here(options: Options, fold: int) -> tuple[float, float | None]:
    return _HERE[0].run(options, fold)
