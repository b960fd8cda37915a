"""Finding weights in models of every kind."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from keras import layers

from secateur.errors import ArgumentTypeError, InvalidArgumentError, UnsupportedModelError
from secateur.keras.rules import _RULES, register_layer
from secateur.keras.tensors import WeightTensor, find_tensors
from secateur.keras.variables import give_array, read_array, writable_copy, write_array
from secateur.keras.walk import named_variables


def defaults(model: Any) -> list[str]:
    return [tensor.name for tensor in find_tensors(model).tensors if tensor.default]


def by_name(model: Any, name: str) -> WeightTensor:
    return next(tensor for tensor in find_tensors(model).tensors if tensor.name == name)


def test_bidirectional_and_time_distributed() -> None:
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both"),
            layers.TimeDistributed(layers.Dense(2, name="inner"), name="steps"),
        ]
    )
    assert defaults(model) == [
        "both/forward_lstm/lstm_cell/kernel",
        "both/forward_lstm/lstm_cell/recurrent_kernel",
        "both/backward_lstm/lstm_cell/kernel",
        "both/backward_lstm/lstm_cell/recurrent_kernel",
        "steps/inner/kernel",
    ]


def test_stacked_cells() -> None:
    cells = layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(2), layers.GRUCell(3)])
    model = keras.Sequential([keras.Input((4, 3)), layers.RNN(cells, name="rnn")])
    assert defaults(model)[::2] == [
        "rnn/stacked_rnn_cells/gru_cell/kernel",
        "rnn/stacked_rnn_cells/lstm_cell/kernel",
        "rnn/stacked_rnn_cells/gru_cell#2/kernel",
    ]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.LSTM(2), (4, 3)),
        (lambda: layers.GRU(2), (4, 3)),
        (lambda: layers.SimpleRNN(2), (4, 3)),
        (lambda: layers.ConvLSTM1D(2, 2), (3, 5, 2)),
        (lambda: layers.ConvLSTM2D(2, 2), (3, 5, 5, 2)),
        (lambda: layers.ConvLSTM3D(2, 2), (3, 4, 4, 4, 2)),
    ],
)
def test_recurrent_layers_through_their_cells(make: Any, shape: tuple[int, ...]) -> None:
    model = keras.Sequential([keras.Input(shape), make()])
    assert [name.rpartition("/")[2] for name in defaults(model)] == ["kernel", "recurrent_kernel"]


@pytest.mark.parametrize(
    "attention", [layers.MultiHeadAttention(2, 3), layers.GroupQueryAttention(3, 4, 2)]
)
def test_attention_through_its_projections(attention: Any) -> None:
    tokens = keras.Input((5, 8))
    model = keras.Model(tokens, attention(tokens, tokens))
    found = [tensor for tensor in find_tensors(model).tensors if tensor.default]
    assert len(found) == 4
    assert not any(tensor.view.interleaved for tensor in found)
    query = found[0].to_matrix(np.zeros(found[0].shape))
    assert query.shape[1] == 8


def test_nested_models_and_repeated_names() -> None:
    def inner(name: str) -> Any:
        return keras.Sequential([keras.Input((3,)), layers.Dense(3, name="dense")], name=name)

    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner("b")(inner("a")(inputs)))
    assert defaults(model) == ["a/dense/kernel", "b/dense/kernel"]


def test_a_shared_layer_is_found_once() -> None:
    shared = layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    nested = keras.Sequential([keras.Input((3,)), shared])
    model = keras.Model(inputs, nested(shared(shared(inputs))))
    assert defaults(model) == ["shared/kernel"]


class Composite(layers.Layer):
    """Layers in attributes, lists and dicts, and a weight of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.listed = [layers.Dense(3), layers.Dense(3)]
        self.mapped = {"key": layers.Dense(3)}
        self.alone = layers.Dense(3, name="alone")

    def build(self, shape: Any) -> None:
        self.mixer = self.add_weight(shape=(3, 4), name="mixer")
        self.vector = self.add_weight(shape=(3,), name="vector")

    def call(self, x: Any) -> Any:
        for layer in [*self.listed, *self.mapped.values(), self.alone]:
            x = layer(x)
        return keras.ops.matmul(x * self.vector, self.mixer)


def test_layers_made_of_layers_and_their_own_weights() -> None:
    model = keras.Sequential([keras.Input((3,)), Composite(name="block")])
    assert defaults(model) == [
        "block/dense/kernel",
        "block/dense#2/kernel",
        "block/dense#3/kernel",
        "block/alone/kernel",
    ]
    left = dict(find_tensors(model).left)
    assert set(left) == {"block/mixer", "block/vector"}
    assert "register_layer" in left["block/mixer"]
    mixer = by_name(model, "block/mixer")
    assert mixer.to_matrix(np.zeros((3, 4))).shape == (4, 3)


def test_names_of_inner_layers_do_not_count_up() -> None:
    names = [[named.name for named in named_variables(Composite(name="block"))] for _ in range(2)]
    models = [keras.Sequential([keras.Input((3,)), Composite(name="block")]) for _ in range(2)]
    assert names[0] == names[1]
    assert defaults(models[0]) == defaults(models[1])


def test_a_subclass_of_a_stock_layer_counts_as_that_layer() -> None:
    class MyDense(layers.Dense):
        pass

    assert defaults(keras.Sequential([keras.Input((3,)), MyDense(2, name="mine")])) == [
        "mine/kernel"
    ]


