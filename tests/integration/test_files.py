"""sc.save and sc.load on whole models."""

import keras
import numpy as np
import pytest
import scipy.sparse
from keras import layers

import secateur as sc
from secateur.errors import ArgumentTypeError, FileFormatError, UnsupportedModelError


@pytest.fixture(scope="module")
def result():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, activation="relu")(image))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, layers.Dense(64)(x))
    model.compile("adam", "mse", metrics=["mae"])
    return sc.prune(model, sparsity=0.8)


def assert_same_weights(one, other):
    assert len(one.weights) == len(other.weights)
    for a, b in zip(one.weights, other.weights, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_model_round_trip(result, tmp_path):
    path = tmp_path / "model.safetensors"
    sc.save(path, result)
    loaded = sc.load(path)
    assert type(loaded) is type(result.model)
    assert_same_weights(loaded, result.model)
    x = np.random.default_rng(0).random((4, 8, 8, 3))
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), result.model.predict(x, verbose=0))
    loaded.fit(x, np.zeros((4, 64)), verbose=0)


def test_saving_a_model_or_its_result_is_the_same(result, tmp_path):
    sc.save(tmp_path / "a", result)
    sc.save(tmp_path / "b", result.model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_file_is_smaller(result, tmp_path):
    sc.save(tmp_path / "ours", result)
    result.model.save(tmp_path / "theirs.keras")
    assert (tmp_path / "ours").stat().st_size < (tmp_path / "theirs.keras").stat().st_size / 3


def test_arrays_of_a_model_file(result, tmp_path):
    sc.save(tmp_path / "ours", result)
    arrays = sc.load_arrays(tmp_path / "ours")
    kernels = [a for a in arrays.values() if scipy.sparse.issparse(a)]
    assert kernels
    assert all(isinstance(a, scipy.sparse.csr_array) for a in kernels)


def test_arrays_round_trip(tmp_path):
    pruned = sc.prune_arrays({"a": np.random.default_rng(0).normal(size=(9, 9))}, sparsity=0.5)
    sc.save(tmp_path / "x", pruned)
    np.testing.assert_array_equal(sc.load(tmp_path / "x")["a"], pruned.weights["a"])
    sc.save(tmp_path / "y", [np.ones(3, np.float32), scipy.sparse.csr_array(np.eye(4))])
    loaded = sc.load(tmp_path / "y")
    np.testing.assert_array_equal(loaded["0"], np.ones(3, np.float32))
    np.testing.assert_array_equal(loaded["1"], np.eye(4))


@pytest.mark.parametrize("what", ["model", 3, None, object()])
def test_wrong_type(what, tmp_path):
    with pytest.raises(ArgumentTypeError, match="save takes"):
        sc.save(tmp_path / "x", what)
    assert not list(tmp_path.iterdir())


def test_lambda_layers_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Lambda(lambda x: x + 1)])
    with pytest.raises(UnsupportedModelError, match="Python code"):
        sc.save(tmp_path / "x", model)


def test_max_bytes(result, tmp_path):
    sc.save(tmp_path / "x", result)
    with pytest.raises(FileFormatError, match="max_bytes"):
        sc.load(tmp_path / "x", max_bytes=100)


def test_every_truncation_is_refused(result, tmp_path):
    path = tmp_path / "x"
    sc.save(path, result)
    data = path.read_bytes()
    for length in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:length])
        with pytest.raises(FileFormatError):
            sc.load(path)


def test_flipped_bits_are_refused(result, tmp_path):
    path = tmp_path / "x"
    sc.save(path, result)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 60):
        bit = 1 << int(rng.integers(8))
        data[position] ^= bit
        path.write_bytes(data)
        with pytest.raises(FileFormatError):
            sc.load(path)
        data[position] ^= bit


@pytest.mark.parametrize("values", [None, "float16", "bfloat16"])
def test_a_small_file_is_smaller_and_loads_as_the_same_model(result, tmp_path, values):
    fast = sc.save(tmp_path / "fast", result)
    small = sc.save(tmp_path / "small", result, profile="small", values=values)
    assert sum(i.stored_bytes for i in small.tensors) < sum(i.stored_bytes for i in fast.tensors)
    loaded = sc.load(tmp_path / "small")
    x = np.random.default_rng(0).random((4, 8, 8, 3))
    expected = result.model.predict(x, verbose=0)
    if values is None:
        assert_same_weights(loaded, result.model)
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), expected)
        assert not any(info.rounding for info in small.tensors)
        return
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=0.1, atol=0.01)
    rounded = {info.name for info in small.tensors if info.rounding}
    assert rounded == {info.name for info in small.tensors if len(info.shape) >= 2}
    for info in small.tensors:
        assert info.rounding is None or 0 < info.rounding.max_relative_error < 2**-8


def test_pruned_arrays_in_a_small_file(tmp_path):
    pruned = sc.prune_arrays({"a": np.random.default_rng(0).normal(size=(99, 90))}, sparsity=0.5)
    header = sc.save(tmp_path / "x", pruned, profile="small")
    assert header.tensors[0].encoding == "coded"
    np.testing.assert_array_equal(sc.load(tmp_path / "x")["a"], pruned.weights["a"])
    assert scipy.sparse.issparse(sc.load_arrays(tmp_path / "x")["a"])
