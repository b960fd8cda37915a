"""Weight matrices that take units: which of their columns go when units are cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from secateur.arrays import Array
from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.describe import Description
from secateur.keras.layouts import MatrixView, expand_layout, view_as_matrix
from secateur.keras.tensors import layout_of, why_altered
from secateur.keras.walk import Place, walk_layers
from secateur.network import Axes, Labels


@dataclass(frozen=True, eq=False)
class Consumer:
    """A weight whose matrix (out, in) takes units on its columns.

    Attributes:
        name: Layer and weight, for messages.
        site: The call that uses it; the first, if there are more.
        owner: The layer that owns it: that of the site, or one inside.
        variable: The weight.
        axes: Labels of the weight's axes.
        letters: Per axis of the weight, "i" or "o".
        view: How it is seen as a matrix.
        slots: Arrays (in,): the slot of each column; a column goes where any of them goes.
        num_calls: How often the weight's layer is called.
        trouble: Why nothing can make up for removed units here, or "".
    """

    name: str
    site: Site
    owner: Any
    variable: Any
    axes: Axes
    letters: str
    view: MatrixView
    slots: tuple[Labels, ...]
    num_calls: int
    trouble: str = ""

    def removed(self, kept: Kept) -> npt.NDArray[np.bool_]:
        """Per column, whether it goes."""
        gone = np.zeros(self.slots[0].size, np.bool_)
        for slots in self.slots:
            gone |= ~kept.mask(slots)
        return gone

    def stays(self, kept: Kept) -> npt.NDArray[np.bool_]:
        """Per row, whether it stays: rows are outputs, which may be units themselves."""
        shape = tuple(int(size) for size in self.variable.shape)
        stays = np.ones(shape, np.bool_)
        for axis, (labels, letter) in enumerate(zip(self.axes, self.letters, strict=True)):
            if letter == "o" and labels is not None:
                stays &= kept.mask(labels).reshape(
                    [-1 if a == axis else 1 for a in range(len(shape))]
                )
        first: npt.NDArray[np.bool_] = self.view.to_matrix(stays)[:, 0]
        return first

    def matrix(self, value: Array) -> Array:
        """A value of the weight as an (out, in) matrix; a view."""
        return self.view.to_matrix(np.ascontiguousarray(value))

    @property
    def output_axes(self) -> Axes:
        """Labels of the weight's output axes."""
        return tuple(
            own for own, letter in zip(self.axes, self.letters, strict=True) if letter == "o"
        )


def find_consumers(description: Description) -> list[Consumer]:
    """Every weight matrix that takes units, in the order of the calls, once each."""
    calls = _calls_by_operation(description)
    found: dict[int, Consumer] = {}
    for site in description.sites:
        if not isinstance(site.call.operation, keras.layers.Layer):
            continue
        axes = {id(variable): own for variable, own in site.weights}
        for place in walk_layers(site.call.operation):
            for variable in (
                *place.layer._trainable_variables,
                *place.layer._non_trainable_variables,
            ):
                if id(variable) in axes and id(variable) not in found:
                    count = calls[id(site.call.operation)]
                    for consumer in _consumer(site, place, variable, axes[id(variable)], count):
                        found[id(variable)] = consumer
    return list(found.values())


def _calls_by_operation(description: Description) -> dict[int, int]:
    counts: dict[int, int] = {}
    for site in description.sites:
        counts[id(site.call.operation)] = counts.get(id(site.call.operation), 0) + 1
    return counts


def _consumer(
    site: Site, place: Place, variable: Any, axes: Axes, num_calls: int
) -> Iterator[Consumer]:
    layout = layout_of(place.layer, variable)
    if layout is None:
        return
    shape = tuple(int(size) for size in variable.shape)
    letters = expand_layout(layout, len(shape))
    taken = [
        axis
        for axis, (own, letter) in enumerate(zip(axes, letters, strict=True))
        if own is not None and letter == "i"
    ]
    if not taken:
        return
    view = view_as_matrix(letters, shape)
    names = [name for name in (site.name, place.path, str(variable.name)) if name]
    yield Consumer(
        name="/".join(names),
        site=site,
        owner=place.layer,
        variable=variable,
        axes=axes,
        letters=letters,
        view=view,
        slots=tuple(_columns(view, shape, axis, axes[axis]) for axis in taken),
        num_calls=num_calls,
        trouble=view.interleaved or why_altered(place.layer),
    )


def _columns(view: MatrixView, shape: tuple[int, ...], axis: int, labels: Labels | None) -> Labels:
    """Slots of one axis of a weight, laid over the columns of its matrix."""
    assert labels is not None
    spread = labels.reshape([-1 if own == axis else 1 for own in range(len(shape))])
    rows: Labels = view.to_matrix(np.ascontiguousarray(np.broadcast_to(spread, shape)))[0]
    return rows
