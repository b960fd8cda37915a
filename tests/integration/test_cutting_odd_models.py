"""Odd things that users do: each is cut and proven, or left whole for a reason that the plan says."""

import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

import secateur as sc
from secateur.errors import UnsupportedModelError
from secateur.keras.variables import writable_copy

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # What stays whole on purpose is told in a warning, and no matter here.
    pytest.mark.filterwarnings("ignore::secateur.errors.TargetNotReachedWarning"),
]


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def halved(model, **options):
    result = sc.cut(model, ratio=0.5, align=1, **options)
    assert result.proof.difference <= result.proof.tolerance
    assert result.parameters[1] < result.parameters[0]
    return result


def test_models_that_share_a_layer_are_cut_apart():
    shared = layers.Dense(8, "relu", name="shared")
    i, j = keras.Input((4,)), keras.Input((4,))
    one = keras.Model(i, layers.Dense(2)(shared(i)))
    two = keras.Model(j, layers.Dense(3)(shared(j)))
    before = writable_copy(shared.kernel)
    cut = halved(one)
    assert cut.model.get_layer("shared").units == 4
    np.testing.assert_array_equal(writable_copy(shared.kernel), before)
    assert two(data(2, 4)).shape == (2, 3)
    assert halved(two).model.get_layer("shared") is not shared


def test_several_inputs_and_outputs_by_name():
    i = {"a": keras.Input((4,), name="a"), "b": keras.Input((6,), name="b")}
    x = layers.Concatenate()([layers.Dense(8, "relu")(i["a"]), layers.Dense(8)(i["b"])])
    x = layers.Dense(8, name="middle")(x)
    model = keras.Model(i, {"one": layers.Dense(2)(x), "two": [layers.Dense(3)(x)]})
    result = halved(model)
    out = result.model({"a": data(2, 4), "b": data(2, 6)})
    assert out["one"].shape == (2, 2)
    assert out["two"][0].shape == (2, 3)


def test_an_output_that_others_read_keeps_its_shape():
    i = keras.Input((4,))
    x = layers.Dense(8, name="seen")(i)
    model = keras.Model(i, [x, layers.Dense(2)(layers.Dense(8, name="unseen")(x))])
    plan = halved(model).plan
    assert plan["seen"].removed == ()
    assert "output of the model" in plan["seen"].why
    assert plan["unseen"].kept == 4


def test_a_layer_used_three_times():
    i = keras.Input((8,))
    again = layers.Dense(8, "relu", name="again")
    x = layers.Dense(8, name="first")(i)
    for _ in range(3):
        x = again(x)
    result = halved(keras.Model(i, layers.Dense(2)(x)))
    assert result.model.get_layer("again").units == 4
    assert set(result.plan["again"].makers) == {"first", "again"}


class WithDeadBranch(keras.Model):
    def __init__(self):
        super().__init__()
        self.used = layers.Dense(8, "relu", name="used")
        self.unused = layers.Dense(8, name="unused")
        self.out = layers.Dense(2, name="out")

    def call(self, x):
        x = self.used(x)
        self.unused(x)
        return self.out(x)


def test_a_branch_that_nothing_reads_is_left_out():
    model = WithDeadBranch()
    model(data(2, 4))
    result = halved(model)
    assert [layer.name for layer in result.model.layers[1:]] == ["used", "out"]


