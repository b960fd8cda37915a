"""The layer under a softmax or sigmoid, refit to what the model says."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from secateur.output_refit import refit_output


def divergence(squash, wanted, found):
    if squash == "softmax":
        p, logs = softmax(wanted, axis=1), log_softmax(wanted, axis=1) - log_softmax(found, axis=1)
        return (p * logs).sum(axis=1).mean()
    p, q = expit(wanted), expit(found)
    return (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(axis=1).mean()


def problem(seed=0, count=600):
    """Logits of a wide layer of which three inputs are left; class 0 is ruled out, but loud."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 8)) @ generator.normal(size=(8, 8))
    weight = generator.normal(size=(4, 8))
    weight[0] *= 5
    logits = x @ weight.T + [-60.0, 0.0, 0.0, 0.0]
    own = x[:, :3]
    design = np.c_[own, np.ones(count)]
    fit = np.linalg.lstsq(design, logits, rcond=None)[0].T
    return own, logits, (fit[:, :-1], fit[:, -1])


@pytest.mark.parametrize("squash", ["softmax", "sigmoid"])
def test_no_step_from_it_makes_the_divergence_less(squash):
    """The problem is convex, so where nothing near is better nothing is."""
    own, logits, start = problem()
    weight, bias = refit_output([own], [logits], start, squash, damping=1e-7)
    best = divergence(squash, logits, own @ weight.T + bias)
    assert best < 0.8 * divergence(squash, logits, own @ start[0].T + start[1])
    generator = np.random.default_rng(1)
    for _ in range(30):
        step = 0.02 * generator.normal(size=(4, 4))
        moved = own @ (weight + step[:, 1:]).T + bias + step[:, 0]
        assert divergence(squash, logits, moved) > best - 1e-4


def test_much_damping_stays_at_the_start_but_for_the_bias():
    own, logits, start = problem()
    weight, bias = refit_output([own], [logits], start, "softmax", damping=1e9)
    np.testing.assert_allclose(weight, start[0], atol=1e-3)
    said = softmax(own @ weight.T + bias, axis=1).mean(axis=0)
    np.testing.assert_allclose(said, softmax(logits, axis=1).mean(axis=0), atol=1e-3)


def test_parts_and_their_order_do_not_matter():
    own, logits, start = problem()
    one = refit_output([own], [logits], start, "softmax")
    cut = [slice(400, 600), slice(0, 150), slice(150, 400)]
    two = refit_output([own[c] for c in cut], [logits[c] for c in cut], start, "softmax")
    said = [softmax(own @ weight.T + bias, axis=1) for weight, bias in (one, two)]
    np.testing.assert_allclose(said[0], said[1], atol=2e-3)


def test_inputs_that_are_constant_stay_as_they_are():
    own, logits, start = problem()
    own = np.c_[own[:, :2], np.full(len(own), 3.0)]
    weight, bias = refit_output([own], [logits], start, "softmax")
    np.testing.assert_allclose(weight[:, 2], start[0][:, 2], atol=1e-6)
    assert np.isfinite(weight).all()
    assert np.isfinite(bias).all()


def test_logits_of_a_thousand_do_not_overflow():
    own, logits, start = problem()
    for squash in ("softmax", "sigmoid"):
        weight, bias = refit_output([own], [1000 * logits], start, squash)
        assert np.isfinite(weight).all()
        assert np.isfinite(bias).all()
