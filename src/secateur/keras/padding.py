"""Which positions of a padded batch are real, as far as the model or the user says so."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops, tree
from keras.src import backend

from secateur.arrays import Array
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.running import input_values, run_graph

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Given: TypeAlias = "str | Array | None"
"""A mask as users give it: the name of an input, an array (samples, time), or none."""

Keep: TypeAlias = Callable[[tuple[int, ...]], "Mask | None"]
"""From sizes of axes (batch, ...) to booleans of that shape, True = real; None where all are."""


@dataclass(frozen=True, eq=False)
class _Explicit:
    """A mask that the graph hands to a layer by name.

    Attributes:
        tensor: The mask.
        reaches: Calls that what is masked was computed from, and the call that takes it, by identity.
    """

    tensor: Tensor
    reaches: frozenset[int]


class Padding:
    """Tells the real positions of what goes into a call.

    Three things say that a position is padding: the mask that Keras itself hands on with a tensor
    (`mask_zero`, `Masking`), where the layer hands it on, too; a mask that the graph passes to a
    layer (`pool(x, mask=m)`), for all that x was computed from; and the mask that the user gave, for
    everything. A mask (batch, time) counts for all tensors with these leading axes.

    Args:
        graph: The model.
        given: None; the name of the input that is the mask; or an array (samples, time), true where a
            position is real, in the order of the data.

    Raises:
        InvalidArgumentError: No input of that name, or an array without a time axis.
        ArgumentTypeError: Neither a name nor an array.
    """

    def __init__(self, graph: Graph, given: Given = None) -> None:
        self._graph = graph
        self._explicit = _explicit_masks(graph)
        self.array: Array | None = None
        self.tensor: Tensor | None = None
        if isinstance(given, str):
            self.tensor = _input_named(graph, given)
        elif given is not None:
            self.array = _checked(given)

    def of_samples(self, rows: Array) -> Padding:
        """The same for some of the samples, by their numbers in the data.

        Raises:
            InvalidArgumentError: The given mask is for fewer samples.
        """
        if self.array is None:
            return self
        self.part(0, int(rows.max()) + 1)
        some = copy.copy(self)
        some.array = self.array[rows]
        return some

    def tensors(self, call: Call) -> list[Tensor]:
        """The mask tensors that count for a call."""
        found = [mask.tensor for mask in self._explicit if id(call) in mask.reaches]
        return found if self.tensor is None else [self.tensor, *found]

    def key(self, call: Call) -> Hashable:
        """Equal for calls whose equal inputs have the same real positions."""
        hands_on = bool(getattr(call.operation, "supports_masking", False))
        return hands_on, tuple(id(tensor) for tensor in self.tensors(call))

    def part(self, start: int, size: int) -> Array | None:
        """The given mask for some samples.

        Raises:
            InvalidArgumentError: It is for fewer samples than the data has.
        """
        if self.array is None:
            return None
        if start + size > len(self.array):
            raise InvalidArgumentError(
                f"mask is for {len(self.array)} samples, but the data has more; give one row for each."
            )
        return self.array[start : start + size]

    def given(self, batch: Any, start: int) -> Array | None:
        """What the user says of a batch, (samples, time) bool; None where that is nothing.

        Args:
            batch: Nested as the model takes it.
            start: The number of its first sample in the data.
        """
        if self.tensor is None:
            return self.part(start, int(tree.flatten(batch)[0].shape[0]))
        values = input_values(self._graph, batch)
        return np.asarray(ops.convert_to_numpy(values[id(self.tensor)])).astype(np.bool_)

    def keep(
        self,
        call: Call,
        args: tuple[Any, ...],
        lead: tuple[int, ...],
        explicit: Sequence[Any],
        part: Array | None,
    ) -> Array | None:
        """The real positions of a call's rows.

        Args:
            call: The call.
            args: Values of its arguments; they carry Keras's own masks.
            lead: Sizes of the axes of the rows, batch first.
            explicit: Values of those of `tensors(call)` that exist by now.
            part: What `part` gave for this batch.

        Returns:
            Booleans of shape `lead`, or None where every position is real.
        """
        return self._joined(_carried(call, args), lead, explicit, part)

    def _joined(
        self, own: Any, lead: tuple[int, ...], explicit: Sequence[Any], part: Array | None
    ) -> Array | None:
        given = explicit[0] if self.tensor is not None else part  # an input always exists
        rest = explicit[1:] if self.tensor is not None else explicit
        # Of several masks in the graph, one is enough to make a position real.
        asked = [mask for mask in (_fitting(value, lead) for value in rest) if mask is not None]
        masks = [_fitting(given, lead), _fitting(own, lead)]
        masks.append(np.logical_or.reduce(asked) if asked else None)
        found = [mask for mask in masks if mask is not None]
        return np.logical_and.reduce(found) if found else None

    def batches(self, batches: Iterable[Any]) -> Iterator[tuple[Any, PaddedBatch]]:
        """Batches, and which of their positions are real.

        Args:
            batches: Inputs as the model takes them, from the first sample on.

        Raises:
            InvalidArgumentError: The given mask is for fewer samples.
        """
        start = 0
        tensors = [self.tensor] if self.tensor is not None else []
        tensors += [mask.tensor for mask in self._explicit]
        makers = {id(tensor): _leading_to(self._graph, tensor) for tensor in tensors}
        for batch in batches:
            values = {identity: run_graph(maker, batch) for identity, maker in makers.items()}
            size = int(tree.flatten(batch)[0].shape[0])
            yield batch, PaddedBatch(self, values, self.part(start, size))
            start += size


@dataclass(frozen=True, eq=False)
class PaddedBatch:
    """Which positions of one batch are real; see `Padding.batches`.

    Attributes:
        padding: Of the graph.
        values: By identity, what the masks of the graph are for this batch.
        part: The given array's rows for it.
    """

    padding: Padding
    values: Mapping[int, Any]
    part: Array | None

    def of(self, call: Call, args: tuple[Any, ...]) -> Keep | None:
        """What tells the real positions of what goes into a call; None where there is no mask.

        Args:
            call: A call of the padding's graph.
            args: Values of its arguments; they carry Keras's own masks.
        """
        return self._keep(call, _carried(call, args))

    def of_value(self, call: Call, value: Any) -> Keep | None:
        """What tells the real positions of what a call puts out, or of a tensor inside of it."""
        return self._keep(call, backend.get_keras_mask(value))

    def _keep(self, call: Call, own: Any) -> Keep | None:
        explicit = self._explicit(call)
        if own is None and self.part is None and not explicit:
            return None
        return lambda lead: self.padding._joined(own, lead, explicit, self.part)

    def _explicit(self, call: Call) -> list[Any]:
        return [self.values[id(tensor)] for tensor in self.padding.tensors(call)]


def counted(rows: Array, keep: Keep | None, groups: int = 1) -> Array:
    """The rows at positions that count.

    Args:
        rows: (batch, ..., in), or (groups, batch, ..., in) with more than one group.
        keep: From the sizes of the axes (batch, ...) to which positions count.
        groups: Number of groups.

    Returns:
        (groups, positions, in).

    Example:
        >>> mask = np.array([[True, False, True]])
        >>> counted(np.arange(6.0).reshape(1, 3, 2), lambda lead: mask)
        array([[[0., 1.],
                [4., 5.]]])
    """
    grouped = rows[None] if groups == 1 else rows
    mask = None if keep is None else keep(grouped.shape[1:-1])
    if mask is not None:
        grouped = grouped[:, mask]
    return grouped.reshape(len(grouped), -1, grouped.shape[-1])


def _carried(call: Call, args: tuple[Any, ...]) -> Any:
    # A layer that does not hand the mask on makes real values of padded positions.
    if not args or not getattr(call.operation, "supports_masking", False):
        return None
    first = tree.flatten(args[0])
    return backend.get_keras_mask(first[0]) if first else None


def _fitting(mask: Any, lead: tuple[int, ...]) -> Array | None:
    """The mask spread over `lead`, or None where its axes are not the first ones of it."""
    if mask is None:
        return None
    array = np.asarray(ops.convert_to_numpy(mask)).astype(np.bool_)
    if array.ndim < 2 or array.shape != lead[: array.ndim]:
        return None
    spread = array.reshape(array.shape + (1,) * (len(lead) - array.ndim))
    return np.broadcast_to(spread, lead)


def _explicit_masks(graph: Graph) -> list[_Explicit]:
    made_by = {id(tensor): call for call in graph.calls for tensor in call.outputs}
    found = []
    for call in graph.calls:
        mask = call.kwargs.get("mask")
        if not isinstance(call.operation, keras.layers.Layer) or not isinstance(mask, Tensor):
            continue
        masked = next((tensor for tensor in call.inputs if tensor is not mask), None)
        if len(mask.shape) < 2 or masked is None:
            continue
        reached = _behind(masked, made_by)
        found.append(_Explicit(mask, frozenset({id(call), *reached})))
    return found


def _behind(tensor: Tensor, made_by: Mapping[int, Call]) -> set[int]:
    """Calls that a tensor was computed from, position by position.

    Keys and values of an attention count where they come of the same sequence as the queries; those of
    another sequence have masks of their own.
    """
    calls, tensors, aside = _walk_back(tensor, made_by)
    while aside:
        own_calls, own_tensors, more = _walk_back(aside.pop(), made_by)
        if own_tensors & tensors:
            aside += [other for other in more if id(other) not in tensors | own_tensors]
            calls |= own_calls
            tensors |= own_tensors
    return calls


def _walk_back(
    tensor: Tensor, made_by: Mapping[int, Call]
) -> tuple[set[int], set[int], list[Tensor]]:
    """Calls and tensors of the same positions, by identity, and what was only attended to."""
    calls: set[int] = set()
    tensors = {id(tensor)}
    aside: list[Tensor] = []
    pending = [tensor]
    while pending:
        made = pending.pop()
        maker = made_by.get(id(made))
        if maker is None or id(maker) in calls:
            continue
        calls.add(id(maker))
        same, other = _split_inputs(maker)
        same = [source for source in same if source.shape[:2] == made.shape[:2]]
        aside += [source for source in other if source.shape[:2] == made.shape[:2]]
        tensors.update(map(id, same))
        pending += same
    return calls, tensors, aside


def _split_inputs(call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs whose positions are those of the output, and others: of attention, only the query's are."""
    attends = isinstance(call.operation, (keras.layers.MultiHeadAttention, keras.layers.Attention))
    attends = attends or type(call.operation).__name__ == "DotProductAttention"
    return (call.inputs[:1], call.inputs[1:]) if attends else (call.inputs, [])


