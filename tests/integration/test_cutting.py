"""Cutting real Keras models: attention, data, optimizers, subclassed models, the proof itself."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from secateur.cut_plan import CutPlan
from secateur.errors import InvalidArgumentError, NonFiniteError, ProofError
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
        self.one = layers.Dense(16, "relu")
        self.two = layers.Dense(16, "relu")
        self.out = layers.Dense(1, "sigmoid")

    def call(self, x):
        return self.out(self.two(self.one(x)))


def test_a_sequential_model_stays_sequential():
    model = mlp()
    result = cutting.cut(model, ratio=0.5)
    assert isinstance(result.model, keras.Sequential)
    assert [layer.name for layer in result.model.layers] == [layer.name for layer in model.layers]
    assert [layer.units for layer in result.model.layers] == [16, 16, 3]


def test_a_subclassed_model_becomes_functional():
    model = Simple()
    model(data(2, 10))
    result = cutting.cut(model, data(64, 10), ratio=0.5)
    assert isinstance(result.model, keras.Model)
    assert result.model.count_params() < model.count_params()


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
    with pytest.raises(InvalidArgumentError):
        cutting.cut(mlp(), data(40, 9), ratio=0.5)


def test_the_model_is_left_as_it_was():
    model = mlp()
    before = [writable_copy(v) for v in model.weights]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    cutting.cut(model, ratio=0.5)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(writable_copy(variable), value)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
