"""Which positions of a sequence are padding, so that statistics leave them out.

Keras carries a mask with a tensor; other models hand one to the calls that need it (`mask=`), a mean
over time at the end, say. The first is followed forwards through calls that keep batch and time, the
second backwards to the tensors of the same positions that lead to such a call.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops, tree
from keras.src import backend

from secateur.keras.flatten import Call, Graph, Tensor
from secateur.keras.running import run_graph

Mask = npt.NDArray[np.bool_]


class Positions:
    """Tells for the calls of a graph, one batch at a time, which positions of their inputs count.

    Args:
        graph: A flat graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._handed = _handed_masks(graph)
        self._known: dict[int, Mask] = {}

    def begin(self, batch: Any) -> None:
        """Begin with a new batch, nested as the model takes it."""
        self._known = {}
        for mask, tensors in self._handed:
            value = _bool(run_graph(_leading_to(self.graph, mask), batch))
            for identity in tensors:
                self._known[identity] = value

    def copy(self) -> Positions:
        """The same, at the same call; what either learns later the other does not know."""
        new = copy.copy(self)
        new._known = dict(self._known)
        return new

    def of(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mask | None:
        """The positions of a call's first input that count; call it for every call in order.

        Returns:
            (batch, time), True = counts; None where all do.
        """
        found: Mask | None = None
        leading = _leading(call)
        for tensor, value in _pairs(call, args, kwargs)[: len(leading)]:
            mask = backend.get_keras_mask(value)
            known = self._known.get(id(tensor)) if mask is None else _bool(mask)
            if known is not None and found is None and tuple(value.shape[:2]) == known.shape:
                found = known
        if found is not None:
            for tensor in call.outputs:
                if _same_positions(tensor, leading[0]):
                    self._known.setdefault(id(tensor), found)
        return found


def counted(rows: npt.NDArray[Any], keep: Mask | None, groups: int = 1) -> npt.NDArray[Any]:
    """The rows at positions that count.

    Args:
        rows: (batch, ..., in), or (groups, batch, ..., in) with more than one group.
        keep: (batch, time), True = counts; applied where the rows have these axes.
        groups: Number of groups.

    Returns:
        (groups, positions, in).

    Example:
        >>> counted(np.arange(6.0).reshape(1, 3, 2), np.array([[True, False, True]]))
        array([[[0., 1.],
                [4., 5.]]])
    """
    grouped = rows[None] if groups == 1 else rows
    if keep is not None and grouped.shape[1:3] == keep.shape and grouped.ndim > 3:
        grouped = grouped[:, keep]
    return grouped.reshape(len(grouped), -1, grouped.shape[-1])


def _bool(value: Any) -> Mask:
    mask: Mask = ops.convert_to_numpy(value) != 0
    return mask


def _pairs(call: Call, args: Any, kwargs: Any) -> list[tuple[Tensor, Any]]:
    """Tensors among a call's arguments and their values, in order."""
    own, given = tree.flatten((call.args, call.kwargs)), tree.flatten((args, kwargs))
    return [(t, value) for t, value in zip(own, given, strict=True) if isinstance(t, Tensor)]


def _leading(call: Call) -> list[Tensor]:
    """Inputs whose positions are those of the output: of attention, only the query's are."""
    return (
        call.inputs[:1] if type(call.operation).__name__ == "DotProductAttention" else call.inputs
    )


def _same_positions(one: Tensor, two: Tensor) -> bool:
    return len(one.shape) >= 3 and len(two.shape) >= 2 and one.shape[:2] == two.shape[:2]


def _handed_masks(graph: Graph) -> list[tuple[Tensor, set[int]]]:
    """Masks that calls are given by name, and the tensors that lead to what they mask."""
    found = []
    for call in graph.calls:
        mask = call.kwargs.get("mask")
        if isinstance(mask, Tensor) and len(mask.shape) == 2 and call.inputs[0] is not mask:
            masked = call.inputs[0]
            if masked.shape[:2] == mask.shape:
                found.append((mask, _behind(graph, masked)))
    return found


def _behind(graph: Graph, tensor: Tensor) -> set[int]:
    """Tensors of the same positions that lead to this one."""
    made_by = {id(out): call for call in graph.calls for out in call.outputs}
    seen = {id(tensor)}
    waiting = [tensor]
    while waiting:
        call = made_by.get(id(waiting.pop()))
        for source in _leading(call) if call is not None else ():
            if id(source) not in seen and source.shape[:2] == tensor.shape[:2]:
                seen.add(id(source))
                waiting.append(source)
    return seen


def _leading_to(graph: Graph, tensor: Tensor) -> Graph:
    """The part of a graph that makes one tensor."""
    needed = {id(tensor)}
    calls = []
    for call in reversed(graph.calls):
        if any(id(out) in needed for out in call.outputs):
            needed.update(id(source) for source in call.inputs)
            calls.append(call)
    return replace(graph, calls=calls[::-1], output_structure=tensor)
