"""The tree of layers of a model, and one stable name for each of its variables.

Keras's own `variable.path` depends on when a layer was built and on a counter that runs through the
whole process, so it neither identifies a variable nor survives saving and loading. The names here
are made from the layer tree alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer, Variable


@dataclass(frozen=True)
class Place:
    """A layer and where it stands.

    Attributes:
        path: Names from below the model down to the layer, joined by "/"; empty for the model
            itself.
        layer: The layer.
        parents: The places above, the model first.
    """

    path: str
    layer: Layer
    parents: tuple[Place, ...]


@dataclass(frozen=True)
class NamedVariable:
    """A variable with its name and the place of the layer that owns it.

    Attributes:
        name: Unique within the model, such as "dense_1/kernel" or
            "bidirectional/forward_lstm/lstm_cell/recurrent_kernel".
        variable: The variable.
        place: The layer that owns it; the innermost one when a wrapper refers to it as well.
        is_seed: Whether it is the state of a random number generator.
    """

    name: str
    variable: Variable
    place: Place
    is_seed: bool


def is_graph(layer: object) -> bool:
    """Whether a layer is a functional or sequential model: its config holds its layers' names."""
    return isinstance(layer, (keras.Sequential, keras.Function))


def walk_layers(model: Layer) -> Iterator[Place]:
    """Every layer below and including `model`, once each, parents first.

    What a functional model holds beside its graph, as an attribute, comes after that: most often it is a
    part of one of the graph's layers, and a copy of the graph has no such attribute.
    """
    seen: set[int] = {id(model)}
    pending = [(Place("", model, ()), False)]
    while pending:
        place, is_beside = pending.pop()
        if is_beside and id(place.layer) in seen:
            continue
        seen.add(id(place.layer))
        yield place
        children, beside = _children(place.layer, seen)
        seen.update(id(layer) for layer in children)
        names = _child_names(place, [*children, *beside])
        parents = (*place.parents, place)
        found = [
            (
                Place(f"{place.path}/{name}" if place.path else name, layer, parents),
                number >= len(children),
            )
            for number, (name, layer) in enumerate(zip(names, [*children, *beside], strict=True))
        ]
        pending += reversed(found)


def _children(layer: Layer, seen: set[int]) -> tuple[list[Layer], list[Layer]]:
    """The layers right below, each once, but those that were seen: of its graph, and beside that."""
    own = {id(child): child for child in layer._layers if id(child) not in seen}
    if not isinstance(layer, keras.Function):
        return list(own.values()), []
    graph = [child for child in layer.operations if id(child) in own]
    parts = {id(child) for child in graph}
    return graph, [child for identity, child in own.items() if identity not in parts]


def named_variables(model: Layer) -> list[NamedVariable]:
    """Every variable of a model, trainable or not, seed generators included, once each.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> [found.name for found in named_variables(model)]
        ['out/kernel', 'out/bias']
    """
    found: dict[int, NamedVariable] = {}
    for place in walk_layers(model):
        for named in _own_variables(place):
            known = found.get(id(named.variable))
            if known is None or len(known.place.parents) < len(place.parents):
                found[id(named.variable)] = named
    return list(found.values())


def _own_variables(place: Place) -> Iterator[NamedVariable]:
    layer = place.layer
    weights = [*layer._trainable_variables, *layer._non_trainable_variables]
    seeds = [generator.state for generator in layer._seed_generators]
    names = _unique([_plain_name(weight.name, "variable") for weight in weights])
    names += _unique(["seed_generator_state"] * len(seeds))
    for position, variable in enumerate([*weights, *seeds]):
        name = f"{place.path}/{names[position]}" if place.path else names[position]
        yield NamedVariable(name, variable, place, is_seed=position >= len(weights))


def _child_names(place: Place, children: Sequence[Layer]) -> list[str]:
    """Names of the layers directly below a place, unique among themselves.

    A functional or sequential model stores its layers' names. Any other layer makes its inner
    layers, nested models too, anew when it is loaded, with automatic names ("dense_7") from a
    process-wide counter: there the number is dropped, and layers of one name are told apart by
    their order.
    """
    names = [layer.name for layer in children]
    inner = [*place.parents[1:], place] if place.parents else []
    if not all(is_graph(above.layer) for above in inner):
        names = [_plain_name(layer.name, _snake_case(type(layer).__name__)) for layer in children]
    return _unique(names)


def _plain_name(name: str, automatic: str) -> str:
    # Bidirectional puts a word before the automatic name of the layer it was given.
    found = re.fullmatch(rf"((?:forward_|backward_)?{re.escape(automatic)})_\d+", name)
    return found[1] if found else name


def _unique(names: Sequence[str]) -> list[str]:
    counts: dict[str, int] = {}
    result = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        result.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return result


def _snake_case(name: str) -> str:
    """The stem of Keras's automatic layer names: `LSTMCell` becomes `lstm_cell`."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
