"""Finding the cut, zeroing, masks: where single weights go by magnitude."""

import numpy as np
import pytest

import secateur as sc
from secateur._kernels.native import select


@pytest.fixture(scope="module")
def work(weights):
    """Memory in use that a step may overwrite."""
    return weights.copy()


@pytest.fixture(scope="module")
def many(weights):
    """200 windows on the weights, from a few hundred elements to some tens of thousands of them."""
    shares = np.random.default_rng(1).lognormal(sigma=1.5, size=200)
    ends = np.round(np.cumsum(shares) / shares.sum() * weights.size).astype(int)
    return np.split(weights.ravel(), ends[:-1])


def is_threshold(expected):
    def check(found):
        assert float(found) == float(expected)

    return check


def test_exact_global_threshold(yardstick, weights, num_removed, threshold):
    cut = yardstick.measure(
        "exact global threshold", lambda: select.find_cut([weights], num_removed), bound=2.5
    )
    assert select.cut_value(cut, np.float32) == threshold
    assert select.apply_cut([weights], cut)[0].num_removed == num_removed
    num_kept = weights.size - num_removed

    def numpy_partition():
        return np.partition(np.abs(weights).ravel(), num_removed)[num_removed]

    def torch_kthvalue():
        import torch

        flat = torch.from_numpy(weights.view()).abs().flatten()
        return torch.kthvalue(flat, num_removed + 1).values

    def torch_topk():
        import torch

        flat = torch.from_numpy(weights.view()).abs().flatten()
        return torch.topk(flat, num_kept).values[-1]

    def tensorflow_top_k():
        import tensorflow as tf

        flat = tf.reshape(tf.abs(tf.constant(weights)), [-1])
        return tf.math.top_k(flat, k=num_kept).values[-1]

    check = is_threshold(threshold)
    yardstick.rival("NumPy partition", numpy_partition, check)
    yardstick.rival("torch.kthvalue", torch_kthvalue, check, module="torch")
    yardstick.rival("torch.topk", torch_topk, check, module="torch")
    yardstick.rival("tf.math.top_k", tensorflow_top_k, check, module="tensorflow")


def test_exact_global_threshold_of_many_arrays(yardstick, many, num_removed, threshold):
    cut = yardstick.measure(
        "the same over 200 arrays", lambda: select.find_cut(many, num_removed), bound=3
    )
    assert select.cut_value(cut, np.float32) == threshold
    assert sum(each.num_removed for each in select.apply_cut(many, cut)) == num_removed

    def numpy_partition():
        flat = np.concatenate([np.abs(array) for array in many])
        return np.partition(flat, num_removed)[num_removed]

    yardstick.rival("NumPy concatenate, partition", numpy_partition, is_threshold(threshold))


def test_threshold_and_zeroing_in_place(yardstick, weights, work, num_removed, threshold, pruned):
    def prune():
        cut = select.find_cut([work], num_removed)
        select.apply_cut([work], cut, out=[work])

    def restore():
        work[...] = weights

    yardstick.measure("threshold + zeroing in place", prune, prepare=restore, bound=5)
    assert work.size - np.count_nonzero(work) == num_removed
    np.testing.assert_array_equal(work, pruned)

    def numpy_zeroing():
        restore()
        magnitudes = np.abs(work)
        work[magnitudes < np.partition(magnitudes.ravel(), num_removed)[num_removed]] = 0
        return work

    def torch_global_unstructured():
        import torch
        from torch.nn.utils import prune as torch_prune

        layer = torch.nn.Linear(*work.shape, bias=False)
        layer.weight = torch.nn.Parameter(torch.from_numpy(weights.copy()))
        torch_prune.global_unstructured(
            [(layer, "weight")], torch_prune.L1Unstructured, amount=num_removed
        )
        return layer.weight.detach().numpy()

    def check(result):
        # Which of those that tie with the threshold go is the other tools' own choice.
        differ = np.flatnonzero(result.ravel() != pruned.ravel())
        assert (np.abs(weights.ravel()[differ]) == threshold).all()

    yardstick.rival("NumPy partition, mask", numpy_zeroing, check)
    yardstick.rival("torch global_unstructured", torch_global_unstructured, check, module="torch")


@pytest.mark.parametrize("memory", ["new", "used"])
def test_mask_at_a_threshold(yardstick, weights, threshold, memory):
    cut = select.cut_at(float(threshold), np.float32)
    used = np.ones(weights.shape, np.bool_)

    def mask_of():
        mask = np.empty(weights.shape, np.bool_) if memory == "new" else used
        select.apply_cut([weights], cut, masks=[mask])
        return mask

    mask = yardstick.measure(f"bool mask, {memory} memory", mask_of, bound=3)
    expected = np.abs(weights) >= threshold
    np.testing.assert_array_equal(mask, expected)

    def check(result):
        np.testing.assert_array_equal(result, expected)

    yardstick.rival("NumPy abs(w) >= t", lambda: np.abs(weights) >= threshold, check)


def test_prune_arrays(yardstick, weights, num_removed, pruned):
    result = yardstick.measure(
        "sc.prune_arrays (copy, mask, report)", lambda: sc.prune_arrays([weights], sparsity=0.9)
    )
    assert result.report.num_zeros == num_removed
    np.testing.assert_array_equal(result.weights[0], pruned)


def test_prune_arrays_in_place(yardstick, weights, work, num_removed, pruned):
    def restore():
        work[...] = weights

    result = yardstick.measure(
        "sc.prune_arrays(inplace=True)",
        lambda: sc.prune_arrays([work], sparsity=0.9, inplace=True),
        prepare=restore,
    )
    assert result.report.num_zeros == num_removed
    np.testing.assert_array_equal(work, pruned)
