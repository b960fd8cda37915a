"""What a batch made without data is to be like, as losses of what the model makes of it.

Each is scale-free, so that one set of weights does for models of any kind.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from keras import ops

Role = Literal["probabilities", "logits", "sigmoid", "binary_logits", "values"]
"""What an output is: a softmax, its logits, sigmoids, their logits, or plain numbers."""

_TINY = 1e-7


def confidence_loss(outputs: Any, role: Role) -> Any:
    """Cross-entropy of outputs with what they themselves hold most likely; 0 where they are certain.

    Args:
        outputs: (batch, ..., classes), float; with sigmoids each unit is a yes or no of its own.
        role: What they are, not "values".

    Returns:
        A scalar, at least 0 (to rounding).

    References:
        Chen et al., DAFL (arXiv 1904.01186), eq. 4.
    """
    if role in ("sigmoid", "binary_logits"):
        sure = ops.maximum(*_yes_and_no(outputs, role))
    else:
        sure = ops.max(_distribution(outputs, role), axis=-1)
    return -ops.mean(ops.log(sure + _TINY))  # clipping would hide NaN


def balance_loss(outputs: Any, role: Role) -> Any:
    """1 - entropy of how often classes come, relative to the largest; 0 where all come alike.

    One sigmoid is balanced between yes and no. Of several, each is to be on as much as any other.

    Args:
        outputs: (batch, ..., classes), float.
        role: What they are, not "values".

    Returns:
        A scalar, 0 to 1.

    References:
        Chen et al., DAFL (arXiv 1904.01186), eq. 6 (differs: divided by log(classes)).
    """
    if role in ("sigmoid", "binary_logits"):
        yes, no = _yes_and_no(outputs, role)
        parts = ops.stack([yes, no], axis=-1)[..., 0, :] if outputs.shape[-1] == 1 else yes
    else:
        parts = _distribution(outputs, role)
    shares = ops.mean(parts, axis=tuple(range(len(parts.shape) - 1)))
    shares = shares / (ops.sum(shares) + _TINY)
    entropy = -ops.sum(shares * ops.log(shares + _TINY))
    count = int(parts.shape[-1])
    return 1.0 - entropy / math.log(max(count, 2))


def activation_loss(features: Any) -> Any:
    """-log mean |features|: real data excites what was trained on it more than noise does.

    Args:
        features: Of any shape, float.

    References:
        Chen et al., DAFL (arXiv 1904.01186), eq. 5 (differs: the logarithm, so that the scale of the
        features does not matter).
    """
    return -ops.log(ops.mean(ops.abs(ops.cast(features, "float32"))) + _TINY)


def spread_loss(values: Any) -> Any:
    """Take log mean exp(-2 |u - v|^2) over pairs of normalised outputs: low where they differ.

    Args:
        values: (batch, ..., width >= 2), float.

    Returns:
        A scalar, at most 0.

    References:
        Wang & Isola (arXiv 2005.10242), section 4.1.2, uniformity with t = 2.
    """
    rows = ops.reshape(ops.cast(values, "float32"), (-1, values.shape[-1]))[:1024]
    rows = rows / (ops.sqrt(ops.sum(ops.square(rows), axis=-1, keepdims=True)) + _TINY)
    gaps = 2.0 - 2.0 * ops.matmul(rows, ops.transpose(rows))
    return ops.logsumexp(-2.0 * gaps) - ops.log(ops.cast(ops.size(gaps), "float32"))


def statistics_loss(values: Any, mean: Any, variance: Any, axis: int = -1) -> Any:
    """Kullback-Leibler divergence of a batch's channels from a normalisation's moving statistics.

    Channels are taken for normal distributions.

    Args:
        values: What goes into the normalisation, float.
        mean: (channels,) its moving mean.
        variance: (channels,) its moving variance, at least 0.
        axis: Axis of the channels.

    Returns:
        A scalar, at least 0: the mean over channels.

    References:
        Yin et al., DeepInversion (arXiv 1912.08795), eq. 4 (differs: a divergence in the place of l2
        distances, so that the scale of channels does not matter).
    """
    values = ops.cast(values, "float32")
    axes = [number for number in range(len(values.shape)) if number != axis % len(values.shape)]
    mean, variance = (ops.cast(value, "float32") for value in (mean, variance))
    found, spread = ops.mean(values, axis=axes), ops.var(values, axis=axes)
    # A channel that was dead in training has a variance of 0.
    floor = 1e-3 * ops.mean(variance) + _TINY
    ratio = (spread + floor) / (variance + floor)
    shift = ops.square(found - mean) / (variance + floor)
    return 0.5 * ops.mean(ratio + shift - 1.0 - ops.log(ratio))


def _distribution(outputs: Any, role: Role) -> Any:
    outputs = ops.cast(outputs, "float32")
    return ops.softmax(outputs, axis=-1) if role == "logits" else outputs


def _yes_and_no(outputs: Any, role: Role) -> tuple[Any, Any]:
    outputs = ops.cast(outputs, "float32")
    yes = ops.sigmoid(outputs) if role == "binary_logits" else outputs
    return yes, 1.0 - yes
