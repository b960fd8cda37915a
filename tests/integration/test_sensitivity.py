"""How much the model loses by one weight, and one sparsity shared out by it."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from tests.integration.keras_models import MODELS
from tests.integration.on_data import (
    assert_same,
    correlated,
    importance,
    mlp,
    values_of,
)

import secateur as sc
from secateur.errors import CalibrationWarning, InvalidArgumentError
from secateur.keras.calibrating import CalibrationWalk
from secateur.keras.choosing import Selection, choose
from secateur.keras.data_pruning import Calibration, open_for_walk
from secateur.keras.padding import Padding
from secateur.keras.sensitivity import Alone, losses_alone
from secateur.keras.staging import make_schedule
from secateur.keras.taps import open_graph
from secateur.layer_pruning import Recipe
from secateur.patterns import Unstructured
from secateur.reconstruction import SparseGPT


@pytest.mark.parametrize("kind", [k for k in MODELS if k not in ("mixed precision", "subclassed")])
def test_the_walk_goes_on_to_what_the_model_puts_out(kind):
    model, inputs = MODELS[kind]()
    graph = open_graph(model)
    padding = Padding(graph)
    wanted = {id(tensor.variable) for tensor in sc.keras.find_tensors(model).tensors}
    schedule = make_schedule(graph, wanted, padding, to_outputs=True)
    expected = [np.asarray(leaf) for leaf in keras.tree.flatten(model(inputs, training=False))]
    seen = 0
    with CalibrationWalk(graph, schedule, [inputs], padding, beside=False) as walk:
        for _ in walk.groups():
            seen += 1
            for own, leaf in zip(walk.outputs(0), expected, strict=True):
                np.testing.assert_allclose(np.asarray(own), leaf, rtol=1e-4, atol=1e-5)
    assert seen


def alone(sparsity=0.5, weighed=None):
    recipe = Recipe(solver=SparseGPT(), asymmetric=False)
    return Alone(recipe, Unstructured(), "layer", sparsity, weighed or {})


def opened(model, x):
    return open_for_walk(model, choose(model, Selection(), Unstructured()), Calibration(x))


def test_losses_are_those_of_a_model_with_that_weight_pruned():
    model, x = mlp(), correlated(64)
    before = values_of(model)
    losses = losses_alone(opened(model, x), alone(weighed=importance(model, x)), 1 << 30)
    for value, now in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(value, now)
    assert list(losses) == ["first/kernel", "second/kernel", "out/kernel"]
    given = np.asarray(model(x), np.float64)
    for name, curve in losses.items():
        pruned = sc.prune(
            model,
            sparsity=0.5,
            data=x,
            include=[name],
            reconstruction="sparsegpt",
            asymmetric=False,
            refit_norms=False,
        ).model
        lost = np.square(np.asarray(pruned(x), np.float64) - given).sum()
        varied = np.square(given - given.mean(axis=0)).sum()
        assert curve[0.5] == pytest.approx(lost / varied, rel=0.05)
        assert list(curve) == sorted(curve)
        assert list(curve.values()) == sorted(curve.values())


def lopsided():
    """A layer whose output the model hardly looks at beside one that it lives on."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((12,))
    loud = layers.Dense(16, activation="relu", name="loud")(inputs)
    quiet = layers.Dense(16, activation="relu", name="quiet")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="out")(layers.Concatenate()([loud, quiet])))
    kernel = np.array(model.get_layer("out").kernel.value)
    kernel[16:] *= 0.01
    model.get_layer("out").kernel.assign(kernel)
    return model


def zeros_of(result, name):
    return result.report[f"{name}/kernel"].reached_sparsity


def test_what_the_model_hardly_looks_at_goes_first():
    model, x = lopsided(), correlated(256)
    result = sc.prune(model, sparsity=0.5, data=x)
    assert result.plan.settings["allocation"] == "loss"
    assert zeros_of(result, "quiet") > 0.8
    assert zeros_of(result, "loud") < 0.4
    assert result.report.num_zeros == round(0.5 * result.report.size)


def test_sharing_by_loss_loses_less_than_sharing_alike():
    model, x = lopsided(), correlated(600)
    lost = []
    for allocation in ("loss", "uniform"):
        pruned = sc.prune(model, sparsity=0.6, data=x[:400], allocation=allocation).model
        lost.append(np.square(pruned(x[400:]) - model(x[400:])).mean())
    assert lost[0] < lost[1]


