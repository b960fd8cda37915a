"""Matrix views of weights of any rank, held against a definition by loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import InvalidArgumentError
from secateur.keras.layouts import check_layout, expand_layout, view_as_matrix

axes = st.lists(st.tuples(st.sampled_from("io"), st.integers(1, 4)), min_size=1, max_size=5)


@given(axes)
def test_a_view_holds_every_weight_once_and_copies_nothing(axes: list[tuple[str, int]]) -> None:
    layout, shape = "".join(letter for letter, _ in axes), tuple(size for _, size in axes)
    array = np.arange(np.prod(shape)).reshape(shape)
    matrix = view_as_matrix(layout, shape).to_matrix(array)
    assert matrix.ndim == 2
    assert np.shares_memory(matrix, array)
    assert sorted(matrix.ravel()) == list(range(array.size))


@given(axes)
def test_a_row_feeds_one_output_unless_interleaved(axes: list[tuple[str, int]]) -> None:
    layout, shape = "".join(letter for letter, _ in axes), tuple(size for _, size in axes)
    view = view_as_matrix(layout, shape)
    matrix = view.to_matrix(_output_of_each_weight(layout, shape))
    assert view.num_outputs == np.prod([size for letter, size in axes if letter == "o"])
    if not view.interleaved:
        expected = np.arange(matrix.shape[0]) % view.num_outputs
        np.testing.assert_array_equal(matrix, np.broadcast_to(expected[:, None], matrix.shape))


def _output_of_each_weight(layout: str, shape: tuple[int, ...]) -> np.ndarray:
    outputs = np.zeros(shape, int)
    for index in itertools.product(*map(range, shape)):
        number = 0
        for letter, position, size in zip(layout, index, shape, strict=True):
            number = number * size + position if letter == "o" else number
        outputs[index] = number
    return outputs


@pytest.mark.parametrize(
    ("layout", "rank", "letters"),
    [("io", 2, "io"), ("i*o", 1, "o"), ("i*o", 4, "iiio"), ("i*oi", 5, "iiioi"), ("o*", 1, "o")],
)
def test_a_star_fills_up_to_the_rank(layout: str, rank: int, letters: str) -> None:
    assert expand_layout(layout, rank) == letters


@pytest.mark.parametrize(("layout", "rank"), [("io", 3), ("i*oo", 1), ("i*oi", 1)])
def test_a_layout_that_does_not_fit_is_refused(layout: str, rank: int) -> None:
    with pytest.raises(InvalidArgumentError, match="does not fit"):
        expand_layout(layout, rank)


@pytest.mark.parametrize("layout", ["", "*o", "ab", "i**o", "i*o*", "i o"])
def test_a_malformed_layout_is_refused(layout: str) -> None:
    with pytest.raises(InvalidArgumentError, match="one letter per axis"):
        check_layout(layout)
