"""Prune a real model at several sparsities, store each, load it back, and measure all of it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import secateur as sc
from secateur.demo.lemmatiser import Lemmatiser, Rows, set_up

SPARSITIES = (0.5, 0.7, 0.8, 0.9)
NOTE = (
    "The lemmatiser of lemminflect, pruned in one shot by magnitude, without retraining; accuracy "
    "on all 80,643 labelled rows, after reading our file back. Sizes in bytes."
)


@dataclass(frozen=True)
class DemoRow:
    """One line of the demonstration's table.

    Attributes:
        asked: Sparsity asked for; 0 is the model as it came.
        reached: Fraction of zeros in the weight matrices.
        before: Lemma accuracy of the trained model, on all labelled rows.
        after: Lemma accuracy of the model read back from our file, on the same rows.
        keras_bytes: Size of the `.keras` file.
        keras_gzip_bytes: Size of its gzip.
        our_bytes: Size of our file.
        seconds: Time to prune, save and load.
        path: Our file.
    """

    asked: float
    reached: float
    before: float
    after: float
    keras_bytes: int
    keras_gzip_bytes: int
    our_bytes: int
    seconds: float
    path: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def run(folder: Path, on_step: Callable[[str], None] = lambda _: None) -> Iterator[DemoRow]:
    """Prune the lemmatiser at each of `SPARSITIES`, leaving all files in `folder`.

    Args:
        folder: Made if it is not there.
        on_step: Told what is going on, for a progress display.

    Yields:
        A row for the model as it came, then one for each sparsity.
    """
    lemmatiser, rows = set_up(folder, on_step)
    before = lemmatiser.accuracy(lemmatiser.model, rows)
    for sparsity in (0.0, *SPARSITIES):
        on_step(f"sparsity {sparsity:.0%}")
        yield _measure(lemmatiser, rows, before, sparsity, folder)


def _measure(
    lemmatiser: Lemmatiser, rows: Rows, before: float, sparsity: float, folder: Path
) -> DemoRow:
    stem = folder / f"lemmatiser-{round(100 * sparsity):02d}"
    ours, keras_file = stem.with_suffix(".safetensors"), stem.with_suffix(".keras")
    start = time.perf_counter()
    result = sc.prune(lemmatiser.model, sparsity=sparsity)
    sc.save(ours, result)
    loaded = sc.load(ours)
    seconds = time.perf_counter() - start
    result.model.save(keras_file)
    zipped = keras_file.with_suffix(".keras.gz")
    zipped.write_bytes(gzip.compress(keras_file.read_bytes()))
    return DemoRow(
        asked=sparsity,
        reached=result.report.sparsity,
        before=before,
        after=lemmatiser.accuracy(loaded, rows),
        keras_bytes=keras_file.stat().st_size,
        keras_gzip_bytes=zipped.stat().st_size,
        our_bytes=ours.stat().st_size,
        seconds=seconds,
        path=str(ours),
    )
