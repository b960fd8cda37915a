"""Each output of each matrix ranked alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.criteria import Magnitude
from secateur.errors import InvalidArgumentError, NonFiniteError
from secateur.plan import PrunePlan
from secateur.pruning import Request, Tensors, apply_plan, array_targets, make_plan, rank
from secateur.pruning import prune_arrays as prune
from secateur.selection import row_masks, select


@given(st.integers(0, 5), st.integers(1, 9), st.data())
@settings(deadline=None)
def test_rows_against_a_stable_sort(rows, columns, data):
    removed = data.draw(st.integers(0, columns))
    values = st.lists(st.integers(-2, 2), min_size=columns, max_size=columns)
    scores = np.array([data.draw(values) for _ in range(rows)], float).reshape(rows, columns)
    expected = np.ones(scores.shape, bool)
    for row, score in enumerate(scores):
        expected[row, np.argsort(score, kind="stable")[:removed]] = False
    np.testing.assert_array_equal(row_masks(scores, removed), expected)


def weights():
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=(6, 10)).astype(np.float32), "b": rng.normal(size=(3, 4, 5))}


def test_pruning_and_selecting_agree():
    arrays = weights()
    masks = prune(arrays, count=3, scope="row").masks
    chosen = select({k: np.abs(v) for k, v in arrays.items()}, count=3, scope="row")
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, chosen[name])
        assert ((~mask.reshape(len(mask), -1)).sum(axis=1) == 3).all()


def test_a_threshold_is_the_same_for_all_rows():
    arrays = weights()
    by_row, by_layer = (prune(arrays, threshold=0.5, scope=s).masks for s in ("row", "layer"))
    for name in arrays:
        np.testing.assert_array_equal(by_row[name], by_layer[name])


@pytest.mark.parametrize("target", [{"sparsity": 0.25}, {"count": 2}])
def test_a_plan_survives_json(target):
    tensors = Tensors({"a": weights()["a"]})
    request = Request(Magnitude())
    given = {"sparsity": None, "threshold": None, "count": None, **target}
    groups = array_targets(["a"], request.pattern, "row", **given)
    plan = make_plan(tensors, rank(tensors, request), request, groups)
    assert "of each row" in str(plan)
    again = PrunePlan.from_json(plan.to_json())
    assert again.decisions == plan.decisions
    out = [{"a": np.empty((6, 10), np.float32)} for _ in range(2)]
    masks = [apply_plan(p, tensors, o)[0]["a"] for p, o in zip((plan, again), out, strict=True)]
    np.testing.assert_array_equal(*masks)
    assert ((~masks[0]).sum(axis=1) == 2).all()


def test_rounding_in_each_row_is_no_shortfall():
    report = prune({"a": np.ones((6, 7), np.float32)}, sparsity=0.5, scope="row").report
    assert report["a"].num_removed == 6 * round(0.5 * 7)


def test_bad_input():
    with pytest.raises(InvalidArgumentError, match="asks for more"):
        prune(weights(), count=11, scope="row")
    bad = weights()
    bad["b"][0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="'b'"):
        prune(bad, count=1, scope="row")
