"""Record what a model does: its layers run on symbolic tensors and what they call is kept.

Layers that the table does not know are opened by calling them on symbolic tensors: what they call
is recorded in their place. Their own variables are stood in for by symbolic tensors meanwhile, so
that what is done with those is recorded too. A layer that cannot be opened stays whole: a wall.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import tree
from keras.src import backend
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.layers import layer as layer_module
from keras.src.ops.node import Node

from secateur.keras.graph import Constant
from secateur.keras.replacing import here_only, one_trace_at_a_time, replaced_here
from secateur.keras.sized_ops import sizes_understood


class Twins:
    """Stock layers that share the variables of other layers, one for each."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def of(self, layer: Any, make: Callable[[Any], Any]) -> Any:
        """The twin of a layer; `make` is asked once."""
        if id(layer) not in self._made:
            self._made[id(layer)] = make(layer)
        return self._made[id(layer)]


def twin(layer: Any, **attributes: Any) -> Any:
    """A shallow copy that shares the variables, with other attributes.

    Not by `copy.copy`: for Keras objects that saves and loads them, which makes new variables.
    """
    new = object.__new__(type(layer))
    new.__dict__.update(vars(layer))
    for name in ("call", "symbolic_call"):
        new.__dict__.pop(name, None)
    new.__dict__.update({"_inbound_nodes": [], "_outbound_nodes": [], **attributes})
    return new


Opener = Callable[..., Any]
"""Called as `opener(layer, twins, *args, **kwargs)` with symbolic tensors."""


class InferenceFlag:
    """Stands for "whatever `training` is": false when asked, and recognised when it is passed on."""

    def __bool__(self) -> bool:
        return False


FOLLOW_CALLER = InferenceFlag()


class Recording:
    """Records calls while a model runs on symbolic tensors, for `reading` to read back."""

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
        """Open layers while this lasts; afterwards the model's layers are as they were.

        Other threads may use the model meanwhile: for them its layers do what they always do.
        """
        with one_trace_at_a_time():
            counts = [(x, len(x._inbound_nodes), len(x._outbound_nodes)) for x in self.layers]
            patches = [*self._opened(), *self._caught()]
            for layer, name, function in patches:
                layer.__dict__[name] = here_only(function, getattr(layer, name))
            try:
                with self._not_recording_opened():
                    yield
            finally:
                for layer, name, _ in patches:
                    del layer.__dict__[name]
                for layer, inbound, outbound in counts:
                    del layer._inbound_nodes[inbound:]
                    del layer._outbound_nodes[outbound:]

    def _opened(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        for layer in self.layers:
            if not self.is_leaf(layer) or self.opener_of(layer) is not None:
                yield layer, "symbolic_call", self._opener(layer)

    def _caught(self) -> Iterator[tuple[Any, str, Callable[..., Any]]]:
        for layer in self.layers:
            if self.is_leaf(layer) and layer._trainable_variables:
                yield layer, "call", self._catcher(layer)

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

        with sizes_understood(), replaced_here(layer_module, {"Node": record}):
            yield

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
        attempts: list[Callable[[], Any]] = [lambda: layer.call(*args, **kwargs)]
        if opener is None:
            attempts.insert(0, lambda: self._standing_in(layer).call(*args, **kwargs))
        else:
            attempts = [lambda: opener(layer, self.twins, *args, **kwargs)]
        for attempt in attempts:
            try:
                self.depth += 1
                outputs = attempt()
            except Exception as error:
                failure = failure or f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                continue
            finally:
                self.depth -= 1
            outputs = tree.map_structure(self._constant, outputs)
            if all(leaf is None or self._is_recorded(leaf) for leaf in tree.flatten(outputs)):
                return outputs
            failure = "its call returns something that is not a tensor"
        self.failures[layer.name] = failure
        return None

    def _is_recorded(self, leaf: Any) -> bool:
        if not isinstance(leaf, keras.KerasTensor):
            return False
        made = any(leaf is symbol for symbol, _ in self.sources.values())
        return made or hasattr(leaf, "_keras_history")

    def _standing_in(self, layer: Any) -> Any:
        """A copy of a layer whose own variables are symbolic tensors; itself where it has none.

        A copy, since another thread may be using the layer.
        """
        own = {id(v): v for v in (*layer._trainable_variables, *layer._non_trainable_variables)}
        replaced = {
            name: self.source(own[id(value)], layer)
            for name, value in vars(layer).items()
            if id(value) in own
        }
        return twin(layer, **replaced) if replaced else layer

    def source(self, variable: Any, layer: Any = None) -> Any:
        """The symbolic tensor that stands for a variable, of the dtype in which `layer` reads it."""
        if id(variable) not in self.sources:
            dtype = backend.standardize_dtype(variable.dtype)
            if layer is not None and variable._autocast and backend.is_float_dtype(dtype):
                dtype = layer.compute_dtype
            symbol = keras.KerasTensor(variable.shape, dtype=dtype, name=variable.name)
            self.sources[id(variable)] = (symbol, variable)
        return self.sources[id(variable)][0]


def _all_layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=True, recursive=True))
