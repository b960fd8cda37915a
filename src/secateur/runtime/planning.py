"""A plan: steps over arrays whose shapes are known, all of them in one piece of memory.

A layer is lowered onto a `Builder`: it asks for values, makes views of them and emits steps. What a
value's memory looks like is known while lowering, from a phantom array of its shape and strides, so
a layer can see whether a kernel may take it as it is. When all is lowered, values that are never
alive at the same time are laid over each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from secateur.errors import UnsupportedModelError

Array: TypeAlias = NDArray[Any]
Run: TypeAlias = Callable[[], object]
Make: TypeAlias = Callable[..., Run]
View: TypeAlias = Callable[[Array], Array]

_ALIGNMENT = 64


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 1 << 36


MAX_BYTES = _physical_memory()
"""What a plan may take: a model, perhaps from a file that is not trusted, may ask for anything."""


def check_size(shape: Sequence[int], dtype: DTypeLike) -> None:
    """Raise if an array of this shape could not be held.

    Raises:
        UnsupportedModelError: It could not.
    """
    kind = np.dtype(dtype)
    if any(n < 0 for n in shape) or prod(shape) * kind.itemsize > MAX_BYTES:
        raise UnsupportedModelError(
            f"The model makes an array of shape {tuple(shape)} and dtype {kind}, which does not fit "
            f"into this machine's {MAX_BYTES >> 20} MiB. Use a smaller batch or length, or, if the file "
            "is not one that you trust, none."
        )


@dataclass(eq=False)
class Root:
    """Memory of its own.

    Attributes:
        shape: Of the array that it was made as.
        dtype: Its dtype.
        first: Number of the step that first touches it; -1 for the inputs.
        last: Number of the last.
        offset: Where it lies in the arena.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    first: int
    last: int
    offset: int = 0

    @property
    def num_bytes(self) -> int:
        """Its size, rounded up so that the next one is aligned."""
        size = prod(self.shape) * self.dtype.itemsize
        return -(-size // _ALIGNMENT) * _ALIGNMENT


@dataclass(eq=False)
class Value:
    """An array of the plan: a view of a root, or a constant.

    Attributes:
        phantom: An array of its shape, dtype and strides; for constants the array itself.
        root: Whose memory it is; None for constants.
        view: From the root's array to this one's.
        mask: Keras's mask of it, a boolean value (batch, time), or None.
        producer: The step that wrote it, where another may be merged into that one.
        is_shared: Whether more than one call reads it.
    """

    phantom: Array
    root: Root | None
    view: View
    mask: Value | None = None
    producer: Any = None
    is_shared: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.phantom.shape

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return self.phantom.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""
        return self.phantom.dtype

    @property
    def is_constant(self) -> bool:
        """Whether it is known already."""
        return self.root is None


@dataclass(eq=False)
class Step:
    """One thing to do: `make(*outputs, *inputs)`, given arrays, returns what runs."""

    make: Make
    outputs: list[Value]
    inputs: list[Value]


@dataclass(eq=False)
class Plan:
    """Steps and the memory they need, ready to be bound to as many arenas as run at once."""

    inputs: list[Value]
    outputs: Any
    steps: list[Step] = field(default_factory=list)
    arena_bytes: int = 0

    def bind(self) -> Bound:
        """Take memory and make every step ready to run."""
        memory = np.zeros(self.arena_bytes + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        arena = memory[start : start + self.arena_bytes]
        arrays: dict[int, Array] = {}

        def array(value: Value) -> Array:
            root = value.root
            if root is None:
                return value.phantom
            if id(root) not in arrays:
                size = prod(root.shape) * root.dtype.itemsize
                run = arena[root.offset : root.offset + size]
                arrays[id(root)] = run.view(root.dtype).reshape(root.shape)
            return value.view(arrays[id(root)])

        runs = [step.make(*map(array, (*step.outputs, *step.inputs))) for step in self.steps]
        return Bound(runs, [array(x) for x in self.inputs], array)


@dataclass(eq=False)
class Bound:
    """A plan in memory of its own; one thread at a time may run it."""

    runs: list[Run]
    inputs: list[Array]
    array: Callable[[Value], Array]

    def run(self) -> None:
        """Do all steps; inputs are in `inputs` before, outputs in their arrays after."""
        for run in self.runs:
            run()


class Builder:
    """Collects the steps of a plan."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.roots: list[Root] = []

    def empty(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> Value:
        """A new value, to be written by the next step."""
        kind = np.dtype(dtype)
        check_size(shape, kind)
        root = Root(tuple(int(n) for n in shape), kind, len(self.steps), len(self.steps))
        self.roots.append(root)
        # Never touched, so it costs addresses and no memory.
        return Value(np.empty(root.shape, kind), root, lambda array: array)

    def constant(self, array: Any) -> Value:
        """A value that is known already."""
        return Value(np.asarray(array), None, lambda known: known)

    def view(self, value: Value, make: View) -> Value:
        """The same memory, seen otherwise; `make` must not copy."""
        phantom = make(value.phantom)
        if value.root is None:
            return Value(phantom, None, lambda known: known)
        before = value.view
        return Value(phantom, value.root, lambda array: make(before(array)))

    def emit(self, make: Make, outputs: Sequence[Value], inputs: Sequence[Value]) -> Step:
        """Add a step; see `Step`."""
        number = len(self.steps)
        for value in (*outputs, *inputs):
            if value.root is not None:
                value.root.last = max(value.root.last, number)
        step = Step(make, list(outputs), list(inputs))
        self.steps.append(step)
        return step

    def apply(
        self,
        function: Callable[..., object],
        inputs: Sequence[Value],
        shape: Sequence[int],
        dtype: DTypeLike = np.float32,
    ) -> Value:
        """`function(out, *arrays)`, which writes its first argument; folded if all is constant."""
        check_size(shape, dtype)
        if all(value.is_constant for value in inputs):
            out = np.empty(tuple(shape), dtype)
            function(out, *(value.phantom for value in inputs))
            return self.constant(out)
        result = self.empty(shape, dtype)

        def make(out: Array, *arrays: Array) -> Run:
            return lambda: function(out, *arrays)

        self.emit(make, [result], inputs)
        return result

    def ufunc(self, function: Any, inputs: Sequence[Value], dtype: DTypeLike) -> Value:
        """An elementwise NumPy function with broadcasting."""
        shape = np.broadcast_shapes(*(value.shape for value in inputs))

        def call(out: Array, *arrays: Array) -> None:
            function(*arrays, out=out, casting="unsafe")

        return self.apply(call, inputs, shape, dtype)

    def contiguous(self, value: Value, dtype: DTypeLike | None = None) -> Value:
        """The value itself if it lies in C order and has the dtype, else a copy that does."""
        kind = value.dtype if dtype is None else np.dtype(dtype)
        if value.phantom.flags.c_contiguous and value.dtype == kind:
            return value
        return self.apply(
            lambda out, array: np.copyto(out, array, casting="unsafe"), [value], value.shape, kind
        )

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """The value in another shape (one extent may be -1), copied only where strides need it."""
        flat = self.contiguous(value)
        target = tuple(int(n) for n in shape)
        return self.view(flat, lambda array: array.reshape(target))

    def plan(self, inputs: list[Value], outputs: Any, kept: Sequence[Value]) -> Plan:
        """Lay out the memory. `kept` are the outputs' values, alive to the end."""
        for value in kept:
            if value.root is not None:
                value.root.last = len(self.steps)
        size = _lay_out(self.roots)
        check_size((size,), np.uint8)
        return Plan(inputs, outputs, self.steps, size)


def _lay_out(roots: list[Root]) -> int:
    """Give every root the lowest place that is free while it lives, the largest first.

    Greedy by size, as in Pisarchyk and Lee, "Efficient memory management for deep neural net
    inference" (2020).
    """
    placed: list[Root] = []
    for root in sorted(roots, key=lambda r: -r.num_bytes):
        offset = 0
        for other in placed:
            if other.last < root.first or root.last < other.first:
                continue
            if offset + root.num_bytes <= other.offset:
                break
            offset = max(offset, other.offset + other.num_bytes)
        root.offset = offset
        placed.append(root)
        placed.sort(key=lambda r: r.offset)
    return max((root.offset + root.num_bytes for root in roots), default=0)
