"""Figures of models, against counts made by hand."""

import gzip

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.compression.goals import Latency, Macs, Parameters, Size, Sparsity, file_bytes
from secateur.errors import InvalidArgumentError
from secateur.keras.complexity import Macs as Count
from secateur.keras.complexity import count_macs, gzipped_keras_bytes, latencies


def chain():
    layer = layers.Dense(8, activation="relu")
    return keras.Sequential([keras.Input((6,)), layer, layers.Dense(2)])


X = np.ones((4, 6), "float32")


@pytest.mark.parametrize(
    ("shape", "make", "expected"),
    [
        ((5, 4), lambda: layers.Dense(3), 5 * 4 * 3),
        ((8, 7, 4), lambda: layers.Conv2D(6, 3), 6 * 5 * 9 * 4 * 6),
        ((8, 7, 4), lambda: layers.Conv2D(6, 3, groups=2), 6 * 5 * 9 * 2 * 6),
        ((9, 4), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2), 7 * 3 * 8),
        ((6, 4), lambda: layers.LSTM(5), 6 * (4 * 20 + 5 * 20)),
        ((6, 4), lambda: layers.Bidirectional(layers.GRU(5)), 2 * 6 * (4 * 15 + 5 * 15)),
        ((6, 4), lambda: layers.TimeDistributed(layers.Dense(3)), 6 * 4 * 3),
    ],
)
def test_multiplications_of_one_sample(shape, make, expected):
    model = keras.Sequential([keras.Input(shape), make()])
    assert count_macs(model, np.ones((3, *shape), "float32")) == Count(expected, expected)


def test_attention_counts_its_products():
    i = keras.Input((6, 8))
    model = keras.Model(i, layers.MultiHeadAttention(2, 4)(i, i))
    projections, products = 4 * 6 * 8 * 8, 2 * 2 * 6 * 6 * 4
    assert count_macs(model, np.ones((2, 6, 8), "float32")).dense == projections + products


def test_zeros_are_not_counted():
    result = sc.prune(chain(), sparsity=0.5)
    counted = count_macs(result.model, X)
    assert (counted.dense, counted.nonzero) == (64, 32)


def test_the_optimizer_is_not_in_the_keras_file_but_stays_in_the_model(tmp_path):
    model = chain()
    model.save(tmp_path / "plain.keras")
    model.compile("adam", "mse")
    model.fit(X, np.ones((4, 2)), verbose=0)
    optimizer = model.optimizer
    plain = len(gzip.compress((tmp_path / "plain.keras").read_bytes(), 9))
    assert abs(gzipped_keras_bytes(model) - plain) < 400
    assert model.compiled
    assert model.optimizer is optimizer
    model.fit(X, np.ones((4, 2)), verbose=0)


def test_figures_of_a_pruned_model():
    model = chain()
    result = sc.prune(model, sparsity=0.5)
    size = Size(ratio=2).compare(model, result.model, X)
    # The .keras file holds the time at which it was written.
    assert size.before == pytest.approx(gzipped_keras_bytes(model), abs=32)
    assert size.after == file_bytes(result.model)
    assert size.limit == size.before / 2
    weights = Parameters(value=40).compare(model, result.model, X)
    assert (weights.before, weights.after) == (64, 32)  # biases are zero
    assert weights.met
    assert weights.ratio == 2
    macs = Macs(ratio=3).compare(model, result.model, X, before=64.0)
    assert (macs.after, macs.met) == (32, False)
    zeros = Sparsity(0.5).compare(model, result.model, X)
    assert (zeros.before, zeros.after, zeros.met) == (1.0, 0.5, True)


def test_latency_measures_both_in_turn():
    model = chain()
    found = Latency(ratio=1.5).compare(model, sc.cut(model, ratio=0.5, align=1).model, X)
    assert found.before > 0
    assert found.after > 0
    assert len(latencies([model, model], X, repeats=2)) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Size(), "either ratio= or value="),
        (lambda: Size(ratio=2, value=3), "either ratio= or value="),
        (lambda: Size(ratio=0.5), "ratio says"),
        (lambda: Macs(value=-1), "value must be"),
        (lambda: Sparsity(0), "zeros must lie"),
        (lambda: Sparsity(1.0), "zeros must lie"),
    ],
)
def test_senseless_goals_are_refused(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()
