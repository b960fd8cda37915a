"""Branches, layers and blocks of real and trained models: cut, proven, saved, loaded, trained on."""

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.keras.variables import writable_copy

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def tokens_with_a_label(count=512, length=12, seed=0):
    """Sequences of digits; the label says which of two digits occurs more often."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, 8, (count, length))
    return tokens, ((tokens == 2).sum(1) > (tokens == 5).sum(1)).astype("int32")


def transformer(num_blocks=3, width=16):
    i = keras.Input((12,), dtype="int32")
    x = layers.Embedding(8, width)(i)
    for number in range(num_blocks):
        h = layers.LayerNormalization()(x)
        h = layers.MultiHeadAttention(2, 8, name=f"attention_{number}")(h, h)
        x = layers.Add()([x, layers.Dropout(0.1)(h)])
        h = layers.LayerNormalization()(x)
        h = layers.Dense(width, name=f"down_{number}")(
            layers.Dense(32, "gelu", name=f"up_{number}")(h)
        )
        x = layers.Add()([x, h])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(i, layers.Dense(2)(x))


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = transformer()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    x, y = tokens_with_a_label()
    # One attention and one feed-forward branch that say almost nothing.
    for name in ("attention_1", "down_2"):
        layer = model.get_layer(name)
        layer.set_weights([w * 1e-4 for w in layer.get_weights()])
        layer.trainable = False
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=6, verbose=0)
    return model


def test_a_trained_transformer_loses_what_says_nothing(trained, tmp_path):
    x, y = tokens_with_a_label(seed=1)
    before = trained.evaluate(x, y, verbose=0)[1]
    assert before > 0.8
    plan = sc.plan_cut(trained, x[:256], threshold=0.01, align=1)
    assert plan.bypassed == {"branch:attention_1", "branch:up_2"}
    assert "branch:attention_1 with layer_normalization" in str(plan)
    result = plan.apply()
    assert result.proof.difference <= 1e-4
    names = {layer.name for layer in result.model.layers}
    assert names.isdisjoint({"attention_1", "up_2", "down_2"})
    assert result.model.evaluate(x, y, verbose=0)[1] == pytest.approx(before, abs=0.01)
    result.model.save(tmp_path / "cut.keras")
    loaded = keras.models.load_model(tmp_path / "cut.keras")
    np.testing.assert_allclose(loaded(x[:8]), result.model(x[:8]), atol=1e-5)
    loaded.fit(x, y, verbose=0)


def test_the_optimizer_goes_on_without_what_is_gone(trained):
    result = sc.cut(trained, granularity=("branch", "neuron"), ratio=0.5)
    old, new = trained.optimizer, result.model.optimizer
    assert int(new.iterations) == int(old.iterations)
    assert len(new._trainable_variables) == len(result.model.trainable_variables)
    kept = {
        variable.path: slot
        for variable, slot in zip(old._trainable_variables, old._momentums, strict=True)
    }
    same = 0
    for variable, slot in zip(new._trainable_variables, new._momentums, strict=True):
        was = kept[variable.path]
        if tuple(was.shape) == tuple(slot.shape):
            np.testing.assert_array_equal(writable_copy(slot), writable_copy(was))
            same += 1
    assert same > 5
    x, y = tokens_with_a_label()
    result.model.fit(x, y, verbose=0)


def test_targets(trained):
    x, _ = tokens_with_a_label()
    plan = sc.plan_cut(trained, x, keep={"branches": 2, "up_0": 8})
    assert sum(not bypass.removed for bypass in plan.bypasses) == 2
    assert not plan["branch:up_0"].removed
    assert plan["up_0"].kept == 8
    assert plan.apply().proof.difference <= 1e-4
    plan = sc.plan_cut(trained, x, threshold=0.1, relative=True, granularity="branch")
    assert plan.bypassed == {"branch:attention_1", "branch:up_2"}
    plan = sc.plan_cut(trained, x, ratio=0.34, granularity="block")
    assert [bypass.kind for bypass in plan.bypasses] == ["block"] * 3
    assert len(plan.bypassed) == 1
    assert sc.plan_cut(trained, x, ratio=0.5).bypasses == ()
    assert sc.plan_cut(trained, x, ratio=0.5, granularity="branch", exclude=["attention*"]).bypassed <= {
        "branch:up_0", "branch:up_1", "branch:up_2",
    }  # fmt: skip


def test_editing_a_bypass_keeps_the_cuts_of_units(trained):
    x, _ = tokens_with_a_label()
    plan = sc.plan_cut(trained, x, ratio=0.5, granularity=("branch", "neuron"), exclude=["up_0"])
    removed = plan["up_1"].removed if not plan["branch:up_1"].removed else None
    gone = next(iter(sorted(plan.bypassed)))
    edited = plan.edit(gone, False)
    assert gone not in edited.bypassed
    assert edited[gone].why == "edited"
    if removed is not None:
        assert edited["up_1"].removed == removed
    assert edited.apply().proof.difference <= 1e-4
    read = sc.bind_plan(sc.CutPlan.from_json(edited.to_json()), trained, x)
    assert read.apply().model.count_params() == edited.apply().model.count_params()


def trains_and_loads(result, x, tmp_path):
    assert result.proof.difference <= 1e-4
    result.model.save(tmp_path / "cut.keras")
    loaded = keras.models.load_model(tmp_path / "cut.keras")
    for one, two in zip(
        keras.tree.flatten(loaded(x)), keras.tree.flatten(result.model(x)), strict=True
    ):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    loaded.compile("sgd", "mse")
    targets = keras.tree.map_structure(lambda y: np.zeros(y.shape), loaded(x))
    loaded.fit(x, targets, verbose=0)


def test_resnet50(tmp_path):
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    result = sc.cut(model, ratio=0.5, granularity=("branch", "block"))
    assert sum(bypass.kind == "branch" for bypass in result.plan.bypasses) == 20
    assert sum(bypass.kind == "block" for bypass in result.plan.bypasses) == 12
    trains_and_loads(result, np.ones((2, 32, 32, 3), "float32"), tmp_path)


def bert(kind, **options):
    hub = pytest.importorskip("keras_hub")
    sizes = {"vocabulary_size": 50, "num_layers": 4, "num_heads": 2, "hidden_dim": 16}
    sizes |= {"intermediate_dim": 32, "max_sequence_length": 16}
    return getattr(hub.models, kind)(**sizes, **options)


def bert_inputs():
    tokens = np.random.default_rng(0).integers(1, 50, (40, 16))
    mask = np.ones((40, 16), "int32")
    mask[:, 12:] = 0
    return {"token_ids": tokens, "segment_ids": np.zeros((40, 16), "int32"), "padding_mask": mask}


@pytest.mark.parametrize("granularity", ["branch", "block", ("branch", "layer", "head", "neuron")])
def test_bert(granularity, tmp_path):
    model = bert("BertBackbone")
    result = sc.cut(model, bert_inputs(), ratio=0.5, granularity=granularity)
    assert result.plan.bypassed
    assert set(result.model.input) == set(model.input)
    assert result.model.count_params() < model.count_params()
    trains_and_loads(result, bert_inputs(), tmp_path)


def test_calls_of_a_shared_block(tmp_path):
    """ALBERT calls one block again and again: single calls go, its weights stay."""
    model = bert("AlbertBackbone", embedding_dim=8)
    result = sc.cut(model, bert_inputs(), ratio=0.5, granularity="block")
    assert len(result.plan.bypassed) == 2
    assert result.model.count_params() == model.count_params()
    calls = [layer for layer in result.model.layers if isinstance(layer, layers.MultiHeadAttention)]
    assert sum(len(layer._inbound_nodes) for layer in calls) <= 2 * 2
    trains_and_loads(result, bert_inputs(), tmp_path)
