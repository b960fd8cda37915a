"""From sensitivities to plans, without training."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.compression.costs import Costs, WeightCost, binary_entropy, kept_within
from secateur.compression.explanation import Explanation, LayerChoice, Trial
from secateur.compression.planning import Plan, Planner
from secateur.compression.sensitivity import CutLosses, Sensitivity, units_kept, widths_between


def curve(rise):
    """Losses by density that grow to `rise` with everything gone."""
    return {d: rise * (1 - d) ** 2 for d in (0.3, 0.1, 0.03, 0.0)}


def measured(rises, size=1000, cuts=()):
    pruned = {
        name: {"magnitude": curve(rise), "taylor": curve(rise * 1.5)}
        for name, rise in rises.items()
    }
    return Sensitivity(0.1, dict.fromkeys(rises, size), pruned, dict(cuts))


def planner(rises, price=1.0, fixed=0.0, **options):
    costs = Costs({name: WeightCost(price) for name in rises}, fixed)
    return Planner(measured(rises, **options), costs)


def test_the_layer_that_matters_is_spared():
    made = planner({"useless": 0.0, "critical": 50.0}).blueprint(Plan("", "layers"), 1000.0)
    assert made.densities["critical"] > 0.95
    assert made.densities["useless"] < 0.05
    assert made.scores["critical"] == "magnitude"  # taylor costs more here


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=4), st.floats(0.02, 0.9))
def test_budgets_are_met_and_used(rises, share):
    names = {f"w{number}": rise for number, rise in enumerate(rises)}
    limit = 100.0 + share * 1000 * len(names)
    own = planner(names, fixed=100.0)
    made = own.blueprint(Plan("", "layers"), limit)
    spent = sum(1000 * density for density in made.densities.values())
    assert spent <= made.budget + 1e-6 == pytest.approx(limit - 100, abs=1e-5)
    assert spent >= 0.8 * made.budget


def test_equal_layers_are_treated_alike():
    made = planner({"a": 1.0, "b": 1.0}).blueprint(Plan("", "layers"), 400.0)
    assert made.densities["a"] == pytest.approx(made.densities["b"], rel=0.3)


def test_nothing_is_promised_below_what_cannot_go():
    own = planner({"a": 1.0}, fixed=100.0)
    assert own.blueprint(Plan("", "layers"), 99.0) is None
    assert own.blueprint(Plan("", "layers"), 101.0).densities["a"] <= 0.001 + 1e-9


def group(width=64, loss=0.01, names=("a", "b")):
    shares = {kept: dict.fromkeys(names, kept / width) for kept in (32, 16)}
    return CutLosses("neuron", width, {32: loss, 16: 4 * loss}, shares)


def test_cuts_are_chosen_where_they_cost_least():
    cuts = {"cheap": group(names=("a",)), "dear": group(loss=5.0, names=("b",))}
    own = planner({"a": 1.0, "b": 1.0}, cuts=cuts)
    made = own.blueprint(Plan("", "none", cut_share=0.75), 1500.0)
    assert made.keep == {"cheap": 32}
    assert made.loss == pytest.approx(0.01)


def test_even_cuts_take_the_same_share_of_all():
    cuts = {"cheap": group(names=("a",)), "dear": group(loss=5.0, names=("b",))}
    own = planner({"a": 1.0, "b": 1.0}, cuts=cuts)
    made = own.blueprint(Plan("", "none", cut_share=0.0, even=True), 1200.0)
    assert made.keep == {"cheap": 32, "dear": 32}
    assert own.blueprint(Plan("", "none", cut_share=0.0, even=True), 100.0) is None


def test_cutting_leaves_smaller_matrices_to_prune():
    own = planner({"a": 1.0, "b": 1.0}, cuts={"both": group(loss=1e-6)})
    made = own.blueprint(Plan("", "layers", cut_share=0.5), 600.0)
    assert made.keep == {"both": 32}
    assert 500 * sum(made.densities.values()) <= 600.0
    plain = own.blueprint(Plan("", "layers"), 600.0)
    assert made.loss < plain.loss
    named = [plan.name for plan in own.plans(600.0)]
    assert "cut, then prune by taylor" in named
    assert len(set(named)) == len(named)


def test_goals_that_zeros_do_not_serve_get_cuts_alone():
    own = planner({"a": 1.0}, cuts={"both": group(names=("a",))})
    own = Planner(own.measured, own.costs, by_zeros=False)
    assert {plan.ranking for plan in own.plans(500.0)} == {"none"}
    own = Planner(own.measured, own.costs, by_cutting=False)
    assert all(plan.cut_share == 1 for plan in own.plans(500.0))


def test_losses_that_are_no_numbers_are_never_chosen():
    own = planner({"a": 1.0, "b": 1.0})
    for score in own.measured.pruned["a"].values():
        score[0.0] = score[0.03] = math.inf
    made = own.blueprint(Plan("", "layers"), 250.0)
    assert made.densities["a"] >= 0.1 - 1e-9
    assert own.blueprint(Plan("", "layers"), 90.0) is None


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.floats(0, 60),
)
def test_as_many_weights_stay_as_the_budget_bears(one, two, budget):
    scores = {"a": np.array(one, np.float64), "b": np.array(two, np.float64) + 0.5}
    prices = {"a": WeightCost(1.0, 0.125), "b": WeightCost(4.0)}
    kept = kept_within(scores, prices, budget)
    together = np.sort(np.concatenate(list(scores.values())))[::-1]
    positive = int((together > 0).sum())

    def cost(count):  # with all of those that are equal to the last
        if not count:
            return 0.0
        counts = {n: int((s >= together[count - 1]).sum()) for n, s in scores.items()}
        return sum(prices[n].of(counts[n], scores[n].size) for n in scores)

    # A matrix of which more than half stays takes fewer bits to say which: costs may fall again.
    assert kept == 0 or cost(kept) <= budget
    assert kept == positive or cost(kept + 1) > budget


def test_entropy():
    assert binary_entropy(0.5) == 1
    assert binary_entropy(0.1) == pytest.approx(binary_entropy(0.9))
    assert binary_entropy(1.0) == 0


@pytest.mark.parametrize(
    ("kind", "width", "kept"),
    [("neuron", 128, [64, 32]), ("head", 4, [2, 1]), ("unit", 10, [5, 3]), ("head", 1, [])],
)
def test_widths_that_are_measured(kind, width, kept):
    assert units_kept(kind, width) == kept
    if kept:
        assert set(kept) <= set(widths_between(kind, min(kept), width).tolist())


def test_what_was_measured_survives_json():
    own = measured({"a": 1.0}, cuts={"g": group()})
    own.pruned["a"]["taylor"][0.0] = math.inf
    assert Sensitivity.from_dict(json.loads(json.dumps(own.to_dict()))) == own
    trial = Trial(Plan("p", "layers", 0.5), 2, 0.9, 100.0)
    assert (
        Trial.from_dict(json.loads(json.dumps({**vars(trial), "plan": vars(trial.plan)}))) == trial
    )


def test_an_explanation_can_be_read():
    own = measured({"a": 1.0}, cuts={"g": group()})
    plan = Plan("prune by taylor", "taylor")
    trials = (
        Trial(plan, 1, 0.9, 100.0),
        Trial(Plan("other", "layers"), 1, math.nan, 0.0, "no way"),
    )
    layer = LayerChoice("a", (1000, 500), 50, "taylor", 0.25)
    text = str(Explanation(own, trials, plan, (layer,), "accuracy"))
    assert "cut and prune" in text
    assert "10.00%" in text
    assert "accuracy 0.9000" in text
    assert "no way" in text
    assert "to 32: +0.0100" in text
    assert text.count("<- chosen") == 1
    plain = Explanation(own, trials, plan, (layer,), "accuracy").to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False))["trials"][1]["quality"] is None


def test_gradients_of_frozen_layers_are_not_relied_on():
    own = planner({"a": 1.0, "frozen": 1.0}, cuts={"both": group(names=("a",))})
    del own.measured.pruned["frozen"]["taylor"]
    assert all(plan.ranking != "taylor" for plan in own.plans(600.0))
    assert own.blueprint(Plan("", "layers"), 600.0).scores["frozen"] == "magnitude"
