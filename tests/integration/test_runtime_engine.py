"""The engine as a whole: threads, files that are not trusted, no Keras installed."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import secateur as sc
from secateur import runtime
from secateur.errors import FileFormatError, SecateurError, UnsupportedModelError
from secateur.runtime.reading import Source, parse_config, read_source


def text_model() -> Any:
    """Ids with a mask, attention, recurrence, a convolution, sums and a dense chain."""
    rng = np.random.default_rng(0)
    ids = keras.Input((None,), dtype="int32", name="ids")
    h = layers.Embedding(30, 16, mask_zero=True)(ids)
    h = layers.LayerNormalization()(layers.MultiHeadAttention(2, 8)(h, h) + h)
    f = layers.Dense(64, activation="gelu")(h)
    h = layers.Add()([layers.Dense(16)(f), h])
    g = layers.Bidirectional(layers.GRU(8, return_sequences=True))(h)
    c = layers.Conv1D(16, 3, padding="same", activation="relu")(g)
    z = layers.GlobalAveragePooling1D()(c)
    z = layers.Dense(96, activation="relu")(z)
    model = keras.Model(ids, layers.Dense(5, activation="softmax")(layers.Dense(96)(z)))
    for variable in model.variables:
        values = rng.standard_normal(variable.shape).astype(np.float32) * 0.4
        if len(variable.shape) > 1:
            values[rng.random(variable.shape) < 0.8] = 0
        variable.assign(values)
    return model


def ragged(samples: int, length: int, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 30, (samples, length))
    ids[np.arange(length)[None] >= rng.integers(1, length + 1, (samples, 1))] = 0
    return ids


@pytest.fixture(scope="module")
def model() -> Any:
    return text_model()


@pytest.mark.filterwarnings("ignore:.*destroy the mask information")
def test_threads_share_an_engine(model: Any) -> None:
    jobs = [
        ragged(samples, length, samples) for samples, length in ((1, 7), (9, 7), (5, 12), (3, 2))
    ]
    expected = [model.predict_on_batch(job) for job in jobs]
    engine = runtime.compile(model, batch=4)
    failures: list[Any] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        start.wait()
        for turn in range(12):
            place = (number + turn) % len(jobs)
            found = engine.predict(jobs[place])
            if np.abs(found - expected[place]).max() > 1e-5:
                failures.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


_WITHOUT = """
import sys
NAMES = {"keras", "tensorflow", "jax", "torch", "numba", "scipy"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NAMES:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Blocker())
import numpy as np
import secateur as sc
engine = sc.runtime.compile(sys.argv[1], batch=4)
np.save(sys.argv[3], engine.predict(np.load(sys.argv[2])))
"""


@pytest.mark.filterwarnings("ignore:.*destroy the mask information")
@pytest.mark.parametrize("profile", ["fast", "small"])
def test_a_file_runs_where_only_numpy_is_installed(model: Any, profile: str, tmp_path: Any) -> None:
    path, xs, ys = (str(tmp_path / name) for name in ("m.safetensors", "x.npy", "y.npy"))
    ids = ragged(6, 9, 1)
    sc.save(path, model, profile=profile)
    np.save(xs, ids)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, path, xs, ys], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(ys), model.predict_on_batch(ids), atol=1e-5)


HOSTILE = [
    None, True, -1, 0, 3, 10**6, 10**12, 10**30, 1.5, float("nan"), "", "x", "Dense", "..", [], [[]], {},
    {"class_name": "Dense", "config": {}}, ["a", 0, 0], {"class_name": "__keras_tensor__"},
]  # fmt: skip


def places(part: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a configuration."""
    found = []
    pairs = part.items() if isinstance(part, dict) else enumerate(part)
    for key, inner in list(pairs):
        found.append((part, key))
        if isinstance(inner, (dict, list)):
            found += places(inner)
    return found


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_hostile_configurations_are_errors_of_ours_or_models(
    model: Any, data: st.DataObject
) -> None:
    source = read_source(model)
    config = copy.deepcopy(source.config)
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(config)
        if not found:
            break
        container, key = found[data.draw(st.integers(0, len(found) - 1))]
        if isinstance(container, dict) and data.draw(st.booleans()):
            del container[key]
        else:
            container[key] = data.draw(st.sampled_from(HOSTILE))
    hostile = Source(config, source.arrays)
    for use in (
        lambda: runtime.supports(hostile),
        lambda: runtime.compile(hostile, batch=2, length=5).predict(ragged(2, 5, 0)),
    ):
        with suppress(SecateurError):
            use()


