"""Means of removed units folded into the next biases: constant units cost nothing."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import secateur as sc
from secateur.cut_plan import CutPlan
from secateur.errors import InvalidArgumentError
from secateur.keras.variables import writable_copy


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def with_constant_units(model, name, units):
    """Make some units of a layer emit large constants, each another."""
    layer = model.get_layer(name)
    kernel, bias = (writable_copy(v) for v in layer.weights)
    kernel[..., units] = 0
    bias[units] = np.linspace(3, 9, len(units))
    layer.set_weights([kernel, bias])
    return model


def settle(model, seed=0):
    """Biases and statistics that are not zeros and ones."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" in str(variable.dtype) and len(variable.shape) == 1:
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return model


CONSTANT = [1, 4, 5, 10]


def dense(i):
    return layers.Dense(5)(layers.Dense(16, "relu", name="wide")(i))


def batch_norm(i):
    x = layers.Dense(16, "relu", name="wide")(i)
    return layers.Dense(5)(layers.BatchNormalization()(x))


def two_norms(i):
    x = layers.BatchNormalization()(layers.Dense(16, name="wide")(i))
    return layers.Dense(5)(layers.Activation("gelu")(layers.BatchNormalization()(x)))


def concatenated(i):
    x = layers.Dense(16, "relu", name="wide")(i)
    return layers.Dense(5)(layers.Concatenate()([layers.Dense(3)(i), x, ops.tanh(x)]))


def gated(i):
    x = layers.Dense(16, "relu", name="wide")(i)
    return layers.Dense(5)(layers.Multiply()([x, ops.sigmoid(x)]))


def followed_without_bias(i):
    x = layers.Dense(16, "relu", name="wide")(i)
    return layers.Dense(5, use_bias=False)(x)


def followed_by_norm(i):
    x = layers.Dense(16, "relu", name="wide")(i)
    return layers.BatchNormalization()(layers.Dense(5, use_bias=False)(x))


def twice(i):
    x = layers.Dense(16, "relu", name="wide")(i)
    return layers.Dense(5)(x) + layers.Dense(5, use_bias=False)(x)


FLAT = (dense, batch_norm, two_norms, concatenated, gated, twice)
FLAT += (followed_without_bias, followed_by_norm)


@pytest.mark.parametrize("make", FLAT)
def test_constant_units_cost_nothing(make, tmp_path):
    i = keras.Input((8,))
    model = with_constant_units(settle(keras.Model(i, make(i))), "wide", CONSTANT)
    x = data(100, 8)
    result = sc.cut(model, x, threshold=1e-4, measure="std", align=1)
    assert set(CONSTANT) <= set(result.plan["wide"].removed)
    assert result.plan.fold
    assert result.proof.folded
    scale = np.abs(model(x)).max()
    np.testing.assert_allclose(result.model(x), model(x), atol=1e-5 * scale)
    zeroed = sc.cut(model, x, keep={"wide": 16 - len(CONSTANT)}, measure="mean", fold=False)
    assert zeroed.folding is None
    result.model.save(tmp_path / "cut.keras")
    loaded = keras.models.load_model(tmp_path / "cut.keras")
    np.testing.assert_allclose(loaded(x), result.model(x), atol=1e-5 * scale)


def flattened(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.Dense(5)(layers.Flatten()(x))


def pooled(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(x)))


