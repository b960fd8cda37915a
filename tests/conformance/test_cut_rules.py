"""Every rule alone and in residual, concatenated, shared and nested settings."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import layers, ops

from secateur.keras import cutting
from secateur.keras.variables import writable_copy

# Keras's own saving calls np.array on variables, which warns under NumPy 2.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Some layers need all that goes in; that less goes then is told, and no matter here.
    pytest.mark.filterwarnings("ignore::secateur.errors.TargetNotReachedWarning"),
]


CASES = {
    "dense": ((12,), lambda: layers.Dense(16, activation="relu")),
    "einsum_dense": ((6, 12), lambda: layers.EinsumDense("...x,xy->...y", 16, bias_axes="y")),
    "conv1d": ((8, 12), lambda: layers.Conv1D(16, 3, padding="same")),
    "conv1d_causal": ((8, 12), lambda: layers.Conv1D(16, 3, padding="causal", dilation_rate=2)),
    "conv2d": ((6, 6, 8), lambda: layers.Conv2D(16, 3, padding="same")),
    "conv2d_grouped": ((6, 6, 8), lambda: layers.Conv2D(16, 3, padding="same", groups=2)),
    "conv2d_one_a_group": ((6, 6, 8), lambda: layers.Conv2D(16, 3, padding="same", groups=8)),
    "conv3d": ((4, 4, 4, 8), lambda: layers.Conv3D(8, 3, padding="same")),
    "conv1d_transpose": ((8, 12), lambda: layers.Conv1DTranspose(16, 3, padding="same")),
    "conv2d_transpose": ((6, 6, 8), lambda: layers.Conv2DTranspose(16, 3, padding="same")),
    "conv3d_transpose": ((4, 4, 4, 8), lambda: layers.Conv3DTranspose(8, 3, padding="same")),
    "depthwise1d": ((8, 12), lambda: layers.DepthwiseConv1D(3, padding="same")),
    "depthwise2d": (
        (6, 6, 8),
        lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
    ),
    "separable1d": (
        (8, 12),
        lambda: layers.SeparableConv1D(16, 3, padding="same", depth_multiplier=2),
    ),
    "separable2d": ((6, 6, 8), lambda: layers.SeparableConv2D(16, 3, padding="same")),
    "batch_norm": ((6, 12), lambda: layers.BatchNormalization()),
    "layer_norm": ((6, 12), lambda: layers.LayerNormalization()),
    "layer_norm_axes": ((6, 12), lambda: layers.LayerNormalization(axis=[1, 2])),
    "rms_norm": ((6, 12), lambda: layers.RMSNormalization()),
    "group_norm": ((6, 12), lambda: layers.GroupNormalization(groups=4)),
    "instance_norm": ((6, 12), lambda: layers.GroupNormalization(groups=-1)),
    "unit_norm": ((6, 12), lambda: layers.UnitNormalization()),
    "prelu": ((6, 12), lambda: layers.PReLU(shared_axes=[1])),
    "prelu_full": ((6, 12), lambda: layers.PReLU()),
    "activation": ((6, 12), lambda: layers.Activation("gelu")),
    "relu": ((6, 12), lambda: layers.ReLU()),
    "leaky_relu": ((6, 12), lambda: layers.LeakyReLU()),
    "dropout": ((6, 12), lambda: layers.Dropout(0.3)),
    "softmax": ((6, 12), lambda: layers.Softmax()),
    "softmax_time": ((6, 12), lambda: layers.Softmax(axis=1)),
    "lstm": ((6, 12), lambda: layers.LSTM(16, return_sequences=True)),
    "gru": ((6, 12), lambda: layers.GRU(16, return_sequences=True)),
    "gru_before": ((6, 12), lambda: layers.GRU(16, reset_after=False, return_sequences=True)),
    "simple_rnn": ((6, 12), lambda: layers.SimpleRNN(16, return_sequences=True)),
    "rnn_cell": ((6, 12), lambda: layers.RNN(layers.LSTMCell(16), return_sequences=True)),
    "lstm_last": ((6, 12), lambda: layers.LSTM(16)),
    "bidirectional_concat": (
        (6, 12),
        lambda: layers.Bidirectional(layers.LSTM(16, return_sequences=True)),
    ),
    "bidirectional_sum": (
        (6, 12),
        lambda: layers.Bidirectional(layers.GRU(16, return_sequences=True), merge_mode="sum"),
    ),
    "bidirectional_ave": ((6, 12), lambda: layers.Bidirectional(layers.GRU(16), merge_mode="ave")),
    "bidirectional_mul": (
        (6, 12),
        lambda: layers.Bidirectional(layers.SimpleRNN(16), merge_mode="mul"),
    ),
    "time_distributed": ((6, 12), lambda: layers.TimeDistributed(layers.Dense(16, "relu"))),
    "time_distributed_conv": (
        (3, 6, 6, 8),
        lambda: layers.TimeDistributed(layers.Conv2D(8, 3, padding="same")),
    ),
    "conv_lstm1d": (
        (3, 6, 8),
        lambda: layers.ConvLSTM1D(8, 3, padding="same", return_sequences=True),
    ),
    "conv_lstm2d": ((3, 6, 6, 8), lambda: layers.ConvLSTM2D(8, 3, padding="same")),
    "max_pool1d": ((8, 12), lambda: layers.MaxPooling1D(2)),
    "avg_pool2d": ((6, 6, 8), lambda: layers.AveragePooling2D(2)),
    "global_avg": ((6, 6, 8), lambda: layers.GlobalAveragePooling2D()),
    "global_max": ((8, 12), lambda: layers.GlobalMaxPooling1D(keepdims=True)),
    "upsampling": ((6, 6, 8), lambda: layers.UpSampling2D()),
    "upsampling1d": ((6, 8), lambda: layers.UpSampling1D()),
    "zero_padding": ((6, 6, 8), lambda: layers.ZeroPadding2D()),
    "cropping": ((6, 6, 8), lambda: layers.Cropping2D()),
    "flatten": ((6, 6, 8), lambda: layers.Flatten()),
    "reshape_merge": ((6, 6, 8), lambda: layers.Reshape((36, 8))),
    "reshape_split": ((6, 12), lambda: layers.Reshape((6, 4, 3))),
    "permute": ((6, 12), lambda: layers.Permute((2, 1))),
    "repeat_vector": ((12,), lambda: layers.RepeatVector(3)),
}

OPS = {
    "relu": lambda x: ops.relu(x),
    "gelu": lambda x: ops.gelu(x, approximate=True),
    "clip": lambda x: ops.clip(x, -1.0, 1.0),
    "scale": lambda x: x * 0.5 + 1.0,
    "vector": lambda x: x * np.arange(x.shape[-1], dtype="float32"),
    "softmax": lambda x: ops.softmax(x, axis=-1),
    "slice": lambda x: x[:, :, 2:9],
    "slice_step": lambda x: x[..., ::2],
    "last_step": lambda x: x[:, -1],
    "halves": lambda x: ops.multiply(*ops.split(x, 2, axis=-1)),
    "gate": lambda x: ops.sigmoid(x[..., :6]) * x[..., 6:],
    "split_uneven": lambda x: ops.split(x, [4, 7], axis=-1)[2],
    "unstack": lambda x: ops.unstack(x, axis=1)[0],
    "stack": lambda x: ops.stack([x, x * 2.0], axis=1),
    "concatenate": lambda x: ops.concatenate([x, ops.tanh(x)], axis=-1),
    "transpose": lambda x: ops.transpose(x, (0, 2, 1)),
    "swapaxes": lambda x: ops.swapaxes(x, 1, 2),
    "moveaxis": lambda x: ops.moveaxis(x, 1, 2),
    "expand": lambda x: ops.squeeze(ops.expand_dims(x, 2), 2),
    "reshape": lambda x: ops.reshape(x, (-1, 6 * 12)),
    "reshape_heads": lambda x: ops.reshape(x, (-1, 6, 3, 4)),
    "repeat": lambda x: ops.repeat(x, 2, axis=-1),
    "tile": lambda x: ops.tile(x, (1, 1, 2)),
    "broadcast": lambda x: ops.broadcast_to(ops.expand_dims(x[0], 0), (1, 6, 12)),
    "pad": lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0))),
    "mean_time": lambda x: ops.mean(x, axis=1),
    "mean_channel": lambda x: x - ops.mean(x, axis=-1, keepdims=True),
    "sum_channel": lambda x: x * ops.sum(x, axis=-1, keepdims=True),
    "max_channel": lambda x: x - ops.max(x, axis=-1, keepdims=True),
    "where": lambda x: ops.where(x > 0.0, x, x * 0.1),
    "self_product": lambda x: ops.matmul(ops.transpose(x, (0, 2, 1)), x),
    "scores": lambda x: ops.matmul(ops.matmul(x, ops.transpose(x, (0, 2, 1))), x),
    "einsum": lambda x: ops.einsum("abc,adc->abd", x, x),
    "einsum_constant": lambda x: ops.einsum("abc,c->abc", x, np.arange(12, dtype="float32")),
    "take": lambda x: ops.take(x, np.array([0, 2]), axis=1),
    "cumsum": lambda x: ops.cumsum(x, axis=1),
    "flip": lambda x: ops.flip(x, axis=1),
    "channel_shuffle": lambda x: ops.reshape(
        ops.transpose(ops.reshape(x, (-1, 6, 3, 4)), (0, 1, 3, 2)), (-1, 6, 12)
    ),
}


def maker(shape):
    """A layer that makes as many units as the last axis has."""
    if len(shape) >= 3:
        return (
            layers.TimeDistributed(layers.Dense(shape[-1]))
            if len(shape) == 3
            else layers.Dense(shape[-1])
        )
    return layers.Dense(shape[-1])


def head(x):
    return layers.Dense(3, name="head")(layers.Flatten()(x))


def in_setting(setting, shape, make):
    """A model with the layer in a setting."""

    def alone(i):
        return make()(maker(shape)(i))

    def after(i):
        y = make()(maker(shape)(i))
        return layers.Dense(8)(y) if y.shape[-1] is not None else y

    def residual(i):
        x = maker(shape)(i)
        y = make()(x)
        if tuple(y.shape) != tuple(x.shape):
            y = make()(maker(shape)(i))
            return layers.Add()([y, make()(x)])
        return layers.Add()([x, y])

    def concatenated(i):
        x = maker(shape)(i)
        y = make()(x)
        return layers.Concatenate()([y, make()(maker(shape)(i))])

    def shared(i):
        layer = make()
        return layers.Add()([layer(maker(shape)(i)), layer(maker(shape)(i))])

    def nested(i):
        inner = keras.Sequential([keras.Input(shape), maker(shape), make()])
        return inner(maker(shape)(i))

    known = {f.__name__: f for f in (alone, after, residual, concatenated, shared, nested)}
    i = keras.Input(shape)
    return keras.Model(i, head(known[setting](i)))


def randomise(model, seed=0):
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" in str(variable.dtype):
            value = generator.normal(0, 0.5, variable.shape)
            variable.assign(np.abs(value) + 0.1 if "variance" in variable.path else value)


def check(model, tmp_path, *, cuts=True):
    randomise(model)
    before = [writable_copy(v) for v in model.weights]
    result = cutting.cut(model, ratio=0.5, align=1)
    assert result.proof.difference <= 1e-4
    assert (result.model.count_params() < model.count_params()) == cuts
    assert result.model.input_shape == model.input_shape
    assert result.model.output_shape == model.output_shape
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(writable_copy(variable), value)
    path = tmp_path / "cut.keras"
    result.model.save(path)
    loaded = keras.models.load_model(path)
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(loaded(x), result.model(x), rtol=1e-5, atol=1e-5)
    return result


SETTINGS = ("alone", "residual", "concatenated", "shared", "nested")
# One of each way in which a rule ties axes is tried everywhere; the others each in one setting.
THOROUGHLY = ("dense", "conv2d", "depthwise2d", "batch_norm", "lstm", "flatten")
PAIRS = [
    (name, setting)
    for number, name in enumerate(CASES)
    for setting in (SETTINGS if name in THOROUGHLY else [SETTINGS[number % len(SETTINGS)]])
]


@pytest.mark.parametrize(("name", "setting"), PAIRS)
def test_layer(name, setting):
    shape, make = CASES[name]
    whole = name == "softmax" and setting not in ("after", "nested")
    model = in_setting(setting, shape, make)
    randomise(model)
    with pytest.warns(UserWarning, match="Nothing was cut") if whole else nullcontext():
        result = cutting.cut(model, ratio=0.5, align=1)
    assert result.proof.difference <= 1e-4
    assert np.isfinite(result.proof.difference)
    assert (result.model.count_params() < model.count_params()) == (not whole)


@pytest.mark.parametrize("name", [name for name in CASES if name != "softmax"])
def test_layer_with_means_folded(name):
    """Held at its means instead of at zero, the original is still what the cut model computes."""
    shape, make = CASES[name]
    model = in_setting("alone", shape, make)
    randomise(model)
    x = np.random.default_rng(0).normal(1, 1, (33, *shape)).astype("float32")
    result = cutting.cut(model, x, ratio=0.5, align=1)
    assert result.proof.folded
    assert result.proof.difference <= 1e-4
    assert not result.folding.held


@pytest.mark.parametrize("name", CASES)
def test_layer_is_saved_and_loaded(name, tmp_path):
    shape, make = CASES[name]
    check(in_setting("after", shape, make), tmp_path)


@pytest.mark.parametrize("name", OPS)
def test_op(name, tmp_path):
    i = keras.Input((6, 12))
    x = layers.Dense(12)(i)
    y = OPS[name](x)
    whole = name in {"softmax", "mean_channel", "max_channel"}
    model = keras.Model(i, layers.Flatten()(y) if whole else layers.Dense(4)(layers.Dense(8)(y)))
    if whole:
        with pytest.warns(UserWarning, match="Nothing was cut"):
            check(model, tmp_path, cuts=False)
    else:
        check(model, tmp_path)
