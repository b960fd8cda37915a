"""The tokenizer of BERT, uncased: words, then the longest pieces of them that have a number."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

_LONGEST_WORD = 100


class WordPiece:
    """Splits texts greedily into word pieces (Wu et al. 2016; Devlin et al. 2019).

    Args:
        pieces: The vocabulary file's lines, in order of their numbers.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        self._numbers = {piece: number for number, piece in enumerate(pieces)}
        self._start = self._numbers["[CLS]"]
        self._end = self._numbers["[SEP]"]
        self._unknown = self._numbers["[UNK]"]

    def encode(self, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers, (texts, length) int32, and which of them are text, (texts, length) bool."""
        tokens = np.zeros((len(texts), length), np.int32)
        mask = np.zeros((len(texts), length), np.bool_)
        for row, text in enumerate(texts):
            own = [self._start, *self.numbers(text)[: length - 2], self._end]
            tokens[row, : len(own)] = own
            mask[row, : len(own)] = True
        return tokens, mask

    def numbers(self, text: str) -> list[int]:
        """Numbers of the pieces of a text, without the marks of its start and end."""
        return [number for word in _words(text) for number in self._pieces(word)]

    def _pieces(self, word: str) -> list[int]:
        if len(word) > _LONGEST_WORD:
            return [self._unknown]
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._numbers.get(prefix + word[start:end])
                if number is not None:
                    found.append(number)
                    start = end
                    break
            else:
                return [self._unknown]
        return found


def _words(text: str) -> Iterator[str]:
    """Words without accents, and single punctuation marks."""
    word = ""
    for letter in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(letter)
        if category == "Mn":
            continue
        if not letter.isspace() and category[0] not in "PSC":
            word += letter
            continue
        if word:
            yield word
        word = ""
        if category[0] in "PS":
            yield letter
    if word:
        yield word
