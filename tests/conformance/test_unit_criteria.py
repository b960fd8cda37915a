"""Every unit criterion against an oracle, and the promises that all of them keep."""

from dataclasses import replace

import numpy as np
import pytest

from secateur.errors import InvalidArgumentError
from secateur.reconstruction.problem import LayerProblem
from secateur.unit_criteria import UNIT_CRITERIA, Reader, UnitOBS

UNITS = np.array([3, 5, 6, 9])


def at(unit):
    """The columns of a unit."""
    return np.equal(COLUMNS, unit)


COLUMNS = np.array([5, 3, -1, 9, 6, 3, 5, 9, 6, -1])


def rows(seed=0, count=400):
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(count, 10)) @ generator.normal(size=(10, 10))
    return (mixed + generator.normal(size=10)).astype(np.float32)


def reader(criterion, x, weight, columns=COLUMNS, batches=1):
    statistics = criterion.statistics(x.shape[1], "layer")
    for part in np.array_split(x, batches):
        statistics.update(part)
    return Reader("layer", (weight,), columns, (statistics,))


@pytest.fixture
def weight():
    return np.random.default_rng(7).normal(size=(6, 10)).astype(np.float32)


def wanda_sp(x, weight):
    score = np.abs(weight).mean(axis=0) * np.sqrt(np.square(x.astype(float)).mean(axis=0))
    return [score[at(unit)].sum() for unit in UNITS]


def flap(x, weight):
    score = np.square(weight).sum(axis=0) * x.astype(float).var(axis=0)
    return [score[at(unit)].sum() for unit in UNITS]


def refit_error(x, weight, gone, damping=1e-8):
    """Least squares with an intercept from the columns that stay, by a solver that knows no Gram."""
    wanted = x.astype(float) @ weight.T
    stay = x.astype(float)[:, ~gone]
    design = np.c_[stay, np.ones(len(x))]
    fitted = design @ np.linalg.lstsq(design, wanted, rcond=None)[0]
    return np.square(wanted - fitted).mean(axis=0).sum() / wanted.var(axis=0).sum()


def obs(x, weight):
    gone = np.zeros(10, bool)
    scores, left = {}, list(UNITS)
    while left:
        errors = [(refit_error(x, weight, gone | (at(unit))), unit) for unit in left]
        error, unit = min(errors)
        scores[unit] = error
        gone |= at(unit)
        left.remove(unit)
    return [scores[unit] for unit in UNITS]


ORACLES = {"wanda_sp": wanda_sp, "flap": flap, "obs": obs}


def exact(name):
    return UnitOBS(1e-9) if name == "obs" else UNIT_CRITERIA[name]


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_scores_are_those_of_the_oracle(name, weight):
    x = rows()
    scores = exact(name).scores(UNITS, [reader(exact(name), x, weight)])
    np.testing.assert_allclose(scores, ORACLES[name](x, weight), rtol=1e-4)


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_batches_and_the_order_of_units_do_not_matter(name, weight):
    criterion, x = UNIT_CRITERIA[name], rows()
    one = criterion.scores(UNITS, [reader(criterion, x, weight)])
    two = criterion.scores(UNITS[::-1], [reader(criterion, x, weight, batches=7)])
    np.testing.assert_allclose(one, two[::-1], rtol=1e-5)


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_a_unit_that_nobody_weighs_goes_first(name, weight):
    criterion, x = UNIT_CRITERIA[name], rows()
    weight[:, at(6)] = 0
    scores = criterion.scores(UNITS, [reader(criterion, x, weight)])
    assert np.argmin(scores) == 2
    assert scores[2] <= 1e-9 * scores.max() + (name == "obs") * scores.max()


