"""What the quality of compressed models is measured on: trained models, data, and a measure for each.

Models and texts come from packages (see `bench.zoo`). Loading a task may train its model, so each is
loaded once in a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import keras
import numpy as np
from bench.zoo import (
    MiniLM,
    Vocabulary,
    bilstm,
    load_movies,
    load_trec,
    split,
    text_cnn,
    transformer,
)
from bench.zoo.phonemes import Pronouncer, load_sounds

_LENGTH = 64


@dataclass(frozen=True, eq=False)
class Task:
    """A trained model, data to calibrate with, and a measure of what it is good for.

    Attributes:
        name: In the table.
        measure: What `evaluate` gives.
        model: The model.
        calibration: From a seed to what `prune` is given beside the method.
        evaluate: From a model to a number, higher is better.
        patterns: n:m patterns that are tried beside the sparsities.
        cut: What `cut` is told to take units of.
    """

    name: str
    measure: str
    model: keras.Model
    calibration: Callable[[int], dict[str, Any]]
    evaluate: Callable[[keras.Model], float]
    patterns: tuple[str, ...] = ()
    cut: Mapping[str, Any] = field(default_factory=dict)


def minilm() -> Task:
    """The sentence encoder: 256 movie sentences to calibrate, 768 others to test."""
    encoder, texts = MiniLM.load(), load_movies().texts

    # Tested on the same sentences whatever the calibration seed, and on none that it may draw.
    order = np.random.default_rng(10_000).permutation(len(texts))
    held, free = ([texts[row] for row in part] for part in (order[:768], order[768:]))
    dense = encoder.encode(held, _LENGTH)

    def calibration(seed: int) -> dict[str, Any]:
        rows = np.random.default_rng(seed).choice(len(free), 256, replace=False)
        inputs = encoder.tokenizer.encode([free[row] for row in rows], _LENGTH)
        return {"data": list(inputs), "mask": "mask"}

    def evaluate(model: keras.Model) -> float:
        return float((encoder.encode(held, _LENGTH, model=model) * dense).sum(axis=1).mean())

    inner = [layer.name for layer in encoder.model.layers if layer.name.endswith("_inner")]
    cut = {"include": inner, "granularity": "neuron"}
    return Task("MiniLM", "cosine", encoder.model, calibration, evaluate, ("2:4",), cut)


def lemmatiser() -> Task:
    """The lemmatiser of lemminflect on its 80,643 labelled rows."""
    from secateur.demo.lemmatiser import load_lemmatiser, load_rows

    tool, rows = load_lemmatiser(), load_rows()

    def calibration(seed: int) -> dict[str, Any]:
        chosen = np.random.default_rng(seed).choice(len(rows.words), 2048, replace=False)
        return {"data": rows.features[chosen]}

    return Task(
        "lemmatiser",
        "accuracy",
        tool.model,
        calibration,
        lambda model: tool.accuracy(model, rows),
        cut={"granularity": "neuron"},
    )


def phonemes() -> Task:
    """The grapheme-to-phoneme model: 1,024 words to calibrate, 2,000 others to test."""
    tool, sounds = Pronouncer.load(), load_sounds()
    order = np.random.default_rng(10_000).permutation(sorted(sounds))
    held, free = [str(word) for word in order[:2000]], order[2000:]

    def calibration(seed: int) -> dict[str, Any]:
        chosen = np.random.default_rng(seed).choice(free, 1024, replace=False)
        return {"data": tool.taught([str(word) for word in chosen])}

    return Task(
        "phonemes",
        "words",
        tool.model,
        calibration,
        lambda model: tool.accuracy(model, held, sounds),
        cut={"granularity": "unit"},
    )


def _questions(
    name: str, make: Callable[..., keras.Model], epochs: int, *granularity: str
) -> Callable[[], Task]:
    def load() -> Task:
        """A text model trained on TREC questions."""
        keras.utils.set_random_seed(0)
        train, test = split(load_trec())
        vocabulary = Vocabulary.of(train.texts, 8000)
        x, held = (vocabulary.encode(part.texts, 32) for part in (train, test))
        model = make(8000, 32, len(train.names))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, train.labels, batch_size=64, epochs=epochs, verbose=0)

        def calibration(seed: int) -> dict[str, Any]:
            chosen = np.random.default_rng(seed).choice(len(x), 1024, replace=False)
            return {"data": x[chosen]}

        def evaluate(pruned: keras.Model) -> float:
            found = pruned.predict(held, batch_size=256, verbose=0).argmax(axis=1)
            return float((found == test.labels).mean())

        return Task(
            name, "accuracy", model, calibration, evaluate, cut={"granularity": granularity}
        )

    return load


LOADERS: dict[str, Callable[[], Task]] = {
    "minilm": minilm,
    "lemmatiser": lemmatiser,
    "phonemes": phonemes,
    "textcnn": _questions("TREC TextCNN", text_cnn, 10, "channel", "neuron"),
    "bilstm": _questions("TREC BiLSTM", bilstm, 8, "unit"),
    "transformer": _questions("TREC transformer", transformer, 10, "head", "neuron"),
}


@cache
def load_task(name: str) -> Task:
    """A task by its name in `LOADERS`; its model is trained on first use.

    Raises:
        UnavailableError: A package cannot be had.
        MissingDependencyError: A package is not installed.
    """
    return LOADERS[name]()
