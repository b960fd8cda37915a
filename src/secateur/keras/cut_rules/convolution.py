"""Rules for convolutions of every kind."""

from __future__ import annotations

import numpy as np

from secateur.keras.cut_rules.linear import activate
from secateur.keras.cut_rules.site import Site, channel_axis
from secateur.keras.cut_rules.table import layer
from secateur.network import Labels, MaybeLabels


def spatial(site: Site) -> tuple[list[MaybeLabels], MaybeLabels]:
    """Output axes (nothing yet on the channel axis) and the channel labels; other axes freeze."""
    axes = site.axes()
    channel = channel_axis(site.operation, site.rank)
    for axis, labels in enumerate(axes):
        if axis != channel:
            site.freeze(labels)
    return [None] * len(axes), axes[channel]


def put_channel(site: Site, labels: MaybeLabels) -> None:
    """An output with labels on its channel axis only."""
    axes: list[MaybeLabels] = [None] * site.rank
    axes[channel_axis(site.operation, site.rank)] = labels
    site.output(*axes)


@layer("Conv1D", "Conv2D", "Conv3D")
def convolution(site: Site) -> None:
    """Kernel (..., in / groups, out); see `_grouped` for groups."""
    conv = site.operation
    _, channels = spatial(site)
    filters = site.fresh(conv.filters, "channel")
    if conv.groups > 1:
        channels = _grouped(site, channels, filters)
    lead = [None] * conv.rank
    site.weight(conv._kernel, *lead, channels, filters)
    site.weight(conv.bias, filters)
    _activate(site, filters)
    put_channel(site, filters)
    if conv.groups > 1 and conv._kernel.shape[-2] == 1:
        inputs = site.axes()[channel_axis(conv, site.rank)]
        site.resize(
            lambda kept: {
                "filters": kept.count(filters),
                "groups": kept.count(inputs, conv.groups),
            }
        )
        return
    site.resize(lambda kept: {"filters": kept.count(filters)})


def _grouped(site: Site, channels: MaybeLabels, filters: MaybeLabels) -> MaybeLabels:
    """Tie what grouped convolutions must lose together; returns labels of the kernel's input axis.

    With one channel a group, a group is the unit. Else the same position goes from every group, so
    that groups stay of one size.
    """
    groups = site.operation.groups
    assert filters is not None
    by_group = filters.reshape(groups, -1)
    if site.operation._kernel.shape[-2] == 1:
        if channels is None:
            site.freeze(filters, f"{site.name}: its groups are inputs that cannot be cut")
        else:
            site.tie(np.repeat(channels, by_group.shape[1]), filters)
        return None
    site.tie(np.tile(by_group[0], groups), filters)
    if channels is None:
        return None
    first: Labels = channels.reshape(groups, -1)[0]
    site.tie(np.tile(first, groups), channels)
    return first


def _activate(site: Site, labels: MaybeLabels) -> None:
    if channel_axis(site.operation, site.rank) == site.rank - 1:
        activate(site, labels, site.operation.activation)


@layer("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def transposed(site: Site) -> None:
    """Kernel (..., out, in)."""
    conv = site.operation
    _, channels = spatial(site)
    filters = site.fresh(conv.filters, "channel")
    site.weight(
        conv._kernel if hasattr(conv, "_kernel") else conv.kernel,
        *[None] * conv.rank,
        filters,
        channels,
    )
    site.weight(conv.bias, filters)
    _activate(site, filters)
    put_channel(site, filters)
    site.resize(lambda kept: {"filters": kept.count(filters)})


@layer("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(site: Site) -> None:
    """Kernel (..., in, multiplier): every output channel goes with its input channel."""
    conv = site.operation
    _, channels = spatial(site)
    out = None if channels is None else np.repeat(channels, conv.depth_multiplier)
    site.weight(conv.kernel, *[None] * conv.rank, channels, None)
    site.weight(conv.bias, out)
    _activate(site, out)
    put_channel(site, out)


@layer("SeparableConv1D", "SeparableConv2D")
def separable(site: Site) -> None:
    """A depthwise kernel, then a pointwise one that makes new slots."""
    conv = site.operation
    _, channels = spatial(site)
    lead = [None] * conv.rank
    inner = None if channels is None else np.repeat(channels, conv.depth_multiplier)
    filters = site.fresh(conv.filters, "channel")
    site.weight(conv.depthwise_kernel, *lead, channels, None)
    site.weight(conv.pointwise_kernel, *lead, inner, filters)
    site.weight(conv.bias, filters)
    _activate(site, filters)
    put_channel(site, filters)
    site.resize(lambda kept: {"filters": kept.count(filters)})
