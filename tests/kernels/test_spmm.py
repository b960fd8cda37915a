"""The runtime's products against one formula in float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur._kernels.native import neural, runtime, spmm
from secateur._kernels.native.spmm import Epilogue
from secateur._kernels.reference import spmm as reference
from secateur.activations import Activation
from secateur.errors import InvalidArgumentError

TAILS = [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65]
KINDS = ["blocked 1", "blocked 4", "blocked 8", "bitmask", "n:m", "lookup", "csr"]
SMALL: dict[str, Any] = {
    "bitmask": spmm.pack_bitmask,
    "n:m": partial(spmm.pack_bitmask, even=True),
    "lookup": spmm.pack_lookup,
    "csr": spmm.pack_short_csr,
}

pytestmark = pytest.mark.usefixtures("every_setting")


def make(outputs: int, inputs: int, density: float, seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng((seed, outputs, inputs))
    weights = rng.standard_normal((outputs, inputs)).astype(np.float32)
    weights[rng.random(weights.shape) >= density] = 0
    return weights


def multiply(
    kind: str,
    weights: NDArray[Any],
    x: NDArray[Any],
    bias: NDArray[Any] | None = None,
    residual: NDArray[Any] | None = None,
    epilogue: Epilogue | None = None,
    block: int = 128,
) -> NDArray[Any]:
    """One product; y starts as NaN and is followed by a guard that must stay."""
    done = epilogue or Epilogue()
    rows, outputs = x.shape[0], weights.shape[0]
    room = np.full(rows * outputs + 64, np.nan, np.float32)
    room[rows * outputs :] = 7
    y = room[: rows * outputs].reshape(rows, outputs)
    if kind.startswith("blocked"):
        matrix = spmm.pack_blocked(weights, int(kind.split()[1]), block)
        scratch = np.full(matrix.scratch_floats(rows), np.nan, np.float32)
        spmm.multiply_blocked(matrix, x, y, rows, bias, residual, done, scratch)
    else:
        spmm.multiply_small(SMALL[kind](weights), x, y, bias, residual, done)
    assert (room[rows * outputs :] == 7).all()
    return y


def check(kind: str, rows: int, inputs: int, outputs: int, density: float, block: int) -> None:
    weights = make(outputs, inputs, density)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, inputs)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    residual = rng.standard_normal((rows, outputs)).astype(np.float32)
    actual = multiply(kind, weights, x, bias, residual, Epilogue.of(Activation("relu")), block)
    expected = reference.multiply(weights, x, bias, residual, ("relu", 0.0, np.inf))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * max(1, inputs**0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_every_tail_equals_the_oracle(kind: str) -> None:
    for size in TAILS:
        check(kind, size, 33, 17, 0.3, 128)
        check(kind, 17, size, 33, 0.3, 16)
        check(kind, 5, 65, size, 0.3, 64)
    for rows in TAILS:
        check(kind, rows, 300, 130, 0.1, 128)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
def test_every_density_equals_the_oracle(kind: str, density: float) -> None:
    check(kind, 9, 300, 270, density, 256)
    check(kind, 70, 150, 140, density, 128)


@pytest.mark.parametrize("rows", [512, 600])
def test_many_panels_equal_the_oracle(rows: int) -> None:
    check("blocked 1", rows, 50, 40, 0.2, 128)
    check("blocked 4", rows, 50, 40, 0.2, 128)


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(0, 140),
    inputs=st.integers(0, 300),
    outputs=st.integers(0, 150),
    density=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
    block=st.integers(16, 256),
)
def test_any_product_equals_the_oracle(
    rows: int, inputs: int, outputs: int, density: float, kind: str, block: int
) -> None:
    check(kind, rows, inputs, outputs, density, block)


ACTIVATIONS = [
    *(Activation(name) for name in ("linear", "relu", "relu6", "leaky_relu", "tanh", "sigmoid")),
    *(Activation(name) for name in ("silu", "hard_sigmoid", "hard_silu", "elu", "selu")),
    *(Activation(name) for name in ("softplus", "exponential", "gelu")),
    Activation("gelu", {"approximate": True}),
    Activation("relu", {"negative_slope": 0.3, "max_value": 2.0}),
    Activation("elu", {"alpha": 0.5}),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: f"{a.kernel}-{a.slope}")
def test_activations_are_right_to_a_few_ulp(activation: Activation) -> None:
    x = np.concatenate(
        [np.linspace(-12, 12, 40001), np.geomspace(1e-12, 60, 999), -np.geomspace(1e-12, 60, 999)]
    ).astype(np.float32)
    y = x.reshape(1, -1).copy()
    spmm.finish_rows(y, None, None, Epilogue.of(activation))
    ceiling = activation.ceiling
    expected = reference.activate(x, activation.kernel, activation.slope, ceiling)
    # Relative for the smooth, and to the size of x where the formula itself cancels.
    bound = 3e-6 * np.abs(expected) + 2e-7 * np.minimum(np.abs(x), 1)
    if activation.kernel == "gelu":  # 1 + erf cancels, as it does in TensorFlow
        bound += 1e-6 * np.minimum(np.abs(x), 1)
    assert (np.abs(y[0] - expected) <= bound + 1e-37).all()


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "softplus", "exponential", "elu"])
def test_activations_of_infinities_and_nan(name: str) -> None:
    x = np.array([[-np.inf, np.inf, np.nan, -200.0, 200.0]], np.float32)
    y = x.copy()
    spmm.finish_rows(y, None, None, Epilogue.of(Activation(name)))
    limits = {
        "tanh": (-1, 1),
        "sigmoid": (0, 1),
        "gelu": (0, np.inf),
        "softplus": (0, np.inf),
        "exponential": (0, np.inf),
        "elu": (-1, np.inf),
    }[name]
    assert np.isnan(y[0, 2])
    assert y[0, 3] == limits[0]
    assert y[0, 1] == limits[1]


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    weights = make(300, 200, 0.2)
    x = np.random.default_rng(0).standard_normal((150, 200)).astype(np.float32)
    before = runtime.num_threads()
    for kind in KINDS:
        found = set()
        for threads in (1, 2, 5):
            runtime.set_num_threads(threads)
            found.add(multiply(kind, weights, x).tobytes())
        runtime.set_num_threads(before)
        assert len(found) == 1


def test_weights_may_have_any_strides() -> None:
    weights = make(70, 90, 0.3)
    x = np.random.default_rng(0).standard_normal((20, 90)).astype(np.float32)
    for kind in KINDS:
        turned = np.asfortranarray(weights)
        assert (multiply(kind, turned, x) == multiply(kind, weights, x)).all()


@pytest.mark.parametrize("rows", [0, 1, 16, 17, 33, 64, 65, 130, 520])
@pytest.mark.parametrize("height", [1, 4])
def test_products_hand_over_panels(rows: int, height: int) -> None:
    first, second = make(75, 90, 0.3), make(33, 75, 0.3)
    x = np.random.default_rng(1).standard_normal((rows, 90)).astype(np.float32)
    bias = np.random.default_rng(2).standard_normal(75).astype(np.float32)
    relu, linear = Epilogue.of(Activation("relu")), Epilogue()
    one, two = spmm.pack_blocked(first, height), spmm.pack_blocked(second, height)
    scratch = np.empty(max(one.scratch_floats(rows), two.scratch_floats(rows)), np.float32)
    hidden = np.full(spmm.panel_floats(rows, 75) + 32, np.nan, np.float32)
    start = -hidden.ctypes.data % 64 // 4
    panels = hidden[start : start + spmm.panel_floats(rows, 75)]
    y, expected = np.empty((2, rows, 33), np.float32)
    spmm.multiply_blocked(one, x, panels, rows, bias, None, relu, scratch)
    spmm.multiply_blocked(two, panels, y, rows, None, None, linear, np.empty(0, np.float32))
    between = multiply(f"blocked {height}", first, x, bias, None, relu)
    spmm.multiply_blocked(two, between, expected, rows, None, None, linear, scratch)
    assert (y == expected).all()
    with pytest.raises(ValueError, match="extent"):
        spmm.multiply_blocked(one, x, panels[1:], rows, bias, None, relu, scratch)
    with pytest.raises(ValueError, match="no residual"):
        spmm.multiply_blocked(one, x, panels, rows, bias, panels, relu, scratch)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_entries_are_the_non_zeros(kind: str) -> None:
    weights = make(70, 90, 0.3)
    if kind.startswith("blocked"):
        height = int(kind.split()[1])
        blocks = np.pad(weights, ((0, -70 % height), (0, 0))).reshape(-1, height, 90)
        expected = int(np.count_nonzero(blocks.any(axis=1)))
        assert spmm.pack_blocked(weights, height).entries() == expected
        assert spmm.count_blocks(weights, height) == expected
    else:
        assert SMALL[kind](weights).entries() == np.count_nonzero(weights)


def test_the_widest_word_is_found_in_both_orders() -> None:
    weights = make(37, 90, 0.3)
    words = np.pad(weights != 0, ((0, 0), (0, -90 % 16))).reshape(37, -1, 16)
    expected = int(words.sum(axis=2).max())
    assert spmm.widest_word(weights) == spmm.widest_word(np.asfortranarray(weights)) == expected


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (4, 8)])
def test_n_to_m_patterns_need_no_more_room_than_their_non_zeros(kept: int, group: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((40, 64)).astype(np.float32)
    order = rng.random((40, 64 // group, group)).argsort(axis=2).reshape(40, 64)
    weights[order >= kept] = 0
    packed, free = spmm.pack_bitmask(weights, even=True), spmm.pack_bitmask(weights)
    assert packed.num_bytes() == free.num_bytes()
    x = rng.standard_normal((3, 64)).astype(np.float32)
    expected = reference.multiply(weights, x, None, None, ("linear", 0.0, np.inf))
    np.testing.assert_allclose(multiply("n:m", weights, x), expected, rtol=0, atol=1e-5)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="height must be"):
        spmm.pack_blocked(np.eye(4, dtype=np.float32), 3)
    with pytest.raises(InvalidArgumentError, match="block must be"):
        spmm.pack_blocked(np.eye(4, dtype=np.float32), 1, 8)
    with pytest.raises(InvalidArgumentError, match="float32 weights"):
        spmm.pack_bitmask(np.eye(4))
    with pytest.raises(InvalidArgumentError, match="16-bit columns"):
        spmm.pack_short_csr(np.zeros((1, 65537), np.float32))
    matrix = spmm.pack_bitmask(np.eye(4, dtype=np.float32))
    good, bad = np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match="extent 4"):
        spmm.multiply_small(matrix, bad, good, None, None, Epilogue())
    with pytest.raises(ValueError, match="scratch"):
        spmm.multiply_blocked(
            spmm.pack_blocked(np.eye(4, dtype=np.float32)), good, good.copy(), 2, None, None,
            Epilogue(), np.empty(0, np.float32),
        )  # fmt: skip


@pytest.mark.parametrize("width", TAILS[1:] + [300])
def test_softmax_and_normalisation_equal_the_oracle(width: int) -> None:
    rng = np.random.default_rng(width)
    x = (rng.standard_normal((5, width)) * 3).astype(np.float32)
    wide = x.astype(np.float64)
    y = np.empty_like(x)
    neural.softmax_rows(x, y)
    e = np.exp(wide - wide.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=2e-6, atol=1e-12)
    scale, offset = rng.standard_normal((2, width)).astype(np.float32)
    neural.normalize_rows(x, y, scale, offset, 1e-3)
    centred = wide - wide.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-3) * scale + offset
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    neural.normalize_rows(x, y, scale, None, 1e-3, rms=True)
    expected = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-3) * scale
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
