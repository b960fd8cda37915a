"""The original model as the proof runs it: what was bypassed held at zero, or at its entry."""

from __future__ import annotations

from dataclasses import replace

from secateur.keras.cut_rules import Site
from secateur.keras.describe import Description
from secateur.keras.flatten import Tensor
from secateur.keras.reducing import Reduction
from secateur.network import Axes


def held_original(description: Description, reduction: Reduction) -> Description:
    """Describe the original graph with the slots of the reduced one.

    Every call of the original is run, those that vanish too; `instead` says what their results
    count as. Where the rewriting of the graph were wrong, the two would differ.

    Args:
        description: Of the reduced graph.
        reduction: How that was made.
    """
    if not reduction.names:
        return description
    axes: dict[int, Axes] = {}
    site_of = {id(site.call): site for site in description.sites}

    def label(tensor: Tensor) -> None:
        found = description.axes.get(id(reduction.heir(tensor)))
        axes[id(tensor)] = (None,) * len(tensor.shape) if found is None else found

    for tensor in reduction.original.inputs:
        label(tensor)
    sites = []
    for call in reduction.original.calls:
        for tensor in call.outputs:
            label(tensor)
        site = site_of.get(id(reduction.heirs.get(id(call))))
        if site is None:
            blank = Site(description.network, call, axes, {})
            sites.append(blank)
        else:
            sites.append(replace(site, call=call, known=axes))
    return Description(
        reduction.original,
        description.network,
        sites,
        axes,
        description.walls,
        instead=reduction.instead,
    )
