"""What a cut changes in the values of what stays: corrected weights, and biases that were not there.

Made from the original, at its full size, so that one set of corrections serves both the original (the
proof's reference) and the cut model, which takes its part of them.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from secateur.arrays import Array
from secateur.keras.variables import read_array
from secateur.keras.walk import walk_layers
from secateur.network import Axes

# Attributes that hold the layer another is made of, and the entries of its config for it.
_INNER_CONFIGS = {
    "cell": "cell",
    "layer": "layer",
    "forward_layer": "layer",
    "backward_layer": "backward_layer",
}


@dataclass(frozen=True, eq=False)
class AddedBias:
    """A bias for a layer that has none.

    Attributes:
        owner: The layer of the original, perhaps inside another.
        value: Of the full size.
        axes: Labels of its axes.
    """

    owner: Any
    value: Array
    axes: Axes


@dataclass(eq=False)
class Corrections:
    """Values of the original's variables that are to be others, and biases to be added.

    Attributes:
        values: By identity of a variable, it and its corrected value, of its own shape and dtype.
        added: By identity of a layer, the bias it gets.
    """

    values: dict[int, tuple[Any, Array]] = field(default_factory=dict)
    added: dict[int, AddedBias] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values or self.added)

    def value_of(self, variable: Any) -> Array:
        """The corrected value of a variable; its own where nothing is corrected."""
        known = self.values.get(id(variable))
        return read_array(variable) if known is None else known[1]

    def shift(self, variable: Any, by: Array) -> None:
        """Add to the value of a variable.

        Args:
            variable: A variable of the original.
            by: Of its shape.
        """
        value = np.asarray(self.value_of(variable))
        shifted = (value.astype(np.float64) + by).astype(value.dtype)
        self.values[id(variable)] = (variable, shifted)

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Let the original compute with the corrections while this lasts."""
        before = [(variable, read_array(variable)) for variable, _ in self.values.values()]
        patched = [self._patch_of(bias) for bias in self.added.values()]
        try:
            for variable, value in self.values.values():
                variable.assign(value)
            for owner, new, _ in patched:
                owner.__dict__.update(new)
            yield
        finally:
            for owner, _, old in patched:
                owner.__dict__.update(old)
            for variable, value in before:
                variable.assign(value)

    def _patch_of(self, bias: AddedBias) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        """A layer, attributes that make it add the bias, and the attributes as they are."""
        owner = bias.owner
        new = {"bias": ops.convert_to_tensor(bias.value, dtype=owner.compute_dtype)}
        new |= {"use_bias": True} if "use_bias" in owner.__dict__ else {}
        return owner, new, {name: owner.__dict__[name] for name in new}

    def config_changes(self, operation: Any, changes: dict[str, Any]) -> dict[str, Any]:
        """Entries of an operation's config that change, those for added biases among them.

        Args:
            operation: A layer or op of the original.
            changes: Entries that change for other reasons.
        """
        if not self.added or not isinstance(operation, keras.layers.Layer):
            return changes
        for place in walk_layers(operation):
            if id(place.layer) in self.added:
                entry = bias_entry(operation, place.layer)
                assert entry is not None
                changes = _with_entry(operation, entry, changes)
        return changes

    def known_variables(self, old: Any, new: Any) -> list[Any]:
        """The variables of `new` that stand for those of `old`, in order: all but added biases."""
        fresh = {id(bias) for bias, _ in _added_between(old, new)} if self.added else set()
        return [variable for variable in new.variables if id(variable) not in fresh]

    def fill_added(self, old: Any, new: Any, take: Callable[[Array, Axes], Array]) -> None:
        """Give the biases that `new` has and `old` has not their values.

        Args:
            old: A layer of the original.
            new: Its successor.
            take: From an array and labels of its axes to the part that stays.
        """
        for bias, owner in _added_between(old, new) if self.added else ():
            known = self.added.get(id(owner))
            value = np.zeros(bias.shape) if known is None else take(known.value, known.axes)
            bias.assign(np.reshape(value, bias.shape))


def _added_between(old: Any, new: Any) -> list[tuple[Any, Any]]:
    """Biases of `new` that `old` has not, and the layer of `old` that would have each."""
    return [
        (after.layer.__dict__["bias"], before.layer)
        for before, after in zip(walk_layers(old), walk_layers(new), strict=True)
        if isinstance(after.layer.__dict__.get("bias"), keras.Variable)
        and not isinstance(before.layer.__dict__.get("bias"), keras.Variable)
    ]


@dataclass(frozen=True)
class BiasEntry:
    """What makes a layer have a bias.

    Attributes:
        path: Keys from the config of the operation to the config that says it.
        change: Entries of that config.
    """

    path: tuple[str, ...]
    change: Mapping[str, Any]


def bias_entry(operation: Any, owner: Any) -> BiasEntry | None:
    """How the config of an operation can give a bias to a layer in it; None = it cannot.

    Args:
        operation: A layer.
        owner: It, or a layer that it is made of.

    Example:
        >>> layer = keras.layers.Dense(3, use_bias=False)
        >>> bias_entry(layer, layer)
        BiasEntry(path=(), change={'use_bias': True})
    """
    if isinstance(operation, keras.layers.EinsumDense):
        return BiasEntry((), {"bias_axes": einsum_bias_axes(operation)})
    if "use_bias" in operation.get_config():
        return BiasEntry((), {"use_bias": True})
    for name, key in _INNER_CONFIGS.items():
        inner = getattr(operation, name, None)
        if isinstance(inner, keras.layers.Layer) and any(
            place.layer is owner for place in walk_layers(inner)
        ):
            found = bias_entry(inner, owner)
            return found and BiasEntry((key, "config", *found.path), found.change)
    return None


def _with_entry(operation: Any, entry: BiasEntry, changes: dict[str, Any]) -> dict[str, Any]:
    if not entry.path:
        return {**changes, **entry.change}
    first, *rest = entry.path
    inner = copy.deepcopy(changes[first] if first in changes else operation.get_config()[first])
    target = inner
    for key in rest:
        target = target[key]
    target.update(entry.change)
    return {**changes, first: inner}


def einsum_bias_axes(layer: Any) -> str:
    """Letters of the axes that an EinsumDense makes, in the order of its output.

    Example:
        >>> einsum_bias_axes(keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3)))
        'de'
    """
    x, kernel, out = layer.equation.replace(" ", "").replace("->", ",").split(",")
    return "".join(letter for letter in out if letter in kernel and letter not in x)