@pytest.mark.parametrize("name", [name for name in UNIT_CRITERIA if name != "wanda_sp"])
def test_a_constant_unit_costs_nothing(name, weight):
    criterion, x = UNIT_CRITERIA[name], rows()
    x[:, at(9)] = 50
    scores = criterion.scores(UNITS, [reader(criterion, x, weight)])
    assert np.argmin(scores) == 3
    assert scores[3] <= 1e-9


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_two_readers_add_up(name, weight):
    criterion, x, y = UNIT_CRITERIA[name], rows(), rows(1)
    readers = [reader(criterion, own, weight) for own in (x, y)]
    both = criterion.scores(UNITS, readers)
    each = [criterion.scores(UNITS, [own]) for own in readers]
    if name == "obs":  # the order may be another, so only what goes first is the sum of its costs
        assert both.min() <= sum(each).max()
    else:
        np.testing.assert_allclose(both, sum(each), rtol=1e-6)


@pytest.mark.parametrize("name", UNIT_CRITERIA)
def test_parameters_are_values(name):
    assert replace(UNIT_CRITERIA[name]) == UNIT_CRITERIA[name]
    assert UNIT_CRITERIA[name].name == name
    assert UNIT_CRITERIA[name].size(1000) > 0


def test_obs_finds_the_copy_that_the_other_makes_up_for(weight):
    """Two equal inputs with large weights: the first costs nothing, which no single score can see."""
    x = rows()
    x[:, at(5)] = x[:, at(9)]
    weight[:, at(5)] *= 5
    criterion = UnitOBS(1e-7)
    scores = criterion.scores(UNITS, [reader(criterion, x, weight)])
    assert np.argmin(scores) in (1, 3)
    assert scores.min() < 1e-4
    flap_scores = UNIT_CRITERIA["flap"].scores(UNITS, [reader(UNIT_CRITERIA["flap"], x, weight)])
    assert np.argmin(flap_scores) != 1


def test_obs_scores_rise_with_the_order_also_after_a_limit(weight):
    criterion, x = UnitOBS(1e-6), rows()
    whole = criterion.scores(UNITS, [reader(criterion, x, weight)])
    short = criterion.scores(UNITS, [reader(criterion, x, weight)], 2)
    assert np.argsort(whole)[:2].tolist() == np.argsort(short)[:2].tolist()
    assert np.unique(short).size == short.size


def test_a_score_is_the_error_of_the_refit(weight):
    criterion, x = UnitOBS(1e-9), rows()
    own = reader(criterion, x, weight)
    scores = criterion.scores(UNITS, [own])
    gone = at(UNITS[np.argmin(scores)])
    assert scores.min() == pytest.approx(refit_error(x, weight, gone), rel=1e-4)
    problem = LayerProblem(weight, own.statistics[0], damping=1e-9, intercept=True)
    assert problem.energy == pytest.approx((x @ weight.T).var(axis=0).sum(), rel=1e-4)


def test_a_gram_matrix_that_is_too_wide_names_the_way_out():
    with pytest.raises(InvalidArgumentError, match=r"'wide'.*measure='flap'"):
        UnitOBS().statistics(20_000, "wide")


def test_units_of_unequal_numbers_of_columns_are_refused():
    with pytest.raises(InvalidArgumentError, match="columns each"):
        Reader("layer", (), np.array([1, 1, 2]), ()).columns_of(np.array([1, 2]))


def test_obs_counts_errors_by_what_they_cost_the_model(weight):
    """With G = R^T R it is the same as counting those of R times the outputs alike."""
    x, criterion = rows(), exact("obs")
    root = np.random.default_rng(3).normal(size=(6, 6))
    own = replace(reader(criterion, x, weight), curvature=root.T @ root)
    turned = reader(criterion, x, (root @ weight).astype(np.float32))
    np.testing.assert_allclose(
        criterion.scores(UNITS, [own]), criterion.scores(UNITS, [turned]), rtol=1e-4
    )


def test_obs_lets_go_of_what_only_outputs_without_worth_read():
    x, criterion = rows(), exact("obs")
    weight = np.zeros((2, 10), np.float32)
    weight[0, at(3)], weight[1, ~at(3)] = 100.0, 0.1  # unit 3 makes most of the output's variance
    alike = criterion.scores(UNITS, [reader(criterion, x, weight)])
    own = replace(reader(criterion, x, weight), curvature=np.diag([1e-9, 1.0]))
    told = criterion.scores(UNITS, [own])
    assert np.argmax(alike) == 0
    assert np.argmin(told) == 0
