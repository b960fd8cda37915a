import ml_dtypes
import numpy as np
import pytest

import secateur as sc
from secateur.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    NonFiniteError,
    TargetNotReachedWarning,
)

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


def weights(seed=0, shape=(8, 16), dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def zeros(arrays):
    return sum(int(np.count_nonzero(np.asarray(a) == 0)) for a in arrays)


class TestTargets:
    def test_exactly_k_across_arrays(self):
        arrays = [weights(0), weights(1, (3, 5, 7)), weights(2, (11,))]
        pruned = sc.prune_arrays(arrays, sparsity=0.9)
        size = sum(a.size for a in arrays)
        assert zeros(pruned.weights) == round(0.9 * size) == pruned.report.num_zeros
        assert [a.shape for a in pruned.weights] == [a.shape for a in arrays]

    def test_kept_weights_are_unchanged_and_salient(self):
        array = weights()
        pruned = sc.prune_arrays([array], sparsity=0.7)
        mask, out = pruned.masks[0], pruned.weights[0]
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(out, np.where(mask, array, 0))
        assert np.abs(array)[~mask].max() <= np.abs(array)[mask].min()

    def test_count(self):
        pruned = sc.prune_arrays({"a": weights(0), "b": weights(1)}, count=100)
        assert zeros(pruned.weights.values()) == 100

    def test_count_is_per_group(self):
        pruned = sc.prune_arrays([weights(0), weights(1)], count=30, scope="layer")
        assert [zeros([a]) for a in pruned.weights] == [30, 30]

    def test_threshold_is_strict(self):
        array = np.array([0.5, -0.5, 0.4999, 0.0, -3.0], np.float32)
        out = sc.prune_arrays([array], threshold=0.5).weights[0]
        np.testing.assert_array_equal(out, np.array([0.5, -0.5, 0, 0, -3], np.float32))

    @pytest.mark.parametrize(("threshold", "left"), [(0, 5), (np.inf, 0), (-1.0, 5)])
    def test_threshold_extremes(self, threshold, left):
        array = np.array([0.5, -0.5, 0.4999, 1e-30, -3.0], np.float32)
        assert np.count_nonzero(sc.prune_arrays([array], threshold=threshold).weights[0]) == left

    @pytest.mark.parametrize(("sparsity", "left"), [(0, 128), (1, 0), (0.999, 0), (0.99, 1)])
    def test_sparsity_extremes(self, sparsity, left):
        assert np.count_nonzero(sc.prune_arrays([weights()], sparsity=sparsity).weights[0]) == left

    def test_zeros_already_there_count(self):
        array = weights()
        array.flat[:64] = 0
        pruned = sc.prune_arrays([array], sparsity=0.5)
        np.testing.assert_array_equal(pruned.weights[0], array)
        assert pruned.report.sparsity == 0.5

    def test_more_zeros_than_asked_are_reported(self):
        array = np.zeros((4, 4), np.float32)
        report = sc.prune_arrays([array], sparsity=0.25).report
        assert report["0"].num_removed == 4
        assert report["0"].num_zeros == 16

    @pytest.mark.parametrize(
        "target",
        [{}, {"sparsity": 0.5, "count": 3}, {"sparsity": 1.5}, {"sparsity": -0.1}, {"count": -1}]
        + [{"count": 1.5}, {"threshold": float("nan")}, {"count": 10_000}],
    )
    def test_bad_targets(self, target):
        with pytest.raises(InvalidArgumentError, match="|".join(target) or "none of them"):
            sc.prune_arrays([weights()], **target)

    @pytest.mark.parametrize("target", [{"sparsity": "0.5"}, {"count": True}, {"threshold": [1]}])
    def test_targets_of_the_wrong_type(self, target):
        with pytest.raises(ArgumentTypeError, match="must be a number"):
            sc.prune_arrays([weights()], **target)


class TestScope:
    def test_layer(self):
        arrays = {"small": weights(0) * 1e-3, "large": weights(1)}
        pruned = sc.prune_arrays(arrays, sparsity=0.5, scope="layer")
        assert [row.reached_sparsity for row in pruned.report] == [0.5, 0.5]

    def test_global_ranks_together(self):
        arrays = {"small": weights(0) * 1e-3, "large": weights(1)}
        report = sc.prune_arrays(arrays, sparsity=0.5).report
        assert report["small"].reached_sparsity > 0.95

    def test_groups(self):
        arrays = {"a": weights(0), "b": weights(1) * 1e-3, "c": weights(2)}
        report = sc.prune_arrays(arrays, sparsity=0.5, scope={"a": "x", "b": "x"}).report
        assert report["c"].reached_sparsity == 0.5
        assert report["a"].num_zeros + report["b"].num_zeros == 128
        assert report["b"].num_zeros > report["a"].num_zeros

    def test_mapping_of_sparsities(self):
        arrays = {"a": weights(0), "b": weights(1), "c": weights(2)}
        pruned = sc.prune_arrays(arrays, sparsity={"a": 0.5, "b": 0.25})
        assert [zeros([a]) for a in pruned.weights.values()] == [64, 32, 0]
        assert pruned.masks["c"].all()
        assert pruned.weights["c"] is not arrays["c"]

    @pytest.mark.parametrize("scope", ["model", 3, {"nowhere": "x"}])
    def test_bad_scope(self, scope):
        with pytest.raises(InvalidArgumentError, match="scope"):
            sc.prune_arrays({"a": weights()}, sparsity=0.5, scope=scope)

    def test_unknown_name_in_mapping(self):
        with pytest.raises(InvalidArgumentError, match="nowhere"):
            sc.prune_arrays({"a": weights()}, sparsity={"nowhere": 0.5})


class TestTies:
    def test_earlier_goes_first(self):
        arrays = [np.ones((2, 3), np.float32), np.ones(4, np.float32)]
        first, second = sc.prune_arrays(arrays, count=8).masks
        assert not first.any()
        np.testing.assert_array_equal(second, [False, False, True, True])

    def test_sign_does_not_matter(self):
        mask = sc.prune_arrays([np.array([-1, 1, -1, 1], np.float32)], count=1).masks[0]
        np.testing.assert_array_equal(mask, [False, True, True, True])


class TestArrays:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block:2x2"])
    def test_dtype_is_kept(self, dtype, pattern):
        target = {} if pattern == "2:4" else {"sparsity": 0.5}
        pruned = sc.prune_arrays([weights(dtype=dtype)], pattern=pattern, **target)
        assert pruned.weights[0].dtype == dtype
        assert zeros(pruned.weights) == 64

    def test_mixed_dtypes_rank_together(self):
        arrays = [weights(i, dtype=dtype) for i, dtype in enumerate(DTYPES)]
        pruned = sc.prune_arrays(arrays, sparsity=0.75)
        assert zeros(pruned.weights) == 384
        magnitudes = np.concatenate([np.abs(a.astype(np.float64)).ravel() for a in arrays])
        masks = np.concatenate([m.ravel() for m in pruned.masks])
        assert magnitudes[~masks].max() <= magnitudes[masks].min()

    def test_input_is_left_alone(self):
        array = weights()
        before = array.copy()
        array.flags.writeable = False
        sc.prune_arrays([array], sparsity=0.5)
        np.testing.assert_array_equal(array, before)

    def test_inplace(self):
        arrays = {"a": weights(0), "b": weights(1)}
        expected = sc.prune_arrays(arrays, sparsity=0.5).weights
        kept = dict(arrays)
        pruned = sc.prune_arrays(arrays, sparsity=0.5, inplace=True)
        for name, array in arrays.items():
            assert array is kept[name] is pruned.weights[name]
            np.testing.assert_array_equal(array, expected[name])

    @pytest.mark.parametrize("mend", [np.asfortranarray, lambda a: a[::2], lambda a: a[:, ::-1]])
    def test_any_layout_when_not_inplace(self, mend):
        array = mend(weights())
        pruned = sc.prune_arrays([array], sparsity=0.5)
        expected = sc.prune_arrays([np.ascontiguousarray(array)], sparsity=0.5)
        np.testing.assert_array_equal(pruned.weights[0], expected.weights[0])
        with pytest.raises(InvalidArgumentError, match="not C-contiguous"):
            sc.prune_arrays([array], sparsity=0.5, inplace=True)

    def test_inplace_refuses_read_only_and_shared(self):
        array = weights()
        with pytest.raises(InvalidArgumentError, match="share their memory"):
            sc.prune_arrays([array, array], sparsity=0.5, inplace=True)
        array.flags.writeable = False
        with pytest.raises(InvalidArgumentError, match="read-only"):
            sc.prune_arrays([array], sparsity=0.5, inplace=True)

    @pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0, 2)])
    @pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block:2x2"])
    def test_empty(self, shape, pattern):
        target = {} if pattern == "2:4" else {"sparsity": 0.5}
        pruned = sc.prune_arrays([np.zeros(shape, np.float32)], pattern=pattern, **target)
        assert pruned.weights[0].shape == shape
        assert pruned.report.sparsity == 0

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
    def test_one_element(self, shape):
        array = np.full(shape, 2, np.float32)
        assert sc.prune_arrays([array], sparsity=1.0).weights[0] == 0
        assert sc.prune_arrays([array], sparsity=0.4).weights[0] == 2
        assert sc.prune_arrays([array], sparsity=1.0).weights[0].shape == shape

    def test_no_arrays(self):
        assert sc.prune_arrays([], sparsity=0.5).weights == []
        assert sc.prune_arrays({}, sparsity=0.5).masks == {}

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        "how",
        [{"sparsity": 0.5}, {"threshold": 0.1}, {"pattern": "2:4"}]
        + [{"sparsity": 0.5, "pattern": "block:2x2"}, {"sparsity": 0.5, "criterion": "random"}],
    )
    def test_non_finite_is_named_and_loses_nothing(self, bad, how):
        arrays = {"fine": weights(0), "rotten": weights(1)}
        arrays["rotten"][2, 3] = bad
        before = {name: array.copy() for name, array in arrays.items()}
        with pytest.raises(NonFiniteError, match="rotten"):
            sc.prune_arrays(arrays, inplace=True, **how)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, before[name])

    @pytest.mark.parametrize(
        "collection", [weights(), 3, "weights", [[1.0]], [np.zeros(3, np.int32)], {"a": None}]
    )
    def test_wrong_types(self, collection):
        with pytest.raises(ArgumentTypeError):
            sc.prune_arrays(collection, sparsity=0.5)

    def test_foreign_byte_order(self):
        with pytest.raises(InvalidArgumentError, match="byte order"):
            sc.prune_arrays([weights().astype(">f4")], sparsity=0.5)