def test_a_subclassed_model() -> None:
    class Network(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [layers.Dense(3, name="first"), layers.Dense(2, name="second")]

        def call(self, x: Any) -> Any:
            return self.blocks[1](self.blocks[0](x))

    model = Network()
    model(np.zeros((1, 4)))
    assert defaults(model) == ["first/kernel", "second/kernel"]


def test_a_layer_that_is_never_called_is_told() -> None:
    class Network(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used = layers.Dense(3, name="used")
            self.spare = layers.Dense(2, name="spare")

        def build(self, shape: Any) -> None:
            self.used.build(shape)

        def call(self, x: Any) -> Any:
            return self.used(x)

    model = Network()
    model(np.zeros((1, 4)))
    assert find_tensors(model).left == (
        ("spare", "the layer was never called, so it has no weights"),
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats(dtype: str) -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="out", dtype=dtype)])
    tensor = by_name(model, "out/kernel")
    assert tensor.default
    assert tensor.dtype == dtype
    assert read_array(tensor.variable).dtype.name == dtype


def test_mixed_precision_variables_are_float32() -> None:
    policy = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="out", dtype=policy)])
    assert by_name(model, "out/kernel").dtype == "float32"


def test_quantised_layers_are_left_with_the_reason() -> None:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="out")])
    model.layers[0].quantize("int8")
    assert defaults(model) == []
    assert "quantised (int8)" in dict(find_tensors(model).left)["out/kernel"]


def test_layers_with_lora_are_left_with_the_reason() -> None:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="out")])
    model.layers[0].enable_lora(2)
    assert defaults(model) == []
    assert "LoRA" in dict(find_tensors(model).left)["out/kernel"]


def test_an_interleaved_einsum_is_found_and_says_so() -> None:
    model = keras.Sequential(
        [keras.Input((2, 3)), layers.EinsumDense("abc,dce->abde", (2, 4, 5), name="odd")]
    )
    tensor = by_name(model, "odd/kernel")
    assert tensor.default
    assert "alternate" in tensor.view.interleaved


def test_a_registered_layer() -> None:
    class Mixer(layers.Layer):
        def build(self, shape: Any) -> None:
            self.tilted = self.add_weight(shape=(4, shape[-1]))

        def call(self, x: Any) -> Any:
            return keras.ops.matmul(x, keras.ops.transpose(self.tilted))

    register_layer(Mixer, {"tilted": "oi"})
    try:
        model = keras.Sequential([keras.Input((3,)), Mixer(name="mix")])
        assert defaults(model) == ["mix/variable"]
        assert by_name(model, "mix/variable").to_matrix(np.zeros((4, 3))).shape == (4, 3)
    finally:
        del _RULES[Mixer]


def test_registering_nonsense_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match=r"keras\.Layer subclass"):
        register_layer(int, {"kernel": "io"})
    with pytest.raises(InvalidArgumentError, match="one letter per axis"):
        register_layer(Composite, {"kernel": "xy"})


def test_an_unbuilt_model_is_refused_with_the_mend() -> None:
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    with pytest.raises(UnsupportedModelError, match=r"model\.build\(input_shape\)"):
        find_tensors(model)
    model.build((None, 4))
    assert len(defaults(model)) == 2


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ArgumentTypeError, match=r"Expected a keras\.Model"):
        find_tensors([1, 2])  # type: ignore[arg-type]


def test_a_model_without_weights_has_no_tensors() -> None:
    assert find_tensors(keras.Sequential([keras.Input((3,)), layers.ReLU()])).tensors == ()


def test_arrays_are_windows_and_writes_are_exact() -> None:
    variable = keras.Variable(np.arange(6, dtype="float32").reshape(2, 3))
    window = read_array(variable)
    assert np.shares_memory(window, read_array(variable))
    assert not window.flags.writeable
    write_array(variable, np.zeros((2, 3), "float32"))
    assert window[1, 2] == 5
    assert not read_array(variable).any()
    for wrong in (np.zeros((3, 2), "float32"), np.zeros((2, 3), "float64")):
        with pytest.raises(InvalidArgumentError, match=r"\(2, 3\) and dtype float32"):
            write_array(variable, wrong)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("offset", [0, 1])
def test_given_arrays_become_the_values(dtype: str, offset: int) -> None:
    variable = keras.Variable(np.ones((33, 7)), dtype=dtype)
    given = writable_copy(variable)
    assert given.ctypes.data % 64 == 0
    given[0] = 3
    if offset:
        # Memory that is not aligned has to be copied: TensorFlow would abort on it.
        memory = np.empty(given.size + offset, given.dtype)[offset:]
        memory[...] = given.ravel()
        given = memory.reshape(given.shape)
    expected = given.copy()
    give_array(variable, given)
    del given
    np.testing.assert_array_equal(read_array(variable), expected)
    variable.assign_add(keras.ops.ones_like(variable.value))
    assert read_array(variable)[0, 0] == 4
    with pytest.raises(InvalidArgumentError, match=r"\(33, 7\)"):
        give_array(variable, expected[:2])


def test_bfloat16_arrays_go_both_ways() -> None:
    variable = keras.Variable(np.ones((2, 2)), dtype="bfloat16")
    array = read_array(variable)
    assert array.dtype == ml_dtypes.bfloat16
    write_array(variable, array * array.dtype.type(2))
    assert read_array(variable)[0, 0] == 2
