"""sc.cut(..., mask=...): positions that the user says are padding count for nothing."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import secateur as sc
from secateur.errors import InvalidArgumentError
from secateur.keras.padding import Padding
from secateur.keras.taps import open_graph

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.CalibrationWarning")


def model():
    """The mask is multiplied in by hand, so neither Keras nor a layer's argument tells of it."""
    keras.utils.set_random_seed(1)
    x, mask = keras.Input((None, 6), name="x"), keras.Input((None,), dtype="bool", name="mask")
    seen = ops.expand_dims(mask, 1)
    y = layers.Dense(16, name="first")(x)
    y = y + layers.MultiHeadAttention(4, 4, name="attention")(y, y, attention_mask=seen)
    y = layers.Dense(12, "relu", name="wide")(y)
    y = layers.Dense(5, name="out")(y)
    weight = ops.cast(mask, "float32")[:, :, None]
    pooled = ops.sum(y * weight, axis=1) / ops.sum(weight, axis=1)
    return keras.Model([x, mask], pooled)


def samples(garbage):
    """The same samples, with what this seed draws at padded positions."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 7, 6))
    mask = np.arange(7) < rng.integers(2, 7, (40, 1))
    noise = np.random.default_rng(garbage).normal(size=x.shape) * 30
    return [np.where(mask[..., None], x, noise).astype("float32"), mask]


WAYS = [
    {"measure": "mean"},
    {"measure": "std"},
    {"measure": "flap"},
    {"granularity": "head", "measure": "rms"},
    {"granularity": ("neuron", "branch"), "measure": "mean"},
    {"repair": True},
]


@pytest.mark.parametrize("given", ["name", "array"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_what_stands_at_padded_positions_changes_nothing(way, given):
    own = model()
    include = None if "branch" in way.get("granularity", ()) else ["wide", "attention"]
    how = {"ratio": 0.5, "align": 1, "include": include, "batch_size": 16, **way}
    one, two = (
        sc.cut(own, data, mask="mask" if given == "name" else data[1], **how)
        for data in (samples(1), samples(2))
    )
    assert [g.removed for g in one.plan.groups] == [g.removed for g in two.plan.groups]
    assert [b.removed for b in one.plan.bypasses] == [b.removed for b in two.plan.bypasses]
    for first, second in zip(one.model.weights, two.model.weights, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4, rtol=1e-3)


def test_without_the_mask_it_would():
    """So that the test above cannot hold for another reason."""
    own = model()
    one, two = (
        sc.cut(own, samples(seed), ratio=0.5, align=1, include=["wide"], measure="std")
        for seed in (1, 2)
    )
    pairs = zip(one.model.weights, two.model.weights, strict=True)
    assert any(np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-2 for a, b in pairs)


def test_a_bound_plan_takes_the_mask_too():
    own, data = model(), samples(1)
    plan = sc.plan_cut(own, data, ratio=0.5, align=1, include=["wide"], mask="mask")
    read = type(plan).from_json(plan.to_json())
    one, two = plan.apply().model, sc.bind_plan(read, own, samples(2), mask="mask").apply().model
    for first, second in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_a_mask_of_queries_is_none_of_keys_from_elsewhere():
    """Both sequences are of one length, so only where they come from tells them apart."""
    asked, told = keras.Input((5, 6)), keras.Input((5, 6))
    mask = keras.Input((5,), dtype="bool")
    query, key = layers.Dense(8, name="query")(asked), layers.Dense(8, name="key")(told)
    mixed = layers.MultiHeadAttention(2, 4)(query, key)
    own = keras.Model(
        [asked, told, mask], layers.GlobalAveragePooling1D()(mixed + query, mask=mask)
    )
    graph = open_graph(own)
    padding = Padding(graph)
    masked = {call.operation.name for call in graph.calls if padding.tensors(call)}
    assert "query" in masked
    assert "key" not in masked
    assert padding.tensors(graph.calls[-1])


def test_masks_that_do_not_fit():
    own, data = model(), samples(1)
    with pytest.raises(InvalidArgumentError, match="names no input"):
        sc.cut(own, data, ratio=0.5, mask="maks")
    with pytest.raises(InvalidArgumentError, match="39 samples"):
        sc.cut(own, data, ratio=0.5, mask=data[1][:39])
    with pytest.raises(InvalidArgumentError, match="there is no data"):
        sc.cut(own, ratio=0.5, mask="mask")


@pytest.mark.parametrize(
    "way",
    [{"measure": "mean"}, {"repair": True}, {"repair": True, "keep": {"attention": 2, "first": 8}}],
    ids=str,
)
def test_masks_that_attention_takes_off_its_inputs_reach_what_else_reads_them(way):
    keras.utils.set_random_seed(2)
    ids = keras.Input((9,), dtype="int32")
    y = layers.Dense(16, name="first")(layers.Embedding(30, 12, mask_zero=True)(ids))
    y = layers.Add()([y, layers.MultiHeadAttention(4, 4, name="attention")(y, y)])
    y = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(y))
    net = keras.Model(ids, layers.Dense(3, name="out")(layers.Dense(16, "relu", name="wide")(y)))
    rng = np.random.default_rng(0)
    x = np.where(np.arange(9) < rng.integers(2, 9, (60, 1)), rng.integers(1, 30, (60, 9)), 0)
    result = sc.cut(net, x, align=1, **{"keep": {"attention": 2, "wide": 8}, **way})
    assert result.proof.difference < 1e-4
