"""Which branches, layers and blocks go, and how the plan tells."""

import json

import numpy as np
import pytest

from secateur.bypass_plan import (
    Bypass,
    BypassTarget,
    Offer,
    bypass_kinds,
    choose_bypasses,
    split_keep,
)
from secateur.cut_choosing import Choice, carried_over
from secateur.cut_plan import CutPlan, GroupCut
from secateur.errors import InvalidArgumentError
from secateur.groups import Group


def offers(*names, kind="branch", reason=""):
    return [Offer(f"{kind}:{name}", kind, (name,), reason) for name in names]


def going(target, outputs, given=None):
    given = given or offers(*"abcd"[: len(outputs)])
    named = {offer.name: output for offer, output in zip(given, outputs, strict=True)}
    return [bypass.makers[0] for bypass in choose_bypasses(given, named, target) if bypass.removed]


def target(**options):
    return BypassTarget(kinds=("branch",), **options)


def test_a_threshold_is_strict():
    assert going(target(threshold=2.0), [1, 2, 3, 1.9]) == ["a", "d"]


def test_a_relative_threshold_counts_in_the_mean_over_the_branches():
    assert going(target(threshold=0.5, relative=True), [1, 4, 3, 4]) == ["a"]


def test_a_ratio_counts_branches_and_ties_go_in_order():
    assert going(target(ratio=0.5), [1, 1, 1, 1]) == ["a", "b"]
    assert going(target(ratio=0.5), [4, 3, 2, 1]) == ["c", "d"]


def test_keep_counts_what_stays():
    assert going(target(keep={"branch": 1}), [4, 3, 2, 1]) == ["b", "c", "d"]
    assert going(target(keep={"layer": 1}), [4, 3, 2, 1]) == []
    with pytest.raises(InvalidArgumentError, match="the model has 4"):
        going(target(keep={"branch": 5}), [4, 3, 2, 1])


def test_never_all_of_a_kind_go():
    planned = choose_bypasses(
        offers("a", "b"), {"branch:a": 1.0, "branch:b": 2.0}, target(threshold=9.0)
    )
    assert [own.removed for own in planned] == [True, False]
    assert "held back: all 2 branches were to go" in planned[1].why


def test_what_must_stay_or_is_excluded_stays():
    given = [*offers("a", reason="it is needed"), *offers("b", "c", "d")]
    assert going(target(ratio=0.99), [1, 2, 3, 4], given) == ["b", "c", "d"]
    assert going(target(ratio=0.99, exclude=["c"]), [1, 2, 3, 4], given) == ["b", "d"]
    assert going(target(ratio=0.99, include=["c"]), [1, 2, 3, 4], given) == ["c"]
    assert going(target(ratio=0.99, include="branch:[cd]"), [1, 2, 3, 4], given) == ["c", "d"]
    assert going(target(ratio=0.99, counted=["d"]), [1, 2, 3, 4], given) == ["b", "c"]


def test_kinds_that_are_not_named_are_not_in_the_plan():
    given = [*offers("a"), *offers("b", kind="layer")]
    assert choose_bypasses(given, {"branch:a": 0.0}, BypassTarget(("branch",), threshold=1.0))
    assert choose_bypasses(given, {}, BypassTarget((), threshold=1.0)) == ()


def test_branches_go_by_default_with_an_absolute_threshold_on_data():
    assert bypass_kinds(None, True, {}, "mean") == ("branch",)
    assert bypass_kinds(None, False, {}, "mean") == ()
    assert bypass_kinds(("neuron",), True, {}, "mean") == ()
    assert bypass_kinds(("block", "neuron", "branch"), False, {}, "mean") == ("branch", "block")
    assert bypass_kinds(None, False, {"layer": 3}, "mean") == ("layer",)
    assert bypass_kinds(None, True, {}, "std") == ()
    with pytest.raises(InvalidArgumentError, match="std"):
        bypass_kinds(("branch",), True, {}, "std")


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_bad_counts_are_refused(count):
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        split_keep({"branches": count})


def plan():
    bypasses = (
        Bypass("branch:a", "branch", ("a", "b"), 0.25, True),
        Bypass("layer:c", "layer", ("c",), 1.5, False, "excluded"),
    )
    groups = (GroupCut("d", ("d",), "neuron", 4, (1,), ""),)
    return CutPlan("m", "mean", groups, {"w": "why"}, bypasses)


def test_a_plan_with_bypasses_survives_json():
    assert CutPlan.from_json(plan().to_json()) == plan()
    assert plan()["branch:a"].removed
    assert plan().bypassed == {"branch:a"}


def test_plans_of_the_first_format_are_read():
    data = json.loads(plan().to_json())
    del data["bypasses"]
    read = CutPlan.from_json(json.dumps({**data, "format": 1}))
    assert read.bypasses == ()
    assert read.groups == plan().groups


@pytest.mark.parametrize("change", [{"kind": "twig"}, {"removed": 1}, {"output": "much"}])
def test_damaged_bypasses_are_refused(change):
    data = json.loads(plan().to_json())
    data["bypasses"][0].update(change)
    with pytest.raises(InvalidArgumentError, match="Not a cutting plan"):
        CutPlan.from_json(json.dumps(data))


def test_a_plan_prints_its_bypasses():
    text = str(plan())
    assert "1 of 4 units go, 1 of 2 branches, layers" in text
    assert "branch:a with b: goes, puts out 0.25" in text
    assert "layer:c: stays, changes 1.5 (excluded)" in text


def test_editing_a_bypass_needs_a_model_and_a_word():
    with pytest.raises(InvalidArgumentError, match="bound to no model"):
        plan().edit("branch:a", False)
    with pytest.raises(InvalidArgumentError, match="True or False"):
        plan().edit("branch:a", [1])
    with pytest.raises(InvalidArgumentError, match="no bypass"):
        plan().edit("d", True)


def test_granularity_may_be_one_word():
    assert Choice(granularity="branch").granularity == ("branch",)
    with pytest.raises(InvalidArgumentError, match="granularity"):
        Choice(granularity=("twig",))


def test_cuts_are_carried_over_to_groups_with_a_common_maker():
    def group(*makers, width=4, reason=""):
        return Group("+".join(makers), makers, "neuron", np.arange(width), 1, reason)

    cuts = [
        GroupCut("a", ("a", "b"), "neuron", 4, (1, 2)),
        GroupCut("c", ("c",), "neuron", 4, (0,)),
    ]
    now = carried_over(
        [group("b"), group("c", reason="wall"), group("d"), group("a", width=5)], cuts
    )
    assert [(cut.name, cut.removed) for cut in now] == [
        ("b", (1, 2)),
        ("c", ()),
        ("d", ()),
        ("a", ()),
    ]
    assert now[1].why == "wall"
