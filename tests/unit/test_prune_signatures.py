"""`prune` and `plan_prune` write the same parameters out, so that help() and type checkers see them."""

from inspect import signature

from secateur.keras.pruning import plan_prune, prune


def test_a_plan_takes_what_pruning_takes():
    of_prune, of_plan = (dict(signature(call).parameters) for call in (prune, plan_prune))
    only_where_something_changes = {"inplace", "progress"}
    assert of_prune.keys() - of_plan.keys() == only_where_something_changes
    for name in only_where_something_changes:
        del of_prune[name]
    assert list(of_plan.items()) == list(of_prune.items())
