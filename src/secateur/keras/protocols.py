"""What this package asks of Keras objects: Keras ships no types, so these say it."""

# Keras's own pages say what these mean.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol


class Variable(Protocol):
    """A `keras.Variable`."""

    name: str
    trainable: bool
    _value: Any
    _initializer: Any

    @property
    def shape(self) -> Iterable[int]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def value(self) -> Any: ...
    def assign(self, value: Any) -> Any: ...
    def _deferred_initialize(self) -> None: ...


class Layer(Protocol):
    """A `keras.Layer`; nested models and wrappers are layers too."""

    name: str
    built: bool
    trainable: bool
    _layers: Sequence[Layer]
    _seed_generators: Sequence[Any]
    _trainable_variables: Sequence[Variable]
    _non_trainable_variables: Sequence[Variable]
    _inbound_nodes: list[Any]
    _outbound_nodes: list[Any]
    dtype_policy: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def call(self, *args: Any, **kwargs: Any) -> Any: ...
    def get_config(self) -> dict[str, Any]: ...


class Model(Layer, Protocol):
    """A `keras.Model` of any kind."""

    compiled: bool
    optimizer: Any
    _compile_config: Any

    @property
    def inputs(self) -> Sequence[Any]: ...
    @property
    def outputs(self) -> Sequence[Any]: ...
    def compile(self, **kwargs: Any) -> None: ...
    def get_compile_config(self) -> Mapping[str, Any] | None: ...
