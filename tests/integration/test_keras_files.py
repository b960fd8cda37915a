"""Models as text and arrays, and back."""

from __future__ import annotations

import json
import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from tests.integration.keras_models import MODELS, SimpleNN, Tokens, Transformer, floats, ids

from secateur.errors import FileFormatError, SecateurWarning, UnsupportedModelError
from secateur.keras.model_arrays import model_arrays, set_model_arrays
from secateur.keras.model_config import describe_model, model_from_config, model_to_config
from secateur.keras.walk import walk_layers


def shapes_of(arrays: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.name) for name, array in arrays.items()}


def round_trip(model: Any, custom_objects: Any = None) -> Any:
    described = describe_model(model, custom_objects=custom_objects)
    return model_from_config(
        described.config,
        shapes_of(described.arrays),
        custom_objects=custom_objects,
        values=described.arrays.__getitem__,
    )


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_a_model_comes_back_bit_equal(make: Any) -> None:
    model, inputs = make()
    described = describe_model(model)
    loaded = model_from_config(described.config, shapes_of(described.arrays))
    set_model_arrays(loaded, described.arrays)
    arrays = model_arrays(loaded)
    assert list(arrays) == list(described.arrays)
    for name, array in described.arrays.items():
        assert array.tobytes() == arrays[name].tobytes()
        assert array.dtype == arrays[name].dtype
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)),
        model(inputs, training=False),
        loaded(inputs, training=False),
    )


def test_layers_keep_their_trainable_flags() -> None:
    model, _ = MODELS["zoo"]()
    model.layers[4].trainable = False
    loaded = round_trip(model)
    for old, new in zip(walk_layers(model), walk_layers(loaded), strict=True):
        assert (old.path, old.layer.trainable) == (new.path, new.layer.trainable)
    assert [w.trainable for w in model.weights] == [w.trainable for w in loaded.weights]


def test_names_do_not_depend_on_what_was_made_before() -> None:
    model, inputs = MODELS["registered custom layer"]()
    described = describe_model(model)
    for _ in range(3):
        layers.Dense(1)
    loaded = round_trip(model)
    assert list(model_arrays(loaded)) == list(described.arrays)
    np.testing.assert_array_equal(loaded(inputs), model(inputs))


def test_custom_objects_stand_for_registration() -> None:
    class Plain(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((3,)), Plain(2, name="plain")])
    with pytest.raises(UnsupportedModelError, match=r"'plain' of custom type Plain .* weights"):
        describe_model(model)
    loaded = round_trip(model, {"Plain": Plain})
    assert type(loaded.layers[0]) is Plain


def test_unregistered_layers_are_opened() -> None:
    class Named(Tokens):
        def __init__(self, vocabulary: int, **kwargs: Any) -> None:
            super().__init__(vocabulary)

    inputs = keras.Input((7,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2)(Named(9)(inputs)))
    loaded = round_trip(model)
    assert {type(layer) for layer in loaded.layers if layer.weights} == {
        layers.Embedding,
        layers.Dense,
    }
    np.testing.assert_array_equal(loaded(ids(2, 7)), model(ids(2, 7)))


def test_a_subclassed_model_with_functions_says_which_layer() -> None:
    model = Transformer()
    model(ids(2, 7))
    with pytest.raises(UnsupportedModelError, match=r"layer 'sequential.*/dense.*' \(Dense\)"):
        describe_model(model)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.Lambda(lambda x: x * 2, name="code"), "'code' .*Python code"),
        (lambda: layers.LSTM(2, stateful=True, name="state"), "'state' .*stateful=False"),
        (lambda: layers.Dense(2, activation=lambda x: x, name="fn"), "layer 'fn' .*named and"),
    ],
)
def test_what_cannot_be_stored_is_named(layer: Any, reason: str) -> None:
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 3)), layer()])
    with pytest.raises(UnsupportedModelError, match=reason):
        model_to_config(model)


def test_a_vocabulary_cannot_be_stored() -> None:
    lookup = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot", name="words")
    model = keras.Sequential([keras.Input((), dtype="string"), lookup, layers.Dense(2)])
    with pytest.raises(UnsupportedModelError, match=r"'words' .*vocabulary"):
        describe_model(model)


def test_a_weight_used_outside_of_its_layer_cannot_be_stored() -> None:
    inputs = keras.Input((5,), dtype="int32")
    table = layers.Embedding(9, 4, name="table")
    outputs = ops.einsum("btd,vd->btv", table(inputs), table._embeddings)
    with pytest.raises(UnsupportedModelError, match="table/embeddings"):
        describe_model(keras.Model(inputs, outputs))


def test_compiled_models_come_back_compiled() -> None:
    model = SimpleNN()
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 100)),
        keras.losses.BinaryCrossentropy(label_smoothing=0.1),
        metrics=["accuracy", keras.metrics.AUC(num_thresholds=20)],
        run_eagerly=True,
    )
    x, y = floats(16, 10), (floats(16, 1) > 0).astype("float32")
    model.fit(x, y, verbose=0)
    loaded = round_trip(model)
    assert model.evaluate(x, y, verbose=0) == loaded.evaluate(x, y, verbose=0)
    assert isinstance(loaded.optimizer._learning_rate, keras.optimizers.schedules.CosineDecay)
    loaded.fit(x, y, verbose=0)


def unregistered(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@pytest.mark.parametrize(
    "loss",
    [unregistered, lambda a, b: a - b, keras.losses.Huber(0.5)],
    ids=["function", "lambda", "config that forgets"],
)
def test_what_cannot_be_stored_of_compiling_is_left_out_with_a_warning(loss: Any) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("adam", loss)
    with pytest.warns(SecateurWarning, match="without its optimizer, loss and metrics"):
        described = describe_model(model)
    assert json.loads(described.config)["compile"] is None
    loaded = model_from_config(described.config, shapes_of(described.arrays))
    assert not loaded.compiled


def test_arrays_that_do_not_fit_are_named() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="out")])
    arrays = dict(model_arrays(model))
    before = {name: array.copy() for name, array in arrays.items()}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"out/kernel": arrays["out/kernel"]}, "missing 'out/bias'; superfluous none"),
        ({**arrays, "more": arrays["out/bias"]}, "missing none; superfluous 'more'"),
        ({**arrays, "out/bias": np.zeros(3, "float32")}, r"'out/bias' is \(3,\) float32"),
        ({**arrays, "out/bias": np.zeros(2, "float16")}, r"'out/bias' is \(2,\) float16"),
    ]
    for given, message in wrong:
        with pytest.raises(FileFormatError, match=message):
            set_model_arrays(model, given)
    for name, array in model_arrays(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_describing_leaves_the_model_as_it_was_and_warns_of_nothing() -> None:
    model, inputs = MODELS["zoo"]()
    before = np.asarray(model(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        describe_model(model)
    np.testing.assert_array_equal(np.asarray(model(inputs)), before)
