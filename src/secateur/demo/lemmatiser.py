"""A real trained model and its labelled data, from the package `lemminflect` (MIT).

The model is a small Keras MLP that maps a word and its part of speech to the suffix rule that gives
the lemma; 80,643 labelled rows ship in the same wheel. Nothing of the package is imported: its
files are read as data, and its pickle with an unpickler that knows arrays and nothing else.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.arrays import Array
from secateur.errors import FileFormatError, MissingDependencyError

_MAX_LETTERS = 8
_NUM_SYMBOLS = 28  # none, other, a-z
_CATEGORIES = ("noun", "verb", "adj", "adv")
_ALLOWED_GLOBALS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


@dataclass(frozen=True)
class Rows:
    """Labelled rows.

    Attributes:
        words: Inflected words.
        lemmas: The lemmas accepted for each word.
        features: (rows, 9, 28) float32, what the model reads.
    """

    words: list[str]
    lemmas: list[frozenset[str]]
    features: Array

    def part(self, order: Array) -> Rows:
        """Some of the rows, by position."""
        words, lemmas = self.words, self.lemmas
        return Rows([words[i] for i in order], [lemmas[i] for i in order], self.features[order])


@dataclass(frozen=True)
class Lemmatiser:
    """The trained Keras model and the suffix rule each of its classes stands for."""

    model: Any
    rules: list[tuple[str, str, bool]]

    def accuracy(self, model: Any, rows: Rows) -> float:
        """Fraction of rows for which `model` gives one of the accepted lemmas."""
        from secateur.keras.calling import compiled

        classes = np.asarray(compiled(model, rows.features)()).argmax(axis=1)
        right = sum(
            _apply(self.rules[label], word) in lemmas
            for label, word, lemmas in zip(classes, rows.words, rows.lemmas, strict=True)
        )
        return right / len(rows.words)

    def right_rules(self, rows: Rows) -> Array:
        """Which rules give an accepted lemma, (rows, rules) bool."""
        return np.array(
            [
                [word.endswith(rule[0]) and _apply(rule, word) in lemmas for rule in self.rules]
                for word, lemmas in zip(rows.words, rows.lemmas, strict=True)
            ]
        )


def load_lemmatiser() -> Lemmatiser:
    """Build the Keras model and give it its trained weights.

    Raises:
        MissingDependencyError: lemminflect or Keras is not installed.
    """
    import keras

    with gzip.open(_resources() / "model_lemma.pkl.gz") as file:
        data = _ArrayUnpickler(io.BytesIO(file.read())).load()
    rules = [_parse_rule(rule) for rule in data["meta"]["output_enum"]]
    model = keras.Sequential(
        [
            keras.Input((_MAX_LETTERS + 1, _NUM_SYMBOLS)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(len(rules), activation="softmax", name="rule"),
        ],
        name="lemmatiser",
    )
    model.set_weights(data["weights"])
    return Lemmatiser(model, rules)


def set_up(folder: Path, on_step: Callable[[str], None]) -> tuple[Lemmatiser, Rows]:
    """What every demonstration begins with: its folder, the trained model and all labelled rows."""
    folder.mkdir(parents=True, exist_ok=True)
    on_step("loading the trained lemmatiser and its labelled rows")
    return load_lemmatiser(), load_rows()


def load_rows() -> Rows:
    """Read every labelled row whose part of speech the model knows."""
    with gzip.open(_resources() / "lemma_lu.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file, quoting=csv.QUOTE_NONE) if row[1] in _CATEGORIES]
    words = [word for word, _, _ in rows]
    features = encode(words, [category for _, category, _ in rows])
    return Rows(words, [frozenset(lemmas.split("/")) for _, _, lemmas in rows], features)


def encode(words: list[str], categories: list[str]) -> Array:
    """One-hot rows: the category, then the last eight letters from the end backwards."""
    symbols = np.zeros((len(words), _MAX_LETTERS), np.int64)
    for row, word in enumerate(words):
        for column, letter in enumerate(reversed(word.lower()[-_MAX_LETTERS:])):
            symbols[row, column] = ord(letter) - 95 if "a" <= letter <= "z" else 1
    features = np.zeros((len(words), _MAX_LETTERS + 1, _NUM_SYMBOLS), np.float32)
    features[np.arange(len(words)), 0, [_CATEGORIES.index(c) for c in categories]] = 1
    rows, columns = np.nonzero(symbols)
    features[rows, columns + 1, symbols[rows, columns]] = 1
    return features


def _resources() -> Path:
    spec = importlib.util.find_spec("lemminflect")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "The demo needs the package lemminflect; install it with: pip install 'secateur[demo]'"
        )
    return Path(spec.submodule_search_locations[0]) / "resources"


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dictionaries, lists, strings, numbers and arrays; anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise FileFormatError(f"The lemmatiser's file asks for {module}.{name}; refused.")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _parse_rule(text: str) -> tuple[str, str, bool]:
    remove, add, doubled = text.split(",")
    return remove, add, doubled == "True"


def _apply(rule: tuple[str, str, bool], word: str) -> str:
    remove, add, doubled = rule
    stem = (word[: -len(remove)] if remove else word) + add
    return stem[:-1] if doubled else stem