def _leading_to(graph: Graph, tensor: Tensor) -> Graph:
    """The part of a graph that makes one tensor."""
    needed = {id(tensor)}
    calls = []
    for call in reversed(graph.calls):
        if any(id(out) in needed for out in call.outputs):
            needed.update(id(source) for source in call.inputs)
            calls.append(call)
    return replace(graph, calls=calls[::-1], output_structure=tensor)


def _input_named(graph: Graph, name: str) -> Tensor:
    names: dict[str, Tensor] = {}
    for (path, symbol), tensor in zip(
        tree.flatten_with_path(graph.input_structure), graph.inputs, strict=True
    ):
        names[str(symbol.name)] = tensor
        if path:
            names[str(path[-1])] = tensor
    if name not in names:
        known = [str(symbol.name) for symbol in tree.flatten(graph.input_structure)]
        raise InvalidArgumentError(
            f"mask={name!r} names no input of the model; its inputs are {known}. An array "
            "(samples, time), true where a position is real, serves as well."
        )
    return names[name]


def _checked(given: Any) -> Array:
    if not hasattr(given, "__array__"):
        raise ArgumentTypeError(
            "mask is the name of an input or an array (samples, time), true where a position is real; "
            f"got {type(given).__name__}."
        )
    array = np.asarray(given)
    if array.ndim < 2 or array.dtype.kind not in "biuf":
        raise InvalidArgumentError(
            "mask has an axis of samples and one of time, true or 1 where a position is real; got "
            f"{array.dtype} {array.shape}."
        )
    return array.astype(np.bool_)
