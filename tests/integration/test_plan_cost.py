"""The cost of a plan grows linearly with the graph: counted in calls, since times are noisy."""

import cProfile
import pstats

import keras
import pytest
from keras import layers, ops

from secateur.keras.cutting import plan_cut


class Split(keras.layers.Layer):
    """Heads of a sequence whose length only the data tells."""

    def call(self, x):
        batch, length, width = ops.shape(x)
        heads = ops.reshape(x, (batch, length, 4, width // 4))
        return ops.reshape(heads * 2.0, (batch, length, width))


def plain(x):
    return layers.Dense(8, "relu")(layers.LayerNormalization()(x))


def opened(x):
    return layers.Dense(8)(Split()(x))


def calls(block, depth):
    x = i = keras.Input((None, 8))
    for _ in range(depth):
        x = layers.Add()([x, block(x)])
    model = keras.Model(i, layers.Dense(2)(x))
    profile = cProfile.Profile()
    profile.runcall(plan_cut, model, ratio=0.5)
    return pstats.Stats(profile).total_calls


@pytest.mark.parametrize("block", [plain, opened])
def test_twice_the_depth_is_twice_the_work(block):
    calls(block, 2)
    few, some, many = (calls(block, depth) for depth in (8, 16, 32))
    assert many - some <= 2.2 * (some - few)
