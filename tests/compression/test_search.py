"""Searching for thresholds: points, folds, strategies, and the whole on a real task."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.model_selection import GroupKFold, ShuffleSplit
from tests.compression.task import data, trained

import secateur as sc
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.searching import Point, SearchResult, make_folds, search
from secateur.searching.strategies import bisection, expand, grid, halving

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Table:
    """Stands in for a runner: scores by a function of the options and the fold."""

    def __init__(self, score):
        self.score = score
        self.jobs = []

    def run(self, jobs, done=None):
        self.jobs += jobs
        return [(self.score(options, fold), None) for options, fold in jobs]


def test_mean_interval_and_error_of_a_point():
    point = Point({"a": 1}, (0.8, 0.9, 0.7, 0.8))
    low, high = point.interval(0.9)
    expected = stats.t.interval(0.9, 3, loc=0.8, scale=stats.sem(point.scores))
    assert (low, high) == pytest.approx(expected)
    assert Point({}, (0.5,)).interval() == (-math.inf, math.inf)
    assert Point({}, (0.5,)).standard_error == 0


def test_one_standard_error_takes_the_cheapest_that_is_as_good():
    points = (
        Point({"s": 0.5}, (0.90, 0.92), (100.0, 100.0)),
        Point({"s": 0.7}, (0.89, 0.92), (60.0, 60.0)),
        Point({"s": 0.9}, (0.70, 0.72), (20.0, 20.0)),
        Point({"s": 0.6}, (0.80, 0.82), (80.0, 80.0)),
    )
    result = SearchResult("accuracy", "max", "bytes", points)
    assert result.best is points[0]
    assert result.chosen is points[1]
    assert result.front() == (points[2], points[1], points[0])
    losses = SearchResult("loss", "min", "", tuple(Point({"s": s}, (s,)) for s in (0.2, 0.1)))
    assert losses.best.options == {"s": 0.1}


def test_folds_are_stratified_grouped_or_as_given():
    x, y = np.zeros((40, 2)), np.array([0] * 30 + [1] * 10)
    for fold in make_folds((x, y), 5):
        assert (y[fold.held_out] == 1).sum() == 2
    groups = np.arange(40) // 4
    for fold in make_folds((x, y), 4, groups):
        assert not set(groups[fold.train]) & set(groups[fold.held_out])
    assert len(make_folds((x, y), 0.25)) == 1
    assert len(make_folds((x, y.astype(float)), ShuffleSplit(3, random_state=0))) == 3
    assert len(make_folds((x, y), GroupKFold(2), groups)) == 2
    (own,) = make_folds((x, y), [([0, 1], [2])])
    assert own.held_out.tolist() == [2]
    senseless = {1: "At least 2 folds", 1.5: "between 0 and 1", (((0,), ()),): "holds no samples"}
    for bad, message in senseless.items():
        with pytest.raises(InvalidArgumentError, match=message):
            make_folds((x, y), bad)
    with pytest.raises(ArgumentTypeError, match="splitter must be"):
        make_folds((x, y), None)


def test_spaces_are_expanded():
    assert expand({"a": [1, 2], "b": 3}) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert expand([{"sparsity": {"dense": 0.5}}]) == [{"sparsity": {"dense": 0.5}}]
    with pytest.raises(ArgumentTypeError, match="space"):
        expand(0.5)
    with pytest.raises(InvalidArgumentError, match="space"):
        expand([])


def test_halving_spends_folds_on_the_better_half():
    table = Table(lambda options, fold: options["s"] + 0.001 * fold)
    points = halving(table, [{"s": s} for s in (0.1, 0.4, 0.3, 0.2)], 4, None, 1.0)
    folds = {point.options["s"]: len(point.scores) for point in points}
    assert folds == {0.1: 1, 0.2: 1, 0.3: 2, 0.4: 4}
    whole = grid(table, [{"s": 0.1}], 4, None)
    assert len(whole[0].scores) == 4


@pytest.mark.parametrize("bearable", [0.31, 0.5, 0.87])
def test_bisection_finds_the_largest_that_holds(bearable):
    table = Table(lambda options, fold: 1.0 if options["s"] <= bearable else 0.0)
    points = bisection(table, "s", 0.3, 0.99, {}, 2, None, lambda m: m > 0.5, 0.01)
    held = [p.options["s"] for p in points if p.mean > 0.5]
    assert bearable - 0.01 <= max(held) <= bearable
    with pytest.raises(InvalidArgumentError, match="low"):
        bisection(table, "s", 0.9, 0.3, {}, 2, None, bool, 0.01)


@pytest.fixture(scope="module")
def model():
    return trained()


def test_a_grid_over_folds_with_costs_and_a_cache(model, tmp_path):
    held = data()[1]
    options = {"metric": "accuracy", "splitter": 2, "cost": sc.Parameters(ratio=1)}
    calls = []
    space = {"sparsity": [0.3, 0.95]}
    first = search(model, held, space, cache=tmp_path, progress=lambda: calls.append(1), **options)
    assert len(calls) == 4
    again = search(model, held, space, cache=tmp_path, progress=lambda: calls.append(1), **options)
    assert len(calls) == 4  # nothing was run again
    assert again == first
    mild, harsh = first.points
    assert mild.mean > harsh.mean
    assert mild.cost > harsh.cost
    assert first.best is mild
    pruned = sc.prune(model, sparsity=0.3).model
    whole = pruned.evaluate(*held, verbose=0, return_dict=True)["accuracy"]
    assert mild.mean == pytest.approx(whole, abs=1e-6)


def test_cutting_by_threshold_and_fine_tuning(model):
    train, _ = data()
    found = search(
        model, train, {"threshold": [0.05, 0.4]}, action="cut", metric="accuracy", splitter=0.3,
        tuning=sc.FineTuning(epochs=1), cost=sc.Macs(ratio=1),
    )  # fmt: skip
    assert found.points[0].cost >= found.points[1].cost


def test_processes_give_the_same_as_this_one(model):
    held = data()[1]
    options = {"metric": "accuracy", "splitter": 2}
    one = search(model, held, {"sparsity": [0.5, 0.9]}, **options)
    two = search(model, held, {"sparsity": [0.5, 0.9]}, num_workers=2, **options)
    assert [p.options for p in one.points] == [p.options for p in two.points]
    for first, second in zip(one.points, two.points, strict=True):
        assert first.scores == pytest.approx(second.scores)


def test_bisection_on_the_task(model):
    found = search(
        model, data()[1], {"sparsity": (0.2, 0.98)}, strategy="bisection", metric="accuracy",
        splitter=0.5, max_drop=0.05, tolerance=0.1,
    )  # fmt: skip
    assert len(found.points) > 3


def test_bad_input_is_told(model):
    held = data()[1]
    with pytest.raises(InvalidArgumentError, match="not there"):
        search(model, held, {"sparsity": [0.5]}, metric="auc")
    with pytest.raises(InvalidArgumentError, match="action"):
        search(model, held, {"sparsity": [0.5]}, metric="accuracy", action="burn")
    with pytest.raises(InvalidArgumentError, match="two ends"):
        search(model, held, {"sparsity": 0.5}, metric="accuracy", strategy="bisection")
    with pytest.raises(ArgumentTypeError, match="plain values"):
        search(model, held, [{"criterion": object()}], metric="accuracy", splitter=2)
