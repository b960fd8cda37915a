"""One matrix by a recipe: exact counts over groups of rows, what stays, errors."""

import numpy as np
import pytest

from secateur.criteria import Magnitude
from secateur.data_criteria import Wanda
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.layer_pruning import Recipe, ThresholdTarget, prune_matrix, split_target
from secateur.patterns import Block, Unstructured
from secateur.recipes import FromData, Method, make_recipe, refits_norms, weight_criterion
from secateur.reconstruction import ADMM, LayerTarget, Refit, SparseGPT
from secateur.statistics import InputStatistics

RNG = np.random.default_rng(0)


def statistics(width, count=200):
    found = InputStatistics(width)
    found.update(RNG.normal(size=(count, width)).astype(np.float32) + 0.3)
    return found


@pytest.mark.parametrize(
    "recipe", [Recipe(solver=ADMM()), Recipe(FromData(Wanda())), Recipe(solver=SparseGPT())]
)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.7, 1.0])
def test_groups_of_rows_meet_the_target_together(recipe, sparsity):
    weight = RNG.normal(size=(10, 9)).astype(np.float32)
    groups = [statistics(9) for _ in range(5)]
    done = prune_matrix(weight, groups, LayerTarget(sparsity=sparsity), recipe, has_bias=True)
    assert np.count_nonzero(~done.mask) == round(sparsity * 90)
    assert not done.weight[~done.mask].any()
    assert done.bias_shift.shape == (10,)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_that_only_stay_keep_every_bit(dtype):
    weight = RNG.normal(size=(4, 6)).astype(dtype)
    done = prune_matrix(
        weight, [statistics(6)], LayerTarget(sparsity=0.5), Recipe(FromData(Wanda()))
    )
    assert done.weight.dtype == dtype
    np.testing.assert_array_equal(done.weight, np.where(done.mask, weight, 0))
    assert not done.changed


def test_error_is_the_energy_that_is_lost():
    x = RNG.normal(size=(300, 6)).astype(np.float32)
    seen = InputStatistics(6)
    seen.update(x)
    weight = RNG.normal(size=(4, 6)).astype(np.float32)
    done = prune_matrix(
        weight, [seen], LayerTarget(sparsity=0.5), Recipe(FromData(Wanda()), intercept=False)
    )
    lost = ((x @ (weight - done.weight).T) ** 2).sum() / ((x @ weight.T) ** 2).sum()
    assert done.error == pytest.approx(lost, rel=1e-4)


def test_a_threshold_is_strict_and_needs_scores():
    weight = np.array([[0.1, 0.2], [0.3, -0.4]], np.float32)
    target = ThresholdTarget(0.2, Unstructured())
    recipe = Recipe(FromData(Wanda()))
    done = prune_matrix(weight, [statistics(2)], target, recipe, scores=weight)
    np.testing.assert_array_equal(done.mask, [[False, True], [True, True]])
    np.testing.assert_array_equal(
        ThresholdTarget(0.45, Block(2, 1)).mask_of(weight), [[False, False], [False, False]]
    )
    with pytest.raises(InvalidArgumentError, match="needs scores"):
        prune_matrix(weight, [statistics(2)], target, Recipe(solver=ADMM()))
    with pytest.raises(InvalidArgumentError, match="a criterion, a solver, or both"):
        Recipe()


@pytest.mark.parametrize(
    ("target", "counts"),
    [
        (LayerTarget(sparsity=0.5), [9, 9, 9]),
        (LayerTarget(count=8), [3, 3, 2]),
        (LayerTarget("block:2x3", count=4), [2, 1, 1]),
    ],
)
def test_split_targets_add_up(target, counts):
    assert [part.count for part in split_target(target, 3, (2, 9))] == counts


def test_masks_and_rows_are_split_as_they_are():
    mask = RNG.random((6, 4)) > 0.5
    parts = split_target(LayerTarget(mask=mask), 3, (2, 4))
    np.testing.assert_array_equal(np.concatenate([part.mask for part in parts]), mask)
    rows = LayerTarget(sparsity=0.5, scope="row")
    assert split_target(rows, 2, (2, 4)) == [rows, rows]


@pytest.mark.parametrize(
    ("method", "name", "asymmetric", "damping", "ridge"),
    [
        (Method(), "admm", True, 0.2, "input"),
        (Method("admm"), "admm", True, 0.2, "input"),
        (Method("sparsegpt"), "sparsegpt", False, 0.01, "mean"),
        (Method("sparsegpt", "refit"), "sparsegpt + refit", False, 0.01, "mean"),
        (Method("sparsegpt", asymmetric=True), "sparsegpt", True, 0.1, "mean"),
        (Method("sparsegpt", asymmetric=True, damping=0.1), "sparsegpt", True, 0.1, "mean"),
        (Method(None, "sparsegpt"), "sparsegpt", True, 0.2, "input"),
        (Method("wanda"), "wanda", False, 0.01, "mean"),
        (Method("wanda", "refit"), "wanda + refit", True, 0.2, "input"),
        (Method(Magnitude(), Refit()), "magnitude + refit", True, 0.2, "input"),
        (Method("random", "none"), "random", False, 0.01, "mean"),
    ],
    ids=str,
)
def test_published_methods_are_as_published_and_ours_are_our_best(
    method, name, asymmetric, damping, ridge
):
    recipe, _ = make_recipe(method)
    assert recipe.name == name
    assert recipe.asymmetric == recipe.intercept == asymmetric or method.asymmetric is not None
    assert (recipe.asymmetric, recipe.damping, recipe.ridge) == (asymmetric, damping, ridge)


def test_names_that_do_not_go_together():
    for method, message in (
        (Method(None, "none"), "name one"),
        (Method("admm", "sparsegpt"), "may be 'refit'"),
        (Method("wonder"), "'wanda'"),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            make_recipe(method)
    with pytest.raises(ArgumentTypeError, match="name or an object"):
        make_recipe(Method("wanda", Refit))
    with pytest.raises(InvalidArgumentError, match="needs calibration samples"):
        weight_criterion(Wanda())
    wanda = Method("wanda", refit_norms=True)
    with pytest.raises(InvalidArgumentError, match="needs asymmetric"):
        refits_norms(wanda, make_recipe(wanda)[0])
