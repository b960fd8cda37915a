"""Copies of models of every kind, and that they stay compiled."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from tests.integration.keras_models import (
    MODELS,
    Positions,
    SimpleNN,
    Transformer,
    TwoHeads,
    floats,
    ids,
)

from secateur.errors import UnsupportedModelError
from secateur.keras.cloning import clone_model
from secateur.keras.model_arrays import model_arrays
from secateur.keras.variables import read_array
from secateur.keras.walk import named_variables, walk_layers


def assert_same_outputs(model: Any, copy: Any, inputs: Any) -> None:
    before, after = model(inputs, training=False), copy(inputs, training=False)
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), before, after
    )


def state(model: Any) -> dict[str, Any]:
    return {
        named.name: (read_array(named.variable).copy(), bool(named.variable.trainable))
        for named in named_variables(model)
    }


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_a_copy_is_equal_and_independent(make: Any) -> None:
    model, inputs = make()
    before = state(model)
    copy = clone_model(model)
    assert_same_outputs(model, copy, inputs)
    after = state(copy)
    assert set(after) == set(before)
    for name, (array, trainable) in before.items():
        assert array.tobytes() == after[name][0].tobytes()
        assert array.dtype == after[name][0].dtype
        assert trainable == after[name][1]
    for named in named_variables(copy):
        named.variable.assign(ops.zeros_like(named.variable.value))
    for name, (array, _) in state(model).items():
        assert array.tobytes() == before[name][0].tobytes()


@pytest.mark.parametrize("name", ["zoo", "shared", "subclassed on a constant"])
def test_copying_leaves_no_trace_in_the_model(name: str) -> None:
    model, _ = MODELS[name]()
    before = [
        (len(p.layer._inbound_nodes), len(p.layer._outbound_nodes)) for p in walk_layers(model)
    ]
    clone_model(model)
    after = [
        (len(p.layer._inbound_nodes), len(p.layer._outbound_nodes)) for p in walk_layers(model)
    ]
    assert before == after


def test_layers_keep_names_flags_and_policies() -> None:
    model, _ = MODELS["zoo"]()
    model.layers[4].trainable = False
    copy = clone_model(model)
    for old, new in zip(walk_layers(model), walk_layers(copy), strict=True):
        assert type(old.layer) is type(new.layer)
        assert old.layer is not new.layer
        assert old.path == new.path
        assert old.layer.trainable == new.layer.trainable
        assert old.layer.dtype_policy == new.layer.dtype_policy


def test_a_subclassed_model_comes_back_functional_with_open_sizes() -> None:
    model = SimpleNN()
    model(floats(32, 10))
    copy = clone_model(model)
    assert isinstance(copy, keras.Function)
    assert copy.input_shape == (None, 10)
    assert [layer.name for layer in copy.layers[1:]] == [layer.name for layer in model.layers]


def test_token_ids_are_recognised_and_sequences_stay_open() -> None:
    class Classifier(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words = layers.Embedding(9, 4, mask_zero=True)
            self.recurrent = layers.LSTM(3)

        def call(self, x: Any) -> Any:
            return self.recurrent(self.words(x))

    model = Classifier()
    model(ids(2, 7))
    copy = clone_model(model)
    assert copy.inputs[0].dtype == "int32"
    assert copy.input_shape == (None, None)
    assert_same_outputs(model, copy, ids(3, 11))


def test_custom_layers_without_a_config_are_opened() -> None:
    model = Transformer()
    model(ids(4, 9))
    copy = clone_model(model)
    assert_same_outputs(model, copy, ids(4, 9))
    kinds = {type(layer) for layer in copy.layers}
    assert layers.MultiHeadAttention in kinds
    assert not any(kind.__name__ == "Block" for kind in kinds)
    assert len(named_variables(copy)) == len(named_variables(model))


def test_a_model_that_is_no_graph_is_copied_as_its_own_class() -> None:
    class Branching(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3)
            self.noise = layers.GaussianNoise(0.1)

        def call(self, x: Any, training: bool = False) -> Any:
            if training:
                x = self.noise(x)
            return self.dense(x)

    model = Branching()
    model(floats(2, 3))
    copy = clone_model(model)
    assert type(copy) is Branching
    assert_same_outputs(model, copy, floats(2, 3))


def test_functions_are_shared() -> None:
    factor = np.float32(3)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(2, activation=lambda x: x * factor),
            layers.Lambda(lambda x: x + factor),
        ]
    )
    copy = clone_model(model)
    assert copy.layers[0].activation is model.layers[0].activation
    assert_same_outputs(model, copy, floats(2, 3))


def test_a_weight_that_is_used_directly_stays_tied() -> None:
    inputs = keras.Input((5,), dtype="int32")
    table = layers.Embedding(9, 4)
    hidden = layers.Dense(4)(table(inputs))
    model = keras.Model(inputs, ops.einsum("btd,vd->btv", hidden, table._embeddings))
    copy = clone_model(model)
    assert_same_outputs(model, copy, ids(2, 5))
    copy.layers[1].set_weights([np.zeros((9, 4))])
    assert not np.asarray(copy(ids(2, 5))).any()
    assert np.asarray(model(ids(2, 5))).any()


def test_stateful_layers_and_vocabularies() -> None:
    stateful = keras.Sequential(
        [keras.Input(batch_shape=(2, 4, 3)), layers.LSTM(3, stateful=True), layers.Dense(1)]
    )
    assert_same_outputs(stateful, clone_model(stateful), floats(2, 4, 3))
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(np.array(["a", "b", "b"]))
    model = keras.Sequential([keras.Input((), dtype="string"), lookup, layers.Dense(2)])
    words = keras.tree.map_structure(ops.convert_to_tensor, np.array(["b", "c"]))
    assert_same_outputs(model, clone_model(model), words)


def make_positions_without_record() -> Any:
    model = Positions(4)
    model(ids(2, 7))
    model._build_shapes_dict = None
    return model


def test_an_example_batch_says_what_the_inputs_are() -> None:
    model = make_positions_without_record()
    with pytest.raises(UnsupportedModelError, match="pass input_spec="):
        clone_model(model)
    for spec in (ids(2, 7), keras.Input((7,), dtype="int32"), ids(2, 7).astype("int64")):
        copy = clone_model(model, input_spec=spec)
        assert "int" in copy.inputs[0].dtype
        assert_same_outputs(model, copy, ids(3, 7))


def untraceable(call: Any, weights: bool = False) -> Any:
    class Network(keras.Model):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.dense = layers.Dense(size)
            if weights:
                self.own = self.add_weight(shape=(size,), name="own")

        def call(self, x: Any, training: bool = False) -> Any:
            return call(self, x, training)

    model = Network(3)
    model(floats(2, 3))
    return model


@pytest.mark.parametrize(
    ("call", "weights", "reason"),
    [
        (lambda self, x, _: np.asarray(self.dense(x)) + 1, False, "cannot be traced"),
        (lambda self, x, _: self.dense(x) + self.own, True, "holds: own"),
        (lambda self, x, training: self.dense(x) * (2 if training else 1), False, "training=True"),
        (
            lambda self, x, _: ops.matmul(self.dense(x), ops.transpose(self.dense.kernel)),
            False,
            "freeze",
        ),
    ],
    ids=["not symbolic", "own weight", "branches on training", "weight value"],
)
def test_what_cannot_be_traced_says_why(call: Any, weights: bool, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        clone_model(untraceable(call, weights), input_spec=floats(2, 3))
    assert "inplace=True" in str(caught.value)


class Stubborn(layers.Layer):
    """Neither a config nor layers that could stand for it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def build(self, shape: Any) -> None:
        self.own = self.add_weight(shape=(3,), name="own")

    def call(self, x: Any) -> Any:
        return self.function(x) * self.own


