"""Configurations that mean harm, or none at all: an error of ours, little time and no memory."""

from __future__ import annotations

import copy
import json
import resource
from typing import Any

import keras
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from secateur.errors import FileFormatError
from secateur.keras.model_config import describe_model, model_from_config
from secateur.keras.safe_config import MAX_DEPTH, MAX_TEXT

Shapes = dict[str, tuple[tuple[int, ...], str]]


def described(model: Any) -> tuple[dict[str, Any], Shapes]:
    whole = describe_model(model)
    shapes = {name: (array.shape, array.dtype.name) for name, array in whole.arrays.items()}
    return json.loads(whole.config), shapes


@pytest.fixture(scope="module")
def dense() -> tuple[dict[str, Any], Shapes]:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="out")])
    model.compile("adam", "mse", metrics=[keras.metrics.AUC(num_thresholds=20)])
    return described(model)


@pytest.fixture(scope="module")
def graph() -> tuple[dict[str, Any], Shapes]:
    inputs = keras.Input((4,), name="in")
    x = layers.Reshape((2, 2))(inputs) * 2.0
    x = layers.Bidirectional(layers.LSTM(2, dropout=0.1), name="both")(x)
    return described(keras.Model(inputs, layers.Dense(2, activation="relu", name="out")(x)))


def refused(parts: dict[str, Any], shapes: Shapes, match: str | None = None) -> None:
    with pytest.raises(FileFormatError, match=match):
        model_from_config(json.dumps(parts), shapes)


def layer_of(parts: dict[str, Any], position: int = 1) -> dict[str, Any]:
    return parts["model"]["config"]["layers"][position]


