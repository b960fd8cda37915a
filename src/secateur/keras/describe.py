"""Run the rules over a flat graph: what comes out is a `Network` and one `Site` per call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from secateur.keras.cut_rules import Site, find
from secateur.keras.cut_rules.site import Kept, given_axes
from secateur.keras.flatten import Call, Constant, Graph, Source, Tensor
from secateur.network import Axes, Network


@dataclass(eq=False)
class Description:
    """A flat graph with its slots.

    Attributes:
        graph: The calls.
        network: Slots, ties and weights.
        sites: Per call, what its rule said.
        axes: Labels of every tensor, by identity.
        walls: Why nothing is cut across an operation, by its name.
        instead: What a tensor counts as when the graph is run, by identity: another one, or None
            for zero.
    """

    graph: Graph
    network: Network
    sites: list[Site]
    axes: dict[int, Axes]
    walls: dict[str, str]
    instead: Mapping[int, Tensor | None] = field(default_factory=dict)

    def labels(self, tensor: Tensor) -> Axes:
        """Labels of a tensor's axes."""
        return self.axes[id(tensor)]


def describe(graph: Graph) -> Description:
    """Label every tensor and weight of a flat graph."""
    network = Network()
    axes: dict[int, Axes] = {id(tensor): (None,) * len(tensor.shape) for tensor in graph.inputs}
    keys: dict[int, str] = {}
    walls: dict[str, str] = {}
    sites = []
    for call in graph.calls:
        site = Site(network, call, axes, keys)
        _run_rule(site, call, walls)
        for tensor, own in zip(call.outputs, site.results, strict=True):
            axes[id(tensor)] = own
        sites.append(site)
    for tensor in graph.outputs:
        for labels in axes[id(tensor)]:
            network.output(labels)
    return Description(graph, network, sites, axes, walls)


def _run_rule(site: Site, call: Call, walls: dict[str, str]) -> None:
    if isinstance(call.operation, Source):
        _source(site)
        return
    if isinstance(call.operation, Constant):
        site.output(*given_axes(site.network, site.name, call.operation.value.shape))
        return
    rule = find(call.operation)
    kind = type(call.operation).__name__
    if rule is None:
        why = call.wall and f"it could not be opened ({call.wall})"
        walls[call.name] = why or f"no rule for {kind}"
        site.wall(walls[call.name])
        return
    try:
        rule(site)
        _check(site, call)
    except Exception as error:
        walls[call.name] = f"the rule for {kind} failed: {type(error).__name__}: {error}"
        for labels in site.made:
            site.freeze(labels, walls[call.name])
        site.config_change = site.argument_change = site.reference = None
        site.wall(walls[call.name])


def _source(site: Site) -> None:
    """A free variable: every axis gets slots, which what it meets will tie or freeze.

    A vector gives way to what it scales or shifts. What has more axes is the kernel of a layer that was
    written by hand, and makes units as a `Dense` does.
    """
    variable = site.call.operation.variable
    kind = "neuron" if sum(size > 1 for size in variable.shape) > 1 else "given"
    axes = given_axes(site.network, site.name, variable.shape, kind)
    site.made.extend(labels for labels in axes if labels is not None)
    site.weight(variable, *axes)
    site.output(*axes)


def _check(site: Site, call: Call) -> None:
    if len(site.results) != len(call.outputs):
        raise ValueError(f"it labels {len(site.results)} outputs of {len(call.outputs)}")
    for tensor, labels in zip(call.outputs, site.results, strict=True):
        sizes = tuple(None if own is None else own.size for own in labels)
        if len(sizes) != len(tensor.shape) or any(
            own is not None and own != size for own, size in zip(sizes, tensor.shape, strict=True)
        ):
            raise ValueError(f"it labels axes of {sizes} where the output has {tensor.shape}")


def everything(description: Description) -> Kept:
    """Nothing is cut."""
    return Kept(np.ones(description.network.num_slots, np.bool_))
