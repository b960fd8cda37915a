"""From a model's graph to steps: every layer and operation is lowered by a function of `layers/`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from secateur.activations import Activation
from secateur.errors import FileFormatError, SecateurError, UnsupportedModelError
from secateur.runtime.choosing import Chooser, Matrix
from secateur.runtime.linear import Product, multiply
from secateur.runtime.planning import Builder, Value
from secateur.runtime.reading import Weights, is_graph, is_operation

Lower: TypeAlias = Callable[..., Any]

LAYERS: dict[str, Lower] = {}
OPERATIONS: dict[str, Lower] = {}


def layer(*names: str) -> Callable[[Lower], Lower]:
    """Register how layers of these classes are lowered: `lower(site, *args, **kwargs)`."""

    def register(lower: Lower) -> Lower:
        LAYERS.update(dict.fromkeys(names, lower))
        return lower

    return register


def operation(*names: str) -> Callable[[Lower], Lower]:
    """Register how `keras.ops` of these classes are lowered."""

    def register(lower: Lower) -> Lower:
        OPERATIONS.update(dict.fromkeys(names, lower))
        return lower

    return register


@dataclass
class Context:
    """What all sites of one engine share.

    Attributes:
        chooser: Chooses kernels.
        matrices: Weight matrices by name, with the kernels chosen for them.
        custom: Class name -> how to lower it, besides ours.
    """

    chooser: Chooser
    matrices: dict[str, Matrix] = field(default_factory=dict)
    custom: Mapping[str, Lower] = field(default_factory=dict)

    def knows(self, kind: str, is_operation: bool) -> Lower | None:
        """How a class is lowered, or None."""
        return self.custom.get(kind) or (OPERATIONS if is_operation else LAYERS).get(kind)


@dataclass
class Site:
    """One call of a layer, as its lowering function sees it.

    Attributes:
        config: The layer's own configuration.
        weights: Its arrays.
        builder: Takes the steps.
        context: What the engine shares.
        kind: Its class name.
    """

    config: dict[str, Any]
    weights: Weights
    builder: Builder
    context: Context
    kind: str

    def linear(
        self,
        x: Value,
        key: str,
        weights: np.ndarray[Any, Any] | None = None,
        bias: np.ndarray[Any, Any] | None = None,
        activation: Activation | None = None,
        is_only_reader: bool = False,
    ) -> Value:
        """activation(x W + bias) over the last axis of x.

        Args:
            x: (..., inputs).
            key: Names the matrix within the layer; the same key must mean the same weights.
            weights: (inputs, outputs); may be None if the matrix is known by its key.
            bias: (outputs,) or None.
            activation: Fused where it is elementwise.
            is_only_reader: The layer reads x here and nowhere else.
        """
        matrix = self.matrix(key, weights, bias)
        return multiply(
            self.builder,
            matrix,
            x,
            lambda rows: self.context.chooser.kernel(matrix, rows),
            activation,
            is_only_reader and not x.is_shared,
        )

    def matrix(
        self,
        key: str,
        weights: np.ndarray[Any, Any] | None,
        bias: np.ndarray[Any, Any] | None = None,
    ) -> Matrix:
        """The matrix of this key, made at the first call."""
        name = f"{self.weights.path}/{key}"
        if name not in self.context.matrices:
            if weights is None:
                raise FileFormatError(f"Layer {self.weights.path!r} has no weights {key!r}.")
            kept = np.ascontiguousarray(weights, np.float32)
            if kept.ndim != 2 or (bias is not None and bias.shape != kept.shape[1:]):
                raise FileFormatError(
                    f"Layer {self.weights.path!r} has weights {key!r} of shape {kept.shape} and a bias "
                    f"of shape {None if bias is None else bias.shape}, which do not go together."
                )
            self.context.matrices[name] = Matrix(
                name, kept, None if bias is None else np.ascontiguousarray(bias, np.float32)
            )
        return self.context.matrices[name]

    def within(self, config: Mapping[str, Any], weights: Weights) -> Site:
        """The site of a layer inside this one."""
        return Site(
            dict(config["config"]), weights, self.builder, self.context, config["class_name"]
        )

    def refuse(self, what: str) -> UnsupportedModelError:
        """An error that names this layer."""
        return UnsupportedModelError(
            f"Layer {self.weights.path or self.kind!r} ({self.kind}) cannot be compiled: {what}."
        )


def call(site: Site, config: Mapping[str, Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Lower one call of a layer, an operation or an inner model."""
    if is_graph(config):
        return lower_graph(site, args[0] if len(args) == 1 else list(args))
    lower = site.context.knows(config["class_name"], is_operation(config))
    if lower is None:
        raise site.refuse(
            "the runtime does not know this layer; sc.runtime.supports(model) lists "
            "all such, and compile(..., layers={...}) teaches it one"
        )
    given = {
        name: value for name, value in kwargs.items() if value is not None and name != "training"
    }
    try:
        return lower(site, *args, **given)
    except SecateurError:
        raise
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, ArithmeticError) as error:
        raise site.refuse(f"{type(error).__name__}: {error}") from error


