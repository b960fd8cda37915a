"""What goals say that weights cost, against what models measure."""

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.keras.tensors import find_tensors
from secateur.keras.variables import read_array

SAMPLE = np.random.default_rng(0).integers(0, 300, (4, 12))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,), dtype="int32")
    x = layers.Embedding(300, 32, name="words")(inputs)
    x = layers.Conv1D(48, 3, name="convolution")(x)
    x = layers.GlobalMaxPooling1D()(x)
    return keras.Model(inputs, layers.Dense(8, name="out")(x))


def expected(costs, model):
    kept = {t.name: read_array(t.variable) for t in find_tensors(model).tensors}
    return costs.fixed + sum(
        price.of(np.count_nonzero(kept[name]), kept[name].size)
        for name, price in costs.prices.items()
    )


@pytest.mark.parametrize(
    ("goal", "within"),
    [
        (sc.Parameters(ratio=2), 1e-9),
        (sc.Macs(ratio=2), 1e-9),
        (sc.Sparsity(0.5), 1e-9),
        # Weights that stay are large ones, whose exponents are much alike: they take fewer bits.
        (sc.Size(ratio=2), 0.08),
    ],
    ids=repr,
)
def test_prices_tell_what_a_pruned_model_will_measure(model, goal, within):
    costs = goal.costs(model, SAMPLE)
    for sparsity in ({"words": 0.9, "convolution": 0.5}, {"words": 0.2, "out": 0.95}):
        pruned = sc.prune(model, sparsity=sparsity).model
        figure = goal.compare(model, pruned, SAMPLE).after
        assert expected(costs, pruned) == pytest.approx(figure, rel=within)


def test_a_lookup_costs_no_multiplication(model):
    assert set(sc.Macs(ratio=2).costs(model, SAMPLE).prices) == {"convolution/kernel", "out/kernel"}
    assert "words/embeddings" in sc.Size(ratio=2).costs(model, SAMPLE).prices


def test_a_latency_is_shared_out_by_multiplications(model):
    prices = sc.Latency(ratio=2).costs(model, SAMPLE).prices
    ratio = prices["convolution/kernel"].per_weight / prices["out/kernel"].per_weight
    assert ratio == pytest.approx(10)  # positions of the convolution
