"""Random small models of stock layers, cut at random: proof, and checks that know no rules."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers
from tests.conformance.test_cut_rules import randomise

from secateur.keras import cutting
from secateur.keras.variables import writable_copy

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::secateur.errors.TargetNotReachedWarning"),
]

SETTINGS = ("plain", "residual", "concatenated", "shared", "nested")


def same_shape(kind, width):
    """Makers of layers that keep the shape, by kind of input."""
    everywhere = {
        "dense": lambda: layers.Dense(width, "relu"),
        "norm": lambda: layers.BatchNormalization(),
        "layer_norm": lambda: layers.LayerNormalization(),
        "activation": lambda: layers.Activation("tanh"),
        "prelu": lambda: layers.PReLU(shared_axes=[1] if kind == "sequence" else None),
        "dropout": lambda: layers.Dropout(0.5),
    }
    if kind == "vector":
        return everywhere
    if kind == "sequence":
        return {
            **everywhere,
            "conv": lambda: layers.Conv1D(width, 3, padding="same", activation="relu"),
            "lstm": lambda: layers.LSTM(width, return_sequences=True),
            "gru": lambda: layers.GRU(width, return_sequences=True),
            "distributed": lambda: layers.TimeDistributed(layers.Dense(width)),
            "separable": lambda: layers.SeparableConv1D(width, 3, padding="same"),
        }
    del everywhere["prelu"]
    return {
        **everywhere,
        "conv": lambda: layers.Conv2D(width, 3, padding="same", activation="relu"),
        "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same"),
        "transposed": lambda: layers.Conv2DTranspose(width, 2, padding="same"),
        "pooled": lambda: layers.MaxPooling2D(2, strides=1, padding="same"),
    }


SHAPES = {"vector": (), "sequence": (4,), "image": (4, 3)}


def step(x, setting, make, width):
    """One piece of the model."""
    if setting == "residual":
        return layers.Add()([x, make()(x)])
    if setting == "concatenated":
        return layers.Dense(width)(layers.Concatenate()([make()(x), layers.Dense(3)(x)]))
    if setting == "shared":
        layer = make()
        return layers.Add()([layer(x), layer(layers.Activation("tanh")(x))])
    if setting == "nested":
        return keras.Sequential([keras.Input(x.shape[1:]), layers.Dense(width), make()])(x)
    return make()(x)


CALM = ("dense", "activation", "dropout", "conv")
"""Layers that give zero for zero."""


@st.composite
def recipes(draw, calm=False):
    """What a model is made of: kind of input, width, steps, whether it is flattened, seed."""
    kind = draw(st.sampled_from(sorted(SHAPES)))
    width = draw(st.integers(2, 12))
    names = [n for n in sorted(same_shape(kind, width)) if not calm or n in CALM]
    settings = ("plain", "residual") if calm else SETTINGS
    one = st.tuples(st.sampled_from(names), st.sampled_from(settings))
    steps = draw(st.lists(one, min_size=1, max_size=3))
    return kind, width, steps, draw(st.booleans()), draw(st.integers(0, 99))


def built(recipe):
    kind, width, steps, flattened, seed = recipe
    i = keras.Input((*SHAPES[kind], 5))
    x = layers.Dense(width)(i)
    for name, setting in steps:
        x = step(x, setting, same_shape(kind, width)[name], width)
    if flattened:
        x = layers.Flatten()(x)
    model = keras.Model(i, layers.Dense(2)(x))
    randomise(model, seed)
    return model


def leaves(model):
    return {
        layer.name: layer
        for layer in model._flatten_layers(include_self=False)
        if layer.weights and not list(layer._flatten_layers(include_self=False))
    }


def assert_kept_slices(old, new):
    """Every value of `new` stands in `old`, and where they stand is a grid in the old order."""
    old, new = writable_copy(old), writable_copy(new)
    flat = old.reshape(-1)
    order = np.argsort(flat)
    assert (np.diff(flat[order]) > 0).all(), "the test needs distinct values"
    found = order[np.searchsorted(flat[order], new.reshape(-1))]
    np.testing.assert_array_equal(flat[found], new.reshape(-1))
    grid = np.array(np.unravel_index(found, old.shape)).reshape(old.ndim, *new.shape)
    for axis, positions in enumerate(grid):
        line = np.moveaxis(positions, axis, 0).reshape(new.shape[axis], -1)
        assert (line == line[:, :1]).all(), "not a grid"
        assert (np.diff(line[:, 0]) > 0).all(), "the order changed"


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    recipe=recipes(),
    ratio=st.floats(0.1, 0.9),
    align=st.sampled_from([1, 2, 4, 8]),
    measure=st.sampled_from(["path", "incoming", "outgoing", "mean", "rms", "max"]),
)
def test_what_is_left_are_the_kept_slices(recipe, ratio, align, measure, tmp_path_factory):
    model = built(recipe)
    x = np.random.default_rng(1).normal(size=(40, *model.input_shape[1:])).astype("float32")
    data = x if measure in ("mean", "rms", "max") else None
    # Folding changes biases on purpose; here every weight must be a slice.
    options = {"align": align, "measure": measure, "fold": False}
    result = cutting.cut(model, data, ratio=ratio, **options)
    assert result.proof.difference <= result.proof.tolerance
    assert result.model.output_shape == model.output_shape
    before, after = leaves(model), leaves(result.model)
    assert sorted(before) == sorted(after)
    for name, layer in before.items():
        for old, new in zip(layer.weights, after[name].weights, strict=True):
            if "seed" not in old.path:
                assert_kept_slices(old, new)
    for group in result.plan.groups:
        assert group.kept >= 1
        if group.removed and group.kind != "head":
            assert group.kept % align == 0 or group.kept == group.width
    path = tmp_path_factory.mktemp("cut") / "cut.keras"
    result.model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_allclose(loaded(x[:3]), result.model(x[:3]), rtol=1e-5, atol=1e-5)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipe=recipes(calm=True), ratio=st.floats(0.2, 0.8))
def test_dead_units_cost_nothing(recipe, ratio):
    model = built(recipe)
    plan = cutting.plan_cut(model, ratio=ratio, align=1)
    known = leaves(model)
    for group in plan.groups:
        for name in group.makers:
            for variable in known[name].weights:
                value = writable_copy(variable)
                value[..., list(group.removed)] = 0
                variable.assign(value)
    x = np.random.default_rng(1).normal(size=(8, *model.input_shape[1:])).astype("float32")
    result = plan.apply()
    np.testing.assert_allclose(result.model(x), model(x), rtol=1e-4, atol=1e-3)
