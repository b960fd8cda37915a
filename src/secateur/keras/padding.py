"""Which positions of a padded batch are real, as far as the model or the user says so."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.src import backend

from secateur.arrays import Array
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.flatten import Call, Graph, Tensor


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

    def __init__(self, graph: Graph, given: str | Array | None = None) -> None:
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
        given = explicit[0] if self.tensor is not None else part  # an input always exists
        rest = explicit[1:] if self.tensor is not None else explicit
        own = _carried(call, args)
        # Of several masks in the graph, one is enough to make a position real.
        asked = [mask for mask in (_fitting(value, lead) for value in rest) if mask is not None]
        masks = [_fitting(given, lead), _fitting(own, lead)]
        masks.append(np.logical_or.reduce(asked) if asked else None)
        found = [mask for mask in masks if mask is not None]
        return np.logical_and.reduce(found) if found else None


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
        if len(mask.shape) < 2:
            continue
        seen = {id(call)}
        pending = [tensor for tensor in call.inputs if tensor is not mask]
        while pending:
            maker = made_by.get(id(pending.pop()))
            if maker is not None and id(maker) not in seen:
                seen.add(id(maker))
                pending.extend(maker.inputs)
        found.append(_Explicit(mask, frozenset(seen)))
    return found


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