class TestPatterns:
    def test_nm_keeps_n_of_each_m(self):
        mask = sc.prune_arrays([weights(shape=(6, 16))], pattern="2:4").masks[0]
        np.testing.assert_array_equal(mask.reshape(6, 4, 4).sum(-1), 2)

    def test_nm_of_a_convolution_runs_over_all_inputs(self):
        mask = sc.prune_arrays([weights(shape=(5, 2, 3, 4))], pattern="1:8").masks[0]
        np.testing.assert_array_equal(mask.reshape(5, 3, 8).sum(-1), 1)

    def test_nm_takes_its_own_sparsity_and_no_other(self):
        sc.prune_arrays([weights()], pattern="2:4", sparsity=0.5)
        for other in ({"sparsity": 0.6}, {"count": 3}, {"threshold": 0.1}):
            with pytest.raises(InvalidArgumentError, match="2:4"):
                sc.prune_arrays([weights()], pattern="2:4", **other)

    def test_short_last_group_is_said(self):
        with pytest.warns(TargetNotReachedWarning, match="shorter"):
            sc.prune_arrays([weights(shape=(4, 6))], pattern="2:4")

    @pytest.mark.parametrize("norm", ["l1", "l2"])
    def test_blocks_go_whole_and_weakest_first(self, norm):
        array = weights(shape=(8, 12))
        mask = sc.prune_arrays([array], pattern="block:4x3", sparsity=0.5, norm=norm).masks[0]
        blocks = mask.reshape(2, 4, 4, 3).transpose(0, 2, 1, 3).reshape(8, 12)
        assert set(blocks.sum(1)) == {0, 12}
        values = array.reshape(2, 4, 4, 3).transpose(0, 2, 1, 3).reshape(8, 12).astype(np.float64)
        score = np.abs(values).sum(1) if norm == "l1" else np.sqrt((values**2).sum(1))
        kept = blocks.all(1)
        assert kept.sum() == 4
        assert score[~kept].max() <= score[kept].min()

    def test_block_count_counts_blocks(self):
        report = sc.prune_arrays([weights()], pattern="block:4x4", count=3).report
        assert report.num_zeros == 48

    def test_edge_blocks_that_miss_the_target_are_said(self):
        array = np.ones((5, 4), np.float32)
        with pytest.warns(TargetNotReachedWarning, match="blocks go whole"):
            sc.prune_arrays([array], pattern="block:4x4", sparsity=0.5)


