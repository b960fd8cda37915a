"""Rules for recurrent layers and the wrappers around layers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from keras import tree

from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.cut_rules.table import find, layer
from secateur.keras.flatten import Tensor
from secateur.network import Labels, MaybeLabels

_GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1, "LSTMCell": 4, "GRUCell": 3, "SimpleRNNCell": 1}


def _cell_weights(site: Site, cell: Any, features: MaybeLabels, units: Labels) -> None:
    """Kernel (in, gates x units), recurrent kernel (units, gates x units), bias.

    A removed unit reaches the others only through its row of the recurrent kernel.
    """
    gates = np.tile(units, _GATES[type(cell).__name__])
    site.made.append(gates)
    site.weight(cell.kernel, features, gates)
    site.weight(cell.recurrent_kernel, units.copy(), gates)
    if cell.bias is not None:
        site.weight(cell.bias, *[None] * (len(cell.bias.shape) - 1), gates)
    site.hold(cell.recurrent_kernel, 0, units)


def _recurrent(site: Site, rnn: Any) -> list[tuple[MaybeLabels, ...]]:
    """Ties of one recurrent layer; returns labels of its outputs."""
    cell = rnn.cell
    batch, time, features = site.axes()
    site.freeze(time)
    units = site.fresh(cell.units, "unit")
    _cell_weights(site, cell, features, units)
    outputs: list[tuple[MaybeLabels, ...]] = [
        (batch, None, units) if rnn.return_sequences else (batch, units)
    ]
    if rnn.return_state:
        outputs += [(None, units)] * (2 if "LSTM" in type(cell).__name__ else 1)
    return outputs


@layer("LSTM", "GRU", "SimpleRNN")
def recurrent(site: Site) -> None:
    """Makes `units` slots, which the initial states share."""
    rnn = site.operation
    for axes in _recurrent(site, rnn):
        site.output(*axes)
    units = site.results[0][-1]
    for state in _states(site):
        site.tie(site.axes(state)[-1], units)
    site.resize(lambda kept: {"units": kept.count(units)})


def _states(site: Site) -> list[Tensor]:
    given = site.argument("initial_state", 1)
    if given is None:
        return []
    return [leaf for leaf in tree.flatten(given) if isinstance(leaf, Tensor)]


@layer("RNN")
def rnn_of_cells(site: Site) -> None:
    """A recurrent layer of one stock cell."""
    rnn = site.operation
    if type(rnn.cell).__name__ not in _GATES:
        site.wall(f"cell {type(rnn.cell).__name__} is not known")
        for cell_weight in rnn.weights:
            site.weight(cell_weight, *[None] * len(cell_weight.shape))
        return
    for axes in _recurrent(site, rnn):
        site.output(*axes)
    units = site.results[0][-1]
    for state in _states(site):
        site.tie(site.axes(state)[-1], units)

    def change(kept: Kept) -> dict[str, Any]:
        cell = copy.deepcopy(rnn.get_config()["cell"])
        cell["config"]["units"] = kept.count(units)
        return {"cell": cell}

    site.resize(change)


@layer("Bidirectional")
def bidirectional(site: Site) -> None:
    """Two recurrent layers, whose units are tied unless both are given out by themselves."""
    wrapper = site.operation
    pair = (wrapper.forward_layer, wrapper.backward_layer)
    if any(type(rnn).__name__ not in _GATES for rnn in pair):
        site.wall("wraps layers that are not known")
        return
    states = _states(site)
    parts = []
    for number, rnn in enumerate(pair):
        outputs = _recurrent(site, rnn)
        half = len(states) // 2
        for state in states[number * half : (number + 1) * half]:
            site.tie(site.axes(state)[-1], outputs[0][-1])
        parts.append(outputs)
    one, two = (outputs[0][-1] for outputs in parts)
    assert one is not None
    assert two is not None
    _merged(site, parts, one, two)

    def change(kept: Kept) -> dict[str, Any]:
        config = wrapper.get_config()
        changes = {}
        for key, units in (("layer", one), ("backward_layer", two)):
            changes[key] = copy.deepcopy(config[key])
            changes[key]["config"]["units"] = kept.count(units)
        return changes

    site.resize(change)


def _merged(site: Site, parts: list[Any], one: Labels, two: Labels) -> None:
    mode = site.operation.merge_mode
    lead = parts[0][0][:-1]
    if mode is None:
        site.output(*lead, one)
        site.output(*lead, two)
    elif mode == "concat":
        # Keras takes the second direction to be as wide as the first.
        site.tie(one, two)
        site.output(*lead, np.concatenate([one, two]))
    else:
        site.output(*lead, site.tie(one, two))
    for outputs in parts:
        for axes in outputs[1:]:
            site.output(*axes)


@layer("TimeDistributed")
def time_distributed(site: Site) -> None:
    """The wrapped layer's rule, with the axis of time taken out and put back."""
    inner_layer = site.operation.layer
    rule = find(inner_layer)
    axes = site.axes()
    site.freeze(axes[1])
    if rule is None:
        site.wall(f"wraps {type(inner_layer).__name__}, for which there is no rule")
        return
    shape = (site.x.shape[0], *site.x.shape[2:])
    output = site.call.outputs[0].shape
    inside = Tensor(shape, site.x.dtype)
    inner = site.inner(inner_layer, [inside], [(axes[0], *axes[2:])])
    inner.call.outputs.append(Tensor((output[0], *output[2:]), site.call.outputs[0].dtype))
    rule(inner)
    site.adopt(inner)
    batch, *rest = inner.results[0]
    site.output(batch, None, *rest)

    def change(kept: Kept) -> dict[str, Any]:
        config = copy.deepcopy(site.operation.get_config()["layer"])
        config["config"].update({} if inner.config_change is None else inner.config_change(kept))
        return {"layer": config}

    site.resize(change)


@layer("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
def convolutional_lstm(site: Site) -> None:
    """Kernels (..., in, 4 x filters) and (..., filters, 4 x filters)."""
    rnn = site.operation
    cell = rnn.cell
    axes = site.axes()
    channel = 2 if cell.data_format == "channels_first" else site.rank - 1
    for axis, labels in enumerate(axes):
        if axis != channel:
            site.freeze(labels)
    filters = site.fresh(cell.filters, "channel")
    gates = np.tile(filters, 4)
    site.made.append(gates)
    lead = [None] * (len(cell.kernel.shape) - 2)
    site.weight(cell.kernel, *lead, axes[channel], gates)
    site.weight(cell.recurrent_kernel, *lead, filters, gates)
    site.weight(cell.bias, gates)
    site.hold(cell.recurrent_kernel, len(lead), filters)
    out: list[MaybeLabels] = [None] * len(site.call.outputs[0].shape)
    out[channel - (0 if rnn.return_sequences else 1)] = filters
    site.output(*out)
    state = [None] * (site.rank - 1)
    for _ in site.call.outputs[1:]:
        own: list[MaybeLabels] = list(state)
        own[channel - 1] = filters
        site.output(*own)
    for tensor in _states(site):
        site.tie(site.axes(tensor)[channel - 1], filters)
    site.resize(lambda kept: {"filters": kept.count(filters)})
