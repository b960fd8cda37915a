"""Cutting real Keras models: attention, data, optimizers, subclassed models, the proof itself."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import secateur as sc
from secateur.cut_plan import CutPlan
from secateur.errors import (
    InvalidArgumentError,
    NonFiniteError,
    ProofError,
    TargetNotReachedWarning,
)
from secateur.keras import cutting
from secateur.keras.cut_rules import register_rule
from secateur.keras.variables import writable_copy

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def mlp():
    return keras.Sequential(
        [keras.Input((8,)), layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(3)]
    )


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


class Simple(keras.Model):
    """The sample of the source: a subclassed model."""

    def __init__(self):
        super().__init__()
        self.one = layers.Dense(10, "relu", name="one")
        self.two = layers.Dense(5, "relu", name="two")
        self.out = layers.Dense(1, "sigmoid", name="out")

    def call(self, x):
        return self.out(self.two(self.one(x)))


def test_a_sequential_model_stays_sequential():
    model = mlp()
    result = cutting.cut(model, ratio=0.5)
    assert isinstance(result.model, keras.Sequential)
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    assert [layer.units for layer in result.model.layers] == [16, 16, 3]


@pytest.fixture
def sample():
    """The sample, trained, with three units that never emit anything; its data and labels."""
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    x, y = generator.random((128, 10)), generator.integers(0, 2, 128)
    model = Simple()
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, verbose=0)
    kernel, bias = model.one.get_weights()
    bias[[2, 4, 7]] = -100
    model.one.set_weights([kernel, bias])
    kernel, bias = model.two.get_weights()
    model.two.set_weights([kernel, bias + 1])
    return model, x, y


def test_the_sample_loses_what_stays_below_a_threshold(sample, tmp_path):
    model, x, y = sample
    plan = sc.plan_cut(model, x, threshold=0.01)
    assert plan["one"].kept == 8
    assert "one: 10 -> 8 neurons (held back: 7 rounded up to 8 by align=8)" in str(plan)
    plan = sc.plan_cut(model, x, threshold=0.01, align=1)
    assert plan["one"].removed == (2, 4, 7)
    assert plan["two"].removed == ()
    result = plan.apply()
    assert type(result.model).__name__ == "Functional"
    assert result.proof.data == "given"
    assert result.proof.difference <= result.proof.tolerance == 1e-4
    np.testing.assert_allclose(result.model(x), model(x), atol=1e-5)
    result.model.fit(x, y, verbose=0)
    result.model.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(loaded(x), result.model(x), atol=1e-6)
    assert [layer.units for layer in loaded.layers[-3:]] == [7, 5, 1]
    assert len(loaded.evaluate(x, y, verbose=0)) == 2


def test_the_sample_loses_a_ratio_without_data(sample):
    model, _, _ = sample
    with pytest.warns(
        TargetNotReachedWarning, match="only 2 can.*two: 2 rounded up to 5 by align=8"
    ):
        result = sc.cut(model, ratio=0.5)
    assert result.plan["one"].kept == 8
    assert "5 rounded up to 8 by align=8" in result.plan["one"].why
    assert "rounded up to 5 by align=8" in result.plan["two"].why
    assert result.proof.data == "random"
    widths = [layer.units for layer in sc.cut(model, ratio=0.5, align=1).model.layers[-3:]]
    assert widths == [5, 2, 1]


def test_nothing_to_cut_is_said(sample):
    model, x, _ = sample
    with pytest.warns(TargetNotReachedWarning, match="Nothing was cut"):
        assert sc.cut(model, x, threshold=0.0).parameters == (171, 171)


def test_a_loss_scaled_optimizer_goes_on_where_it_was():
    model = mlp()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "mse")
    x = data(64, 8)
    model.fit(x, data(64, 3), verbose=0)
    result = cutting.cut(model, ratio=0.5)
    old, new = model.optimizer, result.model.optimizer
    assert int(new.step_counter) == int(old.step_counter) > 0
    kept = np.setdiff1d(np.arange(32), result.plan[model.layers[0].name].removed)
    np.testing.assert_array_equal(
        writable_copy(new.inner_optimizer._momentums[0]),
        writable_copy(old.inner_optimizer._momentums[0])[:, kept],
    )
    result.model.fit(x, data(64, 3), verbose=0)


def test_dead_units_cost_nothing():
    model = mlp()
    kernel, bias = (writable_copy(v) for v in model.layers[0].weights)
    kernel[:, ::2] = 0
    bias[::2] = -1
    model.layers[0].set_weights([kernel, bias])
    x = data(64, 8)
    result = cutting.cut(model, x, threshold=1e-6, align=1)
    assert set(range(0, 32, 2)) <= set(result.plan[model.layers[0].name].removed)
    np.testing.assert_allclose(result.model(x), model(x), atol=1e-5)
    assert result.model.layers[0].units <= 16


@pytest.mark.parametrize("cross", [False, True])
def test_attention_loses_heads(cross):
    i = keras.Input((6, 16))
    x = layers.Dense(16)(i)
    y = layers.MultiHeadAttention(4, 8)(
        x, layers.Dense(24)(x) if cross else x, use_causal_mask=not cross
    )
    x = layers.LayerNormalization()(layers.Add()([x, y]))
    model = keras.Model(i, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    result = cutting.cut(model, data(40, 6, 16), ratio=0.5)
    (attention,) = [x for x in result.model.layers if isinstance(x, layers.MultiHeadAttention)]
    assert attention.num_heads == 2
    assert result.model.output_shape == model.output_shape


def test_grouped_query_attention_loses_groups():
    i = keras.Input((6, 16))
    x = layers.Dense(16)(i)
    x = layers.Add()([x, layers.GroupQueryAttention(8, 8, 4)(x, x)])
    model = keras.Model(i, layers.Dense(2)(x))
    result = cutting.cut(model, ratio=0.5)
    (attention,) = [x for x in result.model.layers if isinstance(x, layers.GroupQueryAttention)]
    assert (attention.num_query_heads, attention.num_key_value_heads) == (4, 2)


def test_masks_travel_through_recurrent_layers():
    i = keras.Input((9,), dtype="int32")
    x = layers.Embedding(20, 16, mask_zero=True)(i)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(x)
    x = layers.GRU(16)(x)
    model = keras.Model(i, layers.Dense(2)(x))
    tokens = np.random.default_rng(0).integers(0, 20, (40, 9))
    result = cutting.cut(model, tokens, ratio=0.5)
    assert result.model.count_params() < 0.6 * model.count_params()


def test_both_directions_stay_equally_wide_whatever_a_threshold_says_of_them():
    i = keras.Input((5, 4))
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True), name="both")(i)
    model = keras.Model(i, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))
    layer = model.get_layer("both")
    kernel, *rest = layer.backward_layer.get_weights()
    layer.backward_layer.set_weights([kernel * 3, *rest])  # puts out more than the other direction
    result = cutting.cut(model, data(64, 5, 4), threshold=1.0, relative=True, align=1)
    smaller = result.model.get_layer("both")
    assert 0 < smaller.forward_layer.units == smaller.backward_layer.units < 16


class Scaled(keras.layers.Layer):
    """A layer of a user's, with a weight of its own."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma", initializer="random_normal")

    def call(self, x):
        return self.gamma * ops.tanh(x)


