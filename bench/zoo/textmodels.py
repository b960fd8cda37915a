"""Small text models of stock Keras layers, not compiled, not trained."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops


class SimpleNN(keras.Model):
    """Three dense layers, subclassed: the network that the first example of many tutorials trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(10, activation="relu", name="first")
        self.second = layers.Dense(5, activation="relu", name="second")
        self.last = layers.Dense(1, activation="sigmoid", name="last")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return self.last(self.second(self.first(inputs)))


def simple_nn(num_inputs: int = 10) -> keras.Model:
    """`SimpleNN`, built: one number between 0 and 1 from `num_inputs` numbers."""
    model = SimpleNN()
    model(np.zeros((1, num_inputs), np.float32))
    return model


def text_cnn(num_tokens: int, length: int, num_classes: int, width: int = 64) -> keras.Model:
    """Embedding, one convolution of 128 channels, maximum over time, two dense layers (Kim 2014)."""
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(num_tokens, width, name="embedding")(tokens)
    x = layers.Dropout(0.3)(x)
    x = layers.Conv1D(128, 3, activation="relu", padding="same", name="convolution")(x)
    x = layers.GlobalMaxPooling1D()(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    x = layers.Dropout(0.4)(x)
    return keras.Model(tokens, _classes(x, num_classes), name="text_cnn")


def bilstm(num_tokens: int, length: int, num_classes: int, width: int = 64) -> keras.Model:
    """Embedding, an LSTM of 64 units each way, maximum over time."""
    recurrent = layers.Bidirectional(layers.LSTM(64, return_sequences=True), name="recurrent")
    return _recurrent(recurrent, num_tokens, length, num_classes, width, "bilstm")


def gru(num_tokens: int, length: int, num_classes: int, width: int = 64) -> keras.Model:
    """Embedding, a GRU of 128 units, maximum over time."""
    recurrent = layers.GRU(128, return_sequences=True, name="recurrent")
    return _recurrent(recurrent, num_tokens, length, num_classes, width, "gru")


def transformer(
    num_tokens: int,
    length: int,
    num_classes: int,
    width: int = 64,
    *,
    num_layers: int = 2,
    num_heads: int = 4,
) -> keras.Model:
    """Embeddings of words and positions, `num_layers` encoder blocks, mean over time."""
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(num_tokens, width, name="words")(tokens)
    # Counted from the tokens: called on a constant, the layer would be one, too, and never trained.
    numbers = ops.cumsum(ops.ones_like(tokens), axis=1) - 1
    x = x + layers.Embedding(length, width, name="positions")(numbers)
    x = layers.Dropout(0.2)(x)
    for number in range(num_layers):
        x = _block(x, width, num_heads, f"block{number}")
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(tokens, _classes(x, num_classes), name="transformer")


def _recurrent(
    recurrent: keras.Layer,
    num_tokens: int,
    length: int,
    num_classes: int,
    width: int,
    name: str,
) -> keras.Model:
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(num_tokens, width, name="embedding")(tokens)
    x = layers.Dropout(0.3)(x)
    x = recurrent(x)
    x = layers.GlobalMaxPooling1D()(x)
    x = layers.Dropout(0.4)(x)
    return keras.Model(tokens, _classes(x, num_classes), name=name)


def _block(x: keras.KerasTensor, width: int, num_heads: int, name: str) -> keras.KerasTensor:
    attention = layers.MultiHeadAttention(
        num_heads, width // num_heads, dropout=0.1, name=f"{name}_attention"
    )
    x = layers.LayerNormalization(name=f"{name}_norm1")(x + attention(x, x))
    y = layers.Dense(2 * width, activation="relu", name=f"{name}_inner")(x)
    y = layers.Dense(width, name=f"{name}_outer")(y)
    return layers.LayerNormalization(name=f"{name}_norm2")(x + layers.Dropout(0.2)(y))


def _classes(x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    return layers.Dense(num_classes, activation="softmax", name="classes")(x)


TEXT_MODELS: dict[str, Callable[..., keras.Model]] = {
    "TextCNN": text_cnn,
    "BiLSTM": bilstm,
    "GRU": gru,
    "transformer": transformer,
}
