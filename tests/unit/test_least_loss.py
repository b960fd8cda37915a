"""The knapsack against trying everything."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.allocation import least_loss
from secateur.errors import InvalidArgumentError

numbers = st.floats(0, 100, allow_nan=False)
layers = st.lists(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4), min_size=1, max_size=4
)


def brute(options, budget):
    fitting = [
        sum(loss for _, loss in picks)
        for picks in itertools.product(*options)
        if sum(cost for cost, _ in picks) <= budget
    ]
    return min(fitting, default=None)


@given(layers, st.floats(0, 1))
def test_it_is_as_good_as_trying_everything(options, share):
    budget = share * sum(max(cost for cost, _ in own) for own in options)
    names = [str(number) for number in range(len(options))]
    costs = {n: [c for c, _ in own] for n, own in zip(names, options, strict=True)}
    losses = {n: [v for _, v in own] for n, own in zip(names, options, strict=True)}
    picks = least_loss(costs, losses, budget)
    best = brute(options, budget)
    if picks is None:
        assert brute(options, budget - 1e-6) is None
        return
    assert sum(costs[n][picks[n]] for n in names) <= budget + 1e-6
    found = sum(losses[n][picks[n]] for n in names)
    # Savings are counted in steps of 1 / 4,000 of what is needed, one of them lost per layer.
    needed = sum(max(own) for own in costs.values()) - budget
    tighter = brute(options, budget - len(names) * needed / 4000 - 1e-6)
    if best is not None:
        assert found >= best - 1e-9
    if tighter is not None:
        assert found <= tighter + 1e-9


def test_what_must_not_be_chosen_is_not():
    costs, losses = {"a": [9.0, 1.0]}, {"a": [0.0, np.inf]}
    assert least_loss(costs, losses, 10) == {"a": 0}
    assert least_loss(costs, losses, 5) is None


def test_the_cheapest_are_found_where_they_fit_just_so():
    costs = {name: [1.0, 0.3] for name in "abc"}
    losses = {name: [0.0, 1.0] for name in "abc"}
    assert least_loss(costs, losses, 3 * 0.3) == {"a": 1, "b": 1, "c": 1}


def test_as_many_losses_as_costs_are_needed():
    with pytest.raises(InvalidArgumentError, match="2 costs and 1 losses"):
        least_loss({"a": [1, 2]}, {"a": [1]}, 3)
    with pytest.raises(InvalidArgumentError, match="at least one"):
        least_loss({"a": []}, {"a": []}, 3)
