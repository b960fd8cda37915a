"""Models, samples and comparisons for tests of pruning on data."""

import keras
import numpy as np
from keras import layers, tree
from tests.integration.keras_models import floats

from secateur.keras.choosing import Selection, choose
from secateur.keras.data_pruning import Calibration, open_for_walk
from secateur.keras.importance import output_importance
from secateur.patterns import Unstructured


def values_of(model):
    return [np.array(variable.value) for variable in model.weights]


def changed_output(model, other, inputs):
    """Mean squared difference of the outputs, relative to their size."""
    pairs = zip(tree.flatten(model(inputs)), tree.flatten(other(inputs)), strict=True)
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    return sum(((a - b) ** 2).sum() for a, b in pairs) / sum((a**2).sum() for a, _ in pairs)


def assert_same(first, second, atol=1e-5):
    for one, two in zip(first.masks.values(), second.masks.values(), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(values_of(first.model), values_of(second.model), strict=True):
        np.testing.assert_allclose(
            one.astype(np.float64), two.astype(np.float64), rtol=1e-3, atol=atol
        )


def mlp(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(16, activation="relu", name="first"),
            layers.Dense(10, activation="tanh", name="second"),
            layers.Dense(4, name="out"),
        ]
    )


def importance(model, x):
    chosen = choose(model, Selection(), Unstructured())
    return output_importance(open_for_walk(model, chosen, Calibration(x)))


def correlated(num_samples, width=12):
    mixing = np.random.default_rng(7).normal(size=(width, width))
    return (floats(num_samples, width) @ mixing + 0.5).astype("float32")
