"""Build the smaller model: the flat calls again, with new configs, new arguments and the kept weights."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops, tree

from secateur.errors import UnsupportedModelError
from secateur.keras.corrections import Corrections
from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.cut_rules.table import is_stock
from secateur.keras.describe import Description
from secateur.keras.flatten import Constant, Source, Tensor, twin
from secateur.network import Axes


@dataclass(frozen=True)
class Rebuilt:
    """A cut model.

    Attributes:
        model: The model.
        probe: A model of the same layers that gives, beside the outputs, what the last layers take.
        probed: The tensors of the original that the additional outputs of `probe` stand for.
    """

    model: keras.Model
    probe: keras.Model
    probed: list[Tensor]


def rebuild(
    description: Description, kept: Kept, corrections: Corrections | None = None
) -> tuple[Rebuilt, list[tuple[Any, Any, Axes]]]:
    """Make the cut model.

    Args:
        description: The original.
        kept: What stays.
        corrections: Values that change, and biases that are added.

    Returns:
        The model, and for every variable (the original, its successor, labels of its axes).

    Raises:
        UnsupportedModelError: A layer cannot be made again from its config.
    """
    return _Builder(description, kept, corrections or Corrections()).build()


class _Builder:
    def __init__(self, description: Description, kept: Kept, corrections: Corrections) -> None:
        self.description = description
        self.kept = kept
        self.corrections = corrections
        self.values: dict[int, Any] = {}
        self.made: dict[Any, Any] = {}
        self.names: set[str] = set()
        self.one: Any = None
        self.pairs: list[tuple[Any, Any, Axes]] = []
        self.axes_of: dict[int, Axes] = {}
        for site in description.sites:
            for variable, axes in site.weights:
                self.axes_of[id(variable)] = axes

    def build(self) -> tuple[Rebuilt, list[tuple[Any, Any, Axes]]]:
        graph = self.description.graph
        inputs = [
            self._input(tensor, symbol)
            for tensor, symbol in zip(
                graph.inputs, tree.flatten(graph.input_structure), strict=True
            )
        ]
        for site in self.description.sites:
            outputs = tree.flatten(self._run(site))
            for tensor, value in zip(site.call.outputs, outputs, strict=True):
                self.values[id(tensor)] = value
        model = self._sequential(inputs) or keras.Model(
            tree.pack_sequence_as(graph.input_structure, inputs),
            tree.map_structure(self._value, graph.output_structure),
            name=graph.model.name,
        )
        self._fill()
        return self._probed(model, inputs), self.pairs

    def _probed(self, model: keras.Model, inputs: list[Any]) -> Rebuilt:
        graph = self.description.graph
        outputs = graph.outputs
        last = [call for call in graph.calls if any(t in outputs for t in call.outputs)]
        taken = {id(t): t for call in last for t in call.inputs if "float" in t.dtype}
        probed = [t for t in taken.values() if t not in graph.inputs and t not in outputs]
        values = [self.values[id(tensor)] for tensor in (*outputs, *probed)]
        return Rebuilt(model, keras.Model(inputs, values), probed)

    def _input(self, tensor: Tensor, symbol: Any) -> Any:
        name = self._unique(self._key_of(symbol) or str(symbol.name))
        value = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
        self.values[id(tensor)] = value
        return value

    def _key_of(self, symbol: Any) -> str | None:
        """The key of an input in a dict, by which Keras wants it named."""
        structure = self.description.graph.input_structure
        named = structure if isinstance(structure, Mapping) else {}
        return next((str(key) for key, own in named.items() if own is symbol), None)

    def _unique(self, name: str) -> str:
        name = name.replace("/", "_")
        candidate, number = name, 1
        while candidate in self.names:
            candidate, number = f"{name}_{number}", number + 1
        self.names.add(candidate)
        return candidate

    def _value(self, leaf: Any) -> Any:
        return self.values[id(leaf)] if isinstance(leaf, Tensor) else leaf

    def _run(self, site: Site) -> Any:
        call = site.call
        if isinstance(call.operation, Source):
            return self._source(call.operation, site)
        if isinstance(call.operation, Constant):
            return self._constant(call.operation, site.results[0])
        change = site.argument_change
        args, kwargs = (call.args, call.kwargs) if change is None else change(self.kept)
        args = tree.map_structure(self._value, args)
        kwargs = tree.map_structure(self._value, kwargs)
        operation = self._operation(site)
        return operation(*args, **kwargs)

    def _operation(self, site: Site) -> Any:
        """The successor of a layer or op; a layer that is used twice has one, if both uses agree."""
        old = site.call.operation
        changes = self._changes(site)
        key = (id(old), repr(sorted(changes.items())))
        if isinstance(old, keras.layers.Layer) and key in self.made:
            return self.made[key]
        try:
            new = made_again(old, changes, self._unique(old.name))
        except Exception as error:
            raise UnsupportedModelError(
                f"Layer {old.name!r} ({type(old).__name__}) cannot be made again from its config: "
                f"{error}. Give it a get_config and from_config."
            ) from error
        self.made[key] = new
        if isinstance(old, keras.layers.Layer):
            self.pending = getattr(self, "pending", [])
            self.pending.append((old, new))
        return new

    def _changes(self, site: Site) -> dict[str, Any]:
        changes = {} if site.config_change is None else site.config_change(self.kept)
        return self.corrections.config_changes(site.call.operation, changes)

    def _source(self, source: Source, site: Site) -> Any:
        """A free variable as rows of an `Embedding`, indexed by positions made from an input."""
        variable = source.variable
        (axes,) = site.results
        shape = tuple(
            self.kept.count(labels, size) for labels, size in zip(axes, variable.shape, strict=True)
        )
        width = shape[-1] if shape else 1
        rows = 1
        for size in shape[:-1]:
            rows *= size
        table = keras.layers.Embedding(
            rows, width, name=self._unique(source.name), trainable=variable.trainable
        )
        index = ops.cumsum(ops.repeat(self._one(), rows)) - 1
        value = ops.reshape(table(index), shape)
        self.pairs.append((variable, table.embeddings, axes))
        return ops.cast(value, site.call.outputs[0].dtype)

    def _one(self) -> Any:
        """A one, made from an input: a graph of Keras begins nowhere else."""
        if self.one is None:
            anchor = self.values[id(self.description.graph.inputs[0])]
            self.one = ops.ones_like(ops.reshape(anchor, (-1,))[(slice(0, 1),)], dtype="int32")
        return self.one

    def _constant(self, constant: Constant, axes: Axes) -> Any:
        value = self.kept.take(constant.value, axes)
        zero = ops.cast(ops.reshape(self._one() - 1, ()), value.dtype)
        return ops.logical_or(zero, value) if value.dtype == bool else ops.add(zero, value)

    def _fill(self) -> None:
        for old, new in getattr(self, "pending", []):
            before, after = old.variables, self.corrections.known_variables(old, new)
            if len(before) != len(after):
                raise UnsupportedModelError(
                    f"Layer {old.name!r} has {len(before)} variables, made again it has {len(after)}."
                )
            self.corrections.fill_added(old, new, self.kept.take)
            for variable, successor in zip(before, after, strict=True):
                axes = self.axes_of.get(id(variable), (None,) * len(variable.shape))
                self.pairs.append((variable, successor, axes))
        for variable, successor, axes in self.pairs:
            value = self.kept.take(self.corrections.value_of(variable), axes)
            successor.assign(value.reshape(successor.shape))

    def _sequential(self, inputs: list[Any]) -> keras.Model | None:
        """The model as Sequential, where the original was one and the calls are a chain of layers."""
        graph = self.description.graph
        if not isinstance(graph.model, keras.Sequential) or len(inputs) != 1:
            return None
        if not isinstance(graph.output_structure, Tensor):
            return None
        last: Any = graph.inputs[0]
        for call in graph.calls:
            plain = isinstance(call.operation, keras.layers.Layer) and not call.kwargs
            if (
                not plain
                or len(call.args) != 1
                or call.args[0] is not last
                or len(call.outputs) != 1
            ):
                return None
            last = call.outputs[0]
        layers = [self.made_for(site) for site in self.description.sites]
        if last is not graph.output_structure or len(set(map(id, layers))) != len(layers):
            return None
        return keras.Sequential([inputs[0], *layers], name=graph.model.name)

    def made_for(self, site: Site) -> Any:
        """The successor made for a site."""
        return self.made[(id(site.call.operation), repr(sorted(self._changes(site).items())))]


def made_again(old: Any, changes: dict[str, Any], name: str) -> Any:
    """A new layer or op from the config of an old one, with changed entries and without weights."""
    if not isinstance(old, keras.layers.Layer):
        return _again_op(old, changes)
    try:
        new = _from_config(old, changes, name)
    except Exception:
        if changes or old.variables:
            raise
        # A function and nothing else, which two models may share (a Lambda, say).
        return twin(old, _name=name)
    new.trainable = old.trainable
    return new


def _from_config(old: Any, changes: dict[str, Any], name: str) -> Any:
    config = _unbuilt({**_config(old), **changes, "name": name})
    try:
        return type(old).from_config(config)
    except Exception:
        if changes or is_stock(old):
            raise
        return type(old).from_config(_accepted(type(old), config))


def _config(old: Any) -> dict[str, Any]:
    """A layer's config; of a stock layer that was given objects, what its constructor names."""
    try:
        return dict(old.get_config())
    except NotImplementedError:
        if not is_stock(old):
            raise
        named = inspect.signature(type(old)).parameters
        own = {name: getattr(old, name) for name in named if hasattr(old, name)}
        return {**own, "trainable": old.trainable, "dtype": old.dtype_policy.name}


def _unbuilt(config: Any) -> Any:
    """A config without the shapes that inner layers were built for."""
    if isinstance(config, dict):
        return {key: _unbuilt(value) for key, value in config.items() if key != "build_config"}
    return config


def _accepted(layer_class: type, config: dict[str, Any]) -> dict[str, Any]:
    """The entries of a config that the constructor names; some layers put more into it."""
    named = set(inspect.signature(layer_class).parameters) | {"name", "trainable", "dtype"}
    return {key: value for key, value in config.items() if key in named}


def _again_op(old: Any, changes: dict[str, Any]) -> Any:
    try:
        config = old.get_config()
    except NotImplementedError:
        if changes:
            raise
        new = copy.copy(old)
        new._inbound_nodes, new._outbound_nodes = [], []
        return new
    config = {key: value for key, value in config.items() if key != "name"}
    return type(old).from_config({**config, **changes})