def test_arrays_of_other_shapes_are_errors_of_ours(model: Any) -> None:
    source = read_source(model)
    for name in source.arrays:
        for array in (
            np.zeros((), np.float32),
            np.zeros((3, 1), np.float32),
            np.zeros(0, np.float32),
        ):
            other = Source(source.config, {**source.arrays, name: array})
            with suppress(SecateurError):
                runtime.compile(other, batch=2, length=5).predict(ragged(2, 5, 0))


def test_a_model_that_asks_for_more_memory_than_there_is_is_refused() -> None:
    inputs = keras.Input((4,))
    wide = layers.RepeatVector(5)(inputs)
    source = read_source(keras.Model(inputs, layers.ZeroPadding1D(1)(wide)))
    config = copy.deepcopy(source.config)
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "ZeroPadding1D":
            layer["config"]["padding"] = [10**13, 10**13]
    with pytest.raises(UnsupportedModelError, match="does not fit"):
        runtime.compile(Source(config, source.arrays))


def test_texts_that_are_no_configuration_are_refused() -> None:
    for text in (
        "",
        "[]",
        "{}",
        '{"model": 3}',
        '{"model": {"class_name": "Dense"}}',
        "[" * 100_000,
    ):
        with pytest.raises(FileFormatError):
            parse_config(text)
    deep: Any = {"class_name": "Sequential", "config": {"layers": []}}
    for _ in range(300):
        deep = {"class_name": "Sequential", "config": {"name": "s", "layers": [deep]}}
    with pytest.raises(FileFormatError, match="nested"):
        runtime.supports(Source(json.loads(json.dumps(deep)), {}))


def sparse_pair() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    dense = layers.Dense(130, activation="relu", name="wide")
    dense.build((None, 90))
    kernel = rng.standard_normal((90, 130)).astype(np.float32)
    kernel[rng.random(kernel.shape) < 0.8] = 0
    dense.set_weights([kernel, rng.standard_normal(130).astype(np.float32)])
    return dense, runtime.SparseDense.from_dense(dense)


def test_sparse_dense_computes_what_dense_does(tmp_path: Any) -> None:
    dense, sparse = sparse_pair()
    x = np.random.default_rng(1).standard_normal((7, 5, 90)).astype(np.float32)
    expected = np.asarray(dense(x))
    np.testing.assert_allclose(np.asarray(sparse(x)), expected, atol=1e-5)
    inputs = keras.Input((5, 90))
    model = keras.Model(inputs, sparse(inputs))
    assert model.output_shape == (None, 5, 130)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)
    path = tmp_path / "m.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(runtime.compile(model, batch=7).predict(x), expected, atol=1e-5)


def test_sparse_dense_takes_new_weights() -> None:
    _, sparse = sparse_pair()
    x = np.ones((2, 90), np.float32)
    sparse(x)
    kernel = np.eye(90, 130, dtype=np.float32)
    sparse.set_weights([kernel, np.zeros(130, np.float32)])
    np.testing.assert_allclose(np.asarray(sparse(x)), np.eye(90, 130).sum(0)[None].repeat(2, 0))
    sparse.kernel.assign(2 * kernel)
    sparse.repack()
    np.testing.assert_allclose(np.asarray(sparse(x)), 2 * np.eye(90, 130).sum(0)[None].repeat(2, 0))


def test_sparse_dense_says_what_it_cannot_do() -> None:
    dense, sparse = sparse_pair()
    with pytest.raises(UnsupportedModelError, match="cannot be trained"):
        sparse(np.ones((2, 90), np.float32), training=True)
    with pytest.raises(SecateurError, match="activation must be one of"):
        runtime.SparseDense(3, "no such")
    with pytest.raises(SecateurError, match="that is built"):
        runtime.SparseDense.from_dense(layers.Dense(3))
    assert sparse.trainable_variables == []
    del dense