class Block(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one = layers.Dense(8, "gelu")
        self.norm = layers.LayerNormalization()

    def call(self, x, training=None):
        return self.norm(x + self.one(x), training=training)


class Nested(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8)
        self.blocks = [Block(), keras.Sequential([Block(), layers.Dense(8)])]
        self.last = layers.Dense(2)

    def call(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def test_subclassed_models_in_subclassed_models():
    model = Nested()
    model(data(2, 4))
    result = halved(model, data=data(40, 4))
    assert result.parameters[1] < 0.5 * result.parameters[0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
def test_dtype_policies(policy):
    i = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, activation="relu", dtype=policy)(i)
    x = layers.BatchNormalization(dtype=policy)(x)
    x = layers.Dense(8, dtype=policy)(layers.Flatten(dtype=policy)(x))
    result = halved(keras.Model(i, layers.Dense(2, dtype="float32")(x)))
    assert result.model.layers[1].dtype_policy.name == policy


def test_channels_first_where_they_run():
    i = keras.Input((3, 6, 6))
    x = layers.BatchNormalization(axis=1)(i)
    x = layers.Permute((2, 3, 1))(x)
    x = layers.Permute((3, 1, 2))(layers.Conv2D(8, 3)(x))
    x = layers.MaxPooling2D(2, data_format="channels_first")(layers.BatchNormalization(axis=1)(x))
    x = layers.Dense(2)(layers.GlobalAveragePooling2D(data_format="channels_first")(x))
    halved(keras.Model(i, x))


def test_lambda_layers_of_keras_ops():
    i = keras.Input((8,))
    x = layers.Dense(8, name="before")(i)
    x = layers.Lambda(lambda t: ops.tanh(t) * 2.0 + t[:, :1])(x)
    result = halved(keras.Model(i, layers.Dense(2)(layers.Dense(8, name="after")(x))))
    assert result.plan["after"].kept == 4
    assert not any(isinstance(layer, layers.Lambda) for layer in result.model.layers)


def test_a_lambda_of_another_library_is_a_wall():
    import tensorflow as tf

    i = keras.Input((8,))
    x = layers.Lambda(lambda t: tf.math.cumsum(t, axis=-1), name="foreign")(layers.Dense(8)(i))
    model = keras.Model(i, layers.Dense(2)(layers.Dense(8, name="after")(x)))
    plan = sc.plan_cut(model, ratio=0.5, align=1)
    assert "foreign" in plan.walls
    assert plan["after"].kept == 4
    assert plan.apply().proof.difference <= 1e-4


class Positions(keras.layers.Layer):
    """Adds a constant made of a length that is known, and one of a length that only the data tells."""

    def call(self, x):
        slopes = ops.convert_to_tensor(np.linspace(0.1, 0.8, 8, dtype="float32"))
        count = ops.shape(x)[1]
        line = ops.cast(ops.arange(1 - count, 1), "float32")
        return x + slopes * ops.expand_dims(ops.expand_dims(line, -1), 0)


class Windows(keras.layers.Layer):
    """Splits a length into pairs and joins them again."""

    def call(self, x):
        batch, length, width = ops.shape(x)
        pairs = ops.reshape(x, (batch * (length // 2), 2, width))
        return ops.reshape(pairs[:, ::-1], (batch, length, width))


class Averaged(keras.layers.Layer):
    """Uses a length as a number, and as the end of a slice."""

    def build(self, shape):
        self.table = self.add_weight(shape=(1, 64, 1), name="table", initializer="random_normal")

    def call(self, x):
        length = ops.shape(x)[1]
        return x / ops.cast(length, "float32") + x[:, :1] + self.table[:, :length]


class HandWritten(keras.layers.Layer):
    """A dense layer of a user's own."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 8), name="w")
        self.b = self.add_weight(shape=(8,), name="b", initializer="random_normal")

    def call(self, x):
        return ops.relu(ops.matmul(x, self.w) + self.b)


@pytest.mark.parametrize("make", [Positions, Windows, Averaged, HandWritten])
def test_layers_that_calculate_with_sizes_and_constants(make):
    i = keras.Input((None, 4))
    x = make()(layers.Dense(8, name="before")(i))
    model = keras.Model(i, layers.Dense(2)(x))
    result = halved(model, data=data(40, 6, 4))
    assert result.plan["before"].kept == 4, str(result.plan)
    for length in (4, 10):
        assert result.model(data(2, length, 4)).shape == (2, length, 2)


def test_the_kernel_of_a_hand_written_layer_is_cut():
    i = keras.Input((4,))
    model = keras.Model(i, layers.Dense(2)(HandWritten(name="own")(i)))
    result = halved(model)
    assert result.plan["own_w"].kept == 4


class ByValue(keras.layers.Layer):
    """Looks different while it is traced: what is traced is not what it does."""

    def call(self, x):
        return x * 2.0 if isinstance(x, keras.KerasTensor) else x * 3.0


def test_a_call_that_decides_by_values_is_refused():
    i = keras.Input((4,))
    model = keras.Model(i, layers.Dense(2)(ByValue()(layers.Dense(8)(i))))
    with pytest.raises(UnsupportedModelError, match="not what the model does"):
        sc.cut(model, ratio=0.5)


class Sliced(keras.layers.Layer):
    """Slices an array, of which nothing is recorded, by a length that only the data tells."""

    def call(self, x):
        return x + ops.ones((1, 64, 1))[:, : ops.shape(x)[1]]


@pytest.mark.parametrize("given", [True, False])
def test_arrays_sliced_by_unknown_lengths_are_refused(given):
    i = keras.Input((None, 4))
    model = keras.Model(i, layers.Dense(2)(Sliced()(layers.Dense(8)(i))))
    with pytest.raises(UnsupportedModelError, match="not what the model does"):
        sc.cut(model, data(40, 6, 4) if given else None, ratio=0.5)


class Slow(keras.layers.Layer):
    """Waits, while it is traced, until another thread has used the model."""

    started, used = threading.Event(), threading.Event()

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), name="gain", initializer="ones")

    def call(self, x):
        if isinstance(x, keras.KerasTensor) and not self.used.is_set():
            self.started.set()
            assert self.used.wait(60), "the other thread never came"
        return self.gain * x * ops.cast(ops.shape(x)[1], "float32")


def test_other_threads_use_the_model_while_it_is_traced():
    i = keras.Input((4,))
    Slow.used.set()
    model = keras.Model(i, layers.Dense(2)(Slow()(layers.Dense(8)(i))))
    x = data(3, 4)
    expected = np.array(ops.convert_to_numpy(model(x)))
    Slow.used.clear()
    seen = {}

    def use():
        assert Slow.started.wait(60)
        try:
            seen["output"] = np.array(ops.convert_to_numpy(model(x)))
            seen["shape"] = ops.shape(keras.KerasTensor((None, 3)))
            seen["model"] = keras.Model(j := keras.Input((5,)), layers.Dense(2)(j)).output_shape
        finally:
            Slow.used.set()

    thread = threading.Thread(target=use)
    thread.start()
    result = sc.cut(model, ratio=0.5, align=1)
    thread.join()
    np.testing.assert_array_equal(seen["output"], expected)
    assert seen["shape"] == (None, 3)
    assert seen["model"] == (None, 2)
    assert result.proof.difference <= 1e-4


def test_two_threads_cut_at_once():
    def model():
        i = keras.Input((4,))
        return keras.Model(
            i, layers.Dense(2)(Averaged()(layers.Dense(8)(layers.Reshape((2, 2))(i))))
        )

    models = [model() for _ in range(3)]
    results = [None] * 3

    def run(number):
        results[number] = sc.cut(models[number], ratio=0.5, align=1)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result.proof.difference <= 1e-4 for result in results)


class ByName(keras.Model):
    def __init__(self):
        super().__init__()
        self.wide, self.out = layers.Dense(16, "relu", name="wide"), layers.Dense(2)

    def call(self, inputs):
        return self.out(self.wide(inputs["left"]) * inputs["right"])


def test_inputs_of_a_subclassed_model_keep_their_keys(recwarn):
    generator = np.random.default_rng(0)
    x = {"left": generator.normal(size=(40, 6)), "right": generator.normal(size=(40, 1))}
    model = ByName()
    model(x)
    small = sc.cut(model, x, ratio=0.5).model
    assert {key: tensor.name for key, tensor in small.input.items()} == {
        "left": "left",
        "right": "right",
    }
    assert not [one for one in recwarn if "must match the names" in str(one.message)]