OBJECTS: list[dict[str, Any]] = [
    {"module": "builtins", "class_name": "eval", "config": {}},
    {"module": "os", "class_name": "system", "config": {}},
    {"module": "subprocess", "class_name": "Popen", "config": {"args": "true"}},
    {"module": "keras.layers", "class_name": "Lambda", "config": {}},
    {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/"}},
    {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "x"}},
    {"module": "keras.layers", "class_name": "JaxLayer", "config": {}},
    {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/x"}},
    {"module": "keras.layers", "class_name": "TextVectorization", "config": {}},
    {"module": "keras.callbacks", "class_name": "CSVLogger", "config": {"filename": "/x"}},
    {"module": "keras.utils", "class_name": "get_file", "config": {}},
    {"module": "keras.applications", "class_name": "ResNet50", "config": {}},
    {"module": "keras.src.saving.saving_lib", "class_name": "H5IOStore", "config": {}},
    {"module": "keras.src.layers.core.lambda_layer", "class_name": "Lambda", "config": {}},
    {"module": "keras", "class_name": "Nothing", "config": {}},
    {"module": None, "class_name": "Dense", "config": {}},
    {"module": ["keras"], "class_name": "Dense", "config": {}},
    {"module": "keras.layers", "class_name": ["Dense"], "config": {}},
    {"module": "keras.optimizers", "class_name": "Adam", "config": {}},
    {"class_name": "Dense", "config": {"units": 2}},
    {"module": "os", "class_name": "function", "config": "system"},
    {"module": "keras.saving", "class_name": "function", "config": "load_model"},
    {"module": "keras.models", "class_name": "function", "config": "load_model"},
    {"module": "keras.activations", "class_name": "function", "config": "deserialize"},
    {"module": "builtins", "class_name": "function", "config": "exec"},
    {"module": "builtins", "class_name": "function", "config": {"a": 1}},
    {"class_name": "__lambda__", "config": {"value": ["YQ==", None, None]}},
    {
        "class_name": "__typespec__",
        "spec_name": "Popen",
        "module": "subprocess",
        "config": [],
        "registered_name": None,
    },
    {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S1000000000"}},
    {"class_name": "__tensor__", "config": {"value": 1, "dtype": "object"}},
    {"class_name": "__keras_tensor__", "config": {"shape": "x", "dtype": "float32"}},
]


@pytest.mark.parametrize("hostile", OBJECTS, ids=lambda part: str(part["class_name"])[:20])
@pytest.mark.parametrize("where", ["layer", "activation", "initializer", "compile"])
def test_names_that_lead_elsewhere_are_refused(
    dense: tuple[dict[str, Any], Shapes], hostile: dict[str, Any], where: str
) -> None:
    parts, shapes = copy.deepcopy(dense)
    if where == "layer":
        parts["model"]["config"]["layers"].append({**hostile, "registered_name": None})
    elif where == "compile":
        if hostile.get("module") == "keras.optimizers":
            return
        parts["compile"]["optimizer"] = hostile
    else:
        key = {"activation": "activation", "initializer": "kernel_initializer"}[where]
        layer_of(parts)["config"][key] = hostile
    refused(parts, shapes)


def test_an_outer_object_that_is_no_model(dense: tuple[dict[str, Any], Shapes]) -> None:
    parts, shapes = copy.deepcopy(dense)
    for model in (layer_of(parts), None, [], "x", {"class_name": "Sequential"}):
        refused({**parts, "model": model}, shapes)


@pytest.mark.parametrize(
    "text", ["", "null", "[1]", "{", "{}", '{"format":1}', "\x00", "[" * 100_000, "9" * 10_000]
)
def test_texts_that_are_no_configuration(text: str) -> None:
    with pytest.raises(FileFormatError):
        model_from_config(text, {})


def test_other_formats_sizes_and_depths(dense: tuple[dict[str, Any], Shapes]) -> None:
    parts, shapes = copy.deepcopy(dense)
    refused({**parts, "format": 2}, shapes, "format 2; this version")
    with pytest.raises(FileFormatError, match="characters, more than"):
        model_from_config(" " * (MAX_TEXT + 1), shapes)
    deep: Any = 1
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    layer_of(parts)["config"]["activation"] = deep
    refused(parts, shapes, f"more than {MAX_DEPTH} deep")


def test_a_config_takes_no_memory_that_the_file_did_not_declare(
    dense: tuple[dict[str, Any], Shapes],
) -> None:
    parts, shapes = copy.deepcopy(dense)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layer_of(parts)["config"]["units"] = 10**9
    refused(parts, shapes, "asks for more weights than")
    layer_of(parts)["config"]["units"] = 2
    layer_of(parts, 0)["config"]["batch_shape"] = [None, 10**9]
    parts["model"]["config"]["build_input_shape"] = [None, 10**9]
    refused(parts, shapes, "asks for more weights than")
    normalised = keras.Sequential([keras.Input((3,)), layers.Normalization()])
    parts, shapes = described(normalised)
    layer_of(parts, 0)["config"]["batch_shape"] = [None, 10**9]
    parts["model"]["config"]["build_input_shape"] = [None, 10**9]
    refused(parts, shapes)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 200e6


def test_nothing_is_allocated_later_for_a_refused_model(
    dense: tuple[dict[str, Any], Shapes],
) -> None:
    parts, shapes = copy.deepcopy(dense)
    refused(parts, {**shapes, "other": ((10**12,), "float32")}, "superfluous 'other'")
    layer_of(parts)["config"]["units"] = 10**11
    refused(parts, {**shapes, "out/kernel": ((10**12,), "float32")})
    # Were the variables still on Keras's list, the end of this scope would initialise them.
    with keras.StatelessScope():
        pass


def test_shapes_dtypes_and_names_have_to_be_those_of_the_file(
    graph: tuple[dict[str, Any], Shapes],
) -> None:
    parts, shapes = copy.deepcopy(graph)
    name = "out/kernel"
    refused(parts, {**shapes, name: ((2, 4), "float32")}, "'out/kernel' is")
    refused(parts, {**shapes, name: (shapes[name][0], "float16")}, "'out/kernel' is")
    refused(parts, {key: shapes[key] for key in shapes if key != name}, "missing 'out/kernel'")


def inner_lstm(parts: dict[str, Any]) -> dict[str, Any]:
    return layer_of(parts, 3)["config"]["layer"]["config"]


HUGE_METRIC = {
    "module": "keras.metrics",
    "class_name": "MeanIoU",
    "config": {"num_classes": 10**6},
    "registered_name": None,
}
CHANGES: dict[str, tuple[Any, str]] = {
    "state": (lambda parts: inner_lstm(parts).update(stateful=True), "state outside"),
    "old nodes": (lambda parts: layer_of(parts, 4).update(inbound_nodes=[["in", 0, 0]]), "Keras 3"),
    "eager call": (
        lambda parts: layer_of(parts, 4).update(inbound_nodes=[{"args": [1], "kwargs": {}}]),
        "without an input",
    ),
    "no nodes": (lambda parts: layer_of(parts, 4).update(inbound_nodes=3), "not a list"),
    "old layer": (lambda parts: layer_of(parts, 4).pop("module"), "Keras 3"),
    "built": (
        lambda parts: layer_of(parts, 4).update(build_config={"input_shape": [2, 2]}),
        "not write",
    ),
    "many": (lambda parts: layer_of(parts, 2)["config"].update(num=10**6), "more than 10000"),
    "units": (lambda parts: layer_of(parts, 4)["config"].update(units=2**60), "beyond 2"),
    "same name": (lambda parts: layer_of(parts, 4).update(name="in"), "cannot build"),
    "compile key": (lambda parts: parts.update(compile={"callbacks": []}), "does not take"),
    "optimizer": (lambda parts: parts.update(compile={"optimizer": "none such"}), "cannot compile"),
    "metric": (lambda parts: parts.update(compile={"metrics": [HUGE_METRIC]}), "more than 10000"),
}


@pytest.mark.parametrize(("change", "match"), CHANGES.values(), ids=CHANGES.keys())
def test_other_ways_to_do_harm(
    graph: tuple[dict[str, Any], Shapes], change: Any, match: str
) -> None:
    parts, shapes = copy.deepcopy(graph)
    change(parts)
    refused(parts, shapes, match)


def test_registered_objects_are_let_in_only_by_their_names(
    dense: tuple[dict[str, Any], Shapes],
) -> None:
    class Mine(layers.Dense):
        pass

    parts, shapes = copy.deepcopy(dense)
    layer_of(parts).update(module="somewhere", class_name="Mine", registered_name="Mine")
    refused(parts, shapes, "register a class of your own")
    loaded = model_from_config(json.dumps(parts), shapes, custom_objects={"Mine": Mine})
    assert type(loaded.layers[0]) is Mine


def paths(part: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here] if here else []
    items = (
        part.items()
        if isinstance(part, dict)
        else enumerate(part)
        if isinstance(part, list)
        else ()
    )
    for key, inner in items:
        found += paths(inner, (*here, key))
    return found


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**40, -(2**52), 1e308, -0.5, float("nan"), float("inf")]),
    st.sampled_from(["", "float32", "int4", "relu", "__lambda__", "out", "both", "a" * 100]),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-1, 4), max_size=4),
    st.sampled_from(OBJECTS),
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutations_give_a_model_or_our_error(
    graph: tuple[dict[str, Any], Shapes], data: st.DataObject
) -> None:
    parts, shapes = copy.deepcopy(graph)
    for _ in range(data.draw(st.integers(1, 3))):
        places = paths(parts["model"], ("model",))
        path = data.draw(st.sampled_from(places))
        holder: Any = parts
        for key in path[:-1]:
            holder = holder[key]
        if data.draw(st.booleans()) and len(path) > 1:
            del holder[path[-1]]
        else:
            holder[path[-1]] = data.draw(VALUES)
    try:
        model = model_from_config(json.dumps(parts), shapes)
    except FileFormatError:
        return
    assert isinstance(model, keras.Model)