class Forgetful(layers.Layer):
    """Its config leaves out its width."""

    def __init__(self, width: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = layers.Dense(width)

    def call(self, x: Any) -> Any:
        return self.inner(x)

    def get_config(self) -> dict[str, Any]:
        return super().get_config()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: Stubborn(ops.abs), "'stubborn.*' of custom type Stubborn"),
        (lambda: Forgetful(5, name="forgetful"), "'forgetful/dense/kernel' instead of shape"),
    ],
)
def test_a_layer_that_cannot_be_copied_is_named(layer: Any, reason: str) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layer()])
    with pytest.raises(UnsupportedModelError, match=reason):
        clone_model(model)


def test_an_unbuilt_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="not built"):
        clone_model(SimpleNN())


class Doubled(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * 2


class Signed(keras.metrics.Mean):
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(y_true - y_pred)


def absolute(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


COMPILED: dict[str, dict[str, Any]] = {
    "strings": {
        "run_eagerly": True,
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "metrics": ["accuracy"],
    },
    "objects": {
        "optimizer": keras.optimizers.SGD(
            keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9), momentum=0.9
        ),
        "loss": keras.losses.Huber(0.5),
        "metrics": [keras.metrics.AUC(num_thresholds=20), "mae"],
        "weighted_metrics": ["mse"],
        "loss_weights": [0.5],
        "steps_per_execution": 2,
    },
    "custom": {
        "run_eagerly": True,
        "optimizer": keras.optimizers.AdamW(lambda: 0.01),
        "loss": Doubled(),
        "metrics": [Signed(), absolute, keras.metrics.MeanMetricWrapper(absolute, name="abs")],
    },
    "scaled": {
        "run_eagerly": True,
        "optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
        "loss": absolute,
    },
}


@pytest.mark.parametrize("arguments", COMPILED.values(), ids=COMPILED.keys())
def test_a_compiled_model_stays_compiled(arguments: dict[str, Any]) -> None:
    model = SimpleNN()
    model.compile(**arguments)
    x, y = floats(16, 10), (floats(16, 1) > 0).astype("float32")
    model.fit(x, y, verbose=0)
    copy = clone_model(model)
    assert copy.optimizer is not model.optimizer
    assert copy.steps_per_execution == model.steps_per_execution
    for old, new in zip(model.optimizer.variables, copy.optimizer.variables, strict=True):
        np.testing.assert_array_equal(read_array(old), read_array(new))
    evaluated = [m.evaluate(x, y, verbose=0, return_dict=True) for m in (model, copy)]
    assert evaluated[0] == evaluated[1]
    for either in (model, copy):
        either.fit(x, y, verbose=0, shuffle=False)
    ours, theirs = model_arrays(model), model_arrays(copy)
    for name, array in ours.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-5, atol=1e-7)


