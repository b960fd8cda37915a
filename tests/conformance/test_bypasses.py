"""Branches, layers and blocks in every setting, each with the proof."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers, ops

import secateur as sc
from secateur.errors import InvalidArgumentError, ProofError, TargetNotReachedWarning
from secateur.keras.describe import everything
from secateur.keras.proof import prove
from secateur.keras.rebuild import rebuild
from secateur.keras.variables import writable_copy
from secateur.keras.workbench import open_bench, without

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning",
    "ignore:Model .* has no",
    "ignore:Of .* units that were to go",
)

BYPASSES = ("branch", "layer", "block")


def conv_block(x, filters, *, last=True, strides=1):
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if last else x


def pre_norm(x):
    for _ in range(2):
        h = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.Dropout(0.1)(layers.MultiHeadAttention(2, 4)(h, h))])
        h = layers.LayerNormalization()(x)
        x = x + layers.Dense(8)(layers.Dense(16, "gelu")(h))
    return x


def post_norm(x):
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(16, "relu")(x)))
    return x


def resnet(x):
    x = conv_block(x, 8)
    x = layers.ReLU()(x + conv_block(conv_block(x, 8), 8, last=False))
    short = conv_block(x, 16, last=False, strides=2)
    long = conv_block(conv_block(x, 16, strides=2), 16, last=False)
    return layers.ReLU()(layers.Add()([short, long]))


def inception_resnet(x):
    x = conv_block(x, 8)
    for _ in range(2):
        paths = [conv_block(x, 4), conv_block(conv_block(x, 4), 6)]
        up = layers.Conv2D(8, 1)(layers.Concatenate()(paths))
        x = layers.Activation("relu")(layers.Add()([x, up * 0.2]))
    return x


def gated(x):
    gate = layers.Dense(8, "sigmoid")(x)
    x = x + gate * layers.Dense(8, "tanh")(x)
    gate = layers.Dense(8, "sigmoid")(x)
    return gate * layers.Dense(8)(x) + (1.0 - gate) * x


def differences(x):
    x = layers.Subtract()([x, layers.Dense(8)(x)])
    x = x - layers.Dense(8)(x)
    return layers.Dense(8, name="minuend")(x) - x


def averages(x):
    x = layers.Average()([x, layers.Dense(8)(x)])
    three = [x, layers.Dense(8)(x), layers.Dense(8, "relu")(x)]
    return layers.Average()(three)


def sums_of_three(x):
    x = layers.Add()([layers.Dense(8)(x), x, layers.Dense(8)(x)])
    return x + layers.Dense(8)(x) + layers.Dense(8)(x)


def broadcast(x):
    pooled = ops.mean(x, axis=1, keepdims=True)
    x = x + layers.Dense(8)(pooled)
    return layers.Dense(8)(x) + layers.Dense(8)(ops.mean(x, axis=1, keepdims=True))


def nested(x):
    inner = keras.Input(x.shape[1:])
    model = keras.Model(inner, inner + layers.Dense(8)(layers.Dense(16, "relu")(inner)))
    return model(x) + layers.Dense(8)(x)


def shared(x):
    """One block called again and again, as ALBERT does."""
    norm, up, down = layers.LayerNormalization(), layers.Dense(16, "gelu"), layers.Dense(8)
    for _ in range(4):
        x = norm(x + down(up(x)))
    return x


def branch_in_branch(x):
    h = layers.Dense(12)(x)
    h = h + layers.Dense(12)(layers.Dense(6, "relu")(h))
    return x + layers.Dense(8)(h)


def recurrent(x):
    x = layers.LSTM(8, return_sequences=True)(x)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    return x + layers.LSTM(8, return_sequences=True)(x)


def plain_chain(x):
    for _ in range(3):
        x = layers.Dropout(0.1)(layers.Dense(8, "relu")(x))
    return x


def narrow_and_wide(x):
    for _ in range(3):
        x = layers.Dense(8)(layers.Dense(16, "relu")(x))
    return x


class Residual(layers.Layer):
    """A layer made of layers."""

    def __init__(self, **options):
        super().__init__(**options)
        self.up, self.down = layers.Dense(16, "relu"), layers.Dense(8)

    def build(self, shape):
        self.up.build(shape)
        self.down.build((*shape[:-1], 16))

    def call(self, x):
        return x + self.down(self.up(x))


def opened(x):
    return Residual()(Residual()(x))


TIME, IMAGE = (6, 8), (8, 8, 3)
# How many branches, layers and blocks there are, those that must stay included.
CASES = {
    "pre_norm": (pre_norm, TIME, (4, 4, 2)),
    "post_norm": (post_norm, TIME, (4, 4, 2)),
    "resnet": (resnet, IMAGE, (3, 2, 1)),
    "inception_resnet": (inception_resnet, IMAGE, (2, 0, 2)),
    "gated": (gated, TIME, (2, 0, 2)),
    "differences": (differences, TIME, (2, 3, 0)),
    "averages": (averages, TIME, (3, 1, 1)),
    "sums_of_three": (sums_of_three, TIME, (4, 0, 2)),
    "broadcast": (broadcast, TIME, (3, 1, 1)),
    "nested": (nested, TIME, (2, 0, 1)),
    "shared": (shared, TIME, (4, 0, 4)),
    "branch_in_branch": (branch_in_branch, TIME, (2, 0, 2)),
    "recurrent": (recurrent, TIME, (1, 3, 0)),
    "plain_chain": (plain_chain, TIME, (0, 3, 0)),
    "narrow_and_wide": (narrow_and_wide, TIME, (0, 0, 3)),
    "opened": (opened, TIME, (2, 0, 2)),
}


def build(name):
    make, shape, _ = CASES[name]
    keras.utils.set_random_seed(1)
    i = keras.Input(shape)
    x = make(i)
    x = layers.GlobalAveragePooling2D()(x) if len(shape) == 3 else layers.Flatten()(x)
    model = keras.Model(i, layers.Dense(3, name="head")(x))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if "float" in str(variable.dtype):
            value = generator.normal(0, 0.4, variable.shape)
            variable.assign(np.abs(value) + 0.2 if "variance" in variable.path else value)
    return model


def samples(model, count=40):
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("name", CASES)
def test_what_is_found(name):
    plan = sc.plan_cut(build(name), ratio=0.0, granularity=BYPASSES)
    kinds = [bypass.kind for bypass in plan.bypasses]
    assert tuple(kinds.count(kind) for kind in BYPASSES) == CASES[name][2], str(plan)


@pytest.mark.parametrize("name", CASES)
def test_half_of_everything_goes(name, tmp_path):
    model = build(name)
    before = [writable_copy(v) for v in model.weights]
    kinds = (*BYPASSES, "neuron", "channel", "unit", "head", "embedding")
    result = sc.cut(model, samples(model), ratio=0.5, granularity=kinds, align=1)
    assert result.proof.difference <= 1e-4
    assert result.plan.bypassed
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(writable_copy(variable), value)
    assert result.model.count_params() < model.count_params()
    assert result.model.input_shape == model.input_shape
    assert result.model.output_shape == model.output_shape
    result.model.save(tmp_path / "cut.keras")
    loaded = keras.models.load_model(tmp_path / "cut.keras")
    x = samples(model, 2)
    np.testing.assert_allclose(loaded(x), result.model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_each_alone_is_what_it_says(name):
    """A plan edited to bypass one part is proven; the model without it is smaller or calls less."""
    model = build(name)
    none = sc.plan_cut(model, samples(model), ratio=0.0, granularity=BYPASSES)
    for bypass in none.bypasses:
        if bypass.why:
            with pytest.raises(InvalidArgumentError, match="must stay"):
                none.edit(bypass.name, True)
            continue
        result = none.edit(bypass.name, True).apply()
        assert result.proof.difference <= 1e-4
        if name != "shared":
            assert result.model.count_params() < model.count_params()


def test_outputs_are_measured_as_numpy_would():
    i = keras.Input((5, 8))
    f = layers.Dense(8, "relu", name="f")
    t = f(i)
    model = keras.Model(i, layers.Dense(1)(layers.Flatten()(layers.Dense(8, name="g")(i + t))))
    x = samples(model, 50)
    emitted = np.asarray(f(x), np.float64)
    summed = x + emitted
    changed = np.asarray(model.get_layer("g")(summed.astype("float32"))) - summed
    for measure, oracle in (
        ("mean", lambda o: np.abs(o).mean()),
        ("rms", lambda o: np.sqrt(np.square(o).mean())),
        ("max", lambda o: np.abs(o).max()),
    ):
        plan = sc.plan_cut(model, x, ratio=0.0, measure=measure, granularity=BYPASSES)
        assert plan["branch:f"].output == pytest.approx(oracle(emitted), rel=1e-5)
        assert plan["layer:g"].output == pytest.approx(oracle(changed), rel=1e-5)


def masked_model(add):
    i = keras.Input((4,), dtype="int32")
    x = layers.Embedding(10, 8, mask_zero=True)(i)
    x = add(x, layers.Dense(8, name="f"))
    x = layers.Dense(8, name="g")(x)
    x = add(x, layers.Dense(8, name="h"))
    return keras.Model(i, layers.LSTM(3)(x))


MASKED_SUMS = {
    "layer": lambda x, f: layers.Add()([x, f(x)]),
    "op": lambda x, f: x + f(x),
    "of a branch without a mask": lambda x, f: layers.Add()([x, f(ops.tanh(x))]),
    "average": lambda x, f: layers.Average()([x, f(x)]),
    "of three": lambda x, f: layers.Add()([x, x, f(ops.tanh(x))]),
}


def masked_tokens():
    tokens = np.random.default_rng(0).integers(1, 10, (40, 4))
    tokens[:, 2:] = 0
    return tokens


def test_masked_positions_do_not_count():
    model = masked_model(MASKED_SUMS["layer"])
    plan = sc.plan_cut(model, masked_tokens(), ratio=0.0, granularity="branch")
    emitted = model.get_layer("f")(model.layers[1](masked_tokens()[:, :2]))
    expected = np.abs(np.asarray(emitted)).mean()
    assert plan["branch:f"].output == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", MASKED_SUMS)
def test_masks_go_where_they_went(name):
    model = masked_model(MASKED_SUMS[name])
    plan = sc.plan_cut(model, masked_tokens(), ratio=0.0, granularity=("branch", "layer", "block"))
    assert {"branch:f", "branch:h", "layer:g"} <= {bypass.name for bypass in plan.bypasses}
    for bypass in plan.bypasses:
        assert plan.edit(bypass.name, True).apply().proof.difference <= 1e-4
    both = plan.edit("branch:f", True).edit("branch:h", True).edit("layer:g", True).apply()
    tokens = masked_tokens()
    other = np.where(tokens == 0, 7, tokens) if name == "layer" else tokens
    changed = np.abs(both.model(tokens) - both.model(other)).max()
    assert (changed > 1e-3) == (name == "layer")


def test_what_makes_the_mask_of_a_sum_stays():
    i = keras.Input((4,), dtype="int32")
    one, two = (layers.Embedding(10, 8, mask_zero=True, name=name)(i) for name in ("one", "two"))
    model = keras.Model(i, layers.LSTM(3)(layers.Add()([one, two])))
    plan = sc.plan_cut(model, ratio=0.5, granularity="branch")
    assert not plan.bypassed
    assert "makes a mask" in plan["branch:one"].why


def test_the_proof_fails_where_something_else_went_than_was_said():
    bench = open_bench(build("pre_norm"))
    names = [one.name for one in bench.candidates if one.offer.kind == "branch"]
    smaller = without(bench, frozenset(names[:1]))
    kept = everything(smaller.description)
    rebuilt, _ = rebuild(smaller.description, kept)
    x = samples(bench.graph.model, 4)
    assert prove(smaller.original, kept, rebuilt, x, "given").difference <= 1e-4
    for instead in ({}, without(bench, frozenset(names[1:2])).original.instead):
        wrong = replace(smaller.original, instead=instead)
        with pytest.raises(ProofError):
            prove(wrong, kept, rebuilt, x, "given")


def test_a_chain_stays_sequential():
    model = keras.Sequential(
        [keras.Input((8,)), *(layers.Dense(8, "relu") for _ in range(4)), layers.Dense(2)]
    )
    result = sc.cut(model, ratio=0.5, granularity="layer")
    assert isinstance(result.model, keras.Sequential)
    assert len(result.model.layers) == 3
    assert [layer.name for layer in result.model.layers][-1] == model.layers[-1].name


def test_a_sum_keeps_an_operand_of_its_shape():
    model = build("sums_of_three")
    plan = sc.plan_cut(model, ratio=0.0, granularity="branch")
    one, two, *_ = (bypass.name for bypass in plan.bypasses)
    both = plan.edit(one, True).edit(two, True)
    assert both.apply().proof.difference <= 1e-4
    i = keras.Input((8,))
    model = keras.Model(
        i, layers.Dense(2)(layers.Dense(8, name="a")(i) + layers.Dense(8, name="b")(i))
    )
    plan = sc.plan_cut(model, ratio=0.5, granularity="branch")
    with pytest.raises(InvalidArgumentError, match="one must stay"):
        plan.edit("branch:a", True).edit("branch:b", True)
    plan = sc.plan_cut(model, samples(model), threshold=100.0, granularity="branch")
    assert len(plan.bypassed) == 1
    assert any("held back" in bypass.why for bypass in plan.bypasses)


def test_a_model_without_branches_says_so():
    with pytest.warns(TargetNotReachedWarning, match="has no branches"):
        plan = sc.plan_cut(build("plain_chain"), ratio=0.5, granularity="branch")
    assert plan.bypasses == ()


def two_inputs():
    x, side = keras.Input((8,), name="x"), keras.Input((8,), name="side")
    h = x
    for number in range(3):
        mixed = layers.Concatenate()([h, side])
        h = h + layers.Dense(8, name=f"f{number}")(mixed)
    return keras.Model([x, side], layers.Dense(2)(h))


def test_every_input_goes_on_to_count():
    plan = sc.plan_cut(two_inputs(), keep={"branches": 1}, granularity="branch")
    assert len(plan.bypassed) == 2
    x, side = keras.Input((8,), name="x"), keras.Input((8,), name="side")
    y = x + layers.Dense(8, name="f")(side) + layers.Dense(8)(x)
    plan = sc.plan_cut(keras.Model([x, side], layers.Dense(2)(y)), ratio=0.5, granularity="branch")
    assert "nothing else reads the input 'side'" in plan["branch:f"].why
    # Two branches that together are all that reads an input: the stronger one is held back.
    x, side = keras.Input((8,), name="x"), keras.Input((8,), name="side")
    y = x + layers.Dense(8, name="f")(side)
    y = y + layers.Dense(8, name="g")(side)
    y = y + layers.Dense(8, name="h")(y)
    model = keras.Model([x, side], layers.Dense(2)(y))
    model.get_layer("f").set_weights([np.eye(8) * 0.1, np.zeros(8)])
    model.get_layer("g").set_weights([np.eye(8) * 0.2, np.zeros(8)])
    plan = sc.plan_cut(model, keep={"branches": 1}, granularity="branch")
    assert plan["branch:f"].removed
    assert "nothing depends on the input 'side'" in plan["branch:g"].why


def test_an_input_that_nothing_reads_any_more_stays_an_input(tmp_path):
    model = two_inputs()
    plan = sc.plan_cut(model, ratio=0.0, granularity="branch")
    for number in range(3):
        plan = plan.edit(f"branch:f{number}", True)
    result = plan.apply()
    assert [x.name for x in result.model.inputs] == ["x", "side"]
    result.model.save(tmp_path / "cut.keras")
    loaded = keras.models.load_model(tmp_path / "cut.keras")
    x = np.ones((2, 8), "float32")
    np.testing.assert_allclose(loaded([x, x]), result.model([x, x]))
