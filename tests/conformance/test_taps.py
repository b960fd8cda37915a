"""Every tap against the layer itself: rows @ matrix.T + bias is what the layer puts out."""

import keras
import numpy as np
import pytest
from keras import layers

from secateur.keras.running import run_graph
from secateur.keras.taps import open_graph, taps_of
from secateur.keras.tensors import find_tensors
from secateur.keras.variables import read_array

FEEDFORWARD = {
    "dense": ((6,), lambda: layers.Dense(5)),
    "dense_time": ((7, 6), lambda: layers.Dense(5, use_bias=False)),
    "einsum_heads": ((7, 6), lambda: layers.EinsumDense("abc,cde->abde", (None, 3, 4), bias_axes="de")),
    "einsum_merge": ((7, 3, 4), lambda: layers.EinsumDense("abcd,cde->abe", (None, 5), bias_axes="e")),
    "einsum_time": ((7, 6), lambda: layers.EinsumDense("abc,bd->adc", (4, 6))),
    "conv1d": ((9, 4), lambda: layers.Conv1D(6, 3)),
    "conv1d_causal": ((9, 4), lambda: layers.Conv1D(6, 3, padding="causal", dilation_rate=2)),
    "conv1d_same": ((9, 4), lambda: layers.Conv1D(6, 4, padding="same", strides=2)),
    "conv2d": ((8, 7, 4), lambda: layers.Conv2D(6, (3, 2), padding="same", strides=2)),
    "conv2d_dilated": ((8, 7, 4), lambda: layers.Conv2D(6, 3, dilation_rate=2)),
    "conv2d_grouped": ((8, 7, 4), lambda: layers.Conv2D(6, 3, groups=2, padding="same")),
    "conv3d": ((4, 5, 4, 3), lambda: layers.Conv3D(2, 2)),
    "depthwise1d": ((9, 4), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise2d": ((8, 7, 4), lambda: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)),
    "time_distributed": ((3, 8, 4), lambda: layers.TimeDistributed(layers.Conv1D(6, 3))),
    "time_distributed_depthwise": (
        (3, 8, 4),
        lambda: layers.TimeDistributed(layers.DepthwiseConv1D(3)),
    ),
}  # fmt: skip


def looked_at(model, x):
    """What every tap of a model sees: (variable id, rows, bias, groups) in order."""
    seen = []

    def visit(call, args, kwargs):
        for tap in taps_of(call):
            seen.append((tap, tap.rows(args, kwargs)))

    run_graph(open_graph(model), x, visit)
    return seen


def product(model, tap, rows):
    """rows @ matrix.T + bias, groups side by side on the last axis."""
    tensor = next(t for t in find_tensors(model).tensors if t.variable is tap.variable)
    matrix = tensor.to_matrix(read_array(tap.variable))
    if tap.groups == 1:
        result = rows @ matrix.T
    else:
        parts = np.split(matrix, tap.groups)
        result = np.concatenate([r @ p.T for r, p in zip(rows, parts, strict=True)], axis=-1)
    if tap.bias is not None:
        bias = read_array(tap.bias.variable)
        result = result + (bias if tap.bias.part is None else bias[tap.bias.part]).reshape(-1)
    return result


@pytest.mark.parametrize("name", FEEDFORWARD)
def test_rows_times_matrix_is_the_output(name):
    shape, make = FEEDFORWARD[name]
    keras.utils.set_random_seed(1)
    layer = make()
    model = keras.Sequential([keras.Input(shape), layer])
    for variable in model.weights:
        variable.assign(np.random.default_rng(2).normal(size=variable.shape))
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    ((tap, rows),) = looked_at(model, x)
    expected = keras.ops.convert_to_numpy(model(x))
    found = product(model, tap, rows)
    if name == "einsum_time":  # the rows keep the order of the input's other axes
        found = np.swapaxes(found, 1, 2)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_separable_convolutions_have_two_taps(rank):
    shape, kind = ((9, 4), layers.SeparableConv1D), ((8, 7, 4), layers.SeparableConv2D)
    shape, kind = (shape, kind)[rank - 1]
    model = keras.Sequential([keras.Input(shape), kind(5, 3, depth_multiplier=2, padding="same")])
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    (_, (tap, rows)) = looked_at(model, x)
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(product(model, tap, rows), expected, rtol=1e-4, atol=1e-5)


def test_transposed_convolutions_scatter_what_the_matrix_gives():
    layer = layers.Conv1DTranspose(5, 2, strides=2, use_bias=False)
    model = keras.Sequential([keras.Input((4, 3)), layer])
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    ((tap, rows),) = looked_at(model, x)
    expected = keras.ops.convert_to_numpy(model(x))  # taps do not overlap at stride 2
    found = product(model, tap, rows).reshape(2, 8, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def simple_rnn_again(layer, seen, model):
    (one, x_rows), (two, h_rows) = seen
    total = product(model, one, x_rows) + product(model, two, h_rows)
    # Both taps name the one bias of the cell.
    return np.tanh(total - read_array(layer.cell.bias))


@pytest.mark.parametrize("backwards", [False, True])
def test_states_before_each_step_give_the_states_after_it(backwards):
    layer = layers.SimpleRNN(5, return_sequences=True, go_backwards=backwards)
    model = keras.Sequential([keras.Input((6, 4)), layer])
    layer.cell.bias.assign(np.linspace(-1, 1, 5))
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    found = simple_rnn_again(layer, looked_at(model, x), model)
    expected = keras.ops.convert_to_numpy(model(x))
    if backwards:
        expected = expected[:, ::-1]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def gru_again(cell, seen, model):
    (one, x_rows), (two, h_rows) = seen
    before = h_rows if cell.reset_after else h_rows[0]
    own, other = product(model, one, x_rows), product(model, two, h_rows)
    if not cell.reset_after and cell.bias is not None:
        other = other - read_array(cell.bias)
    zx, rx, hx = np.split(own, 3, axis=-1)
    zh, rh, hh = np.split(other, 3, axis=-1)
    update, reset = 1 / (1 + np.exp(-zx - zh)), 1 / (1 + np.exp(-rx - rh))
    candidate = np.tanh(hx + (reset * hh if cell.reset_after else hh))
    return update * before + (1 - update) * candidate


@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_gates_of_a_gru_from_its_rows(reset_after, wrapped):
    layer = layers.GRU(5, reset_after=reset_after, return_sequences=True)
    outer = layers.Bidirectional(layer) if wrapped else layer
    model = keras.Sequential([keras.Input((6, 4)), outer])
    for variable in model.weights:
        variable.assign(np.random.default_rng(len(variable.shape)).normal(size=variable.shape))
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    seen = looked_at(model, x)
    expected = keras.ops.convert_to_numpy(model(x))
    if not wrapped:
        np.testing.assert_allclose(
            gru_again(layer.cell, seen, model), expected, rtol=1e-3, atol=1e-4
        )
        return
    forward, backward = outer.forward_layer.cell, outer.backward_layer.cell
    found = [gru_again(forward, seen[:2], model), gru_again(backward, seen[2:], model)]
    np.testing.assert_allclose(np.concatenate(found, -1), expected, rtol=1e-3, atol=1e-4)


def test_initial_states_are_the_first_rows():
    x, h, c = keras.Input((4, 3)), keras.Input((5,)), keras.Input((5,))
    model = keras.Model([x, h, c], layers.LSTM(5)(x, initial_state=[h, c]))
    generator = np.random.default_rng(0)
    data = [generator.normal(size=(2, *shape)).astype("float32") for shape in ((4, 3), (5,), (5,))]
    (_, (_, rows)) = looked_at(model, data)
    np.testing.assert_array_equal(rows[:, 0], data[1])


def test_convolutional_lstm_gates():
    layer = layers.ConvLSTM1D(3, 2, return_sequences=True)
    model = keras.Sequential([keras.Input((4, 6, 2)), layer])
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 2)).astype("float32")
    (one, x_rows), (two, h_rows) = looked_at(model, x)
    gates = product(model, one, x_rows) + product(model, two, h_rows)
    i, f, c, o = np.split(gates, 4, axis=-1)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    cell, states = 0.0, []
    for step in range(4):
        cell = sigmoid(f[:, step]) * cell + sigmoid(i[:, step]) * np.tanh(c[:, step])
        states.append(sigmoid(o[:, step]) * np.tanh(cell))
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(np.stack(states, 1), expected, rtol=1e-3, atol=1e-4)


def test_attention_is_opened_into_its_projections():
    i = keras.Input((6, 8))
    model = keras.Model(i, layers.MultiHeadAttention(2, 4, name="att")(i, i))
    x = np.random.default_rng(0).normal(size=(3, 6, 8)).astype("float32")
    seen = looked_at(model, x)
    assert [rows.shape for _, rows in seen] == [(3, 6, 8)] * 4
    expected = keras.ops.convert_to_numpy(model(x))
    np.testing.assert_allclose(product(model, *seen[-1]), expected, rtol=1e-4, atol=1e-5)
    assert len({tap.origin for tap, _ in seen}) == 2  # query, key and value share their rows