@pytest.mark.parametrize(
    "how",
    [
        {"scope": "row"},
        {"pattern": "block:2x1"},
        {"sparsity": 0.0},
        {"sparsity": 1.0},
        {"include": "out"},
        {"sparsity": 0.97},
    ],
    ids=str,
)
def test_it_goes_with_scopes_patterns_and_the_ends(how):
    model, x = mlp(), correlated(64)
    how = {"sparsity": 0.5, "data": x, "allocation": "loss", **how}
    with_slack = "pattern" in how or how.get("scope") == "row"
    report = sc.prune(model, **how).report
    wanted = how["sparsity"] * report.size
    assert abs(report.num_zeros - wanted) <= (0.06 * report.size if with_slack else 0.5)


def test_a_plan_is_not_measured_again(monkeypatch):
    model, x = mlp(), correlated(64)
    plan = sc.plan_prune(model, sparsity=0.5, data=x)
    expected = sc.prune(model, sparsity=0.5, data=x)
    monkeypatch.setattr("secateur.keras.sharing.losses_alone", None)
    assert_same(plan.apply(), expected, atol=0)


@pytest.mark.parametrize("how", [{"criterion": "sparsegpt"}, {"criterion": "wanda"}], ids=str)
def test_published_methods_share_alike(how):
    model, x = mlp(), correlated(64)
    result = sc.prune(model, sparsity=0.5, data=x, **how)
    assert result.plan.settings["allocation"] == "uniform"
    assert all(row.num_zeros == round(0.5 * row.size) for row in result.report)


def test_more_than_the_samples_looked_at_and_in_any_order(monkeypatch):
    monkeypatch.setattr("secateur.keras.sensitivity._SAMPLES", 40)
    model, x = mlp(), correlated(200)
    shuffled = np.random.default_rng(0).permutation(x)
    one, two = (sc.plan_prune(model, sparsity=0.5, data=own).plan for own in (x, shuffled))
    for name, share in one.shares.items():
        assert share.count == pytest.approx(two.shares[name].count, abs=1)


def test_a_mask_goes_with_its_samples(monkeypatch):
    monkeypatch.setattr("secateur.keras.sensitivity._SAMPLES", 40)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6, 12)),
            layers.Dense(8, activation="relu", name="a"),
            layers.Dense(8, name="b"),
        ]
    )
    x = correlated(100 * 6).reshape(100, 6, 12)
    mask = np.random.default_rng(1).random((100, 6)) < 0.6
    mask[:, 0] = True
    spoilt = np.where(mask[..., None], x, 0)
    found = losses_alone(
        open_for_walk(model, choose(model, Selection(), Unstructured()), Calibration(spoilt, mask)),
        alone(),
        1 << 30,
    )
    order = np.random.default_rng(2).permutation(100)
    again = losses_alone(
        open_for_walk(
            model,
            choose(model, Selection(), Unstructured()),
            Calibration(spoilt[order], mask[order]),
        ),
        alone(),
        1 << 30,
    )
    for name, curve in found.items():
        assert curve == pytest.approx(again[name], rel=1e-3)


def test_progress_goes_through_the_weights_twice_and_the_report_says_what_was_asked():
    model, x, told = mlp(), correlated(64), []
    result = sc.prune(model, sparsity=0.5, data=x, progress=told.append)
    assert told == 2 * ["first/kernel", "second/kernel", "out/kernel"]
    for row in result.report:
        assert row.asked_sparsity == pytest.approx(row.num_removed / row.size)
    told.clear()
    sc.prune(model, sparsity=0.5, data=x, criterion="sparsegpt", progress=told.append)
    assert told == ["first/kernel", "second/kernel", "out/kernel"]


def test_few_samples_are_said_once_for_each_layer():
    with pytest.warns(CalibrationWarning) as said:
        sc.prune(mlp(), sparsity=0.5, data=correlated(8))
    named = [str(own.message).split("'")[1] for own in said if "Gram" in str(own.message)]
    assert sorted(named) == ["first", "out", "second"]


def test_a_plan_for_other_weights_is_refused():
    model, x = mlp(), correlated(64)
    plan = sc.plan_prune(model, sparsity=0.5, data=x)
    fewer = {name: share for name, share in plan.plan.shares.items() if name != "out/kernel"}
    edited = replace(plan, plan=replace(plan.plan, shares=fewer))
    with pytest.raises(InvalidArgumentError, match="made for other weights"):
        edited.apply()
