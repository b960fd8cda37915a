"""Output statistics and calibration data against what Keras and TensorFlow themselves do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.activations import ACTIVATION_NAMES, Activation
from secateur.errors import (
    ArgumentTypeError,
    CalibrationWarning,
    InvalidArgumentError,
    UnsupportedModelError,
)
from secateur.keras.data import calibration_data, input_signature
from secateur.outputs import OutputStatistics, subnetwork_outputs

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 3)).astype(np.float32)
IDS = RNG.integers(0, 9, (96, 5)).astype(np.int32)
Y = np.zeros(96, np.float32)


def single():
    return keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])


def pair(structure):
    a, b = keras.Input((3,), name="a"), keras.Input((5,), dtype="int32", name="b")
    hidden = keras.layers.Flatten()(keras.layers.Embedding(9, 2)(b))
    joined = keras.layers.Concatenate()([a, hidden])
    return keras.Model(structure(a, b), keras.layers.Dense(1)(joined))


class Batches(keras.utils.PyDataset):
    def __init__(self, make, count=3):
        super().__init__()
        self.make, self.count = make, count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        return self.make(slice(32 * index, 32 * index + 32))


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_activations_are_those_of_keras(name):
    z = np.linspace(-12, 12, 4801, dtype=np.float32).reshape(-1, 1)
    ours = subnetwork_outputs(np.ones((1, 1), np.float32), None, z, name)
    theirs = keras.ops.convert_to_numpy(keras.activations.get(name)(keras.ops.convert_to_tensor(z)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "activation"),
    [
        (keras.layers.LeakyReLU(0.3), Activation("leaky_relu", {"negative_slope": 0.3})),
        (
            keras.layers.ReLU(max_value=2.0, negative_slope=0.1),
            Activation("relu", {"max_value": 2.0, "negative_slope": 0.1}),
        ),
        (keras.layers.ELU(0.7), Activation("elu", {"alpha": 0.7})),
        (
            lambda z: keras.activations.gelu(z, approximate=True),
            Activation("gelu", {"approximate": True}),
        ),
    ],
)
def test_parameters_mean_what_they_mean_in_keras(layer, activation):
    z = np.linspace(-5, 5, 1001, dtype=np.float32).reshape(-1, 1)
    ours = subnetwork_outputs(np.ones((1, 1), np.float32), None, z, activation)
    theirs = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(z)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("activation", ["linear", "relu", "gelu", "tanh"])
def test_outputs_of_a_layer_are_those_of_dense(activation):
    layer = keras.layers.Dense(7, activation=activation, bias_initializer="normal")
    inputs = RNG.standard_normal((4, 6, 11)).astype(np.float32)
    theirs = keras.ops.convert_to_numpy(layer(inputs))
    kernel, bias = layer.get_weights()
    ours = subnetwork_outputs(kernel.T, bias, inputs, activation)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("measure", ["mean", "rms", "max", "std"])
def test_statistics_of_pre_and_post_activations_agree(measure):
    before = keras.layers.Dense(9)
    z = keras.ops.convert_to_numpy(before(RNG.standard_normal((50, 4)).astype(np.float32)))
    a = keras.ops.convert_to_numpy(keras.activations.silu(keras.ops.convert_to_tensor(z)))
    fused, plain = OutputStatistics(9), OutputStatistics(9)
    fused.update(z, activation="silu")
    plain.update(a)
    np.testing.assert_allclose(fused.measure(measure), plain.measure(measure), rtol=1e-5, atol=1e-7)


def test_half_precision_outputs_of_tensorflow_count():
    for dtype in ("float16", "bfloat16"):
        tensor = tf.cast(tf.constant(X), dtype)
        statistics = OutputStatistics(3)
        statistics.update(tensor.numpy())
        np.testing.assert_allclose(statistics.measure(), np.abs(X).mean(axis=0), rtol=1e-2)


@pytest.mark.parametrize(
    "data",
    [
        lambda: X,
        lambda: (X, Y),
        lambda: tf.constant(X),
        lambda: tf.data.Dataset.from_tensor_slices(X).batch(20),
        lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(20),
        lambda: tf.data.Dataset.from_tensor_slices((X, Y, Y)).batch(20),
        lambda: tf.data.Dataset.from_tensor_slices(({"x": X}, Y)).batch(20),
        lambda: Batches(lambda rows: X[rows]),
        lambda: Batches(lambda rows: (X[rows], Y[rows])),
        lambda: Batches(lambda rows: ({"x": X[rows]}, Y[rows])),
        lambda: ((X[i : i + 8], Y[i : i + 8]) for i in range(0, 96, 8)),
        lambda: (tf.constant(X[i : i + 8]) for i in range(0, 96, 8)),
    ],
)
def test_whatever_fits_the_model_is_read(data):
    model = single()
    found = calibration_data(model, data())
    for _ in range(2):
        assert all(isinstance(batch, np.ndarray) for batch in found)
        np.testing.assert_array_equal(np.concatenate(list(found)), X)
    outputs = np.concatenate([model(batch).numpy() for batch in found])
    np.testing.assert_allclose(outputs, model.predict(X, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("structure", "kind"), [(lambda a, b: [a, b], list), (lambda a, b: {"a": a, "b": b}, dict)]
)
@pytest.mark.parametrize(
    "data",
    [
        lambda: {"a": X, "b": IDS},
        lambda: ({"b": IDS, "a": X}, Y),
        lambda: tf.data.Dataset.from_tensor_slices(({"a": X, "b": IDS}, Y)).batch(32),
        lambda: Batches(lambda rows: ({"a": X[rows], "b": IDS[rows]}, Y[rows])),
    ],
)
def test_several_inputs_come_as_the_model_takes_them(structure, kind, data):
    model = pair(structure)
    found = list(calibration_data(model, data()))
    assert [type(batch) for batch in found] == [kind] * 3
    outputs = np.concatenate([model(batch).numpy() for batch in found])
    expected = model({"a": X, "b": IDS} if kind is dict else [X, IDS])
    np.testing.assert_allclose(outputs, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_lists_and_tuples_feed_a_model_of_two_inputs():
    model = pair(lambda a, b: [a, b])
    dataset = tf.data.Dataset.from_tensor_slices(((X, IDS), Y)).batch(32)
    for data in ([X, IDS], (X, IDS), ([X, IDS], Y), dataset):
        first, second = next(iter(calibration_data(model, data)))
        np.testing.assert_array_equal(first, X[:32])
        np.testing.assert_array_equal(second, IDS[:32])


def test_unbatched_datasets_are_told_what_to_do():
    with pytest.raises(InvalidArgumentError, match=r"dataset\.batch\(32\)"):
        list(calibration_data(single(), tf.data.Dataset.from_tensor_slices(X)))


def test_endless_data_needs_a_limit():
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(32).repeat()
    endless = Batches(lambda rows: X[:32], count=None)
    for data in (dataset, endless):
        with pytest.raises(InvalidArgumentError, match="no end"):
            calibration_data(single(), data)
        found = list(calibration_data(single(), data, max_samples=70))
        assert [len(batch) for batch in found] == [32, 32, 6]


def test_ragged_and_sparse_data_are_refused_with_the_mend():
    ragged = tf.ragged.constant([[1, 2], [3]])
    sparse = tf.sparse.from_dense([[1.0, 0.0, 2.0]])
    for data in (ragged, sparse):
        with pytest.raises(ArgumentTypeError, match="to_tensor"):
            list(calibration_data(single(), data))
        dataset = tf.data.Dataset.from_tensor_slices(data)
        with pytest.raises(ArgumentTypeError, match="to_tensor"):
            calibration_data(single(), dataset)


def test_datasets_of_text_are_refused_with_the_mend():
    dataset = tf.data.Dataset.from_tensor_slices(["a", "b"]).batch(2)
    with pytest.raises(ArgumentTypeError, match="tokenise"):
        list(calibration_data(single(), dataset))


def test_models_of_text_take_text():
    texts = ["good film", "bad film"] * 20
    layer = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=4)
    layer.adapt(texts)
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, keras.layers.Embedding(9, 2)(layer(inputs)))
    for data in (texts, tf.data.Dataset.from_tensor_slices(texts).batch(8)):
        batches = list(calibration_data(model, data))
        assert sum(model(tf.convert_to_tensor(batch)).shape[0] for batch in batches) == 40


def test_signatures_say_what_a_model_takes():
    assert str(input_signature(single())) == "'x' float32 (batch, 3)"
    two = input_signature(pair(lambda a, b: {"b": b, "a": a}))
    assert two.structure == "dict"
    assert {spec.name: spec.dtype for spec in two.inputs} == {"a": "float32", "b": "int32"}
    fixed = keras.Sequential([keras.Input(batch_shape=(8, 3)), keras.layers.Dense(1)])
    assert input_signature(fixed).batch_size == 8


def test_models_without_symbolic_inputs_are_refused():
    class Subclassed(keras.Model):
        pass

    for model in (Subclassed(), keras.Sequential([keras.layers.Dense(1)])):
        with pytest.raises(UnsupportedModelError, match="symbolic"):
            input_signature(model)
    a, b = keras.Input((3,)), keras.Input((3,))
    nested = keras.Model([a, {"b": b}], keras.layers.Add()([a, b]))
    with pytest.raises(UnsupportedModelError, match="nested"):
        input_signature(nested)


def test_few_samples_warn():
    with pytest.warns(CalibrationWarning, match="Only 5"):
        list(calibration_data(single(), X[:5]))
