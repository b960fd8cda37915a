"""Losses of generated batches against short NumPy oracles."""

import numpy as np
import pytest

from secateur.keras.data_free_losses import (
    activation_loss,
    balance_loss,
    confidence_loss,
    spread_loss,
    statistics_loss,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 5)).astype("float32")
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
YES = (1 / (1 + np.exp(-LOGITS))).astype("float32")


def entropy(shares):
    shares = shares / shares.sum()
    return -(shares * np.log(shares)).sum()


@pytest.mark.parametrize(
    ("outputs", "role", "sure"),
    [
        (P, "probabilities", P.max(1)),
        (LOGITS, "logits", P.max(1)),
        (YES, "sigmoid", np.maximum(YES, 1 - YES)),
        (LOGITS, "binary_logits", np.maximum(YES, 1 - YES)),
    ],
)
def test_confidence_is_cross_entropy_with_the_likeliest(outputs, role, sure):
    assert float(confidence_loss(outputs, role)) == pytest.approx(-np.log(sure).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("outputs", "role", "shares"),
    [
        (P, "probabilities", P.mean(0)),
        (LOGITS, "logits", P.mean(0)),
        (YES, "sigmoid", YES.mean(0)),
        (YES[:, :1], "sigmoid", np.array([YES[:, 0].mean(), 1 - YES[:, 0].mean()])),
        (P.reshape(8, 5, 5), "probabilities", P.mean(0)),
    ],
)
def test_balance_is_what_entropy_lacks_of_the_most(outputs, role, shares):
    wanted = 1 - entropy(shares) / np.log(len(shares))
    assert float(balance_loss(outputs, role)) == pytest.approx(wanted, abs=1e-5)


def test_certain_and_balanced_outputs_lose_nothing():
    sure = np.eye(4, dtype="float32")
    assert float(confidence_loss(sure, "probabilities")) == pytest.approx(0, abs=1e-6)
    assert float(balance_loss(sure, "probabilities")) == pytest.approx(0, abs=1e-5)
    assert float(balance_loss(sure[:1].repeat(4, 0), "probabilities")) == pytest.approx(1, abs=1e-5)


def test_activations_count_by_the_logarithm_of_their_size():
    assert float(activation_loss(LOGITS)) == pytest.approx(-np.log(np.abs(LOGITS).mean()), rel=1e-5)


def test_spread_is_the_potential_between_directions():
    unit = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)
    gaps = ((unit[:, None] - unit[None]) ** 2).sum(-1)
    assert float(spread_loss(LOGITS)) == pytest.approx(np.log(np.exp(-2 * gaps).mean()), rel=1e-4)


@pytest.mark.parametrize("axis", [-1, 1])
def test_statistics_are_compared_by_the_divergence_of_normal_distributions(axis):
    x = RNG.normal(1, 2, size=(9, 4, 3)).astype("float32")
    x = np.moveaxis(x, -1, axis)
    mean, variance = np.array([0.5, 1, 1.5]), np.array([1, 4, 9])
    rows = np.moveaxis(x, axis, -1).reshape(-1, 3)
    m, v, floor = rows.mean(0), rows.var(0), 1e-3 * variance.mean()
    ratio = (v + floor) / (variance + floor)
    wanted = 0.5 * (ratio + (m - mean) ** 2 / (variance + floor) - 1 - np.log(ratio)).mean()
    assert float(statistics_loss(x, mean, variance, axis)) == pytest.approx(wanted, rel=1e-4)


def test_the_statistics_of_a_batch_itself_lose_nothing():
    x = RNG.normal(3, 2, size=(50, 6)).astype("float32")
    assert float(statistics_loss(x, x.mean(0), x.var(0))) == pytest.approx(0, abs=1e-5)
