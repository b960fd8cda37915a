"""The Numba kernels against the NumPy oracle, over dtypes, tail sizes, activations and masks."""

import ml_dtypes
import numpy as np
import pytest

from secateur._kernels.reference import outputs as oracle
from secateur.activations import ACTIVATION_NAMES, Activation
from secateur.errors import NonFiniteError
from secateur.outputs import MEASURES, OutputStatistics, subnetwork_outputs

SIZES = [1, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 65]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
ACTIVATIONS = [
    *ACTIVATION_NAMES,
    Activation("leaky_relu", {"negative_slope": 0.3}),
    Activation("relu", {"negative_slope": 0.1, "max_value": 1.5}),
    Activation("elu", {"alpha": 0.5}),
    Activation("gelu", {"approximate": True}),
]


def make(shape, dtype=np.float32, seed=0, scale=2.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(dtype)


def check(statistics, expected, rtol=1e-12):
    for measure in MEASURES:
        np.testing.assert_allclose(
            statistics.measure(measure), expected[measure], rtol=rtol, atol=rtol, err_msg=measure
        )
    np.testing.assert_allclose(statistics.mean, expected["signed_mean"], rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("units", SIZES)
def test_linear_agrees_with_the_oracle(units, rows, dtype):
    batch = make((rows, units), dtype)
    statistics = OutputStatistics(units)
    statistics.update(batch)
    assert statistics.count == rows
    check(statistics, oracle.output_statistics(batch))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_fused_activations_agree_with_the_oracle(activation, masked):
    batch = make((21, 3, 17), np.float64, scale=3.0)
    mask = np.random.default_rng(1).random((21, 3)) < 0.6 if masked else None
    statistics = OutputStatistics(17)
    statistics.update(batch, activation=activation, mask=mask)
    check(statistics, oracle.output_statistics(batch, mask, activation))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_float32_results_are_rounded_once(activation):
    z = np.concatenate([make(4000, scale=4.0), make(500, scale=1e-6), np.linspace(-60, 60, 999)])
    z = z.astype(np.float32).reshape(-1, 1)
    ours = subnetwork_outputs(np.ones((1, 1), np.float32), None, z, activation)
    expected = oracle.activate(z, activation)
    np.testing.assert_allclose(ours, expected, rtol=2.0**-23, atol=1e-37)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "dim"), [(1, 1), (2, 3), (4, 16), (3, 17)])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_vector_outputs_agree_with_the_oracle(heads, dim, dtype, activation):
    batch = make((5, 7, heads, dim), dtype)
    mask = np.random.default_rng(2).random((5, 7)) < 0.7
    statistics = OutputStatistics(heads, dim=dim)
    statistics.update(batch, mask=mask, activation=activation)
    # Vectors are activated before they are measured, and stored in the dtype that was worked in.
    work = np.float64 if dtype == np.float64 else np.float32
    activated = oracle.activate(batch, activation).astype(work)
    rtol = 1e-12 if dtype == np.float64 or activation != "tanh" else 1e-6
    check(statistics, oracle.grouped_output_statistics(activated, mask), rtol)


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid"])
def test_blocks_and_tiles_are_joined(monkeypatch, activation):
    monkeypatch.setattr("secateur.outputs._BLOCK_ELEMENTS", 90)
    monkeypatch.setattr("secateur.outputs._TILE_ELEMENTS", 40)
    batch = make((203, 5), np.float64)
    mask = np.random.default_rng(3).random(203) < 0.5
    mask[:40] = False
    for used in (None, mask):
        statistics = OutputStatistics(5)
        statistics.update(batch, mask=used, activation=activation)
        check(statistics, oracle.output_statistics(batch, used, activation))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("rows", [3, 8])
def test_no_activation_hides_what_is_not_finite(activation, value, rows):
    for position in range(rows):
        batch = make((rows, 9))
        batch[position, 6] = value
        statistics = OutputStatistics(9, name="dense_7")
        with pytest.raises(NonFiniteError, match=r"'dense_7'.*1 of 9 units \(6\)"):
            statistics.update(batch, activation=activation)
        assert statistics.count == 0


def test_exponential_overflow_is_found():
    with pytest.raises(NonFiniteError, match="unit"):
        OutputStatistics(1).update(np.full((2, 1), 90, np.float32), activation="exponential")
    with pytest.raises(NonFiniteError, match="unit"):
        OutputStatistics(1).update(np.full((2, 1), 710.0), activation="exponential")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["linear", "relu", "gelu"])
def test_layers_agree_with_the_oracle(dtype, activation):
    weights, bias, inputs = make((6, 11), dtype), make(6, dtype, 1), make((4, 11), dtype, 2)
    ours = subnetwork_outputs(weights, bias, inputs, activation)
    assert ours.dtype == (np.float64 if dtype == np.float64 else np.float32)
    expected = oracle.subnetwork_outputs(weights, bias, inputs, activation)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)
