"""Open a Keras model down to the calls of layers and ops that the rule table knows.

Layers that the table does not know are opened by calling them on symbolic tensors: what they call
is recorded in
their place. Their own variables are stood in for by symbolic tensors meanwhile, so that what is
done with those is
recorded too. A layer that cannot be opened stays whole: a wall.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree
from keras.src import backend
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.layers import layer as layer_module
from keras.src.ops.node import Node

from secateur.errors import UnsupportedModelError
from secateur.keras.sizes import sizes_understood

_BOLD = re.compile(r"\x1b\[[0-9;]*m")

Nest = Any
"""Tensors, constants and plain values in lists, tuples and dicts."""


@dataclass(eq=False)
class Tensor:
    """A value of the flat graph.

    Attributes:
        shape: Its sizes; None where only the data tells.
        dtype: Its dtype by name.
        masked: Whether Keras hands a mask on with it.
    """

    shape: tuple[int | None, ...]
    dtype: str
    masked: bool = False


@dataclass(eq=False)
class Call:
    """One call of a layer or op.

    Attributes:
        operation: The layer or op; for a free variable of an opened layer, a `Source`.
        args: Positional arguments, with `Tensor` where a tensor goes in.
        kwargs: Keyword arguments, likewise.
        outputs: The flattened outputs.
        output_structure: Their nesting.
        wall: Why nothing may be cut across it, where that is so.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]
    output_structure: Nest
    wall: str = ""

    @property
    def name(self) -> str:
        """Name of the operation."""
        return str(self.operation.name)

    @property
    def inputs(self) -> list[Tensor]:
        """Tensors among the arguments, in order."""
        return [leaf for leaf in tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Tensor)]


@dataclass(eq=False)
class Source:
    """A free variable of an opened layer, as an operation without inputs."""

    variable: Any
    name: str


@dataclass(eq=False)
class Constant:
    """An array that an opened layer made, as an operation without inputs."""

    value: Any
    name: str = "constant"


@dataclass(eq=False)
class Graph:
    """A model as flat calls in an order in which they can run."""

    model: Any
    inputs: list[Tensor]
    input_structure: Nest
    output_structure: Nest
    calls: list[Call] = field(default_factory=list)
    opened: dict[str, str] = field(default_factory=dict)
    """Why layers could not be opened, by name."""

    @property
    def outputs(self) -> list[Tensor]:
        """Flattened outputs."""
        return [leaf for leaf in tree.flatten(self.output_structure) if isinstance(leaf, Tensor)]


