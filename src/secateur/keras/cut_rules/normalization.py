"""Rules for normalisation of every kind."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.cut_rules.table import layer
from secateur.network import Axes, MaybeLabels


@layer("BatchNormalization")
def batch_normalization(site: Site) -> None:
    """Four vectors along one axis."""
    norm = site.operation
    along = site.axes()[norm.axis]
    for variable in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance):
        site.weight(variable, along)
    site.same()


def _axes_of(norm: Any, rank: int) -> list[int]:
    axes = norm.axis if isinstance(norm.axis, (list, tuple)) else [norm.axis]
    return sorted(axis % rank for axis in axes)


@layer("LayerNormalization", "RMSNormalization")
def layer_normalization(site: Site) -> None:
    """Statistics over the axes themselves: after a cut they run over what is kept.

    So the reference of the proof takes mean and variance over the kept positions only. (Zeros would
    still
    count in them; no weights of a smaller layer can undo that for every input.)
    """
    norm = site.operation
    along: list[MaybeLabels] = [site.axes()[axis] for axis in _axes_of(norm, site.rank)]
    for variable in (
        getattr(norm, "gamma", None),
        getattr(norm, "beta", None),
        getattr(norm, "scale", None),
    ):
        if hasattr(variable, "path"):
            site.weight(variable, *along)
    site.same()
    site.refer(normalise_kept(tuple(site.axes())))


def normalise_kept(labels: Axes) -> Any:
    """A call of a layer normalisation whose statistics run over kept positions only."""

    def run(norm: Any, args: tuple[Any, ...], kwargs: dict[str, Any], kept: Kept) -> Any:
        del kwargs
        x = ops.cast(args[0], "float32")
        rank = len(x.shape)
        axes = _axes_of(norm, rank)
        weight = np.ones([1] * rank, np.float32)
        for axis in axes:
            along = labels[axis]
            size = x.shape[axis]
            own = np.ones(size) if along is None else kept.mask(along)
            weight = weight * own.astype(np.float32).reshape(
                [-1 if a == axis else 1 for a in range(rank)]
            )
        count = float(weight.sum())
        centred = type(norm).__name__ == "LayerNormalization" and not getattr(
            norm, "rms_scaling", False
        )
        mean = ops.sum(x * weight, axis=axes, keepdims=True) / count
        deviation = (x - mean) * weight if centred else x * weight
        variance = ops.sum(ops.square(deviation), axis=axes, keepdims=True) / count
        if getattr(norm, "rms_scaling", False):
            centre = (x - mean) * weight
            variance = ops.sum(ops.square(centre), axis=axes, keepdims=True) / count
        result = deviation * ops.rsqrt(variance + norm.epsilon)
        shape = [x.shape[axis] if axis in axes else 1 for axis in range(rank)]
        for name, combine in (("gamma", ops.multiply), ("scale", ops.multiply), ("beta", ops.add)):
            variable = getattr(norm, name, None)
            if isinstance(variable, keras.Variable):
                result = combine(result, ops.reshape(ops.cast(variable, "float32"), shape))
        return ops.cast(result, norm.compute_dtype)

    return run


@layer("GroupNormalization")
def group_normalization(site: Site) -> None:
    """Statistics per group: whole groups go, so those that stay are untouched."""
    norm = site.operation
    axis = norm.axis % site.rank
    axes = site.axes()
    for other, labels in enumerate(axes):
        if other != axis:
            site.freeze(labels)
    along = axes[axis]
    site.weight(norm.gamma, along)
    site.weight(norm.beta, along)
    site.same()
    if along is None:
        return
    groups = along.size if norm.groups == -1 else norm.groups
    if groups == 1:
        site.freeze(along, f"{site.name} (GroupNormalization) takes one mean over the whole axis")
        return
    by_group = along.reshape(groups, -1)
    size = by_group.shape[1]
    site.tie(np.repeat(by_group[:, 0], size), along)
    if norm.groups != -1:
        site.resize(lambda kept: {"groups": kept.count(along) // size})


@layer("UnitNormalization")
def unit_normalization(site: Site) -> None:
    """Divides by the norm over the axes, to which zeros add nothing."""
    site.same()


@layer("PReLU")
def prelu(site: Site) -> None:
    """Slopes along every axis that is not shared."""
    shared = site.operation.shared_axes or []
    axes = site.axes()
    along = [None if axis in shared else axes[axis] for axis in range(1, site.rank)]
    site.weight(site.operation.alpha, *along)
    site.same()
