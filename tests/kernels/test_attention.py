"""Fused attention against its formula in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur._kernels.native import neural
from secateur._kernels.reference import neural as reference

MASKED = -2.0e38

pytestmark = pytest.mark.usefixtures("every_setting")


def check(
    batch: int, queries: int, keys: int, heads: int, width: int, value_width: int, mask: Any = None
) -> None:
    rng = np.random.default_rng((batch, queries, keys, heads, width))

    def floats(*shape: int) -> NDArray[Any]:
        return rng.standard_normal(shape).astype(np.float32)

    query, key = floats(batch, queries, heads, width), floats(batch, keys, heads, width)
    # One operand as a view with other strides, as graphs make them.
    value = floats(batch, heads, keys, value_width).transpose(0, 2, 1, 3)
    room = np.full(batch * queries * heads * value_width + 32, 7, np.float32)
    out = room[:-32].reshape(batch, queries, heads, value_width)
    weights = np.empty((batch, heads, queries, keys), np.float32)
    if mask is not None:
        mask = np.broadcast_to(mask, weights.shape)
    expected, shares = reference.attend(query, key, value, mask, MASKED)
    neural.attend(query, key, value, out, mask, MASKED, weights)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-5)
    np.testing.assert_allclose(weights, shares, rtol=2e-5, atol=1e-7)
    again = np.empty_like(out)
    neural.attend(query, key, value, again, mask, MASKED)
    assert (again == out).all()
    assert (room[-32:] == 7).all()


@pytest.mark.parametrize("size", [1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 65])
def test_every_tail_equals_the_oracle(size: int) -> None:
    check(2, size, 9, 2, 8, 5)
    check(1, 5, size, 3, 16, 33)
    check(1, 7, 70, 2, size, size)


@pytest.mark.parametrize("shape", [(1, 1, 1, 40), (3, 1, 1, 40), (3, 1, 70, 40), (3, 2, 70, 40)])
def test_masks_of_any_extent(shape: tuple[int, ...]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    check(3, 70, 40, 2, 8, 8, mask)
    check(3, 70, 40, 2, 8, 8, np.asfortranarray(mask))


def test_a_query_that_may_look_at_nothing_takes_the_mean_as_in_keras() -> None:
    check(2, 3, 5, 1, 4, 4, np.zeros((1, 1, 1, 1), bool))


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.tuples(
        st.integers(0, 3), st.integers(0, 70), st.integers(1, 70), st.integers(1, 3),
        st.integers(0, 40), st.integers(0, 40),
    ),
    masked=st.booleans(),
)  # fmt: skip
def test_any_attention_equals_the_oracle(sizes: tuple[int, ...], masked: bool) -> None:
    batch, queries, keys, heads, _, _ = sizes
    mask = np.random.default_rng(1).random((batch, heads, queries, keys)) < 0.7
    check(*sizes, mask=mask if masked else None)


def test_bad_shapes_are_refused() -> None:
    one = np.zeros((1, 2, 1, 4), np.float32)
    with pytest.raises(ValueError, match="at least one key"):
        neural.attend(one, one[:, :0], one[:, :0], one.copy(), None, MASKED)
    with pytest.raises(ValueError, match="extent"):
        neural.attend(one, one, one, np.zeros((1, 3, 1, 4), np.float32), None, MASKED)
    with pytest.raises(ValueError, match="last axis"):
        neural.attend(one[..., ::2], one[..., ::2], one, one.copy(), None, MASKED)
    with pytest.raises(ValueError, match="mask"):
        neural.attend(one, one, one, one.copy(), np.zeros((1, 1, 2, 3), bool), MASKED)
