"""Labelled texts, and how they are parted for training and for judging."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts and their classes.

    Attributes:
        texts: The texts; no two are equal.
        labels: (texts,) int64, indices into `names`.
        names: Names of the classes, sorted.
    """

    texts: list[str]
    labels: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, rows: np.ndarray) -> Labelled:
        """Some of the rows."""
        return Labelled([self.texts[row] for row in rows], self.labels[rows], self.names)


def labelled(pairs: Iterable[tuple[str, str]]) -> Labelled:
    """Labelled texts from (text, class) pairs. Of equal texts the first stays.

    Some of these files repeat themselves: without this, a text would stand on both sides of a
    split.
    """
    unique: dict[str, str] = {}
    for text, name in pairs:
        unique.setdefault(text.strip(), name)
    names = sorted(set(unique.values()))
    labels = np.array([names.index(name) for name in unique.values()], np.int64)
    return Labelled(list(unique), labels, names)


def split(data: Labelled, fraction: float = 0.85, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Part at random into rows to train on and rows held out.

    Args:
        data: What is parted.
        fraction: Share of the first part, 0 to 1.
        seed: Which parting.
    """
    order = np.random.default_rng(seed).permutation(len(data))
    count = int(fraction * len(data))
    return data.part(order[:count]), data.part(order[count:])