def test_several_losses_by_name() -> None:
    model = TwoHeads()
    model.compile("sgd", loss={"p": "mse", "q": "mae"}, run_eagerly=True)
    x, y = {"u": floats(8, 3), "v": floats(8, 4)}, {"p": floats(8, 2), "q": floats(8, 3)}
    model.fit(x, y, verbose=0)
    copy = clone_model(model)
    assert model.evaluate(x, y, verbose=0) == copy.evaluate(x, y, verbose=0)


def test_loss_scaling_that_compile_chose_comes_along() -> None:
    model, inputs = MODELS["mixed precision"]()
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(inputs, floats(4, 1), verbose=0)
    copy = clone_model(model)
    assert isinstance(copy.optimizer, keras.optimizers.LossScaleOptimizer)
    assert len(copy.optimizer.variables) == len(model.optimizer.variables)


def test_an_optimizer_that_cannot_be_copied_is_named() -> None:
    class Closed(keras.optimizers.SGD):
        def __init__(self, secret: Any) -> None:
            super().__init__(0.1)

    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile(Closed("x"), "mse")
    with pytest.raises(UnsupportedModelError, match=r"Closed .* cannot be copied"):
        clone_model(model)


@keras.saving.register_keras_serializable("tests")
class Pair(keras.layers.Layer):
    """Two layers in one, as an embedding of tokens with one of positions."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = keras.layers.Dense(3, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


class HoldsAPart(keras.Model):
    """A functional model that keeps a part of one of its layers at hand, before its graph is known."""

    def __init__(self):
        pair = Pair(name="pair")
        self.inner = pair.inner
        inputs = keras.Input((4,), name="x")
        super().__init__(inputs, keras.layers.Dense(2, name="out")(pair(inputs)))


def test_a_part_that_a_functional_model_holds_beside_its_graph_is_named_by_the_graph():
    model = HoldsAPart()
    names = [named.name for named in named_variables(model)]
    assert names == ["pair/inner/kernel", "pair/inner/bias", "out/kernel", "out/bias"]
    copy = clone_model(model)
    assert [named.name for named in named_variables(copy)] == names
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(copy(x), model(x))


@keras.saving.register_keras_serializable("tests")
class NamedByItsOwner(keras.layers.Layer):
    """A layer whose inner one takes its name from a counter that the config does not hold."""

    made = 0

    def __init__(self, **options):
        super().__init__(**options)
        NamedByItsOwner.made += 1
        self.inner = keras.layers.Dense(3, name=f"part_number_{NamedByItsOwner.made}")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


def test_inner_layers_of_a_copy_are_named_as_those_they_stand_for():
    model = keras.Sequential([keras.Input((4,)), NamedByItsOwner(name="whole")])
    copy = clone_model(model)
    assert copy.layers[0].inner.name == model.layers[0].inner.name
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(copy(x), model(x))
