"""A task that a small model learns in a second, split into training and validation."""

import keras
import numpy as np
from keras import layers


def data(rows=400, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 8)).astype("float32")
    y = ((x[:, 0] * x[:, 1] > 0).astype("int32") + (x[:, 2] > 0)).astype("int32")
    half = rows * 3 // 4
    return (x[:half], y[:half]), (x[half:], y[half:])


def trained(epochs=25):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(48, activation="relu", name="one"),
            layers.Dense(48, activation="relu", name="two"),
            layers.Dense(3, activation="softmax", name="out"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(*data()[0], epochs=epochs, batch_size=32, verbose=0)
    return model