class Twins:
    """Stock layers that share the variables of other layers, one for each."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def of(self, layer: Any, make: Callable[[Any], Any]) -> Any:
        """The twin of a layer; `make` is asked once."""
        if id(layer) not in self._made:
            self._made[id(layer)] = make(layer)
        return self._made[id(layer)]


Opener = Callable[..., Any]
"""Called as `opener(layer, twins, *args, **kwargs)` with symbolic tensors."""


class InferenceFlag:
    """Stands for "whatever `training` is": false when asked, and recognised when it is passed on."""

    def __bool__(self) -> bool:
        return False


FOLLOW_CALLER = InferenceFlag()


def flatten(
    model: Any,
    is_leaf: Callable[[Any], bool],
    opener_of: Callable[[Any], Opener | None],
    sample: Nest = None,
) -> Graph:
    """Trace a built model into flat calls.

    Args:
        model: Any Keras model: Sequential, functional, subclassed, nested.
        is_leaf: Whether a layer is to be taken whole.
        opener_of: What to call in place of a layer's own `call`, for layers that have such a thing.
        sample: Data as the model takes it; tells the inputs of a subclassed model.

    Raises:
        UnsupportedModelError: The model is not built, or its `call` cannot run on symbolic tensors.
    """
    structure = tree.map_structure(_fresh, input_structure(model, sample))
    trace = _Trace(model, is_leaf, opener_of)
    with trace.recording():
        try:
            outputs = model(structure, training=FOLLOW_CALLER)
        except Exception as error:
            raise UnsupportedModelError(
                f"Model {model.name!r} cannot be traced: calling it on symbolic tensors of shapes "
                f"{[tuple(x.shape) for x in tree.flatten(structure)]} raised "
                f"{type(error).__name__}: {_plain(error)}"
            ) from error
        return trace.graph(structure, outputs)


def _plain(error: Exception) -> str:
    """A message of Keras as one line, without the codes that make it bold."""
    return " ".join(_BOLD.sub("", str(error)).split())


def _fresh(tensor: Any) -> Any:
    return keras.KerasTensor(tensor.shape, dtype=tensor.dtype, name=tensor.name)


def input_structure(model: Any, sample: Nest = None) -> Nest:
    """Symbolic tensors, nested as the model takes them."""
    if not model.built:
        raise UnsupportedModelError(
            f"Model {model.name!r} is not built, so its weights do not exist; call it on data first."
        )
    known = getattr(model, "_inputs_struct", None)
    if known is None and getattr(model, "_functional", None) is not None:
        known = model._functional._inputs_struct
    if known is not None:
        return tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, dtype=x.dtype, name=_input_name(x)), known
        )
    if sample is not None:
        return tree.map_structure(
            lambda x: keras.KerasTensor(
                (None, *x.shape[1:]), dtype=backend.standardize_dtype(x.dtype), name="input"
            ),
            sample,
        )
    shapes = getattr(model, "_build_shapes_dict", None)
    if not shapes:
        raise UnsupportedModelError(
            f"Model {model.name!r} does not tell the shapes of its inputs; pass data."
        )
    nested = next(iter(shapes.values())) if len(shapes) == 1 else list(shapes.values())
    return tree.map_shape_structure(
        lambda shape: keras.KerasTensor((None, *shape[1:]), dtype=model.input_dtype, name="input"),
        nested,
    )


def _input_name(tensor: Any) -> str:
    history = getattr(tensor, "_keras_history", None)
    operation = history.operation if history is not None else None
    return str(operation.name if operation is not None else tensor.name)


class _Trace:
    """Records calls while a model runs on symbolic tensors, then reads the graph back."""

    def __init__(
        self,
        model: Any,
        is_leaf: Callable[[Any], bool],
        opener_of: Callable[[Any], Opener | None],
    ) -> None:
        self.model = model
        self.is_leaf = is_leaf
        self.opener_of = opener_of
        self.twins = Twins()
        self.depth = 0
        self.layers = list(dict.fromkeys(_all_layers(model)))
        self.unrecorded: Any = None
        self.alive: list[Any] = []
        self.sources: dict[int, tuple[Any, Any]] = {}
        self.failures: dict[str, str] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Open layers while this lasts; afterwards the model's layers are as they were."""
        counts = [
            (layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in self.layers
        ]
        opened = [x for x in self.layers if not self.is_leaf(x) or self.opener_of(x) is not None]
        whole = [x for x in self.layers if self.is_leaf(x) and x._trainable_variables]
        for layer in opened:
            layer.__dict__["symbolic_call"] = self._opener(layer)
        for layer in whole:
            layer.__dict__["call"] = self._catcher(layer)
        try:
            with self._not_recording_opened():
                yield
        finally:
            for layer in opened:
                del layer.__dict__["symbolic_call"]
            for layer in whole:
                del layer.__dict__["call"]
            for layer, inbound, outbound in counts:
                del layer._inbound_nodes[inbound:]
                del layer._outbound_nodes[outbound:]

    def _opener(self, layer: Any) -> Callable[..., Any]:
        def open_call(*args: Any, **kwargs: Any) -> Any:
            outputs = self._open(layer, args, kwargs)
            if outputs is None:
                return type(layer).symbolic_call(layer, *args, **kwargs)
            self.unrecorded = layer
            return outputs

        return open_call

    @contextlib.contextmanager
    def _not_recording_opened(self) -> Iterator[None]:
        """Keep Keras from recording the call of a layer that was opened: what it called is recorded."""

        def record(*args: Any, operation: Any, **kwargs: Any) -> Any:
            if operation is self.unrecorded:
                self.unrecorded = None
                return None
            return Node(*args, operation=operation, **kwargs)

        with sizes_understood():
            layer_module.Node = record
            try:
                yield
            finally:
                layer_module.Node = Node

    def _catcher(self, layer: Any) -> Callable[..., Any]:
        """Record calls of a layer on constants (positions, say), so that its weights stay weights."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.depth == 0 or in_stateless_scope():
                return type(layer).call(layer, *args, **kwargs)
            args, kwargs = tree.map_structure(self._constant, (args, kwargs))
            return layer(*args, **kwargs)

        return call

    def _constant(self, leaf: Any) -> Any:
        if not backend.is_tensor(leaf):
            return leaf
        symbol = keras.KerasTensor(leaf.shape, dtype=backend.standardize_dtype(leaf.dtype))
        self.sources[id(leaf)] = (symbol, Constant(backend.convert_to_numpy(leaf)))
        self.alive.append(leaf)
        return symbol

    def _open(self, layer: Any, args: Any, kwargs: Any) -> Any:
        """Outputs of the layer's own `call`, or None where it cannot run on symbolic tensors."""
        failure = ""
        opener = self.opener_of(layer)
        for standing_in in (opener is None, False):
            try:
                self.depth += 1
                with self._stand_in(layer) if standing_in else contextlib.nullcontext():
                    if opener is None:
                        outputs = layer.call(*args, **kwargs)
                    else:
                        outputs = opener(layer, self.twins, *args, **kwargs)
            except Exception as error:
                failure = failure or f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                continue
            finally:
                self.depth -= 1
            if all(leaf is None or _is_recorded(leaf) for leaf in tree.flatten(outputs)):
                return outputs
            failure = "its call returns something that is not a tensor"
        self.failures[layer.name] = failure
        return None

    @contextlib.contextmanager
    def _stand_in(self, layer: Any) -> Iterator[None]:
        own = {id(v): v for v in (*layer._trainable_variables, *layer._non_trainable_variables)}
        replaced: dict[str, Any] = {}
        for name, value in vars(layer).items():
            if id(value) in own:
                replaced[name] = value
        try:
            for name, variable in replaced.items():
                layer.__dict__[name] = self._source(variable, layer)
            yield
        finally:
            layer.__dict__.update(replaced)

    def _source(self, variable: Any, layer: Any = None) -> Any:
        if id(variable) not in self.sources:
            dtype = backend.standardize_dtype(variable.dtype)
            if layer is not None and variable._autocast and backend.is_float_dtype(dtype):
                dtype = layer.compute_dtype
            symbol = keras.KerasTensor(variable.shape, dtype=dtype, name=variable.name)
            self.sources[id(variable)] = (symbol, variable)
        return self.sources[id(variable)][0]

    def graph(self, structure: Nest, outputs: Nest) -> Graph:
        """Read the graph back from the outputs' history, in an order in which calls can run."""
        reader = _Reader(self, structure)
        reader.read([leaf for leaf in tree.flatten(outputs) if isinstance(leaf, keras.KerasTensor)])
        result = Graph(
            model=self.model,
            inputs=[reader.tensors[id(x)] for x in tree.flatten(structure)],
            input_structure=structure,
            output_structure=tree.map_structure(reader.convert, outputs),
            calls=reader.calls,
            opened=self.failures,
        )
        for call in result.calls:
            call.wall = self.failures.get(call.name, "")
        return result


class _Reader:
    def __init__(self, trace: _Trace, structure: Nest) -> None:
        self.trace = trace
        self.tensors: dict[int, Tensor] = {}
        self.calls: list[Call] = []
        self.done: set[int] = set()
        self.source_of = {id(symbol): variable for symbol, variable in trace.sources.values()}
        self.keep: list[Any] = []
        for leaf in tree.flatten(structure):
            self.tensor(leaf)

    def tensor(self, symbol: Any) -> Tensor:
        symbol = self.resolve(symbol)
        if id(symbol) not in self.tensors:
            self.keep.append(symbol)
            dtype = backend.standardize_dtype(symbol.dtype)
            node = self.node_of(symbol)
            by_layer = node is not None and isinstance(node.operation, keras.layers.Layer)
            masked = by_layer and backend.get_keras_mask(symbol) is not None
            self.tensors[id(symbol)] = Tensor(tuple(symbol.shape), dtype, masked)
        return self.tensors[id(symbol)]

    def node_of(self, symbol: Any) -> Any:
        history = getattr(symbol, "_keras_history", None)
        if history is None or history.operation is None:
            return None
        return history.operation._inbound_nodes[history.node_index]

    def convert(self, leaf: Any) -> Any:
        if isinstance(leaf, keras.KerasTensor):
            return self.tensor(leaf)
        if isinstance(leaf, keras.Variable):
            return self.tensor(self.trace._source(leaf))
        return leaf

    def read(self, symbols: Sequence[Any]) -> None:
        stack: list[tuple[Any, bool]] = [(symbol, False) for symbol in reversed(symbols)]
        while stack:
            item, ready = stack.pop()
            if ready:
                self._record(item)
                continue
            item = self.resolve(item)
            node = self.node_of(item)
            if node is None:
                self._record_source(item)
                continue
            if id(node) in self.done:
                continue
            self.done.add(id(node))
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(self._parents(node)))

    def _parents(self, node: Node) -> list[Any]:
        parents = []
        for leaf in tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(leaf, keras.KerasTensor):
                parents.append(leaf)
            elif isinstance(leaf, keras.Variable):
                symbol = self.trace._source(leaf)
                self.source_of[id(symbol)] = leaf
                parents.append(symbol)
        return parents

    def _record_source(self, symbol: Any) -> None:
        variable = self.source_of.get(id(symbol))
        if variable is None or id(symbol) in self.done:
            return
        self.done.add(id(symbol))
        tensor = self.tensor(symbol)
        source = variable
        if isinstance(variable, keras.Variable):
            source = Source(variable, variable.path.replace("/", "_"))
        self.calls.append(Call(source, (), {}, [tensor], tensor))

    def _record(self, node: Any) -> None:
        args = tree.map_structure(self.convert, tuple(node.arguments.args))
        kwargs = {
            name: tree.map_structure(self.convert, value)
            for name, value in node.arguments.kwargs.items()
            if value is not FOLLOW_CALLER and not self._travels(name, value, node)
        }
        outputs = [self.tensor(output) for output in node.outputs]
        self.calls.append(Call(node.operation, args, kwargs, outputs, outputs))

    def _travels(self, name: str, value: Any, node: Any) -> bool:
        """Whether an argument is the mask that Keras itself hands on."""
        if name != "mask" or value is None:
            return name == "mask"
        first = node.arguments.args[0] if node.arguments.args else None
        if not isinstance(first, keras.KerasTensor):
            return False
        return self._same(backend.get_keras_mask(first), value)

    def _same(self, one: Any, two: Any) -> bool:
        """Whether two symbolic tensors are made in the same way from the same tensors."""
        if not (isinstance(one, keras.KerasTensor) and isinstance(two, keras.KerasTensor)):
            return bool(one is two or (not hasattr(one, "shape") and one == two))
        first, second = self.node_of(self.resolve(one)), self.node_of(self.resolve(two))
        if self.resolve(one) is self.resolve(two):
            return True
        if first is None or second is None or type(first.operation) is not type(second.operation):
            return False
        if (
            isinstance(first.operation, keras.layers.Layer)
            and first.operation is not second.operation
        ):
            return False
        pairs = [tree.flatten((n.arguments.args, n.arguments.kwargs)) for n in (first, second)]
        return len(pairs[0]) == len(pairs[1]) and all(map(self._same, *pairs))

    def resolve(self, symbol: Any) -> Any:
        """Look through conversions that change nothing."""
        node = self.node_of(symbol)
        while node is not None and type(node.operation).__name__ == "ConvertToTensor":
            source = node.arguments.args[0]
            if not isinstance(source, keras.KerasTensor) or source.dtype != symbol.dtype:
                break
            symbol, node = source, self.node_of(source)
        return symbol


def _is_recorded(leaf: Any) -> bool:
    return isinstance(leaf, keras.KerasTensor) and hasattr(leaf, "_keras_history")


def _all_layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=True, recursive=True))