def test_own_layers_are_opened_to_stock_ones(tmp_path):
    i = keras.Input((8,))
    model = keras.Model(i, layers.Dense(2)(Scaled()(layers.Dense(16)(i))))
    result = cutting.cut(model, ratio=0.5)
    assert not any(isinstance(layer, Scaled) for layer in result.model.layers)
    path = tmp_path / "cut.keras"
    result.model.save(path)
    x = data(4, 8)
    np.testing.assert_allclose(keras.models.load_model(path)(x), result.model(x), atol=1e-6)


class Opaque(keras.layers.Layer):
    """Computes outside of keras.ops, so it cannot be opened."""

    def call(self, x):
        import tensorflow as tf

        return tf.sort(x, axis=-1)

    def compute_output_shape(self, shape):
        return shape


def test_what_cannot_be_opened_is_a_wall():
    i = keras.Input((8,))
    x = layers.Dense(16, name="before")(i)
    x = layers.Dense(16, name="after")(Opaque(name="opaque")(x))
    model = keras.Model(i, layers.Dense(2)(x))
    plan = cutting.plan_cut(model, ratio=0.5)
    assert "opaque" in plan.walls
    assert plan["before"].removed == ()
    assert "opaque" in plan["before"].why
    assert plan["after"].kept == 8
    with pytest.warns(TargetNotReachedWarning, match="only 8 can. before: wall at opaque"):
        assert plan.apply().proof.difference <= 1e-4


def test_a_wrong_rule_fails_the_proof():
    class Reversed(keras.layers.Layer):
        def call(self, x):
            return ops.flip(x, axis=-1)

    register_rule(Reversed, lambda site: site.same())
    i = keras.Input((8,))
    model = keras.Model(i, layers.Dense(2)(Reversed()(layers.Dense(16, "relu")(i))))
    with pytest.raises(ProofError, match="Nothing is returned"):
        cutting.cut(model, keep={model.layers[1].name: 5})
    assert cutting.cut(model, keep={model.layers[1].name: 5}, proof=False).proof is None


def test_the_optimizer_goes_on_where_it_was():
    model = mlp()
    model.compile(keras.optimizers.Adam(3e-3), "mse", metrics=["mae"])
    x = data(64, 8)
    model.fit(x, data(64, 3), epochs=2, verbose=0)
    result = cutting.cut(model, x, ratio=0.5)
    new = result.model.optimizer
    assert float(new.learning_rate) == pytest.approx(3e-3)
    assert int(new.iterations) == int(model.optimizer.iterations)
    kept = np.setdiff1d(np.arange(32), result.plan[model.layers[0].name].removed)
    np.testing.assert_array_equal(
        writable_copy(new._momentums[0]), writable_copy(model.optimizer._momentums[0])[:, kept]
    )
    result.model.fit(x, data(64, 3), verbose=0)


def test_a_plan_is_bound_to_the_model_it_was_made_for():
    model = mlp()
    plan = CutPlan.from_json(cutting.plan_cut(model, ratio=0.5).to_json())
    assert cutting.bind_plan(plan, model).apply().model.layers[0].units == 16
    with pytest.raises(InvalidArgumentError, match="another model"):
        cutting.bind_plan(
            plan, keras.Sequential([keras.Input((8,)), layers.Dense(5), layers.Dense(1)])
        )


def test_nan_activations_name_the_layer():
    model = mlp()
    kernel, bias = model.layers[1].get_weights()
    model.layers[1].set_weights([kernel * np.nan, bias])
    with pytest.raises(NonFiniteError, match=model.layers[1].name):
        cutting.cut(model, data(40, 8), ratio=0.5)


def test_data_of_another_shape_is_refused():
    with pytest.raises(InvalidArgumentError, match=r"\(.*9\)"):
        cutting.cut(mlp(), data(40, 9), ratio=0.5)


def test_the_model_is_left_as_it_was():
    model = mlp()
    before = [writable_copy(v) for v in model.weights]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    cutting.cut(model, ratio=0.5)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(writable_copy(variable), value)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
