"""Weights whose output is added to a stream make up for what the stream has lost."""

import keras
import numpy as np
import pytest
from keras import layers
from tests.integration.on_data import assert_same, correlated, importance

import secateur as sc
from secateur.keras.residuals import added_to
from secateur.keras.taps import open_graph
from secateur.layer_pruning import Recipe, prune_matrix
from secateur.reconstruction import ADMM, LayerTarget
from secateur.statistics import InputStatistics

HOW = {"sparsity": 0.6, "allocation": "uniform"}


def block(activation=None, dropout=0.0, width=8):
    """stream -> relu -> back, added to the stream."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((12,))
    stream = layers.Dense(width, name="stream")(inputs)
    inner = layers.Dense(16, activation="relu", name="inner")(stream)
    back = layers.Dense(width, activation=activation, name="back")(inner)
    if dropout:
        back = layers.Dropout(dropout)(back)
    return keras.Model(inputs, layers.Dense(3, name="out")(layers.Add()([stream, back])))


def sum_of(model, layer):
    graph = open_graph(model)
    (number,) = [n for n, call in enumerate(graph.calls) if call.operation.name == layer]
    return added_to(graph, number)


class TestAddedTo:
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    def test_the_other_operand_of_the_sum(self, dropout):
        found = sum_of(block(dropout=dropout), "back")
        assert found is not None
        assert found.shape == (None, 8)

    def test_not_behind_an_activation(self):
        assert sum_of(block(activation="relu"), "back") is None

    def test_not_where_the_other_comes_later(self):
        assert sum_of(block(), "stream") is None

    @pytest.mark.parametrize(
        ("equation", "shape", "known"),
        [("abc,cd->abd", (None, 6), True), ("abc,cd->adb", (6, None), False)],
    )
    def test_only_where_outputs_stand_in_the_order_of_the_rows(self, equation, shape, known):
        inputs = keras.Input((6, 6))
        inner = layers.Dense(6)(inputs)
        mapped = layers.EinsumDense(equation, shape, name="mapped")(inner)
        model = keras.Model(inputs, layers.Add()([inputs, mapped]))
        assert (sum_of(model, "mapped") is not None) == known

    def test_convolutions_but_not_grouped_ones(self):
        inputs = keras.Input((8, 4))
        for groups, known in ((1, True), (2, False)):
            mapped = layers.Conv1D(4, 3, padding="same", groups=groups, name="mapped")(inputs)
            model = keras.Model(inputs, layers.Add()([inputs, mapped]))
            assert (sum_of(model, "mapped") is not None) == known


def test_against_the_solver_by_hand():
    model, x = block(), correlated(300)
    result = sc.prune(model, data=x, batch_size=64, refit_norms=False, include="back", **HOW)
    other = sc.prune(model, data=x, include=["stream", "inner", "back"], **HOW)
    assert_unlike(result, other)
    until = {
        name: keras.Model(model.input, model.get_layer(name).output) for name in ("stream", "inner")
    }
    pruned = {
        name: keras.Model(other.model.input, other.model.get_layer(name).output) for name in until
    }
    dense, now = ({k: m.predict(x, verbose=0) for k, m in own.items()} for own in (until, pruned))
    kernel, bias = (np.array(w.value) for w in model.get_layer("back").weights)
    statistics = InputStatistics(16, cross=8)
    statistics.update(now["inner"], dense["inner"] @ kernel + dense["stream"] - now["stream"])
    recipe, target = Recipe(solver=ADMM()), LayerTarget(sparsity=0.6)
    how = {"has_bias": True, "outputs": True, "importance": importance(model, x)["back/kernel"]}
    by_hand = prune_matrix(kernel.T, [statistics], target, recipe, **how)
    found = [np.array(w.value) for w in other.model.get_layer("back").weights]
    np.testing.assert_allclose(found[0], by_hand.weight.T, atol=1e-3)
    np.testing.assert_allclose(found[1], bias + by_hand.bias_shift, atol=1e-3)


def assert_unlike(one, other):
    with pytest.raises(AssertionError):
        assert_same(one, other)


def test_the_sum_is_nearer_than_when_each_branch_keeps_its_own():
    model, x = block(), correlated(800)
    until = keras.Model(model.input, model.layers[-2].output)
    lost = []
    for criterion in (None, "sparsegpt"):
        how = {"asymmetric": True, "refit_bias": True, "damping": 0.15, "criterion": criterion}
        pruned = sc.prune(model, data=x[:600], **HOW, **how).model
        now = keras.Model(pruned.input, pruned.layers[-2].output)
        lost.append(np.square(now(x[600:]) - until(x[600:])).mean())
    assert lost[0] < lost[1]


def test_positions_and_parts_do_not_matter(monkeypatch):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 12))
    stream = layers.Dense(8, name="stream")(inputs)
    back = layers.Conv1D(8, 3, padding="same", name="back")(layers.ReLU()(stream))
    model = keras.Model(inputs, layers.Add()([stream, back]))
    x = correlated(240).reshape(40, 6, 12)
    whole = sc.prune(model, data=x, **HOW)
    monkeypatch.setattr("secateur.keras.call_parts._ROWS_BYTES", 4096)
    assert_same(whole, sc.prune(model, data=x, batch_size=7, **HOW), atol=1e-3)
