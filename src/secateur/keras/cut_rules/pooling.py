"""Rules for pooling, padding, cropping and resizing: channels pass, positions in space stay whole."""

from __future__ import annotations

from keras import tree

from secateur.keras.cut_rules.convolution import put_channel, spatial
from secateur.keras.cut_rules.site import Site, channel_axis
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
@op("MaxPool", "AveragePool", "AdaptiveMaxPool", "AdaptiveAveragePool", "Resize")
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
    """Axes that are reduced must stay whole, except under a sum, to which zeros add nothing."""
    axes = site.axes()
    given = site.operation.axis
    over = {
        axis % site.rank for axis in (range(site.rank) if given is None else tree.flatten(given))
    }
    neutral = type(site.operation).__name__ == "Sum"
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


@layer("Rescaling", "Normalization", "RandomBrightness", "RandomContrast")
def input_scaling(site: Site) -> None:
    """Value by value, with constants along the last axis: that stays whole."""
    axes = site.axes()
    last = channel_axis(site.operation, site.rank)
    site.freeze(axes[last])
    axes[last] = None
    site.output(*axes)
