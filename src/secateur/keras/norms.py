"""Scales and offsets of layer normalisations, refitted to what the given network put out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from keras import layers, ops

from secateur.arrays import Array
from secateur.keras.calibrating import CalibrationWalk
from secateur.keras.flatten import Call, Graph
from secateur.keras.staging import Member, TapGroup
from secateur.keras.taps import Bias, Tap, taps_of
from secateur.keras.variables import empty_like, read_array
from secateur.reconstruction import AffineStatistics


def norm_tap(call: Call) -> Tap | None:
    """The tap of a layer normalisation that has a scale and an offset per feature; else None.

    Its rows are what is normalised, before scale and offset: (lead..., features).
    """
    layer = call.operation
    if type(layer) is not layers.LayerNormalization or not call.inputs:
        return None
    if not (layer.scale and layer.center) or getattr(layer, "rms_scaling", False):
        return None
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if axes not in ([-1], [len(call.inputs[0].shape) - 1]):
        return None

    def rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Array:
        value = args[0] if args else next(iter(kwargs.values()))
        x = np.asarray(ops.convert_to_numpy(value), np.float32)
        x = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(np.square(x), axis=-1, keepdims=True)
        return np.asarray(x / np.sqrt(variance + layer.epsilon))

    return Tap(layer.gamma, rows, (id(call), "normalised"), 1, Bias(layer.beta))


def norm_variables(graph: Graph, wanted: Collection[int]) -> set[int]:
    """Identities of the scales that lie behind a wanted weight, in layers that are called once."""
    behind: set[int] = set()
    uses: dict[int, int] = {}
    reached: set[int] = set()
    for call in graph.calls:
        changed = any(id(tensor) in behind for tensor in call.inputs)
        tap = norm_tap(call)
        if tap is not None:
            uses[id(tap.variable)] = uses.get(id(tap.variable), 0) + 1
            if changed:
                reached.add(id(tap.variable))
        if changed or any(id(own.variable) in wanted for own in taps_of(call)):
            behind.update(id(tensor) for tensor in call.outputs)
    return {identity for identity in reached if uses[identity] == 1}


def refit_norm(walk: CalibrationWalk, group: TapGroup, damping: float) -> list[Any]:
    """Refit the scale and offset of a group's normalisation; returns the variables that changed."""
    (member,) = group.members
    assert member.tap.bias is not None
    scale, offset = member.variable, member.tap.bias.variable
    before, shift = read_array(scale), read_array(offset)
    statistics = AffineStatistics(before.size, name=str(group.inlets[0].call.name))
    wide, wide_shift = before.astype(np.float32), shift.astype(np.float32)
    for rows in walk.rows(group.inlets):
        # Both streams of a normalisation that has not changed yet have the same scale and offset.
        wanted = rows.dense[0] * wide + wide_shift
        statistics.update(rows.compressed[0], wanted, mask=rows.keep)
    fitted = statistics.fit(before.astype(np.float64), damping=damping)
    for variable, old, new in zip((scale, offset), (before, shift), fitted, strict=True):
        after = empty_like(old)
        after[...] = new
        walk.change(variable, after)
    return [scale, offset]


def is_norm(member: Member) -> bool:
    """Whether a member of a group is the scale of a normalisation."""
    return isinstance(member.tap.origin, tuple) and member.tap.origin[-1] == "normalised"
