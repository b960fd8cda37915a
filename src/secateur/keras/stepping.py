"""Run a graph over all data up to one call, then on to the next: layer by layer, in graph order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.keras.data import mask_of
from secateur.keras.flatten import Graph
from secateur.keras.padding import Keep, PaddedBatch, Padding
from secateur.keras.running import fill, input_values, last_uses, run_call

# What the tensors that are still needed may take, over all batches, for them to be kept; if it is more,
# every step runs the graph from the last point that was kept.
_BYTES_KEPT = 1 << 31


@dataclass(eq=False)
class _Run:
    """One batch on its way through the graph."""

    values: dict[int, Any]
    padded: PaddedBatch
    at: int = 0

    def copy(self) -> _Run:
        return _Run(dict(self.values), self.padded, self.at)

    def size(self) -> int:
        return sum(_bytes(value) for value in self.values.values())


@dataclass(frozen=True, eq=False)
class Visit:
    """A call that was reached with one batch.

    Attributes:
        args: Values of its positional arguments.
        kwargs: Values of its keyword arguments.
        keep: Tells which positions count; None = all.
        values: By identity, the tensors that this call or a later one needs.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    keep: Keep | None
    values: Mapping[int, Any]


class Stepper:
    """Takes all batches through a graph together.

    Args:
        graph: A flat graph.
        batches: Calibration data that can be read more than once.
    """

    def __init__(self, graph: Graph, batches: Iterable[Any]) -> None:
        self.graph = graph
        self.batches = batches
        self._padding = Padding(graph, mask_of(batches))
        self._uses = last_uses(graph.calls, graph.outputs)
        self._kept: list[_Run] | None = None
        self._at = 0

    def visits(self, numbers: Sequence[int]) -> Iterator[list[Visit]]:
        """Per batch, what some calls are given; the first is where later steps go on.

        Args:
            numbers: Positions of the calls in the graph, rising.
        """
        kept: list[_Run] | None = []
        size = 0
        for run in self._runs(numbers[0]):
            self._advance(run, numbers[0])
            if kept is not None:
                size += run.size()
                kept.append(run.copy())
                kept = kept if size <= _BYTES_KEPT else None
            found = []
            for number in numbers:
                self._advance(run, number)
                found.append(self._visit(run, number))
            yield found
        if kept is not None:
            self._kept, self._at = kept, numbers[0]

    def _runs(self, number: int) -> Iterator[_Run]:
        if self._kept is not None and self._at <= number:
            yield from (run.copy() for run in self._kept)
            return
        for batch, padded in self._padding.batches(self.batches):
            yield _Run(input_values(self.graph, batch), padded)

    def _visit(self, run: _Run, number: int) -> Visit:
        call = self.graph.calls[number]
        args, kwargs = fill(run.values, call.args), fill(run.values, call.kwargs)
        return Visit(args, kwargs, run.padded.of(call, args), run.values)

    def _advance(self, run: _Run, number: int) -> None:
        while run.at < number:
            call = self.graph.calls[run.at]
            outputs = run_call(call, fill(run.values, call.args), fill(run.values, call.kwargs))
            run.values.update(
                (id(tensor), value) for tensor, value in zip(call.outputs, outputs, strict=True)
            )
            for identity in self._uses[run.at]:
                run.values.pop(identity, None)
            run.at += 1


def _bytes(value: Any) -> int:
    return int(np.prod(value.shape)) * int(getattr(value.dtype, "size", 4) or 4)
