"""Greedy removal against brute force: every cost from a fresh inverse and a least-squares refit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import FactorisationError, InvalidArgumentError
from secateur.unit_removal import Readout, greedy_removal


def problem(generator, units, span, outputs):
    size = units * span
    inputs = generator.normal(size=(3 * size + 5, size)) @ generator.normal(size=(size, size))
    hessian = inputs.T @ inputs / len(inputs) + 0.05 * np.eye(size)
    weight = generator.normal(size=(outputs, size))
    columns = generator.permutation(size).reshape(units, span)
    return hessian, weight, columns


def refit_error(hessian, weight, gone):
    """Error of the best weights on the columns that stay."""
    stay = np.setdiff1d(np.arange(len(hessian)), gone)
    fitted = np.zeros_like(weight)
    fitted[:, stay] = np.linalg.solve(hessian[np.ix_(stay, stay)], hessian[stay] @ weight.T).T
    lost = weight - fitted
    return float(np.vdot(lost @ hessian, lost))


def greedy_by_hand(problems, energies):
    units = len(problems[0][2])
    order, errors = [], []
    while len(order) < units:
        found = []
        for unit in sorted(set(range(units)) - set(order)):
            total = 0.0
            for (hessian, weight, columns), energy in zip(problems, energies, strict=True):
                gone = np.concatenate([columns[own] for own in (*order, unit)])
                total += refit_error(hessian, weight, gone) / energy
            found.append((total, unit))
        error, unit = min(found)
        order.append(unit)
        errors.append(error)
    return order, errors


def readout(hessian, weight, columns, energy):
    return Readout("layer", np.linalg.inv(hessian), weight.T @ weight, columns, energy)


@given(
    seed=st.integers(0, 2**32 - 1),
    units=st.integers(2, 7),
    spans=st.lists(st.integers(1, 4), min_size=1, max_size=2),
)
@settings(max_examples=40, deadline=None)
def test_the_order_and_the_errors_are_those_of_brute_force(seed, units, spans):
    generator = np.random.default_rng(seed)
    problems = [problem(generator, units, span, 3) for span in spans]
    energies = generator.uniform(1, 5, len(problems))
    order, errors = greedy_removal(
        [readout(*own, energy) for own, energy in zip(problems, energies, strict=True)]
    )
    expected, wanted = greedy_by_hand(problems, energies)
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_allclose(errors, wanted, rtol=1e-6)


@pytest.mark.parametrize("span", [1, 3])
def test_blocks_of_updates_change_nothing(span, monkeypatch):
    generator = np.random.default_rng(0)
    own = problem(generator, 40, span, 5)
    found = []
    for block in (1, 7, 64, 1000):
        monkeypatch.setattr("secateur.unit_removal._BLOCK", block)
        found.append(greedy_removal([readout(*own, 2.0)]))
    for order, errors in found[1:]:
        np.testing.assert_array_equal(order, found[0][0])
        np.testing.assert_allclose(errors, found[0][1], rtol=1e-9)


def test_stopping_early_gives_the_same_units_first():
    generator = np.random.default_rng(1)
    one = readout(*problem(generator, 20, 2, 5), 1.0)
    order, errors = greedy_removal([one])
    first, some = greedy_removal([one], 6)
    np.testing.assert_array_equal(first[:6], order[:6])
    np.testing.assert_allclose(some[:6], errors[:6])
    assert sorted(first) == list(range(20))
    assert (np.diff(some) >= 0).all()
    assert first[6] == order[6]  # of those that stay, the cheapest comes first


def test_equal_units_go_in_order():
    order, _ = greedy_removal([Readout("", np.eye(4), np.eye(4), np.arange(4)[:, None], 1.0)])
    assert order.tolist() == [0, 1, 2, 3]


def test_what_is_no_inverse_is_an_error_that_names_the_remedy():
    inverse = -np.eye(3)
    with pytest.raises(FactorisationError, match=r"'layer'.*damping"):
        greedy_removal([Readout("layer", inverse, np.eye(3), np.arange(3)[:, None], 1.0)])


def test_readouts_must_read_the_same_units():
    one = Readout("", np.eye(4), np.eye(4), np.arange(4)[:, None], 1.0)
    two = Readout("", np.eye(4), np.eye(4), np.arange(4).reshape(2, 2), 1.0)
    with pytest.raises(InvalidArgumentError, match="same units"):
        greedy_removal([one, two])
