"""Recurrent layers: one product for the inputs of all steps, then a loop over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur._kernels.native import spmm
from secateur._kernels.native.spmm import Epilogue
from secateur.activations import Activation
from secateur.runtime.choosing import Call, Matrix
from secateur.runtime.layers.elementwise import parse_activation, with_mask
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Run, Value

_GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


@dataclass(frozen=True)
class _Cell:
    """One kind of cell with its weights, gates in the order its step wants.

    Attributes:
        kind: Its class.
        units: Its width.
        gate: The activation of its gates.
        candidate: The activation of what goes into the state.
        recurrent: State -> gates.
        late: GRU without reset_after: reset state -> candidate.
    """

    kind: str
    units: int
    gate: Epilogue
    candidate: Epilogue
    recurrent: Matrix
    late: Matrix | None = None


def _elementwise(site: Site, config: Any) -> Epilogue:
    found = parse_activation(site, config)
    if not isinstance(found, Activation):
        raise site.refuse(f"the activation {found!r} is not supported in recurrent layers")
    return Epilogue.of(found)


def _weight(site: Site, name: str) -> Any:
    return next(
        (
            np.asarray(a, np.float32)
            for n, a in site.weights.items().items()
            if n.split("/")[-1] == name
        ),
        None,
    )


def _prepared(site: Site) -> tuple[_Cell, Any, Any]:
    """The cell, its input kernel and the bias that goes with that."""
    kernel, inner = _weight(site, "kernel"), _weight(site, "recurrent_kernel")
    bias = _weight(site, "bias")
    if kernel is None or inner is None:
        raise site.refuse("its weights are missing")
    units, inner_bias, late = int(inner.shape[0]), None, None
    if site.kind == "LSTM":
        # Keras: input, forget, candidate, output. Here the candidate comes last.
        order = np.r_[0 : 2 * units, 3 * units : 4 * units, 2 * units : 3 * units]
        kernel, inner = kernel[:, order], inner[:, order]
        bias = None if bias is None else bias[order]
    if site.kind == "GRU":
        if site.config.get("reset_after", True):
            bias, inner_bias = (None, None) if bias is None else (bias[0], bias[1])
        else:
            late = site.matrix("late", inner[:, 2 * units :])
            inner = inner[:, : 2 * units]
    cell = _Cell(
        site.kind,
        units,
        _elementwise(site, site.config.get("recurrent_activation")),
        _elementwise(site, site.config.get("activation")),
        site.matrix("recurrent", inner, inner_bias),
        late,
    )
    return cell, kernel, bias


Advance = Callable[[Array], None]


def _activate(array: Array, epilogue: Epilogue) -> None:
    spmm.finish_rows(array.reshape(-1, array.shape[-1]), None, None, epilogue)


def _recur(
    site: Site, cell: _Cell, inputs: Value, mask: Value | None, initial: list[Value] | None
) -> tuple[Value, list[Value]]:
    """Outputs at all steps in the order they are computed, and the last state."""
    builder = site.builder
    batch, steps, _ = inputs.shape
    units, gates = cell.units, cell.recurrent.outputs // cell.units
    backwards = bool(site.config.get("go_backwards"))
    zero = bool(site.config.get("zero_output_for_mask"))
    kernels = [
        (matrix, site.context.chooser.kernel(matrix, batch))
        for matrix in (cell.recurrent, cell.late)
        if matrix is not None
    ]
    outputs = builder.empty((steps, batch, units))
    state = [builder.empty((batch, units)) for _ in range(2 if cell.kind == "LSTM" else 1)]
    work = [builder.empty((batch, gates * units)), builder.empty((gates + 1, batch, units))]
    work += [builder.empty((batch, units)) for _ in range(4)]
    work += [builder.empty((kernel.scratch(batch),)) for _, kernel in kernels]
    num_work = len(work)
    reads = [inputs, *([] if mask is None else [mask]), *(initial or [])]

    def make(out: Array, *arrays: Array) -> Run:
        states = arrays[: len(state)]
        scratch = arrays[len(state) : len(state) + num_work]
        rest = arrays[len(state) + num_work :]
        known = None if mask is None else rest[1]
        first = rest[(1 if mask is None else 2) :]
        x = rest[0]
        step = _STEPS[cell.kind](cell, list(states), scratch, [k for _, k in kernels])
        before = scratch[2:4]

        def run() -> None:
            for index, array in enumerate(states):
                np.copyto(array, first[index] if first else 0)
            order = range(steps - 1, -1, -1) if backwards else range(steps)
            for number, time in enumerate(order):
                if known is not None:
                    for old, array in zip(before, states, strict=False):
                        np.copyto(old, array)
                step(x[:, time])
                np.copyto(out[number], states[0])
                if known is not None:
                    gone = ~known[:, time]
                    _take_back(gone, states, before)
                    out[number][gone] = 0 if zero or number == 0 else out[number - 1][gone]

        return run

    builder.emit(make, [outputs, *state, *work], reads)
    return outputs, state


def _take_back(gone: Array, states: Sequence[Array], before: Sequence[Array]) -> None:
    """Give samples whose step was padding the states that they had; an LSTM has two, others one."""
    for old, array in zip(before, states, strict=False):
        array[gone] = old[gone]


def _split(array: Array, count: int) -> Array:
    """(batch, count * units) as (count, batch, units), without a copy."""
    batch = array.shape[0]
    return array.reshape(batch, count, -1).transpose(1, 0, 2)


def _lstm_step(cell: _Cell, states: list[Array], work: Any, kernels: list[Any]) -> Advance:
    hidden, carry = states
    inner, z, fresh = work[0], work[1][:4], work[4]
    product = kernels[0].bind(Call(inner, hidden, len(hidden), work[6]))
    inner_gates = _split(inner, 4)

    def step(x: Array) -> None:
        product()
        np.add(_split(x, 4), inner_gates, out=z)
        _activate(z[:3], cell.gate)
        _activate(z[3], cell.candidate)
        np.multiply(z[1], carry, out=carry)
        np.multiply(z[0], z[3], out=fresh)
        np.add(carry, fresh, out=carry)
        np.copyto(hidden, carry)
        _activate(hidden, cell.candidate)
        np.multiply(hidden, z[2], out=hidden)

    return step


def _gru_step(cell: _Cell, states: list[Array], work: Any, kernels: list[Any]) -> Advance:
    hidden = states[0]
    inner, z, fresh, reset = work[0], work[1], work[4], work[5]
    product = kernels[0].bind(Call(inner, hidden, len(hidden), work[6]))
    late = None
    if cell.late is not None:
        late = kernels[1].bind(Call(fresh, reset, len(reset), work[7]))
    count = inner.shape[1] // cell.units

    def step(x: Array) -> None:
        parts = _split(x, 3)
        product()
        inner_gates = _split(inner, count)
        np.add(parts[:2], inner_gates[:2], out=z[:2])
        _activate(z[:2], cell.gate)
        if late is None:
            np.multiply(z[1], inner_gates[2], out=fresh)
        else:
            np.multiply(z[1], hidden, out=reset)
            late()
        np.add(fresh, parts[2], out=fresh)
        _activate(fresh, cell.candidate)
        # h = z h + (1 - z) candidate
        np.subtract(hidden, fresh, out=hidden)
        np.multiply(hidden, z[0], out=hidden)
        np.add(hidden, fresh, out=hidden)

    return step


def _simple_step(cell: _Cell, states: list[Array], work: Any, kernels: list[Any]) -> Advance:
    hidden, inner = states[0], work[0]
    product = kernels[0].bind(Call(inner, hidden, len(hidden), work[6]))

    def step(x: Array) -> None:
        product()
        np.add(inner, x, out=hidden)
        _activate(hidden, cell.candidate)

    return step


_STEPS: dict[str, Callable[..., Advance]] = {
    "LSTM": _lstm_step,
    "GRU": _gru_step,
    "SimpleRNN": _simple_step,
}


def _known_steps(sequences: Value, initial_state: Any, mask: Value | None) -> Value | None:
    """The mask that the loop obeys: Keras hands on that of the input only if nothing else is given."""
    return sequences.mask if mask is None and initial_state is None else mask


@layer("LSTM", "GRU", "SimpleRNN")
def recurrent(
    site: Site, sequences: Value, initial_state: Any = None, mask: Value | None = None
) -> Any:
    """`LSTM`, `GRU`, `SimpleRNN`, with masks, initial and returned states."""
    if site.config.get("stateful"):
        raise site.refuse("stateful layers are not supported")
    known = _known_steps(sequences, initial_state, mask)
    cell, kernel, bias = _prepared(site)
    inputs = site.builder.contiguous(site.linear(sequences, "kernel", kernel, bias))
    given = [initial_state] if isinstance(initial_state, Value) else initial_state
    outputs, states = _recur(site, cell, inputs, known, given)
    if site.config.get("return_sequences"):
        result = site.builder.view(outputs, lambda a: a.transpose(1, 0, 2))
        result = with_mask(result, sequences.mask if mask is None else mask)
    else:
        result = site.builder.view(outputs, lambda a: a[-1])
    return [result, *states] if site.config.get("return_state") else result


@layer("Bidirectional")
def bidirectional(
    site: Site, sequences: Value, initial_state: Any = None, mask: Value | None = None
) -> Any:
    """`Bidirectional`: two recurrent layers, the second from the end."""
    known = _known_steps(sequences, initial_state, mask)
    names = site.weights.children()
    if len(names) != 2:
        raise site.refuse(f"it needs the weights of two layers, has those of {names}")
    results, states = [], []
    for number, (key, name) in enumerate(zip(("layer", "backward_layer"), names, strict=True)):
        inner = site.within(site.config[key], site.weights.child(name))
        if inner.kind not in _GATES:
            raise site.refuse(f"it wraps a {inner.kind}, which the runtime does not know")
        half = None
        if initial_state is not None:
            middle = len(initial_state) // 2
            half = initial_state[middle:] if number else initial_state[:middle]
        outputs = recurrent(inner, sequences, half, known)
        if isinstance(outputs, list):
            states += outputs[1:]
            outputs = outputs[0]
        results.append(outputs)
    if site.config["layer"]["config"].get("return_sequences"):
        results[1] = site.builder.view(results[1], lambda a: a[:, ::-1])
        kept = sequences.mask if mask is None else mask
    else:
        kept = None
    merged = with_mask(_merged(site, results), kept)
    return [merged, *states] if states else merged


def _merged(site: Site, results: list[Value]) -> Any:
    from secateur.runtime.layers.merging import concatenate

    mode = site.config.get("merge_mode", "concat")
    if mode == "concat":
        return concatenate(site, results, -1)
    if mode not in ("sum", "ave", "mul"):
        raise site.refuse(f"merge_mode={mode!r} is not supported")
    function = np.multiply if mode == "mul" else np.add
    merged = site.builder.ufunc(function, results, np.float32)
    if mode == "ave":
        half = site.builder.constant(np.float32(0.5))
        merged = site.builder.ufunc(np.multiply, [merged, half], np.float32)
    return merged
