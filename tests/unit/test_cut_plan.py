"""Which units go, and the plan as a value."""

import numpy as np
import pytest

from secateur.cut_choosing import Choice, CutTarget, choose
from secateur.cut_plan import CutPlan, GroupCut
from secateur.errors import InvalidArgumentError
from secateur.groups import Group


def group(name="a", width=32, kind="neuron", span=1, reason=""):
    return Group(name, (name,), kind, np.arange(width), span, reason)


def removed(target, choice, scores, **options):
    one = group(width=len(scores), **options)
    (cut,) = choose([one], {"a": np.asarray(scores, float)}, target, choice)
    return cut


def test_ratio_removes_the_weakest_exactly():
    cut = removed(CutTarget(ratio=0.5), Choice(align=1), [3, 1, 2, 4])
    assert cut.removed == (1, 2)


def test_ties_remove_the_earlier_unit_first():
    assert removed(CutTarget(ratio=0.5), Choice(align=1), [1, 1, 1, 1]).removed == (0, 1)


def test_a_threshold_is_strict():
    assert removed(CutTarget(threshold=2.0), Choice(align=1), [1, 2, 3]).removed == (0,)


def test_a_relative_threshold_counts_in_means():
    assert removed(CutTarget(threshold=0.5, relative=True), Choice(align=1), [1, 4, 7]).removed == (
        0,
    )


@pytest.mark.parametrize(("align", "kept"), [(1, 12), (8, 16), (16, 16), (32, 25)])
def test_align_rounds_the_kept_width_up(align, kept):
    cut = removed(CutTarget(ratio=0.5), Choice(align=align), np.arange(25))
    assert cut.kept == kept
    assert bool(cut.why) == (align != 1)


def test_align_counts_positions_not_units():
    assert removed(CutTarget(ratio=0.5), Choice(align=8), np.arange(10), span=4).kept == 6


def test_heads_are_not_rounded():
    assert removed(CutTarget(ratio=0.5), Choice(align=8), np.arange(12), kind="head").kept == 6


def test_keep_is_taken_at_its_word():
    assert removed(CutTarget(keep={"a": 3}), Choice(align=8), np.arange(32)).kept == 3


def test_a_layer_is_never_emptied():
    groups = [group("a", 8), group("b", 8)]
    scores = {"a": np.zeros(8), "b": np.ones(8)}
    one, two = choose(groups, scores, CutTarget(threshold=0.5), Choice(align=1))
    assert (one.kept, two.kept) == (1, 8)
    assert "held back" in one.why


def test_a_threshold_that_empties_everything_is_an_error():
    with pytest.raises(InvalidArgumentError, match="would empty every layer"):
        removed(CutTarget(threshold=100.0), Choice(), np.arange(8))


def test_global_scope_ranks_relative_to_the_layer():
    groups = [group("a", 4), group("b", 4)]
    scores = {"a": np.array([1.0, 1, 1, 1]), "b": np.array([0.0, 0, 100, 100])}
    one, two = choose(groups, scores, CutTarget(ratio=0.25, scope="global"), Choice(align=1))
    assert (one.removed, two.removed) == ((), (0, 1))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"ratio": 0.5, "threshold": 1.0},
        {"ratio": 1.0},
        {"ratio": -0.1},
        {"threshold": float("nan")},
        {"ratio": 0.5, "scope": "net"},
    ],
)
def test_bad_targets_are_refused(arguments):
    with pytest.raises(InvalidArgumentError):
        CutTarget(**arguments)


@pytest.mark.parametrize("keep", [{"nowhere": 3}, {"a": 0}, {"a": 33}])
def test_bad_counts_are_refused(keep):
    with pytest.raises(InvalidArgumentError):
        removed(CutTarget(keep=keep), Choice(), np.arange(32))


def test_frozen_and_excluded_groups_stay_whole():
    target = CutTarget(ratio=0.5)
    assert removed(target, Choice(), np.arange(32), reason="output").why == "output"
    assert removed(target, Choice(exclude=["a"]), np.arange(32)).why == "excluded"
    assert removed(target, Choice(granularity=["head"]), np.arange(32)).removed == ()


def plan():
    return CutPlan("m", "path", (GroupCut("a", ("a", "b"), "neuron", 4, (1,), ""),), {"w": "why"})


def test_a_plan_survives_json():
    assert CutPlan.from_json(plan().to_json()) == plan()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 9}', "[]"])
def test_other_json_is_refused(text):
    with pytest.raises(InvalidArgumentError, match=r"Not a cut|has format 9"):
        CutPlan.from_json(text)


def test_a_plan_can_be_edited():
    assert plan().edit("b", [0, 2])["a"].removed == (0, 2)
    with pytest.raises(InvalidArgumentError, match="would be empty"):
        plan().edit("a", range(4))
    with pytest.raises(InvalidArgumentError, match="units 0 to 3"):
        plan().edit("a", [4])


def test_an_unbound_plan_says_how_to_bind_it():
    with pytest.raises(InvalidArgumentError, match="bind"):
        plan().apply()


def test_a_plan_prints_what_goes_and_why():
    text = str(plan())
    assert "a: 4 -> 3 neurons, tied to b" in text
    assert "w: why" in text


def test_keep_means_the_group_of_that_name_not_what_its_layer_is_added_to():
    heads = Group("attention", ("attention",), "head", np.arange(4), 4)
    stream = Group("words", ("words", "attention"), "embedding", np.arange(32), 1)
    scores = {"attention": np.arange(4.0), "words": np.arange(32.0)}

    def kept(keep):
        target = CutTarget(keep=keep)
        cuts = choose([heads, stream], scores, target, Choice(align=1))
        most = target.most([heads, stream], ["attention", "words"])
        assert [cut.kept for cut in cuts] == [4 - most[0], 32 - most[1]]
        return [cut.kept for cut in cuts]

    assert kept({"attention": 2}) == [2, 32]
    assert kept({"words": 16, "attention": 2}) == [2, 16]
    assert kept({"words": 8}) == [4, 8]
