"""Rules for pooling, padding, cropping and resizing: channels pass, positions in space stay whole."""

from __future__ import annotations

import math
from typing import Any

from keras import tree

from secateur.keras.cut_rules.convolution import put_channel, spatial
from secateur.keras.cut_rules.site import Kept, ReferenceCall, Site, channel_axis
from secateur.keras.cut_rules.table import layer, op
from secateur.network import MaybeLabels


@layer(
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D",
    "AveragePooling3D", "AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D",
    "AdaptiveAveragePooling3D", "AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D",
    "AdaptiveMaxPooling3D", "UpSampling2D", "UpSampling3D", "ZeroPadding2D", "ZeroPadding3D",
    "Cropping2D", "Cropping3D", "Resizing", "CenterCrop", "RandomFlip", "RandomRotation",
    "RandomZoom", "RandomTranslation", "RandomCrop",
)  # fmt: skip
@op("MaxPool", "AveragePool", "Resize")
def over_space(site: Site) -> None:
    """Works on each channel alone."""
    _, channels = spatial(site)
    put_channel(site, channels)


@layer("UpSampling1D", "ZeroPadding1D", "Cropping1D")
def over_time(site: Site) -> None:
    """Like `over_space`, of (batch, time, features)."""
    _, time, features = site.axes()
    site.freeze(time)
    site.output(None, None, features)


@layer(
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
)  # fmt: skip
def global_pooling(site: Site) -> None:
    """Only batch and channels are left."""
    _, channels = spatial(site)
    if site.operation.keepdims:
        put_channel(site, channels)
    else:
        site.output(None, channels)


@op(
    "Mean", "Sum", "Max", "Min", "Amax", "Amin", "Any", "All", "Var", "Std", "Prod", "Logsumexp",
    "Norm", "Median", "Argmax", "Argmin", "CountNonzero",
)  # fmt: skip
def reduction(site: Site) -> None:
    """Axes that are reduced must stay whole, except where zeros change nothing or are not counted.

    A sum and a 2-norm do not feel zeros. A mean runs over the positions that are left, as that of a
    normalisation does (`layer_normalization`), and so does its reference in the proof.
    """
    axes = site.axes()
    given = site.operation.axis
    over = {
        axis % site.rank for axis in (range(site.rank) if given is None else tree.flatten(given))
    }
    kind = type(site.operation).__name__
    neutral = kind in ("Sum", "Mean") or (
        kind == "Norm" and len(over) == 1 and site.operation.ord in (None, 2)
    )
    result: list[MaybeLabels] = []
    for axis, labels in enumerate(axes):
        if axis not in over:
            result.append(labels)
            continue
        if not neutral:
            site.freeze(labels)
        if getattr(site.operation, "keepdims", False):
            result.append(None)
    site.output(*result)
    reduced = [axes[axis] for axis in over if axes[axis] is not None]
    if kind == "Mean" and reduced:
        site.refer(_mean_of_kept(reduced))


def _mean_of_kept(reduced: list[MaybeLabels]) -> ReferenceCall:
    def run(mean: Any, args: tuple[Any, ...], kwargs: dict[str, Any], kept: Kept) -> Any:
        whole = math.prod(labels.size for labels in reduced if labels is not None)
        left = math.prod(kept.count(labels) for labels in reduced)
        return mean(*args, **kwargs) * (whole / left)

    return run


@layer("Rescaling", "Normalization", "RandomBrightness", "RandomContrast")
def input_scaling(site: Site) -> None:
    """Value by value, with constants along the last axis: that stays whole."""
    axes = site.axes()
    last = channel_axis(site.operation, site.rank)
    site.freeze(axes[last])
    axes[last] = None
    site.output(*axes)
