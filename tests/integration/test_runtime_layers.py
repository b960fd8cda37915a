"""Every layer of the runtime against Keras, on random weights with zeros in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import secateur as sc
from secateur import runtime
from secateur.errors import ArgumentTypeError, InvalidArgumentError, UnsupportedModelError

STEPS, WIDTH = 7, 6


def randomise(model: Any, zeros: float = 0.7) -> None:
    """Random values with zeros, and statistics that are no identity."""
    rng = np.random.default_rng(3)
    for variable in model.variables:
        if variable.dtype != "float32":
            continue
        values = rng.standard_normal(variable.shape).astype(np.float32) * 0.4
        if len(variable.shape) > 1:
            values[rng.random(variable.shape) < zeros] = 0
        if "variance" in variable.name:
            values = np.abs(values) + 0.5
        variable.assign(values)


def sparse_first(run: Callable[[], object], before: Callable[[], object]) -> float:
    """A timer for tests: of several candidates each next one is faster, so the last is taken."""
    before()
    run()
    sparse_first.calls += 1  # type: ignore[attr-defined]
    return 1.0 / sparse_first.calls  # type: ignore[attr-defined]


sparse_first.calls = 1  # type: ignore[attr-defined]


def compare(model: Any, x: Any, batch: int = 4) -> None:
    """The engine's answer is Keras's, whichever way the samples are split."""
    randomise(model)
    expected = model.predict(x, verbose=0)
    engine = runtime.compile(model, batch=batch, timer=sparse_first)
    for _ in range(2):  # the arena is used again
        actual = engine.predict(x)
        pairs = zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True)
        for one, two in pairs:
            assert one.shape == two.shape
            scale = max(1e-3, float(np.abs(two).max()))
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-4 * scale)


def sequence(layer: Any, shape: tuple[int | None, ...] = (STEPS, WIDTH)) -> Any:
    return keras.Sequential([keras.Input(shape), layer])


def data(*shape: int) -> Any:
    return np.random.default_rng(5).standard_normal(shape).astype(np.float32)


ACTIVATIONS = [
    "linear", "relu", "relu6", "leaky_relu", "tanh", "sigmoid", "silu", "gelu", "hard_sigmoid",
    "hard_silu", "elu", "selu", "softplus", "softsign", "exponential", "softmax", "log_softmax",
    "mish", "hard_tanh",
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_with_every_activation(activation: str) -> None:
    compare(sequence(layers.Dense(70, activation=activation), (90,)), data(6, 90))


SEQUENCES: dict[str, Callable[[], Any]] = {
    "dense": lambda: layers.Dense(5),
    "dense without bias": lambda: layers.Dense(5, use_bias=False),
    "einsum": lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
    "einsum reordered": lambda: layers.EinsumDense("abc,cd->adb", (4, STEPS), bias_axes="d"),
    "einsum ellipsis": lambda: layers.EinsumDense("...x,xy->...y", 5, bias_axes="y"),
    "conv1d": lambda: layers.Conv1D(5, 3, activation="relu"),
    "conv1d same": lambda: layers.Conv1D(5, 3, padding="same", strides=2),
    "conv1d causal": lambda: layers.Conv1D(5, 3, padding="causal", dilation_rate=2),
    "conv1d groups": lambda: layers.Conv1D(4, 2, groups=2),
    "depthwise1d": lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu"),
    "separable1d": lambda: layers.SeparableConv1D(5, 3, padding="same"),
    "lstm": lambda: layers.LSTM(5),
    "lstm sequences": lambda: layers.LSTM(5, return_sequences=True, go_backwards=True),
    "lstm other activations": lambda: layers.LSTM(
        5, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False
    ),
    "gru": lambda: layers.GRU(5),
    "gru before": lambda: layers.GRU(5, reset_after=False, return_sequences=True),
    "gru without bias": lambda: layers.GRU(5, use_bias=False),
    "simple": lambda: layers.SimpleRNN(5, return_sequences=True),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
    "bidirectional sum": lambda: layers.Bidirectional(layers.GRU(5), merge_mode="sum"),
    "time distributed": lambda: layers.TimeDistributed(layers.Dense(5, activation="tanh")),
    "layer norm": lambda: layers.LayerNormalization(),
    "layer norm plain": lambda: layers.LayerNormalization(center=False, scale=False),
    "rms norm": lambda: layers.RMSNormalization(),
    "batch norm": lambda: layers.BatchNormalization(),
    "batch norm on time": lambda: layers.BatchNormalization(axis=1),
    "unit norm": lambda: layers.UnitNormalization(),
    "group norm": lambda: layers.GroupNormalization(2),
    "group norm on time": lambda: layers.GroupNormalization(STEPS, axis=1, scale=False),
    "instance norm": lambda: layers.GroupNormalization(-1, epsilon=0.1, center=False),
    "global average": lambda: layers.GlobalAveragePooling1D(),
    "global max": lambda: layers.GlobalMaxPooling1D(keepdims=True),
    "max pool": lambda: layers.MaxPooling1D(3, 2, padding="same"),
    "average pool": lambda: layers.AveragePooling1D(2, padding="same"),
    "flatten": lambda: layers.Flatten(),
    "reshape": lambda: layers.Reshape((-1, 2)),
    "permute": lambda: layers.Permute((2, 1)),
    "crop": lambda: layers.Cropping1D((1, 2)),
    "upsample": lambda: layers.UpSampling1D(2),
    "zero padding": lambda: layers.ZeroPadding1D((1, 2)),
    "dropout": lambda: layers.Dropout(0.5),
    "prelu": lambda: layers.PReLU(),
    "relu": lambda: layers.ReLU(max_value=1.0, negative_slope=0.1),
    "leaky": lambda: layers.LeakyReLU(),
    "softmax": lambda: layers.Softmax(axis=1),
    "activation": lambda: layers.Activation("gelu"),
    "rescaling": lambda: layers.Rescaling(2.0, 1.0),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_layers_on_sequences(name: str) -> None:
    compare(sequence(SEQUENCES[name]()), data(6, STEPS, WIDTH))


def ragged() -> Any:
    """Numbers with zeros behind them, and in one row before them."""
    ids = np.random.default_rng(1).integers(1, 9, (6, STEPS))
    for row, length in enumerate((7, 1, 3, 5, 2, 6)):
        ids[row, length:] = 0
    ids[3, 0] = 0
    return ids


@pytest.mark.parametrize("name", [n for n in SEQUENCES if n.startswith(("lstm", "gru", "simple",
                                                                        "bi", "global average",
                                                                        "time"))])  # fmt: skip
def test_layers_on_masked_sequences(name: str) -> None:
    inputs = keras.Input((STEPS,), dtype="int32")
    h = layers.Embedding(9, WIDTH, mask_zero=True)(inputs)
    compare(keras.Model(inputs, SEQUENCES[name]()(h)), ragged())


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("cell", [layers.GRU, layers.LSTM, layers.SimpleRNN])
def test_the_mask_is_not_obeyed_where_keras_hands_none_on(cell: Any, both_ways: bool) -> None:
    """A state given beside the sequences keeps Keras from handing their mask on; it stays on what
    comes out. One that is given by hand is obeyed."""
    inputs = keras.Input((STEPS,), dtype="int32")
    table = layers.Embedding(9, WIDTH, mask_zero=True)

    def layer() -> Any:
        made = cell(5, return_sequences=True)
        return layers.Bidirectional(made) if both_ways else made

    count = (2 if both_ways else 1) * (2 if cell is layers.LSTM else 1)
    states = [layers.Embedding(9, 5)(inputs)[:, time] for time in range(count)]
    given = states[0] if count == 1 else states
    spoken = layer()(table(inputs), initial_state=given)
    forced = layer()(table(inputs), initial_state=given, mask=ops.not_equal(inputs, 0))
    mean = layers.GlobalAveragePooling1D()(spoken)
    compare(keras.Model(inputs, [spoken, forced, mean]), ragged())


IMAGES: dict[str, Callable[[], Any]] = {
    "conv2d": lambda: layers.Conv2D(5, 3, strides=2, padding="same", activation="relu"),
    "conv2d valid": lambda: layers.Conv2D(5, (2, 3), dilation_rate=2),
    "depthwise2d": lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
    "separable2d": lambda: layers.SeparableConv2D(4, 3),
    "max pool": lambda: layers.MaxPooling2D((2, 3), strides=2, padding="same"),
    "average pool": lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
    "global": lambda: layers.GlobalAveragePooling2D(),
    "group norm": lambda: layers.GroupNormalization(3),
    "up": lambda: layers.UpSampling2D((2, 3)),
    "pad": lambda: layers.ZeroPadding2D(((1, 2), (0, 1))),
    "crop": lambda: layers.Cropping2D(((1, 2), (0, 1))),
}


@pytest.mark.parametrize("name", IMAGES)
def test_layers_on_images(name: str) -> None:
    compare(sequence(IMAGES[name](), (9, 8, 3)), data(5, 9, 8, 3))


@pytest.mark.filterwarnings("ignore:.*destroy the mask information")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ["MultiHeadAttention", "GroupQueryAttention"])
def test_attention(kind: str, masked: bool, causal: bool) -> None:
    inputs = keras.Input((STEPS,), dtype="int32")
    h = layers.Embedding(9, WIDTH, mask_zero=masked)(inputs)
    if kind == "MultiHeadAttention":
        attention = layers.MultiHeadAttention(2, 4, value_dim=3)
    else:
        attention = layers.GroupQueryAttention(4, 4, 2)
    y = attention(h, h, use_causal_mask=causal)
    ids = np.random.default_rng(1).integers(1, 9, (6, STEPS))
    for row, length in enumerate((7, 1, 3, 5, 2, 6)):
        ids[row, length:] = 0
    compare(keras.Model(inputs, y + h), ids)


def test_cross_attention_with_a_mask_of_its_own_and_scores() -> None:
    one, two = keras.Input((5, 6)), keras.Input((STEPS, 4))
    mask = keras.Input((5, STEPS), dtype="bool")
    y, scores = layers.MultiHeadAttention(3, 2)(
        one, two, attention_mask=mask, return_attention_scores=True
    )
    keep = np.random.default_rng(2).random((6, 5, STEPS)) < 0.6
    compare(keras.Model([one, two, mask], [y, scores]), [data(6, 5, 6), data(6, STEPS, 4), keep])


def test_residual_shared_nested_and_concatenated_graphs() -> None:
    inputs, other = keras.Input((8,)), keras.Input((8,))
    shared = layers.Dense(8, activation="relu")
    inner_in = keras.Input((8,))
    inner = keras.Model(inner_in, layers.Dense(8)(shared(inner_in)) + inner_in)
    a, b = inner(inputs), inner(other)
    h = layers.Dense(8)(a)
    h = layers.Add()([h, b])
    z = layers.Concatenate()([h, layers.Multiply()([a, b]), layers.Average()([a, h])])
    z = layers.Concatenate()([z, layers.Maximum()([a, b]), layers.Subtract()([a, b])])
    out = keras.Sequential([keras.Input((40,)), layers.Dense(3)])(z)
    compare(keras.Model([inputs, other], [out, h]), [data(7, 8), data(7, 8)])


def test_cosines_of_what_a_shared_encoder_makes_of_two_inputs() -> None:
    encoder = layers.Dense(6, activation="tanh")
    pair = [keras.Input((8,)), keras.Input((8,))]
    one, two = map(encoder, pair)
    cosine = layers.Dot(-1, normalize=True)([one, two])
    steps = [keras.Input((STEPS, 5)), keras.Input((4, 5))]
    table = layers.Dot((2, 2), normalize=True)(steps)
    data_of = [data(7, 8), 2 - data(7, 8), data(7, STEPS, 5), data(7, 4, 5)]
    compare(keras.Model([*pair, *steps], [cosine, table]), data_of)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cap", [None, 0.5])
def test_an_embedding_that_leads_back_to_tokens(tied: bool, cap: float | None) -> None:
    inputs = keras.Input((STEPS,), dtype="int32")
    table = layers.ReversibleEmbedding(9, WIDTH, tie_weights=tied, logit_soft_cap=cap)
    model = keras.Model(inputs, table(layers.Dense(WIDTH)(table(inputs)), reverse=True))
    compare(model, np.random.default_rng(1).integers(0, 9, (6, STEPS)))


def test_a_sum_is_not_folded_into_a_product_that_others_read() -> None:
    inputs = keras.Input((8,))
    h = layers.Dense(8)(inputs)
    compare(keras.Model(inputs, [h + inputs, h * 2.0, layers.Dense(8)(h) + h]), data(5, 8))


def test_operations() -> None:
    inputs = keras.Input((STEPS, WIDTH))
    x = ops.transpose(inputs, (0, 2, 1))
    s = ops.softmax(ops.matmul(inputs, x) / 2.0, axis=-1)
    y = ops.reshape(ops.matmul(s, inputs), (-1, STEPS * WIDTH))
    z = ops.mean(inputs[:, 1:], axis=1) - ops.max(inputs, axis=1)
    w = ops.where(inputs[:, 0] > 0, ops.exp(inputs[:, 0]), ops.square(inputs[:, -1]))
    e = ops.squeeze(ops.expand_dims(ops.cast(inputs[:, 0] > 0.1, "float32"), 1), 1)
    st = ops.stack([z, w], axis=1)
    g = ops.gelu(ops.concatenate([z, w, e], axis=-1)) + ops.relu(1.0 - y[:, :18])
    compare(keras.Model(inputs, [y, g, st, ops.sigmoid(z) * ops.tanh(w)]), data(6, STEPS, WIDTH))


def test_lengths_that_come_later_and_more_samples_than_a_batch() -> None:
    inputs = keras.Input((None,), dtype="int32")
    h = layers.Embedding(20, WIDTH, mask_zero=True)(inputs)
    h = layers.Bidirectional(layers.GRU(4, return_sequences=True))(h)
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(h))
    randomise(model)
    engine = runtime.compile(model, batch=3)
    for samples, length in ((7, 5), (3, 9), (1, 2), (7, 5)):
        ids = np.random.default_rng(length).integers(1, 20, (samples, length))
        expected = model.predict(ids, verbose=0)
        np.testing.assert_allclose(engine.predict(ids), expected, atol=1e-5)


def test_a_file_needs_neither_keras_nor_tensorflow(tmp_path: Any) -> None:
    model = sequence(layers.Dense(70, activation="relu"), (90,))
    randomise(model)
    x = data(3, 90)
    path, xs, ys = (tmp_path / name for name in ("m.safetensors", "x.npy", "y.npy"))
    sc.save(path, model)
    np.save(xs, x)
    code = (
        "import sys, numpy as np; from secateur import runtime\n"
        f"e = runtime.compile({str(path)!r}, batch=3)\n"
        f"np.save({str(ys)!r}, e.predict(np.load({str(xs)!r})))\n"
        "found = {m.split('.')[0] for m in sys.modules} & {'keras', 'tensorflow', 'numba'}\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(np.load(ys), expected, atol=1e-5)


@keras.saving.register_keras_serializable("secateur_tests")
class Doubled(layers.Layer):
    def call(self, x: Any) -> Any:
        return x * 2.0


def test_an_unknown_layer_is_named_and_can_be_taught() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Doubled(name="twice")])
    support = runtime.supports(model)
    assert not support
    assert support.unknown == {"twice": "Doubled"}
    with pytest.raises(UnsupportedModelError, match=r"'twice' \(Doubled\)"):
        runtime.compile(model)

    def doubled(site: Any, x: Any) -> Any:
        return site.builder.apply(lambda out, array: np.multiply(array, 2, out=out), [x], x.shape)

    engine = runtime.compile(model, batch=2, layers={"Doubled": doubled})
    x = data(5, 4)
    np.testing.assert_allclose(engine.predict(x), model.predict(x, verbose=0), atol=1e-5)


def test_bad_arguments_are_named() -> None:
    model = sequence(layers.Dense(3), (4,))
    with pytest.raises(InvalidArgumentError, match="batch must be"):
        runtime.compile(model, batch=0)
    with pytest.raises(ArgumentTypeError, match="got int"):
        runtime.compile(3)
    engine = runtime.compile(model, batch=2)
    with pytest.raises(InvalidArgumentError, match=r"takes an array of shape \(None, 4\)"):
        engine.predict(data(2, 5))
    one, two = keras.Input((2,), name="one"), keras.Input((2,), name="two")
    engine = runtime.compile(keras.Model([one, two], layers.Add()([one, two])), batch=1)
    with pytest.raises(InvalidArgumentError, match="takes 2 arrays"):
        engine.predict([data(1, 2)])
    with pytest.raises(InvalidArgumentError, match=r"\['two'\] are missing"):
        engine.predict({"one": data(1, 2)})
    both = engine.predict({"one": data(1, 2), "two": data(1, 2)})
    np.testing.assert_allclose(both, 2 * data(1, 2))
