"""A network as secateur cuts it: slots, and what ties them together. Knows no framework.

Every position of every axis that could be cut carries a *slot*, an integer. A `Labels` array names
the
slot of each position of one axis; an axis without labels is never cut. Layers pass labels on, make
new
ones, tie them (an addition: both arms must lose the same channel) or freeze them (nothing may go).
All
of that is collected as arrays; `groups.solve` settles it in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Labels: TypeAlias = npt.NDArray[np.int64]
"""Slot of each position of an axis."""

MaybeLabels: TypeAlias = Labels | None
Axes: TypeAlias = tuple[MaybeLabels, ...]
"""Labels of every axis of a tensor; None = an axis that is never cut."""


@dataclass(frozen=True)
class Origin:
    """Where a run of slots comes from.

    Attributes:
        name: The operation that makes them.
        kind: "neuron", "channel", "unit", "head", "embedding", or of slots that are no units by
            themselves: "factor" (part of a split axis), "given" (a free variable or a constant).
        start: First slot.
        size: Number of slots.
    """

    name: str
    kind: str
    start: int
    size: int

    @property
    def makes_units(self) -> bool:
        """Whether its slots are units by themselves."""
        return self.kind not in ("factor", "given")

    @property
    def labels(self) -> Labels:
        """The slots, in order."""
        return np.arange(self.start, self.start + self.size, dtype=np.int64)


@dataclass(eq=False)
class Weight:
    """A weight and the slots of its axes.

    Attributes:
        key: Unique name.
        shape: Its shape.
        axes: Labels per axis.
        made: Per axis, whether its operation makes these slots (True: an output axis) or takes
            them.
    """

    key: str
    shape: tuple[int, ...]
    axes: Axes
    made: tuple[bool, ...]


@dataclass(eq=False)
class Product:
    """An axis that is split into factors, or merged from them: position = (index in each factor)."""

    whole: Labels
    factors: list[tuple[Labels, Labels]] = field(default_factory=list)
    """Per labelled factor: its own labels, and those labels spread over the positions of the whole."""


class Network:
    """Collects slots, ties, freezes and weights."""

    def __init__(self) -> None:
        self.num_slots = 0
        self.origins: list[Origin] = []
        self.ties: list[tuple[Labels, Labels]] = []
        self.frozen: list[tuple[Labels, str]] = []
        self.mixed: list[Labels] = []
        self.outputs: list[Labels] = []
        self.products: list[Product] = []
        self.weights: dict[str, Weight] = {}

    def fresh(self, size: int, name: str, kind: str) -> Labels:
        """New slots for an axis of `size` positions that the operation `name` makes."""
        origin = Origin(name, kind, self.num_slots, size)
        self.origins.append(origin)
        self.num_slots += size
        return origin.labels

    def tie(self, first: MaybeLabels, second: MaybeLabels, reason: str) -> MaybeLabels:
        """Positions of two axes go together. With an axis that is never cut, the other freezes."""
        if first is None or second is None:
            self.freeze(first, reason)
            self.freeze(second, reason)
            return None
        if first is not second:
            self.ties.append((first, second))
        return first

    def freeze(self, labels: MaybeLabels, reason: str) -> None:
        """None of these slots may be cut."""
        if labels is not None and labels.size:
            self.frozen.append((labels, reason))

    def output(self, labels: MaybeLabels) -> None:
        """These slots are an output of the model, which keeps its shape."""
        if labels is not None:
            self.outputs.append(labels)
        self.freeze(labels, "it is an output of the model")

    def mix(self, labels: MaybeLabels) -> None:
        """These slots are summed over in a product of two activations (query and key, say).

        They may be cut, but where an axis was split in two, the other factor is the better unit.
        """
        if labels is not None:
            self.mixed.append(labels)

    def product(self, shape: Sequence[int], factors: Sequence[MaybeLabels], whole: Labels) -> None:
        """An axis `whole` of prod(shape) positions is indexed by factors of these sizes, in C order."""
        product = Product(whole)
        for axis, labels in enumerate(factors):
            if labels is not None:
                product.factors.append((labels, spread(shape, axis, labels)))
        self.products.append(product)

    def weight(self, key: str, shape: tuple[int, ...], axes: Axes, made: tuple[bool, ...]) -> None:
        """Say which slots index a weight; a weight used twice ties both uses."""
        known = self.weights.get(key)
        if known is None:
            self.weights[key] = Weight(key, shape, axes, made)
            return
        reason = f"weight {key} is shared with a use that cannot be cut"
        merged = [
            self.tie(one, two, reason) if (one is not None or two is not None) else None
            for one, two in zip(known.axes, axes, strict=True)
        ]
        known.axes = tuple(merged)


def spread(shape: Sequence[int], axis: int, labels: Labels) -> Labels:
    """Labels of one factor, laid over the flattened positions of all.

    Example:
        >>> spread((2, 3), 0, np.array([7, 8]))
        array([7, 7, 7, 8, 8, 8])
    """
    view = [1] * len(shape)
    view[axis] = -1
    return np.broadcast_to(labels.reshape(view), tuple(shape)).reshape(-1)
