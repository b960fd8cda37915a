"""The flat graph of a Keras model: calls of layers and ops, and the tensors between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keras import tree

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
