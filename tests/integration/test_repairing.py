"""Layers that lost inputs, refit to what they put out before."""

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.cut_plan import CutPlan
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.variables import writable_copy


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    keras.utils.set_random_seed(0)


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def settle(model, seed=0):
    """Weights of some size everywhere, variances above zero."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" in str(variable.dtype):
            value = generator.normal(0, 0.4, variable.shape)
            variable.assign(np.abs(value) + 0.5 if "variance" in variable.path else value)
    return model


def error(model, other, x):
    return float(np.square(np.asarray(model(x)) - np.asarray(other(x))).mean())


def mlp(*widths):
    sizes = [layers.Dense(n, "relu" if n > 3 else None, name=f"d{k}") for k, n in enumerate(widths)]
    return settle(keras.Sequential([keras.Input((8,)), *sizes]))


def test_weights_and_bias_are_those_of_least_squares():
    model, x = mlp(24, 3), data(200, 8)
    result = sc.cut(model, x, ratio=0.5, align=1, repair=True, damping=1e-8)
    kept = np.setdiff1d(np.arange(24), result.plan["d0"].removed)
    hidden = np.maximum(x @ model.layers[0].kernel + model.layers[0].bias, 0)[:, kept]
    design = np.c_[hidden, np.ones(len(x))]
    best, *_ = np.linalg.lstsq(design, np.asarray(model(x)), rcond=None)
    kernel, bias = result.model.layers[-1].get_weights()
    np.testing.assert_allclose(kernel, best[:-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bias, best[-1], rtol=1e-3, atol=1e-4)
    figures = result.repair.layers["d1/kernel"]
    lost = np.square(design @ best - np.asarray(model(x))).mean(axis=0).sum()
    assert figures.after == pytest.approx(lost / np.asarray(model(x)).var(axis=0).sum(), rel=1e-3)
    assert figures.positions == 200
    folded = sc.bind_plan(result.plan, model, x)
    folded = sc.CutPlan.from_json(folded.to_json().replace('"repair": 1e-08', '"repair": null'))
    before = sc.bind_plan(folded, model, x).apply()
    assert before.repair is None
    lost = np.square(np.asarray(before.model(x)) - np.asarray(model(x))).mean(axis=0).sum()
    assert figures.before == pytest.approx(lost / np.asarray(model(x)).var(axis=0).sum(), rel=1e-3)


def test_units_that_others_make_up_for_cost_nothing():
    model, x = mlp(24, 3), data(200, 8)
    kernel, bias = (writable_copy(v) for v in model.layers[0].weights)
    kernel[:, 12:], bias[12:] = 3 * kernel[:, :12], 3 * bias[:12]  # relu(3 z) = 3 relu(z)
    model.layers[0].set_weights([kernel, bias])
    result = sc.cut(model, x, ratio=0.5, align=1, repair=True, damping=1e-5)
    assert result.plan.measure == "obs"
    fresh = data(100, 8, seed=1)
    np.testing.assert_allclose(result.model(fresh), model(fresh), atol=1e-3)


def test_later_layers_are_fit_on_what_is_repaired_before_them():
    model, x = mlp(32, 32, 32, 2), data(300, 8)
    plan = sc.plan_cut(model, x, ratio=0.5, align=1, measure="flap", repair=True)
    repaired = plan.apply()
    folded = sc.cut(model, x, ratio=0.5, align=1, measure="flap")
    assert error(repaired.model, model, x) < 0.5 * error(folded.model, model, x)
    assert [*repaired.repair.layers] == ["d1/kernel", "d2/kernel", "d3/kernel"]
    assert all(own.after < own.before for own in repaired.repair.layers.values())
    # What the last layer's figures say is the error of the whole.
    last = repaired.repair.layers["d3/kernel"].after
    assert last * np.asarray(model(x)).var(axis=0).mean() == pytest.approx(
        error(repaired.model, model, x), rel=0.01
    )


LAYERS = {
    "dense_bare": ((7, 6), lambda: layers.Dense(5, use_bias=False)),
    "einsum": ((7, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de")),
    "einsum_bare": ((7, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3))),
    "conv1d_causal": ((9, 6), lambda: layers.Conv1D(5, 3, padding="causal", use_bias=False)),
    "conv2d_same": ((5, 6, 4), lambda: layers.Conv2D(5, 3, padding="same", strides=2)),
    "conv2d_groups": ((5, 6, 4), lambda: layers.Conv2D(6, 3, padding="same", groups=2)),
    "separable": ((7, 6), lambda: layers.SeparableConv1D(5, 3, padding="same")),
    "transposed": ((7, 6), lambda: layers.Conv1DTranspose(5, 2, strides=2)),
    "transposed_bare": ((7, 6), lambda: layers.Conv1DTranspose(5, 3, strides=2, use_bias=False)),
    "time_distributed": ((7, 6), lambda: layers.TimeDistributed(layers.Dense(5))),
    "flatten": ((4, 6), lambda: keras.Sequential([layers.Flatten(), layers.Dense(5)])),
    "norm": ((7, 6), lambda: keras.Sequential([layers.LayerNormalization(), layers.Dense(5)])),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_comes_nearer_to_what_it_put_out(name):
    shape, make = LAYERS[name]
    i = keras.Input(shape)
    model = settle(keras.Model(i, make()(layers.Dense(16, "relu", name="wide")(i))))
    x = 0.5 + data(160, *shape)
    folded = sc.cut(model, x, ratio=0.5, align=1, measure="obs")
    repaired = sc.cut(model, x, ratio=0.5, align=1, measure="obs", repair=True)
    assert repaired.plan.groups == folded.plan.groups
    assert not repaired.repair.left
    assert error(repaired.model, model, x) < 0.9 * error(folded.model, model, x)
    fresh = 0.5 + data(160, *shape, seed=1)
    assert error(repaired.model, model, fresh) < error(folded.model, model, fresh)


RECURRENT = {
    "lstm": lambda: layers.LSTM(12, name="rnn"),
    "gru": lambda: layers.GRU(12, name="rnn"),
    "gru_before": lambda: layers.GRU(12, reset_after=False, name="rnn"),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(12), name="rnn"),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_are_repaired(name):
    i = keras.Input((6, 5))
    x = RECURRENT[name]()(layers.Dense(16, "relu", name="wide")(i))
    model = settle(keras.Model(i, layers.Dense(3)(x)))
    x = data(256, 6, 5)
    folded = sc.cut(model, x, ratio=0.5, align=1, measure="obs")
    repaired = sc.cut(model, x, ratio=0.5, align=1, repair=True)
    assert len(repaired.repair.layers) == (5 if name == "bidirectional" else 3)
    assert error(repaired.model, model, x) < 0.8 * error(folded.model, model, x)


@pytest.mark.parametrize("name", RECURRENT)
def test_states_that_others_make_up_for_cost_nothing_however_long_the_sequence(name):
    i = keras.Input((24, 5))
    model = settle(keras.Model(i, layers.Dense(3)(RECURRENT[name]()(i))))
    for weight in model.get_layer("rnn").weights:
        # Each unit twice: of every gate, the second half of the columns is the first.
        value = np.array(weight)
        gates = value.shape[-1] // 12
        halves = value.reshape(*value.shape[:-1], gates, 2, 6)
        halves[..., 1, :] = halves[..., 0, :]
        weight.assign(halves.reshape(value.shape))
    x = data(256, 24, 5)
    repaired = sc.cut(model, x, ratio=0.5, align=1, measure="obs", repair=True, damping=1e-4)
    folded = sc.cut(model, x, ratio=0.5, align=1, measure="obs")
    assert error(repaired.model, model, x) < 1e-5 * error(folded.model, model, x)


def test_attention_is_repaired_from_the_heads_that_stay():
    i = keras.Input((6, 16))
    x = layers.MultiHeadAttention(4, 8, name="att")(layers.Dense(16, name="wide")(i), i)
    model = settle(keras.Model(i, layers.Dense(3)(layers.Add()([x, i]))))
    x = data(128, 6, 16)
    options = {"ratio": 0.5, "align": 1, "granularity": ["head"]}
    folded = sc.cut(model, x, measure="obs", **options)
    repaired = sc.cut(model, x, repair=True, **options)
    assert [*repaired.repair.layers] == ["att/attention_output/kernel"]
    assert error(repaired.model, model, x) < 0.9 * error(folded.model, model, x)


def convnet(shared_bias):
    i = keras.Input((12, 12, 3))
    x = i
    for number in range(3):
        x = layers.Conv2D(16, 3, padding="same", use_bias=shared_bias, name=f"c{number}")(x)
        x = layers.Activation("relu")(layers.BatchNormalization(name=f"n{number}")(x))
    return keras.Model(i, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("bias", [True, False])
def test_batch_normalisations_are_estimated_anew(bias):
    model = settle(convnet(bias))
    x = data(96, 12, 12, 3)
    folded = sc.cut(model, x, ratio=0.5, align=1, measure="obs")
    repaired = sc.cut(model, x, ratio=0.5, align=1, repair=True)
    assert repaired.repair.norms == ("n1", "n2")
    assert error(repaired.model, model, x) < 0.7 * error(folded.model, model, x)
    assert repaired.model.get_layer("c1").use_bias == bias
    # The normalised output of a channel keeps its mean and its spread on the data.
    for number in (1, 2):
        kept = np.setdiff1d(np.arange(16), repaired.plan[f"c{number}"].removed)
        one, two = (
            np.asarray(keras.Model(m.input, m.get_layer(f"n{number}").output)(x))
            for m in (model, repaired.model)
        )
        one = one[..., kept]
        for statistic in (np.mean, np.std):
            np.testing.assert_allclose(
                statistic(two, axis=(0, 1, 2)), statistic(one, axis=(0, 1, 2)), atol=1e-3
            )


def test_what_is_not_kept_in_memory_is_run_again(monkeypatch):
    model, x = mlp(32, 32, 32, 2), data(300, 8)
    one = sc.cut(model, x, ratio=0.5, align=1, repair=True)
    monkeypatch.setattr("secateur.keras.stepping._BYTES_KEPT", 0)
    two = sc.cut(model, x, ratio=0.5, align=1, repair=True)
    for first, second in zip(one.model.weights, two.model.weights, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_shared_layer_is_fit_over_all_its_calls():
    i = keras.Input((8,))
    shared = layers.Dense(4, name="shared")
    branches = [shared(layers.Dense(16, "relu")(i)) for _ in range(2)]
    model = settle(keras.Model(i, layers.Add()(branches)))
    x = data(200, 8)
    folded = sc.cut(model, x, ratio=0.5, measure="obs")
    repaired = sc.cut(model, x, ratio=0.5, repair=True)
    assert repaired.repair.layers["shared/kernel"].positions == 400
    assert error(repaired.model, model, x) < error(folded.model, model, x)


def test_padded_positions_do_not_count():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = layers.Embedding(20, 16)(tokens)
    x = x + layers.MultiHeadAttention(2, 8)(x, x, attention_mask=mask[:, None, :])
    x = layers.Dense(16)(layers.Dense(32, "relu", name="wide")(layers.LayerNormalization()(x)))
    model = settle(keras.Model([tokens, mask], layers.GlobalAveragePooling1D()(x, mask=mask)))
    generator = np.random.default_rng(0)
    ids = generator.integers(1, 20, (60, 9))
    keep = np.arange(9) < generator.integers(3, 9, (60, 1))
    options = {"ratio": 0.5, "include": ["wide"], "repair": True}
    one = sc.cut(model, [ids, keep], **options)
    two = sc.cut(model, [np.where(keep, ids, 7), keep], **options)
    (figures,) = one.repair.layers.values()
    assert figures.positions == keep.sum()
    for first, second in zip(one.model.weights, two.model.weights, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_a_repaired_model_is_saved_trained_and_reported(tmp_path):
    model, x = mlp(32, 32, 2), data(200, 8)
    model.compile("adam", "mse")
    model.fit(x, data(200, 2), verbose=0)
    result = sc.cut(model, x, ratio=0.5, repair=True)
    text = str(result)
    assert "repaired 2 layers" in text
    assert "d1/kernel: " in text
    assert result.proof.folded
    result.model.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(loaded(x), result.model(x), atol=1e-6)
    result.model.fit(x, data(200, 2), verbose=0)


def test_a_plan_keeps_its_repair():
    model, x = mlp(32, 32, 2), data(200, 8)
    plan = sc.plan_cut(model, x, ratio=0.5, repair=True, damping=0.02)
    assert "are refit" in str(plan)
    again = CutPlan.from_json(plan.to_json())
    assert again.repair == 0.02
    one, two = plan.apply(), sc.bind_plan(again, model, x).apply()
    assert two.repair is not None
    np.testing.assert_array_equal(one.model(x), two.model(x))


def test_arguments_are_checked():
    model, x = mlp(32, 2), data(64, 8)
    with pytest.raises(InvalidArgumentError, match="repair=True takes data"):
        sc.plan_cut(model, ratio=0.5, repair=True)
    with pytest.raises(InvalidArgumentError, match="leave fold=False out"):
        sc.plan_cut(model, x, ratio=0.5, repair=True, fold=False)
    with pytest.raises(InvalidArgumentError, match="damping must be a positive number"):
        sc.plan_cut(model, x, ratio=0.5, repair=True, damping=0.0)
    with pytest.raises(InvalidArgumentError, match="obs"):
        sc.plan_cut(model, x, ratio=0.5, measure="obd")
    with pytest.raises(InvalidArgumentError, match="without data must be one of"):
        sc.plan_cut(model, ratio=0.5, measure="obs")
    with pytest.raises(ArgumentTypeError, match="repair must be True or False, got 'yes'"):
        sc.plan_cut(model, x, ratio=0.5, repair="yes")


def test_units_that_no_matrix_reads_are_left_and_said():
    i = keras.Input((6, 8))
    one, two = layers.Dense(16, name="one")(i), layers.Dense(16, name="two")(i)
    y = layers.Dense(8, name="three")(layers.Attention(name="look")([one, i, two]))
    model = keras.Model(i, layers.Dense(2, name="out")(y))
    plan = sc.plan_cut(model, data(64, 6, 8), ratio=0.5, align=1, measure="obs")
    assert plan["one"].removed == ()
    assert "no weight matrix reads it" in plan["one"].why
    assert len(plan["three"].removed) == 4


def test_a_threshold_on_obs_is_an_error_of_the_readers():
    model, x = mlp(24, 3), data(300, 8)
    result = sc.cut(model, x, threshold=0.02, align=1, repair=True, damping=1e-6)
    assert 0 < len(result.plan["d0"].removed) < 24
    assert result.repair.layers["d1/kernel"].after <= 0.02


def test_a_global_ratio_of_obs_takes_more_where_it_costs_less():
    model, x = mlp(32, 32, 2), data(300, 8)
    kernel = writable_copy(model.layers[1].kernel)
    kernel[16:] = 0  # half of the first layer is read by nobody
    model.layers[1].kernel.assign(kernel)
    plan = sc.plan_cut(model, x, ratio=0.4, align=1, scope="global", measure="obs")
    assert len(plan["d0"].removed) > len(plan["d1"].removed)


def test_a_residual_layer_makes_up_for_what_the_stream_has_lost():
    i = keras.Input((8,))
    x = layers.Dense(12, name="stem")(i)
    for number in range(3):
        y = layers.Dense(32, "relu", name=f"in{number}")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dropout(0.1)(layers.Dense(12, name=f"out{number}")(y))])
    model = settle(keras.Model(i, x))
    x = data(400, 8)
    result = sc.cut(model, x, ratio=0.5, include=["in*"], repair=True, damping=1e-6)
    figures = result.repair.layers["out2/kernel"]
    # The last layer's target is the whole stream, so its error is that of the model's output.
    whole = np.square(np.asarray(result.model(x)) - np.asarray(model(x))).mean(axis=0).sum()
    before = keras.Model(model.input, model.get_layer("out2").output)
    assert figures.after == pytest.approx(whole / np.asarray(before(x)).var(axis=0).sum(), rel=1e-3)


def residual_net(norm):
    i = keras.Input((5, 8))
    x = layers.Dense(12, name="stem")(i)
    for number in range(3):
        y = layers.Dense(32, "relu", name=f"in{number}")(norm(x))
        x = layers.Add()([x, layers.Dense(12, name=f"out{number}")(y)])
    return settle(keras.Model(i, layers.Dense(2, name="head")(norm(x))))


def test_layer_normalisations_are_refit():
    model, x = residual_net(lambda y: layers.LayerNormalization()(y)), data(200, 5, 8)
    result = sc.cut(model, x, ratio=0.75, include=["in*"], repair=True, damping=1e-6)
    assert len(result.repair.norms) == 3
    one, two = (
        keras.Model(m.input, m.get_layer(result.repair.norms[-1]).output)
        for m in (model, result.model)
    )
    wanted, found = np.asarray(one(x)).reshape(-1, 12), np.asarray(two(x)).reshape(-1, 12)
    np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=1e-4)
    # Least squares leaves no slope of what is missed on what comes out.
    missed, centred = wanted - found, found - found.mean(axis=0)
    np.testing.assert_allclose((missed * centred).mean(axis=0), 0, atol=1e-3)


def test_means_fold_and_layers_are_repaired_also_where_branches_are_bypassed():
    model, x = residual_net(lambda y: layers.LayerNormalization()(y)), data(200, 5, 8)
    model.get_layer("out1").set_weights([w * 1e-4 for w in model.get_layer("out1").get_weights()])
    options = {"measure": "mean", "keep": {"branches": 2, "in0": 16, "in2": 16}}
    folded = sc.cut(model, x, **options)
    repaired = sc.cut(model, x, **options, repair=True)
    assert len(folded.plan.bypassed) == 1
    assert {"out0/kernel", "out2/kernel"} == set(folded.folding.folded)
    assert {"out0/kernel", "out2/kernel"} == set(repaired.repair.layers)
    assert repaired.proof.difference <= 1e-4
    assert error(repaired.model, model, x) < error(folded.model, model, x)


@pytest.mark.parametrize(
    "named", [{"granularity": "branch", "ratio": 0.4}, {"keep": {"branches": 2}}]
)
def test_branches_alone_go_by_what_they_put_out_also_with_repair(named):
    model, x = residual_net(lambda y: layers.LayerNormalization()(y)), data(200, 5, 8)
    model.get_layer("out1").set_weights([w * 1e-4 for w in model.get_layer("out1").get_weights()])
    plan = sc.plan_cut(model, x, repair=True, **named)
    assert plan.measure == "mean"
    assert [one.name for one in plan.bypasses if one.removed] == ["branch:in1"]
    assert error(plan.apply().model, model, x) < 1e-4
