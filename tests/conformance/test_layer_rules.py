"""Every row of the table of layer rules, held against what the layer really computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from keras import layers
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from secateur.keras.rules import _RULES
from secateur.keras.tensors import WeightTensor, find_tensors
from secateur.keras.variables import read_array, write_array

Run = Callable[[Any], Any]


@dataclass
class Case:
    """A layer, a call of it that every matrix reaches, and the matrices it is known to have."""

    make: Callable[[], Any]
    run: Run
    matrices: set[str]
    on_request: set[str] = field(default_factory=set)
    not_called: set[str] = field(default_factory=set)
    prepare: Callable[[Any], None] = lambda layer: None
    output_axes: int = 1

    def outputs(self, layer: Any) -> int:
        shape = np.asarray(self.run(layer)).shape
        return int(np.prod(shape[len(shape) - self.output_axes :]))


def _data(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.5, 1.5, shape).astype("float32")


def _call(*shape: int) -> Run:
    return lambda layer: layer(_data(*shape))


def _step(*shape: int, states: list[tuple[int, ...]]) -> Run:
    return lambda cell: cell(_data(*shape), [_data(*state) for state in states])[0]


def _pass_depthwise_through(layer: Any) -> None:
    """Make the pointwise half an identity, so that the depthwise outputs are seen."""
    kernel = np.zeros(layer.pointwise_kernel.shape, "float32")
    kernel[...] = np.eye(kernel.shape[-1])
    layer.pointwise_kernel.assign(kernel)


_KERNEL, _CELL = {"kernel"}, {"kernel", "recurrent_kernel"}
_SEPARABLE = {"depthwise_kernel", "pointwise_kernel"}

CASES: dict[str, Case] = {
    "Dense": Case(lambda: layers.Dense(5), _call(2, 3), _KERNEL),
    "Dense of sequences": Case(lambda: layers.Dense(5), _call(2, 4, 3), _KERNEL),
    "EinsumDense abc,cde->abde": Case(
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3)),
        _call(2, 4, 5),
        _KERNEL,
        output_axes=2,
    ),
    "EinsumDense abcd,cde->abe": Case(
        lambda: layers.EinsumDense("abcd,cde->abe", (None, 6)), _call(2, 4, 2, 3), _KERNEL
    ),
    "EinsumDense ...x,xy->...y": Case(
        lambda: layers.EinsumDense("...x,xy->...y", 4), _call(2, 4, 3), _KERNEL
    ),
    "EinsumDense ab,cb->ac": Case(lambda: layers.EinsumDense("ab,cb->ac", 6), _call(2, 3), _KERNEL),
    "Conv1D": Case(lambda: layers.Conv1D(4, 3), _call(2, 6, 3), _KERNEL),
    "Conv2D": Case(lambda: layers.Conv2D(4, (2, 3)), _call(2, 5, 5, 3), _KERNEL),
    "Conv2D in groups": Case(lambda: layers.Conv2D(4, 2, groups=2), _call(2, 5, 5, 6), _KERNEL),
    "Conv3D": Case(lambda: layers.Conv3D(3, 2), _call(1, 3, 3, 3, 2), _KERNEL),
    "Conv1DTranspose": Case(lambda: layers.Conv1DTranspose(4, 2), _call(2, 4, 3), _KERNEL),
    "Conv2DTranspose": Case(lambda: layers.Conv2DTranspose(4, 2), _call(2, 4, 4, 3), _KERNEL),
    "Conv3DTranspose": Case(lambda: layers.Conv3DTranspose(3, 2), _call(1, 2, 2, 2, 2), _KERNEL),
    "DepthwiseConv1D": Case(
        lambda: layers.DepthwiseConv1D(2, depth_multiplier=2), _call(2, 5, 3), _KERNEL
    ),
    "DepthwiseConv2D": Case(
        lambda: layers.DepthwiseConv2D(2, depth_multiplier=3), _call(2, 4, 4, 2), _KERNEL
    ),
    "SeparableConv1D": Case(
        lambda: layers.SeparableConv1D(6, 2, depth_multiplier=2),
        _call(2, 5, 3),
        _SEPARABLE,
        prepare=_pass_depthwise_through,
    ),
    "SeparableConv2D": Case(
        lambda: layers.SeparableConv2D(6, 2, depth_multiplier=2),
        _call(2, 4, 4, 3),
        _SEPARABLE,
        prepare=_pass_depthwise_through,
    ),
    "SimpleRNNCell": Case(lambda: layers.SimpleRNNCell(4), _step(2, 3, states=[(2, 4)]), _CELL),
    "GRUCell": Case(lambda: layers.GRUCell(4), _step(2, 3, states=[(2, 4)]), _CELL),
    "LSTMCell": Case(lambda: layers.LSTMCell(4), _step(2, 3, states=[(2, 4), (2, 4)]), _CELL),
    "ConvLSTMCell": Case(
        lambda: ConvLSTMCell(2, filters=3, kernel_size=2, padding="same"),
        _step(1, 4, 4, 2, states=[(1, 4, 4, 3), (1, 4, 4, 3)]),
        _CELL,
    ),
    "Embedding": Case(
        lambda: layers.Embedding(5, 3),
        lambda layer: layer(np.arange(5)[None]),
        set(),
        {"embeddings"},
    ),
    "ReversibleEmbedding": Case(
        lambda: layers.ReversibleEmbedding(5, 3),
        lambda layer: layer(np.arange(5)[None]),
        set(),
        {"embeddings"},
    ),
    "ReversibleEmbedding, untied": Case(
        lambda: layers.ReversibleEmbedding(5, 3, tie_weights=False),
        lambda layer: layer(_data(1, 5, 3), reverse=True),
        set(),
        {"embeddings", "reverse_embeddings"},
        not_called={"embeddings"},
    ),
    "BatchNormalization": Case(layers.BatchNormalization, _call(2, 3), set()),
    "LayerNormalization": Case(layers.LayerNormalization, _call(2, 3), set()),
    "GroupNormalization": Case(lambda: layers.GroupNormalization(3), _call(2, 3), set()),
    "RMSNormalization": Case(layers.RMSNormalization, _call(2, 3), set()),
    "Normalization": Case(layers.Normalization, _call(2, 3), set()),
    "SpectralNormalization": Case(
        lambda: layers.SpectralNormalization(layers.Dense(4, name="dense")),
        _call(2, 3),
        {"dense/kernel"},
    ),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def layer(case: Case) -> Any:
    made = case.make()
    case.run(made)
    case.prepare(made)
    return made


def test_exactly_the_known_matrices_are_found(case: Case, layer: Any) -> None:
    found = find_tensors(layer)
    assert {tensor.name for tensor in found.tensors if tensor.default} == case.matrices
    assert {name for name, _ in found.left} == case.on_request
    on_request = {tensor.name for tensor in found.tensors if tensor.role == "embedding"}
    assert on_request == case.on_request


def test_to_matrix_is_a_view_of_every_number(layer: Any) -> None:
    for tensor in find_tensors(layer).tensors:
        array = np.arange(np.prod(tensor.shape), dtype="float32").reshape(tensor.shape)
        matrix = tensor.to_matrix(array)
        assert np.shares_memory(matrix, array)
        assert matrix.ndim == 2
        assert sorted(matrix.ravel()) == sorted(array.ravel())
        assert matrix.shape[0] % tensor.view.num_outputs == 0


def test_a_row_changes_its_own_output_and_no_other(case: Case, layer: Any) -> None:
    for tensor in find_tensors(layer).tensors:
        if tensor.name not in case.matrices | case.on_request - case.not_called:
            continue
        num_rows = tensor.to_matrix(np.zeros(tensor.shape)).shape[0]
        # A step of 5 reaches every gate and tap, and units of each.
        for row in range(0, num_rows, max(1, min(5, num_rows // 4))):
            changed = _changed_outputs(case, layer, tensor, row)
            # A recurrent unit has one row per gate.
            assert changed == {row % tensor.view.num_outputs % case.outputs(layer)}


def _changed_outputs(case: Case, layer: Any, tensor: WeightTensor, row: int) -> set[int]:
    before = np.asarray(case.run(layer))
    kept = read_array(tensor.variable)
    changed = kept.copy()
    tensor.to_matrix(changed)[row] += 0.5
    write_array(tensor.variable, changed)
    differs = np.abs(np.asarray(case.run(layer)) - before) > 1e-6
    write_array(tensor.variable, kept)
    return set(np.flatnonzero(differs.reshape(-1, case.outputs(layer)).any(axis=0)))


def test_no_row_of_the_table_is_left_out() -> None:
    tested = {type(case.make()) for case in CASES.values()}
    assert {kind for kind in _RULES if kind.__module__.startswith("keras.")} <= tested