def convolved(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.Conv2D(5, 3, strides=2)(layers.BatchNormalization()(x))


def convolved_in_groups(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.Conv2D(6, 3, groups=2)(x)


def depthwise(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.Conv2D(5, 1)(layers.DepthwiseConv2D(3)(x))


def separable(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.SeparableConv2D(5, 3)(x)


def transposed(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.Conv2DTranspose(5, 2, strides=2, use_bias=False)(x)


def transposed_with_bias(i):
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(i)
    return layers.Cropping2D(2)(layers.Conv2DTranspose(5, 3)(x))


IMAGES = (flattened, pooled, convolved, convolved_in_groups, depthwise, separable)


@pytest.mark.parametrize("make", IMAGES)
def test_constant_channels_cost_nothing_without_padding(make):
    i = keras.Input((9, 9, 3))
    model = settle(keras.Model(i, make(i)))
    pairs = [1, 9, 4, 12] if make is convolved_in_groups else CONSTANT
    model = with_constant_units(model, "wide", pairs)
    x = data(40, 9, 9, 3)
    result = sc.cut(model, x, threshold=1e-4, measure="std", align=1)
    units = {1, 4} if make is convolved_in_groups else set(pairs)
    assert units <= set(result.plan["wide"].removed)
    scale = np.abs(model(x)).max()
    np.testing.assert_allclose(result.model(x), model(x), atol=1e-5 * scale)


def test_a_transposed_convolution_gets_the_mean_over_its_positions():
    i = keras.Input((9, 9, 3))
    model = with_constant_units(keras.Model(i, transposed_with_bias(i)), "wide", CONSTANT)
    x = data(40, 9, 9, 3)
    result = sc.cut(model, x, threshold=1e-4, measure="std", align=1)
    np.testing.assert_allclose(result.model(x), model(x), atol=1e-4)


LINEAR = {
    "dense": ((7, 6), lambda: layers.Dense(5)),
    "dense_bare": ((7, 6), lambda: layers.Dense(5, use_bias=False)),
    "einsum": ((7, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")),
    "einsum_bare": ((7, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3))),
    "conv1d_same": ((7, 6), lambda: layers.Conv1D(5, 3, padding="same")),
    "conv1d_causal": ((7, 6), lambda: layers.Conv1D(5, 3, padding="causal", use_bias=False)),
    "conv2d_same": ((5, 6, 4), lambda: layers.Conv2D(5, 3, padding="same", strides=2)),
    "conv2d_groups": ((5, 6, 4), lambda: layers.Conv2D(6, 3, padding="same", groups=2)),
    "separable": ((7, 6), lambda: layers.SeparableConv1D(5, 3, padding="same", use_bias=False)),
    "time_distributed": ((7, 6), lambda: layers.TimeDistributed(layers.Dense(5))),
    "time_distributed_bare": (
        (7, 6),
        lambda: layers.TimeDistributed(layers.Dense(5, use_bias=False)),
    ),
    "time_distributed_einsum": (
        (7, 6),
        lambda: layers.TimeDistributed(layers.EinsumDense("ab,bc->ac", 5)),
    ),
    "transposed": ((7, 6), lambda: layers.Conv1DTranspose(5, 2, strides=2)),
    "transposed_bare": ((7, 6), lambda: layers.Conv1DTranspose(5, 3, strides=3, use_bias=False)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_the_mean_output_of_the_next_layer_stays(name):
    """W x has the mean W mean(x), so of a linear layer the mean over the data cannot change."""
    shape, make = LINEAR[name]
    i = keras.Input(shape)
    model = keras.Model(i, make()(layers.Dense(8)(i)))
    settle(model)
    x = 1 + data(48, *shape)
    result = sc.cut(model, x, ratio=0.5, align=1, batch_size=20)
    assert not result.folding.held
    axes = tuple(
        range(
            len(model.output_shape) - (2 if "einsum" in name and len(model.output_shape) > 3 else 1)
        )
    )
    before, after = (np.mean(m(x), axis=axes) for m in (model, result.model))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    held = sc.cut(model, x, ratio=0.5, align=1, fold=False)
    assert np.abs(np.mean(held.model(x), axis=axes) - before).max() > 1e-3


RECURRENT = {
    "lstm": lambda: layers.LSTM(6),
    "lstm_bare": lambda: layers.LSTM(6, use_bias=False),
    "gru": lambda: layers.GRU(6),
    "gru_bare": lambda: layers.GRU(6, use_bias=False),
    "gru_before": lambda: layers.GRU(6, reset_after=False),
    "gru_before_bare": lambda: layers.GRU(6, reset_after=False, use_bias=False),
    "simple": lambda: layers.SimpleRNN(6),
    "cell": lambda: layers.RNN(layers.LSTMCell(6, use_bias=False)),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(6, use_bias=False)),
    "conv_lstm": lambda: layers.ConvLSTM1D(6, 3, padding="same"),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_take_the_mean_of_inputs_and_states(name):
    shape = (4, 5, 6) if name == "conv_lstm" else (5, 6)
    i = keras.Input(shape)
    x = layers.Dense(8, "relu")(i)
    x = layers.Flatten()(RECURRENT[name]()(x))
    model = keras.Model(i, layers.Dense(2)(x))
    for variable in model.weights:
        variable.assign(data(*variable.shape, seed=len(variable.shape)))
    x = 1 + data(64, *shape)
    result = sc.cut(model, x, ratio=0.5, align=1)
    assert not result.folding.held
    assert result.proof.difference <= 1e-4
    weights = 4 if name == "bidirectional" else 2
    assert len(result.folding.folded) == weights + 1
    bare = "bare" in name or name in ("cell", "bidirectional")
    assert ("new bias" in result.folding.folded.values()) == bare


def test_a_recurrent_unit_that_never_changes_costs_nothing():
    i = keras.Input((5, 6))
    model = keras.Model(i, layers.Dense(2)(layers.SimpleRNN(8, name="rnn")(i)))
    kernel, recurrent, bias = (writable_copy(v) for v in model.get_layer("rnn").weights)
    kernel[:, 3] = recurrent[:, 3] = 0
    bias[3] = -40  # tanh gives exactly -1 after the first step
    model.get_layer("rnn").set_weights([kernel, recurrent, bias])
    x = data(64, 5, 6)
    result = sc.cut(model, x, threshold=1e-6, measure="std", align=1)
    assert result.plan["rnn"].removed == (3,)
    # Before the first step the state is zero, so the mean of five states is not each of them.
    held = sc.cut(model, x, threshold=1e-6, measure="std", align=1).model
    assert np.abs(held(x) - model(x)).max() < np.abs(model(x)).max() * 0.2


@pytest.mark.parametrize("use_bias", [True, False])
def test_heads_are_folded_into_the_output_projection(use_bias):
    i = keras.Input((6, 16))
    x = layers.Dense(16)(i)
    x = layers.Add()([x, layers.MultiHeadAttention(4, 8, use_bias=use_bias, name="att")(x, x)])
    model = keras.Model(i, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    model.compile("adam", "mse")
    x = 1 + data(40, 6, 16)
    model.fit(x, data(40, 2), verbose=0)
    result = sc.cut(model, x, ratio=0.5, granularity=["head"])
    where = "bias" if use_bias else "new bias"
    assert result.folding.folded == {"att/attention_output/kernel": where}
    assert result.proof.folded
    np.testing.assert_allclose(
        np.mean(result.model(x), axis=0), np.mean(model(x), axis=0), rtol=1e-4, atol=1e-5
    )
    result.model.fit(x, data(40, 2), verbose=0)


def test_a_new_bias_is_trained_and_the_optimizer_goes_on():
    i = keras.Input((8,))
    model = keras.Model(i, followed_without_bias(i))
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    x, y = 1 + data(64, 8), data(64, 5)
    model.fit(x, y, verbose=0)
    result = sc.cut(model, x, ratio=0.5)
    assert result.folding.folded == {f"{model.layers[-1].name}/kernel": "new bias"}
    assert "new bias" in str(result)
    old, new = model.optimizer, result.model.optimizer
    kept = np.setdiff1d(np.arange(16), result.plan["wide"].removed)
    np.testing.assert_array_equal(
        writable_copy(new._momentums[0]), writable_copy(old._momentums[0])[:, kept]
    )
    bias = writable_copy(result.model.layers[-1].bias)
    result.model.fit(x, y, verbose=0)
    assert not np.array_equal(writable_copy(result.model.layers[-1].bias), bias)


def test_a_norm_that_follows_takes_the_mean_and_no_weight_is_added():
    i = keras.Input((8,))
    model = keras.Model(i, followed_by_norm(i))
    result = sc.cut(model, 1 + data(64, 8), ratio=0.5)
    norm = model.layers[-1].name
    assert list(result.folding.folded.values()) == [f"moving mean of {norm}"]
    assert not result.model.layers[-2].use_bias


def test_what_sums_without_weights_is_held_at_zero_and_said():
    i = keras.Input((6, 8))
    x = layers.Dense(16)(i)
    y = layers.Dense(16)(i)
    model = keras.Model(i, layers.Dense(2)(layers.Attention(name="look")([x, i, y])))
    result = sc.cut(model, data(40, 6, 8), ratio=0.5)
    assert list(result.folding.held) == ["look"]
    assert "look: held at zero" in str(result)


def test_layer_normalisation_is_over_what_stays_and_still_better_than_zero():
    i = keras.Input((8,))
    x = layers.Dense(16, "relu", name="wide")(i)
    model = keras.Model(i, layers.Dense(5)(layers.LayerNormalization()(x)))
    model = settle(model)
    x = data(200, 8)

    def error(**options):
        result = sc.cut(model, x, ratio=0.25, align=1, **options)
        return np.square(result.model(x) - model(x)).mean()

    assert error() < 0.9 * error(fold=False)


def test_padded_positions_are_left_out():
    i = keras.Input((None,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True, name="table")(i)
    x = layers.Dense(4)(layers.Dense(8, "relu", name="wide")(x))
    model = settle(keras.Model(i, layers.GlobalAveragePooling1D()(x)))
    tokens = np.random.default_rng(0).integers(1, 20, (60, 9))
    padded = np.pad(tokens[:, :5], ((0, 0), (0, 4)))
    short = sc.cut(model, padded, ratio=0.5, align=1, include=["wide"])
    same = sc.cut(model, tokens[:, :5], ratio=0.5, align=1, include=["wide"])
    assert short.plan["wide"].removed == same.plan["wide"].removed
    for one, two in zip(short.model.weights, same.model.weights, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


def masked_by_hand():
    """A mask that only the last pooling is given, as an input of its own."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = layers.Embedding(20, 16)(tokens)
    x = x + layers.MultiHeadAttention(2, 8)(x, x, attention_mask=mask[:, None, :])
    x = layers.Dense(16)(layers.Dense(32, "relu", name="wide")(layers.LayerNormalization()(x)))
    return keras.Model([tokens, mask], layers.GlobalAveragePooling1D()(x, mask=mask))


def test_a_mask_handed_to_a_later_call_counts_for_what_leads_to_it():
    model = masked_by_hand()
    generator = np.random.default_rng(0)
    tokens, mask = (
        generator.integers(1, 20, (60, 9)),
        np.arange(9) < generator.integers(3, 9, (60, 1)),
    )
    one = sc.cut(model, [tokens, mask], ratio=0.5, include=["wide"], measure="std")
    plan = one.plan
    garbage = np.where(mask, tokens, 7)
    two = sc.bind_plan(plan, model, [garbage, mask]).apply()
    for first, second in zip(one.model.weights, two.model.weights, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_shared_layer_gets_one_mean_over_both_calls():
    i = keras.Input((8,))
    shared = layers.Dense(4, use_bias=False, name="shared")
    one, two = (layers.Dense(16, "relu")(i) for _ in range(2))
    model = keras.Model(i, shared(one) + shared(two))
    x = 1 + data(64, 8)
    result = sc.cut(model, x, ratio=0.5)
    assert result.folding.folded == {"shared/kernel": "new bias"}
    np.testing.assert_allclose(
        np.mean(result.model(x), axis=0), np.mean(model(x), axis=0), rtol=1e-4, atol=1e-5
    )


def test_a_plan_that_folds_needs_data_to_be_bound():
    i = keras.Input((8,))
    model = keras.Model(i, dense(i))
    x = data(64, 8)
    plan = sc.plan_cut(model, x, ratio=0.5)
    again = CutPlan.from_json(plan.to_json())
    assert again.fold
    assert "folded into the next biases" in str(again)
    with pytest.raises(InvalidArgumentError, match=r"takes data: bind_plan\(plan, model, data\)"):
        sc.bind_plan(again, model)
    one, two = plan.apply().model, sc.bind_plan(again, model, x).apply().model
    np.testing.assert_array_equal(one(x), two(x))


def test_fold_is_checked():
    i = keras.Input((8,))
    model = keras.Model(i, dense(i))
    with pytest.raises(InvalidArgumentError, match="fold=True takes data"):
        sc.plan_cut(model, ratio=0.5, fold=True)
    with pytest.raises(InvalidArgumentError, match="must be folded"):
        sc.plan_cut(model, data(40, 8), threshold=0.1, measure="std", fold=False)
    assert not sc.plan_cut(model, ratio=0.5).fold


def test_the_original_is_left_as_it_was():
    i = keras.Input((8,))
    model = keras.Model(i, twice(i))
    before = [writable_copy(v) for v in model.weights]
    configs = [layer.get_config() for layer in model.layers]
    x = data(64, 8)
    expected = np.asarray(model(x))
    sc.cut(model, x, ratio=0.5)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(writable_copy(variable), value)
    assert [layer.get_config() for layer in model.layers] == configs
    np.testing.assert_array_equal(model(x), expected)
