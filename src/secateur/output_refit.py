"""Refit a layer under a softmax or sigmoid to what the model says, not to what goes into the squash.

Least squares of the logits counts an error of a class that is ruled out anyway as much as one that
turns the decision. With q = squash(X V^T + c) and p what the dense model says, this minimises

    mean over rows of KL(p || q) + sum_kj b_k lambda_j (V_kj - V0_kj)^2 / 2

from the least-squares solution V0 on, with lambda_j a part of the variance of input j and b_k the mean
of p_k (1 - p_k), what a squared error of logit k costs on average. That is logistic regression on soft
labels, the loss of distillation (Hinton et al., arXiv 1503.02531, section 2, at temperature 1), for one
matrix: convex, solved by L-BFGS in coordinates in which the covariance of the inputs is white. No labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

from secateur.arrays import Array

Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Squash: TypeAlias = Literal["softmax", "sigmoid"]

# Each takes two products with the rows. The divergence hardly falls after some fifty.
_ITERATIONS = 100
# More positions would hardly move the fit, and all of them are held in memory.
_MOST_ROWS = 1 << 16

# Least ridge of an input, as a part of what the mean input gets.
_FLOOR = 0.02


def thinned(parts: Iterable[tuple[Array, Array]], total: int) -> tuple[list[Array], list[Array]]:
    """Rows and logits part by part, evenly fewer where there are more than fit well in memory.

    Args:
        parts: (positions, in) and (positions, out).
        total: Positions of all parts together, or more.

    Example:
        >>> rows, logits = thinned([(np.ones((3, 2)), np.ones((3, 1)))], 3)
        >>> rows[0].shape, logits[0].shape
        ((3, 2), (3, 1))
    """
    step, start = -(-total // _MOST_ROWS), 0
    found: tuple[list[Array], list[Array]] = ([], [])
    for pair in parts:
        for kept, part in zip(found, pair, strict=True):
            kept.append(part[-start % step :: step])
        start += len(pair[0])
    return found


def refit_output(
    rows: Sequence[Array],
    logits: Sequence[Array],
    start: tuple[Array, Float64],
    squash: Squash,
    *,
    damping: float = 0.15,
) -> tuple[Array, Float64]:
    """Weights and bias whose squashed outputs are nearest to the dense model's.

    Args:
        rows: X in parts, each (positions, in).
        logits: What the dense layer puts out there, with its bias, each (positions, out).
        start: V0 (out, in) and its bias (out,).
        squash: What follows: "softmax" over the outputs of a row, or "sigmoid" of each.
        damping: lambda_j as a part of the variance of input j; above 0.

    Returns:
        V, (out, in) float32, and c, (out,) float64.

    Example:
        >>> x = np.linspace(-2.0, 2.0, 50)[:, None]
        >>> start = np.ones((1, 1)), np.zeros(1)
        >>> weight, bias = refit_output([x], [3 * x + 1], start, "sigmoid", damping=1e-6)
        >>> weight.round(2), bias.round(2)
        (array([[3.]], dtype=float32), array([1.]))
    """
    weight, offset = (np.asarray(part, np.float64) for part in start)
    fit = _Fit(rows, logits, weight, offset, squash, damping)
    found = minimize(
        fit.loss,
        np.zeros(weight.size + len(weight)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS},
    )
    moved, shift = fit.change(found.x)
    return (weight + moved).astype(np.float32), offset + shift - moved @ fit.mean


class _Fit:
    def __init__(
        self,
        rows: Sequence[Array],
        logits: Sequence[Array],
        weight: Float64,
        offset: Float64,
        squash: Squash,
        damping: float,
    ) -> None:
        self.squash: Squash = squash
        self.count = sum(len(part) for part in rows)
        total = np.zeros(weight.shape[1])
        for part in rows:
            total += part.sum(axis=0, dtype=np.float64)
        self.mean = total / self.count
        gram = np.zeros((total.size, total.size))
        for part in rows:
            centred = part - self.mean
            gram += centred.T @ centred / self.count
        spread = np.diagonal(gram)
        # An input that is constant, or all of them, is held where it is.
        level = float(spread.mean()) or 1.0
        self.ridge = damping * (spread + _FLOOR * level)
        self.lower = np.linalg.cholesky(gram + np.diag(self.ridge))  # (in, in)
        self.white = [self._whitened(part - self.mean) for part in rows]
        self.base = [part.astype(np.float64) @ weight.T + offset for part in rows]
        self.wanted = [squashed(part.astype(np.float64), squash) for part in logits]
        self.bend = np.zeros(len(weight))
        for p in self.wanted:
            self.bend += (p * (1 - p)).sum(axis=0) / self.count

    def _whitened(self, rows: Array) -> Float64:
        return np.asarray(solve_triangular(self.lower, rows.T, lower=True).T)

    def change(self, flat: Float64) -> tuple[Float64, Float64]:
        """V - V0, and by how much the outputs of the mean row change."""
        inner = flat.reshape(len(self.bend), -1)
        moved = solve_triangular(self.lower, inner[:, :-1].T, lower=True, trans="T").T
        return np.asarray(moved), inner[:, -1]

    def loss(self, flat: Float64) -> tuple[float, Float64]:
        """What is minimised, but for the entropy of p, and its gradient."""
        inner = flat.reshape(len(self.bend), -1)
        moved, shift = self.change(flat)
        value, slope = 0.0, np.zeros_like(inner)
        for x, z, p in zip(self.white, self.base, self.wanted, strict=True):
            now = z + x @ inner[:, :-1].T + shift
            wrong = squashed(now, self.squash) - p  # (positions, out)
            value += _cross_entropy(p, now, self.squash)
            slope[:, :-1] += wrong.T @ x
            slope[:, -1] += wrong.sum(axis=0)
        pull = self.bend[:, None] * self.ridge * moved
        slope /= self.count
        slope[:, :-1] += self._whitened(pull)
        return value / self.count + float(np.vdot(pull, moved)) / 2, slope.ravel()


def squashed(logits: Float64, squash: Squash) -> Float64:
    """Softmax over the last axis, or the sigmoid of each entry.

    Example:
        >>> squashed(np.array([0.0, np.log(3.0)]), "softmax")
        array([0.25, 0.75])
    """
    if squash == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _cross_entropy(p: Float64, logits: Float64, squash: Squash) -> float:
    """- sum p log q; of a sigmoid, of both what is and what is not."""
    if squash == "sigmoid":
        return float((np.logaddexp(0, logits) - p * logits).sum())
    raised = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(raised).sum(axis=1)) - (p * raised).sum(axis=1)).sum())
