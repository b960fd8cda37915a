"""A site: one call of one layer or op, as a rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import tree

from secateur.keras.flatten import Call, Tensor
from secateur.network import Axes, Labels, MaybeLabels, Network


class Kept:
    """Which slots stay.

    Args:
        slots: Per slot, True = keep.
    """

    def __init__(self, slots: npt.NDArray[np.bool_]) -> None:
        self.slots = slots

    def mask(self, labels: Labels) -> npt.NDArray[np.bool_]:
        """Per position of an axis, True = keep."""
        return self.slots[labels]

    def index(self, labels: Labels) -> npt.NDArray[np.intp]:
        """Positions of an axis that stay."""
        return np.flatnonzero(self.slots[labels])

    def count(self, labels: MaybeLabels, full: Any = None) -> Any:
        """How many positions of an axis stay; `full` where the axis is never cut."""
        return full if labels is None else int(np.count_nonzero(self.slots[labels]))

    def cuts(self, labels: MaybeLabels) -> bool:
        """Whether anything goes from an axis."""
        return labels is not None and not bool(self.slots[labels].all())

    def take(self, array: Any, axes: Sequence[MaybeLabels]) -> npt.NDArray[Any]:
        """The part of an array that stays."""
        result = np.asarray(array)
        for axis, labels in enumerate(axes):
            if self.cuts(labels):
                assert labels is not None
                result = np.take(result, self.index(labels), axis=axis)
        return result


ConfigChange = Callable[[Kept], dict[str, Any]]
ArgumentChange = Callable[[Kept], tuple[tuple[Any, ...], dict[str, Any]]]
ReferenceCall = Callable[[Any, tuple[Any, ...], dict[str, Any], Kept], Any]


@dataclass(eq=False)
class Site:
    """What a rule reads and says about one call.

    Attributes:
        network: Where slots and ties are collected.
        call: The call.
        known: Labels of every tensor so far, by identity.
        keys: Unique names of variables, by identity.
        operation: The layer or op whose rule this is; the inner one, inside a wrapper's rule.
    """

    network: Network
    call: Call
    known: dict[int, Axes]
    keys: dict[int, str]
    operation: Any = None
    passes: bool = False
    config_change: ConfigChange | None = None
    argument_change: ArgumentChange | None = None
    reference: ReferenceCall | None = None
    held: list[tuple[Any, int, Labels]] = field(default_factory=list)
    emitted: list[tuple[Any, int, Labels, int | None]] = field(default_factory=list)
    weights: list[tuple[Any, Axes]] = field(default_factory=list)
    made: list[Labels] = field(default_factory=list)
    results: list[Axes] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.operation is None:
            self.operation = self.call.operation

    @property
    def name(self) -> str:
        """Name of the operation."""
        return str(self.call.operation.name)

    @property
    def inputs(self) -> list[Tensor]:
        """The tensors that go in."""
        return self.call.inputs

    @property
    def x(self) -> Tensor:
        """The first tensor that goes in."""
        return self.call.inputs[0]

    @property
    def rank(self) -> int:
        """Number of axes of the first input."""
        return len(self.x.shape)

    def axes(self, tensor: Tensor | None = None) -> list[MaybeLabels]:
        """Labels of a tensor's axes (default: the first input)."""
        tensor = self.x if tensor is None else tensor
        return list(self.known[id(tensor)])

    def argument(self, name: str, position: int | None = None, default: Any = None) -> Any:
        """An argument of the call, by name or position."""
        if name in self.call.kwargs:
            return self.call.kwargs[name]
        if position is not None and position < len(self.call.args):
            return self.call.args[position]
        return default

    def fresh(self, size: int, kind: str) -> Labels:
        """New slots for an axis that this operation makes."""
        labels = self.network.fresh(int(size), self.name, kind)
        self.made.append(labels)
        return labels

    def weight(self, variable: Any, *axes: MaybeLabels) -> None:
        """Say which slots index the axes of a weight (None = never cut)."""
        if variable is None:
            return
        key = self.keys.setdefault(id(variable), f"{len(self.keys)}:{variable.path}")
        made = tuple(any(labels is own for own in self.made) for labels in axes)
        self.network.weight(key, tuple(variable.shape), axes, made)
        self.weights.append((variable, axes))

    def output(self, *axes: MaybeLabels) -> None:
        """Labels of the next output."""
        self.results.append(tuple(axes))

    def same(self) -> None:
        """The output carries the labels of the first input, value by value."""
        self.passes = True
        self.output(*self.axes())

    def tie(self, first: MaybeLabels, second: MaybeLabels) -> MaybeLabels:
        """Positions of two axes go together."""
        return self.network.tie(first, second, f"{self.name} ties it to an axis that cannot be cut")

    def freeze(self, labels: MaybeLabels, why: str = "") -> None:
        """Nothing may go from this axis."""
        kind = type(self.call.operation).__name__
        self.network.freeze(
            labels, why or f"{self.name} ({kind}) needs every position of this axis"
        )

    def freeze_all(self, why: str) -> None:
        """Nothing may go from any input."""
        for tensor in self.inputs:
            for labels in self.known.get(id(tensor), ()):
                self.freeze(labels, why)

    def wall(self, why: str) -> None:
        """Nothing may be cut across this call."""
        self.freeze_all(f"wall at {self.name}: {why}")
        self.results = [(None,) * len(tensor.shape) for tensor in self.call.outputs]

    def resize(self, change: ConfigChange) -> None:
        """Entries of the config that follow from what is kept."""
        self.config_change = change

    def rearrange(self, change: ArgumentChange) -> None:
        """Arguments of the call that follow from what is kept."""
        self.argument_change = change

    def hold(self, variable: Any, axis: int, labels: Labels) -> None:
        """Inside the operation, removed slots reach others only through this axis of this weight.

        The proof holds a removed unit at zero by zeroing these rows of the original.
        """
        self.held.append((variable, axis, labels))

    def emit(self, sublayer: Any, axis: int, labels: Labels, dim: int | None) -> None:
        """What units emit is what goes into this sublayer, with units on `axis`.

        `dim` is the length of the vector that each emits, on the last axis; None for single
        numbers.
        """
        self.emitted.append((sublayer, axis, labels, dim))

    def refer(self, function: ReferenceCall) -> None:
        """How the proof runs this operation of the original, where zeroing its inputs is not enough."""
        self.reference = function

    def inner(self, operation: Any, tensors: Sequence[Tensor], axes: Sequence[Axes]) -> Site:
        """A site for an operation inside this one, on inputs with these labels."""
        call = Call(operation, tuple(tensors), {}, [], None)
        known = {id(tensor): labels for tensor, labels in zip(tensors, axes, strict=True)}
        return Site(self.network, call, known, self.keys, operation)

    def adopt(self, site: Site) -> None:
        """Take over the weights of an inner site."""
        self.weights.extend(site.weights)
        self.held.extend(site.held)
        self.made.extend(site.made)

    def with_constants_cut(self, kept: Kept) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments, with constant arrays cut where they meet the last axes of the output."""
        out = self.results[0]

        def cut(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) or not is_array(leaf):
                return leaf
            axes = aligned(out, self.call.outputs[0].shape, leaf.shape)
            return kept.take(leaf, axes) if any(map(kept.cuts, axes)) else leaf

        return tree.map_structure(cut, self.call.args), tree.map_structure(cut, self.call.kwargs)


def given_axes(
    network: Network, name: str, shape: Sequence[int], kind: str = "given"
) -> tuple[MaybeLabels, ...]:
    """Slots for an array that is there without a layer; "given" ones give way to whatever they meet."""
    return tuple(network.fresh(size, name, kind) if size > 1 else None for size in shape)


def is_array(leaf: Any) -> bool:
    """Whether an argument is a constant array."""
    return hasattr(leaf, "shape") and not isinstance(leaf, Tensor) and len(leaf.shape) > 0


def aligned(
    axes: Sequence[MaybeLabels], shape: Sequence[int | None], own: Sequence[int | None]
) -> list[MaybeLabels]:
    """Labels of an operand that is broadcast to an output with these labels and this shape."""
    offset = len(axes) - len(own)
    return [
        axes[offset + axis] if offset + axis >= 0 and own[axis] == shape[offset + axis] else None
        for axis in range(len(own))
    ]


def channel_axis(operation: Any, rank: int) -> int:
    """Axis of the channels, by `data_format`."""
    return 1 if getattr(operation, "data_format", None) == "channels_first" else rank - 1
