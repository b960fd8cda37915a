"""When a user is told that less went than was asked for."""

from secateur.bypass_plan import Bypass
from secateur.cut_plan import CutPlan, GroupCut
from secateur.shortfall import shortfall


def group(name, width, gone, asked, why=""):
    return GroupCut(name, (name,), "neuron", width, tuple(range(gone)), why, asked)


def told(*groups):
    return shortfall(CutPlan("m", "mean", groups))


def test_rounding_that_does_not_add_up_is_not_told():
    rounded = group("a", 10, 2, 5, "held back: 5 rounded up to 8 by align=8")
    assert told(group("b", 64, 32, 32), rounded) == ""
    assert told(rounded) == (
        "Of 5 units that were to go from 'm' only 2 can. a: 5 rounded up to 8 by align=8."
    )


def test_what_was_not_asked_does_not_count():
    assert told(group("a", 64, 32, 32), group("out", 1000, 0, 0, "it is an output")) == ""


def test_reasons_come_in_order_of_what_they_hold_back():
    walls = [group(name, 100, 0, 50, "wall at w: no rule for W") for name in "abcd"]
    message = told(*walls, group("e", 20, 2, 10, "held back: rounded"), group("f", 8, 4, 4))
    assert message == (
        "Of 214 units that were to go from 'm' only 6 can. "
        "a, b and 2 more: wall at w: no rule for W; e: rounded."
    )


def test_nothing_at_all():
    assert told(group("a", 4, 0, 2, "excluded")) == (
        "Nothing was cut from 'm': none of 2 units can go. a: excluded."
    )
    assert told(group("a", 4, 0, 0)) == "Nothing was cut from 'm': nothing that can go was to go."
    assert told(group("a", 4, 0, 0, "excluded")) == "Nothing was cut from 'm': excluded."


def test_edited_groups_ask_for_what_they_say():
    plan = CutPlan("m", "mean", (group("a", 100, 50, 50),)).edit("a", [3])
    assert shortfall(plan) == ""


def test_the_ask_outlives_json():
    plan = CutPlan("m", "mean", (group("a", 10, 2, 5, "rounded"),))
    assert CutPlan.from_json(plan.to_json()).groups == plan.groups


def test_a_plan_that_bypasses_does_not_say_that_nothing_was_cut():
    gone = Bypass("branch:b", "branch", ("b",), 0.1, removed=True)
    stuck = group("a", 4, 0, 2, "wall")
    assert shortfall(CutPlan("m", "mean", (stuck,), bypasses=(gone,))) == (
        "Of 2 units that were to go from 'm' only 0 can. a: wall."
    )
    assert shortfall(CutPlan("m", "mean", (group("a", 4, 0, 0),), bypasses=(gone,))) == ""
