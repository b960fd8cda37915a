"""From texts to rows of token numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PADDING, _UNKNOWN, _FIRST = 0, 1, 2


@dataclass(frozen=True)
class Vocabulary:
    """Words that have a number of their own: 0 is padding, 1 any other word.

    Attributes:
        numbers: Word -> its number.
        size: Numbers below which all tokens stay.
    """

    numbers: dict[str, int]
    size: int

    @classmethod
    def of(cls, texts: Sequence[str], size: int) -> Vocabulary:
        """The most frequent words of these texts, at most `size` - 2."""
        counts = Counter(word for text in texts for word in words(text))
        common = [word for word, _ in counts.most_common(size - _FIRST)]
        return cls({word: number + _FIRST for number, word in enumerate(common)}, size)

    def encode(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Token numbers, (texts, length) int32: cut off or padded with zeros at the end."""
        rows = np.full((len(texts), length), _PADDING, np.int32)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.numbers.get(word, _UNKNOWN) for word in words(text)[:length]]
            row[: len(numbers)] = numbers
        return rows


def words(text: str) -> list[str]:
    """Words and single punctuation marks, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())
