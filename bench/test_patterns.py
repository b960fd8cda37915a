"""n:m and block masks of matrices in both memory orders, into new memory."""

import numpy as np
import pytest

from secateur._kernels.native import patterns
from secateur.patterns import NM, Block, parse_pattern
from secateur.selection import Target, block_ranked, fill_masks, find_cut

SPARSITY = 0.9


def in_order(memory, order):
    """The (out, in) matrix that lies in this memory: Keras kernels are (in, out), so order F."""
    return memory if order == "C" else memory.T


def nm_rival(weights, pattern):
    groups = np.abs(weights).reshape(-1, pattern.m)
    best = np.argpartition(groups, pattern.m - pattern.n, axis=1)[:, pattern.m - pattern.n :]
    mask = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(mask, best, True, axis=1)
    return mask.reshape(weights.shape)


def check_nm(mask, matrix, pattern):
    magnitudes = np.abs(matrix).reshape(-1, pattern.m)
    kept = mask.reshape(-1, pattern.m)
    assert (np.count_nonzero(kept, axis=1) == pattern.n).all()
    smallest_kept = np.min(magnitudes, axis=1, where=kept, initial=np.inf)
    largest_removed = np.max(magnitudes, axis=1, where=~kept, initial=0)
    assert (smallest_kept >= largest_removed).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("text", ["2:4", "1:4", "4:8"])
def test_nm_mask(yardstick, weights, text, order):
    pattern = parse_pattern(text)
    assert isinstance(pattern, NM)
    matrix = in_order(weights, order)
    mask = yardstick.measure(
        f"{text} mask, {order} order",
        lambda: patterns.nm_mask(matrix, pattern.n, pattern.m),
        bound=4,
    )
    check_nm(mask, matrix, pattern)
    if order == "C":
        yardstick.rival(
            "NumPy argpartition",
            lambda: nm_rival(weights, pattern),
            lambda found: check_nm(found, weights, pattern),
        )


def block_sums(matrix, pattern):
    """Squared norm of every block in float64."""
    squares = np.square(matrix, dtype=np.float64)
    rows, cols = pattern.rows, pattern.cols
    banded = squares.reshape(matrix.shape[0] // rows, rows, matrix.shape[1] // cols, cols)
    return banded.sum(axis=(1, 3))


def check_blocks(mask, matrix, pattern):
    kept = mask[:: pattern.rows, :: pattern.cols]
    np.testing.assert_array_equal(
        mask, np.repeat(np.repeat(kept, pattern.rows, axis=0), pattern.cols, axis=1)
    )
    assert kept.size - np.count_nonzero(kept) == round(SPARSITY * kept.size)
    sums = block_sums(matrix, pattern)
    # Scores are float32, so blocks may trade places within its rounding.
    assert sums[kept].min() >= sums[~kept].max() * (1 - 1e-5)


def block_rival(weights, pattern):
    rows, cols = pattern.rows, pattern.cols
    squares = np.square(weights).reshape(weights.shape[0] // rows, rows, -1, cols)
    sums = squares.sum(axis=(1, 3))
    k = round(SPARSITY * sums.size)
    kept = sums >= np.partition(sums.ravel(), k)[k]
    return np.repeat(np.repeat(kept, rows, axis=0), cols, axis=1)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("text", ["block:4x1", "block:4x4", "block:16x1"])
def test_block_mask(yardstick, weights, text, order):
    pattern = parse_pattern(text)
    assert isinstance(pattern, Block)
    matrix = in_order(weights, order)

    def mask_of():
        memory = np.empty(weights.shape, np.bool_)
        ranked = block_ranked({"w": matrix}, pattern, "l2")
        cut = find_cut(ranked, ["w"], Target(sparsity=SPARSITY))
        views = {"w": lambda array: in_order(array, order)}
        fill_masks(ranked, ["w"], cut, pattern, {"w": memory}, views)
        return in_order(memory, order)

    mask = yardstick.measure(f"{text} mask, {order} order", mask_of, bound=4)
    check_blocks(mask, matrix, pattern)
    if order == "C":
        yardstick.rival(
            "NumPy sums, partition, repeat",
            lambda: block_rival(weights, pattern),
            lambda found: check_blocks(found, weights, pattern),
        )