class TestCriteria:
    def test_random_is_seeded(self):
        arrays = [weights(0), weights(1)]
        one = sc.prune_arrays(arrays, sparsity=0.5, criterion="random").masks
        two = sc.prune_arrays(arrays, sparsity=0.5, criterion="random").masks
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
        assert 40 < one[0].sum() < 90

    def test_path_prunes_what_carries_nothing(self):
        first, second = weights(0, (6, 4)), weights(1, (3, 6))
        second[:, 2] = 0
        masks = sc.prune_arrays([first, second], criterion="path", sparsity=7 / 42).masks
        assert not masks[0][2].any()
        assert not masks[1][:, 2].any()

    @pytest.mark.parametrize("pattern", ["2:4", "block:2x2"])
    def test_path_with_patterns(self, pattern):
        target = {} if pattern == "2:4" else {"sparsity": 0.5}
        arrays = [weights(0, (8, 4)), weights(1, (4, 8))]
        pruned = sc.prune_arrays(arrays, criterion="path", pattern=pattern, **target)
        assert zeros(pruned.weights) == 32

    def test_unknown_criterion(self):
        with pytest.raises(InvalidArgumentError, match="magnitude"):
            sc.prune_arrays([weights()], sparsity=0.5, criterion="magic")


class TestSelect:
    def test_infinite_saliency_protects(self):
        saliency = np.array([np.inf, 0, 1, 2], np.float32)
        np.testing.assert_array_equal(
            sc.select([saliency], count=3)[0], [True, False, False, False]
        )

    def test_negative_saliencies_go_first(self):
        saliency = np.array([-1, -3, 2, -0.0, 0.0], np.float64)
        np.testing.assert_array_equal(
            sc.select({"s": saliency}, count=3)["s"], [False, False, True, False, True]
        )

    def test_nan_is_named(self):
        with pytest.raises(NonFiniteError, match="'1'"):
            sc.select([np.ones(3, np.float32), np.array([np.nan], np.float32)], sparsity=0.5)

    def test_nm_needs_no_target(self):
        mask = sc.select([np.array([[4.0, 3, 2, 1]], np.float32)], pattern="1:2")[0]
        np.testing.assert_array_equal(mask, [[True, False, True, False]])
        with pytest.raises(InvalidArgumentError, match="itself the target"):
            sc.select([mask.astype(np.float32)], pattern="1:2", sparsity=0.5)


def test_report_reads_well():
    pruned = sc.prune_arrays({"dense/kernel": weights()}, sparsity=0.5)
    text = str(pruned.report)
    assert "dense/kernel" in text
    assert "64 of 128 weights are zero (50.00%)" in text
    data = pruned.report.to_dict()
    assert data["tensors"][0]["reached_sparsity"] == 0.5
    with pytest.raises(KeyError, match="dense/kernel"):
        pruned.report["nowhere"]
