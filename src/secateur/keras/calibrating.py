"""Walk over a model on calibration data, weight by weight, the dense network beside what is made of it.

Two streams of activations run side by side: of the network as it was given (dense), and as it is with
the weights that have been changed so far (compressed). A tensor that no change has reached yet is kept
once. Between passes live tensors lie in a store with a budget of memory; inside a pass a batch is run
through all its calls, so only what later passes need is ever kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from keras import ops

from secateur.activation_store import GIGABYTE, ActivationStore
from secateur.arrays import Array
from secateur.keras.call_parts import call_parts
from secateur.keras.flatten import Call, Graph, Source, Tensor
from secateur.keras.live_tensors import LiveTensors, Stream
from secateur.keras.padding import Padding
from secateur.keras.running import fill, input_values, run_call
from secateur.keras.sampling import num_samples
from secateur.keras.staging import Inlet, Schedule, TapGroup
from secateur.keras.variables import give_array, read_tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """What goes into a weight on some samples.

    Attributes:
        compressed: (groups, lead..., in), in the network as it is now.
        dense: The same positions in the given network; the same array where nothing differs.
        keep: (lead...) bool, the real positions; None where all are.
        missed: (lead..., out), by how much what the output is added to has fallen short of the given
            network's; None where it has not, or the output is added to nothing.
    """

    compressed: Array
    dense: Array
    keep: Array | None
    missed: Array | None = None


@dataclass(frozen=True, eq=False)
class _Changed:
    """Values as tensors of the backend: given back to the variable they cost no copy.

    Attributes:
        variable: Whose values they are.
        before: Those of the given network; None where nothing asks for them any more.
        after: Those of the network as it is now.
    """

    variable: Any
    before: Any
    after: Any


class CalibrationWalk:
    """Gives the weights that are to be changed one group after the other, and what goes into them.

    Use it in a `with` block; without `commit` the model is afterwards what it was.

    Args:
        graph: The model, as `open_graph` flattens it; its variables are what is changed.
        schedule: The order, by `make_schedule`.
        batches: Inputs as the model takes them; can be iterated more than once.
        padding: Which positions are real.
        beside: Whether the dense network's rows are wanted; False halves the work, and `Rows.dense` is
            then the same as `Rows.compressed`.
        budget: Bytes of activations that may be kept in memory; the rest goes to a temporary file.
        restores: Whether the model is what it was without `commit`. False for a copy that is then thrown
            away: what a weight was is let go of as soon as the walk is past it, or at the end there
            would be a second model.

    Example:
        >>> import keras
        >>> from secateur.keras.staging import make_schedule
        >>> from secateur.keras.taps import open_graph
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> graph = open_graph(model)
        >>> padding = Padding(graph)
        >>> schedule = make_schedule(graph, {id(model.layers[0]._kernel)}, padding)
        >>> with CalibrationWalk(graph, schedule, [np.ones((5, 3), "float32")], padding) as walk:
        ...     for group in walk.groups():
        ...         print([rows.compressed.shape for rows in walk.rows(group.inlets)])
        [(1, 5, 3)]
    """

    def __init__(
        self,
        graph: Graph,
        schedule: Schedule,
        batches: Iterable[Any],
        padding: Padding,
        *,
        beside: bool = True,
        budget: int = GIGABYTE,
        restores: bool = True,
    ) -> None:
        self._graph = graph
        self._schedule = schedule
        self._batches = batches
        self._padding = padding
        self._beside = beside
        self._tensors = LiveTensors(ActivationStore(budget))
        self._changed: dict[int, _Changed] = {}
        self._restores = restores
        self._last_use = {} if restores else _last_uses(schedule)
        self._differing: set[int] = set()
        self._sizes: list[int] = []
        self._committed = False

    def __enter__(self) -> CalibrationWalk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tensors.store.close()
        if self._restores and not self._committed:
            self._set([(change.variable, change.before) for change in self._changed.values()])
        # Whoever still has the walk holds no second model by it.
        self._changed.clear()

    @property
    def num_batches(self) -> int:
        """Batches of the data."""
        return len(self._sizes)

    @property
    def num_samples(self) -> int:
        """Samples of the data."""
        return sum(self._sizes)

    def commit(self) -> None:
        """Leave the changes in the model when the `with` block ends."""
        self._committed = True

    def _let_go(self, number: int) -> None:
        """Forget what weights were that no pass and no group after this pass uses."""
        for identity, change in self._changed.items():
            if self._last_use.get(identity, number + 1) <= number:
                self._changed[identity] = replace(change, before=None)

    def groups(self) -> Iterator[TapGroup]:
        """The groups in order; each must be dealt with (`change`) before the next is asked for."""
        for number, groups in enumerate(self._schedule.groups):
            self._run(number)
            yield from groups

    def change(self, variable: Any, array: Array) -> None:
        """Put new values into a variable; the dense stream goes on with the old ones.

        Args:
            variable: Of the graph's model.
            array: Its shape and dtype; given away.
        """
        known = self._changed.get(id(variable))
        before = read_tensor(variable) if known is None else known.before
        give_array(variable, array)
        after = read_tensor(variable)
        self._changed[id(variable)] = _Changed(variable, before, after)

    def undo(self, variable: Any) -> None:
        """Give a changed variable back what it had: the very memory, where `change` shared it."""
        change = self._changed.pop(id(variable))
        self._set([(variable, change.before)])

    def rows(self, inlets: Sequence[Inlet]) -> Iterator[Rows]:
        """What goes into the weights of the group at hand, part by part, on all of the data."""
        for inlet in inlets:
            call = inlet.call
            differs = self._differs(call)
            for batch in self._numbers(call):
                arguments = self._arguments("compressed" if differs else "dense", batch, call)
                beside = self._arguments("dense", batch, call) if differs else arguments
                explicit = [
                    self._get("dense", batch, tensor) for tensor in self._schedule.masks[id(call)]
                ]
                part = self._padding.part(sum(self._sizes[:batch]), self._sizes[batch])
                missed = self._missed(batch, inlet)
                for now, dense, masks, own, lost in call_parts(
                    inlet, self._sizes[batch], arguments, beside, explicit, part, missed
                ):
                    yield self._look(inlet, now, dense if differs else now, masks, own, lost)

    def outputs(self, batch: int) -> list[Any]:
        """What the model as it is now puts out on a batch: the walk run on from here to the end.

        Only on a walk without the dense network beside, whose schedule was made `to_outputs`.

        Args:
            batch: Number of the batch.

        Returns:
            The flat outputs, as backend tensors.
        """
        values: dict[int, Any] = {}
        for call in self._ahead(batch, values):
            outputs = run_call(call, fill(values, call.args), fill(values, call.kwargs))
            values.update((id(t), value) for t, value in zip(call.outputs, outputs, strict=True))
        return [values[id(tensor)] for tensor in self._graph.outputs]

    def _ahead(self, batch: int, values: dict[int, Any]) -> list[Call]:
        """Calls that are still to be run for the outputs; what they take from before goes to `values`."""
        made_by = {id(tensor): call for call in self._graph.calls for tensor in call.outputs}
        needed: set[int] = set()
        pending = list(self._graph.outputs)
        while pending:
            tensor = pending.pop()
            if id(tensor) in values:
                continue
            if self._tensors.has("dense", batch, tensor):
                values[id(tensor)] = self._get("dense", batch, tensor)
                continue
            call = made_by[id(tensor)]
            if id(call) not in needed:
                needed.add(id(call))
                pending.extend(call.inputs)
        return [call for call in self._graph.calls if id(call) in needed]

    def dense_rows(self, inlets: Sequence[Inlet]) -> Iterator[tuple[int, Rows]]:
        """Run the given network once more; number of the inlet, and what goes into it there.

        Only before anything has been changed.
        """
        numbers: dict[int, list[int]] = {}
        for number, inlet in enumerate(inlets):
            numbers.setdefault(id(inlet.call), []).append(number)
        start = 0
        for samples in self._batches:
            values = input_values(self._graph, samples)
            size = num_samples(samples)
            part = self._padding.part(start, size)
            start += size
            for call in self._graph.calls:
                arguments = fill(values, call.args), fill(values, call.kwargs)
                explicit = [
                    values[id(t)] for t in self._schedule.masks.get(id(call), ()) if id(t) in values
                ]
                for number in numbers.get(id(call), ()):
                    inlet = inlets[number]
                    for now, masks, own in call_parts(inlet, size, arguments, explicit, part):
                        yield number, self._look(inlet, now, now, masks, own)
                outputs = run_call(call, *arguments)
                values.update((id(t), v) for t, v in zip(call.outputs, outputs, strict=True))

    def _look(
        self,
        inlet: Inlet,
        now: Any,
        dense: Any,
        masks: Sequence[Any],
        part: Array | None,
        missed: Array | None = None,
    ) -> Rows:
        compressed = _grouped(inlet, inlet.tap.rows(*now))
        beside = compressed
        if dense is not now:
            with self._dense_weights([inlet.call]):
                beside = _grouped(inlet, inlet.tap.rows(*dense))
        lead = compressed.shape[1:-1]
        keep = self._padding.keep(inlet.call, dense[0], lead, masks, part)
        if missed is not None:
            missed = missed.reshape(*lead, -1)
        return Rows(compressed, beside, keep, missed)

    def _missed(self, batch: int, inlet: Inlet) -> Array | None:
        """What the other operand of a sum has lost; None where it is what it was."""
        if inlet.added is None or id(inlet.added) not in self._differing:
            return None
        dense, now = (
            np.asarray(ops.convert_to_numpy(self._get(stream, batch, inlet.added)), np.float32)
            for stream in ("dense", "compressed")
        )
        return dense - now

    def _numbers(self, call: Call) -> range:
        """Numbers of the batches that a call is to be seen on: of a constant, the first will do."""
        constant = all(id(tensor) in self._schedule.constant for tensor in call.inputs)
        return range(1 if constant else len(self._sizes))

    def _differs(self, call: Call) -> bool:
        """Whether what a call computes, or a later weight of it takes, is not what it was."""
        if not self._beside:
            return False
        if any(id(tensor) in self._differing for tensor in call.inputs):
            return True
        return any(id(variable) in self._changed for variable in _variables(call))

    def _run(self, number: int) -> None:
        calls = self._schedule.passes[number]
        if number == 0:
            self._take_inputs()
        differing = [call for call in calls if self._spreads(call)]
        with self._dense_weights(calls):
            self._run_stream("dense", number, calls)
        self._run_stream("compressed", number, differing)
        self._forget(number)
        self._let_go(number)

    def _spreads(self, call: Call) -> bool:
        if not self._differs(call):
            return False
        self._differing.update(id(tensor) for tensor in call.outputs)
        return True

    def _take_inputs(self) -> None:
        for batch, samples in enumerate(self._batches):
            values = input_values(self._graph, samples)
            self._sizes.append(num_samples(samples))
            for tensor in self._graph.inputs:
                if id(tensor) in self._schedule.last_pass:
                    self._tensors.put("dense", batch, tensor, values[id(tensor)])
        self._padding.part(0, self.num_samples)

    def _run_stream(self, stream: Stream, number: int, calls: Sequence[Call]) -> None:
        if not calls:
            return
        constant = self._schedule.constant
        for batch in range(len(self._sizes)):
            values: dict[int, Any] = {}
            for call in calls:
                fixed = all(id(tensor) in constant for tensor in call.outputs)
                if fixed and batch:
                    continue
                for tensor in call.inputs:
                    if id(tensor) not in values:
                        values[id(tensor)] = self._get(stream, batch, tensor)
                outputs = run_call(call, fill(values, call.args), fill(values, call.kwargs))
                for tensor, value in zip(call.outputs, outputs, strict=True):
                    values[id(tensor)] = value
                    # What a call of the next pass takes, its rows are looked at after this one.
                    if fixed or self._schedule.last_pass.get(id(tensor), -1) > number:
                        self._tensors.put(stream, 0 if fixed else batch, tensor, value)

    def _forget(self, number: int) -> None:
        self._tensors.drop(
            identity
            for identity, last in self._schedule.last_pass.items()
            if last <= number and identity not in self._schedule.constant
        )

    def _arguments(self, stream: Stream, batch: int, call: Call) -> Any:
        values = {id(tensor): self._get(stream, batch, tensor) for tensor in call.inputs}
        return fill(values, call.args), fill(values, call.kwargs)

    def _get(self, stream: Stream, batch: int, tensor: Tensor) -> Any:
        own = stream if id(tensor) in self._differing else "dense"
        return self._tensors.get(own, 0 if id(tensor) in self._schedule.constant else batch, tensor)

    @contextlib.contextmanager
    def _dense_weights(self, calls: Iterable[Call]) -> Iterator[None]:
        """The given network's weights, in some calls, while this lasts."""
        changed = self._changed if self._beside else {}
        found = {id(v): v for call in calls for v in _variables(call) if id(v) in changed}
        changes = [self._changed[identity] for identity in found]
        self._set([(change.variable, change.before) for change in changes])
        try:
            yield
        finally:
            self._set([(change.variable, change.after) for change in changes])

    def _set(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        for variable, value in pairs:
            variable.assign(value)


def _variables(call: Call) -> list[Any]:
    operation = call.operation
    if isinstance(operation, Source):
        return [operation.variable]
    return list(getattr(operation, "variables", ()))


def _last_uses(schedule: Schedule) -> dict[int, int]:
    """Number of the pass, by a variable's identity, that is the last to use it or comes after that."""
    last: dict[int, int] = {}
    for number, calls in enumerate(schedule.passes):
        last.update((id(own), number) for call in calls for own in _variables(call))
    for number, groups in enumerate(schedule.groups, start=1):
        seen = (inlet.call for group in groups for inlet in group.inlets)
        for own in (own for call in seen for own in _variables(call)):
            last[id(own)] = max(number, last.get(id(own), 0))
    return last


def _grouped(inlet: Inlet, rows: Array) -> Array:
    if rows.dtype.kind in "biu":
        rows = rows.astype(np.float32)
    return rows[None] if inlet.tap.groups == 1 else rows