def lower_graph(site: Site, inputs: Any) -> Any:
    """Lower a functional or sequential model."""
    if site.kind == "Sequential":
        return _lower_sequential(site, inputs)
    return _Functional(site).lower(inputs)


def _lower_sequential(site: Site, value: Any) -> Any:
    for config in site.config["layers"]:
        if config["class_name"] == "InputLayer":
            continue
        inner = site.within(config, site.weights.child(config["config"]["name"]))
        value = call(inner, config, [value], {})
    return value


class _Functional:
    """Lowers a functional model's nodes, each once its inputs are there."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.values: dict[tuple[str, int], Any] = {}
        self.readers: dict[tuple[str, int, int], int] = {}
        for config in site.config["layers"]:
            for node in config["inbound_nodes"]:
                for key in _symbols(node):
                    self.readers[key] = self.readers.get(key, 0) + 1
        for key in _places(site.config["output_layers"]):
            self.readers[key] = self.readers.get(key, 0) + 2

    def lower(self, inputs: Any) -> Any:
        places = _places(self.site.config["input_layers"])
        given = _match_inputs(inputs, self.site.config["input_layers"])
        if len(given) != len(places):
            raise self.site.refuse(f"it takes {len(places)} inputs, got {len(given)}")
        for (name, node, position), value in zip(places, given, strict=True):
            self._keep((name, node), [value] if position == 0 else [None] * position + [value])
        pending = [
            (config, number, node)
            for config in self.site.config["layers"]
            for number, node in enumerate(config["inbound_nodes"])
            if config["class_name"] != "InputLayer"
        ]
        while pending:
            waiting = [item for item in pending if not self._run(*item)]
            if len(waiting) == len(pending):
                raise FileFormatError(
                    f"The graph of {self.site.weights.path or 'the model'!r} has calls whose "
                    f"inputs nothing makes: {[item[0]['config']['name'] for item in waiting][:5]}."
                )
            pending = waiting
        return _shaped(self.site.config["output_layers"], self._value)

    def _run(self, config: Mapping[str, Any], number: int, node: Mapping[str, Any]) -> bool:
        if any((name, index) not in self.values for name, index, _ in _symbols(node)):
            return False
        name = config["config"].get("name", config.get("name"))
        inner = self.site.within(config, self.site.weights.child(name))
        args = [self._decode(arg) for arg in node["args"]]
        kwargs = {key: self._decode(value) for key, value in node["kwargs"].items()}
        outputs = call(inner, config, args, kwargs)
        self._keep((config.get("name", name), number), outputs)
        return True

    def _keep(self, key: tuple[str, int], outputs: Any) -> None:
        flat = list(leaves(outputs))
        self.values[key] = flat
        for position, value in enumerate(flat):
            if isinstance(value, Value) and self.readers.get((*key, position), 0) > 1:
                value.is_shared = True

    def _value(self, name: str, node: int, position: int) -> Any:
        return self.values[name, node][position]

    def _decode(self, part: Any) -> Any:
        if isinstance(part, list):
            return [self._decode(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        kind = part.get("class_name")
        config: Any = part.get("config")
        if kind == "__keras_tensor__":
            return self._value(*config["keras_history"])
        if kind == "__slice__":
            return slice(*(self._decode(config[key]) for key in ("start", "stop", "step")))
        if kind == "__ellipsis__":
            return Ellipsis
        if kind in ("__tensor__", "__numpy__"):
            return self.site.builder.constant(np.array(config["value"], config["dtype"]))
        if "class_name" in part:
            return part
        return {key: self._decode(inner) for key, inner in part.items()}


def _symbols(part: Any) -> Iterator[tuple[str, int, int]]:
    if isinstance(part, dict):
        if part.get("class_name") == "__keras_tensor__":
            name, node, position = part["config"]["keras_history"]
            yield name, node, position
            return
        for inner in part.values():
            yield from _symbols(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _symbols(inner)


def _is_place(part: Any) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 3
        and isinstance(part[0], str)
        and isinstance(part[1], int)
    )


def _places(part: Any) -> list[tuple[str, int, int]]:
    if _is_place(part):
        return [(part[0], part[1], part[2])]
    inner = part.values() if isinstance(part, dict) else part
    return [place for one in inner for place in _places(one)]


def _shaped(part: Any, value: Callable[[str, int, int], Any]) -> Any:
    if _is_place(part):
        return value(*part)
    if isinstance(part, dict):
        return {key: _shaped(inner, value) for key, inner in part.items()}
    return [_shaped(inner, value) for inner in part]


def _match_inputs(inputs: Any, shape: Any) -> list[Any]:
    if isinstance(inputs, dict) and isinstance(shape, dict):
        return [inputs[key] for key in shape]
    return list(leaves(inputs))


def leaves(nest: Any) -> Iterator[Any]:
    """What a nest of lists, tuples and dicts holds, in order."""
    if isinstance(nest, dict):
        for inner in nest.values():
            yield from leaves(inner)
    elif isinstance(nest, (list, tuple)):
        for inner in nest:
            yield from leaves(inner)
    else:
        yield nest


__all__ = ["Context", "Product", "Site", "call", "layer", "leaves", "lower_graph", "operation"]
