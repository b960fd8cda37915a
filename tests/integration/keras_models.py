"""Models of every kind, small, each with an input to call it on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def ids(*shape: int, top: int = 9) -> np.ndarray:
    return np.random.default_rng(2).integers(0, top, shape).astype("int32")


class SimpleNN(keras.Model):
    """The first thing a reader of the tutorial will try."""

    def __init__(self) -> None:
        super().__init__()
        self.dense1 = layers.Dense(10, activation="relu")
        self.dense2 = layers.Dense(5, activation="relu")
        self.dense3 = layers.Dense(1, activation="sigmoid")

    def call(self, x: Any) -> Any:
        return self.dense3(self.dense2(self.dense1(x)))


class TwoHeads(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(2)
        self.second = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        return {"p": self.first(inputs["u"]), "q": self.second(inputs["v"])}


class Block(layers.Layer):
    """Without a config that works: its activation is a function."""

    def __init__(self, activation: Callable[[Any], Any]) -> None:
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4)
        self.norm = layers.LayerNormalization()
        self.inner = keras.Sequential([layers.Dense(8, activation=activation), layers.Dense(6)])

    def call(self, x: Any, training: Any = None) -> Any:
        x = self.norm(x + self.attention(x, x, training=training))
        return x + self.inner(x)


class Tokens(layers.Layer):
    """With the config that Keras makes up from __init__, which it cannot read back."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.words = layers.Embedding(vocabulary, 6)
        self.positions = layers.Embedding(50, 6)

    def call(self, x: Any) -> Any:
        return self.words(x) + self.positions(ops.arange(ops.shape(x)[-1]))


class Transformer(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = Tokens(9)
        self.blocks = [Block(lambda x: x * np.tanh(1.0)) for _ in range(2)]
        self.pool = layers.GlobalAveragePooling1D()
        self.dropout = layers.Dropout(0.2)
        self.head = layers.Dense(3)

    def call(self, x: Any, training: Any = False) -> Any:
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(self.dropout(self.pool(x), training=training))


class Positions(keras.Model):
    """A layer that is called on a constant."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.words = layers.Embedding(9, width)
        self.positions = layers.Embedding(20, width)
        self.head = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(self.words(x) + self.positions(ops.arange(ops.shape(x)[-1])))


@keras.saving.register_keras_serializable("secateur_tests")
class Scale(layers.Layer):
    """A registered custom layer with a weight and a layer of its own."""

    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.inner = layers.Dense(width)

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(self.width,), initializer="ones", name="scale")
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        return self.inner(x) * self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


def zoo() -> tuple[Any, np.ndarray]:
    """Most kinds of layers in one functional model."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(6, 3)(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.BatchNormalization(trainable=False)(x)
    x = layers.Conv2DTranspose(5, 2)(x)
    x = layers.SeparableConv2D(3, 2)(x)
    x = layers.Reshape((-1, 3))(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x) * 2 + 1
    x = layers.RNN(layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(2)]))(x)
    x = layers.SpectralNormalization(layers.Dense(3))(x)
    return keras.Model(inputs, layers.Dropout(0.1)(x)), floats(2, 8, 8, 4)


def shared() -> tuple[Any, list[np.ndarray]]:
    """Several inputs and outputs, a shared layer, a nested model called twice."""
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3, activation="relu")], name="inner")
    tower = layers.Dense(3, name="tower")
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([inner(tower(left)), inner(tower(right))])
    outputs = [layers.Dense(1, name="one")(joined), ops.sum(joined, axis=-1)]
    return keras.Model([left, right], outputs), [floats(4, 3), floats(4, 3)]


def tied() -> tuple[Any, np.ndarray]:
    inputs = keras.Input((5,), dtype="int32")
    table = layers.ReversibleEmbedding(9, 4)
    return keras.Model(inputs, table(layers.Dense(4)(table(inputs)), reverse=True)), ids(2, 5)


def normalised() -> tuple[Any, np.ndarray]:
    model = keras.Sequential([keras.Input((3,)), layers.Normalization(), layers.Dense(2)])
    model.layers[0].adapt(floats(20, 3) * 3 + 1)
    return model, floats(4, 3)


def mixed() -> tuple[Any, np.ndarray]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.Dense(1)]), floats(4, 3)
    finally:
        keras.config.set_dtype_policy(before)


def halves() -> tuple[Any, np.ndarray]:
    stack = [layers.Dense(4, dtype="bfloat16"), layers.Dense(2, dtype="float16")]
    return keras.Sequential([keras.Input((3,)), *stack]), floats(4, 3)


def called(model: Any, inputs: Any) -> tuple[Any, Any]:
    model(inputs)
    return model, inputs


# Stored and copied alike: functional, sequential or traceable.
MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "zoo": zoo,
    "shared": shared,
    "tied": tied,
    "normalised": normalised,
    "mixed precision": mixed,
    "bfloat16 and float16": halves,
    "registered custom layer": lambda: (
        keras.Sequential([keras.Input((3,)), Scale(4, name="custom"), layers.Dense(2)]),
        floats(4, 3),
    ),
    "sequential built by a call": lambda: called(
        keras.Sequential([layers.Dense(3), layers.Dense(2)]), floats(4, 3)
    ),
    "subclassed": lambda: called(SimpleNN(), floats(4, 10)),
    "subclassed with dicts": lambda: called(TwoHeads(), {"u": floats(4, 3), "v": floats(4, 2)}),
    "subclassed on a constant": lambda: called(Positions(), ids(2, 7)),
}
