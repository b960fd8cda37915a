"""The proof: the cut model against the original whose removed subnetworks are held at zero."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.src import backend

from secateur.errors import ProofError
from secateur.keras.corrections import Corrections
from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.describe import Description
from secateur.keras.flatten import Tensor
from secateur.keras.graph import Graph
from secateur.keras.rebuild import Rebuilt
from secateur.keras.running import fill, input_values, last_uses, run_call, with_masks_afterwards
from secateur.keras.variables import read_array
from secateur.network import Axes

TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True)
class Proof:
    """Figures of a comparison that held.

    Attributes:
        difference: Largest |cut - reference| over all outputs, relative to the largest |reference|.
        tolerance: What it had to stay within.
        num_samples: Samples compared.
        data: "given" or "random".
        folded: Whether the original was held at its folded means (its biases corrected alike)
            rather than at zero.
    """

    difference: float
    tolerance: float
    num_samples: int
    data: str
    folded: bool = False

    def __str__(self) -> str:
        held = "held-at-its-means" if self.folded else "held-at-zero"
        return (
            f"proven: cut model and {held} original differ by {self.difference:.2g} relative "
            f"(tolerance {self.tolerance:g}) on {self.num_samples} {self.data} samples"
        )


def prove(
    description: Description,
    kept: Kept,
    rebuilt: Rebuilt,
    samples: Any,
    data: str,
    corrections: Corrections | None = None,
) -> Proof:
    """Compare a cut model with its masked original.

    Compared are the outputs, and what the last layers take: a softmax over many classes would hide
    much.

    Args:
        description: The original; what was bypassed counts as its `instead` says.
        kept: What stays.
        rebuilt: The cut model.
        samples: Inputs, nested as the model takes them.
        data: Where the samples come from: "given" or "random".
        corrections: What was changed beside the cut; the original is run with the same changes.

    Raises:
        ProofError: They differ by more than the tolerance.
    """
    probed = {id(tensor): tensor for tensor in rebuilt.probed}
    seen: dict[int, Any] = {}

    def watch(site: Site, outputs: list[Any]) -> None:
        for tensor, output in zip(site.call.outputs, outputs, strict=True):
            if id(tensor) in probed:
                seen[id(tensor)] = kept.take(
                    ops.convert_to_numpy(output), description.labels(tensor)
                )

    with contextlib.nullcontext() if corrections is None else corrections.in_force():
        outputs = tree.flatten(run(description, samples, kept, watch))
    # The original lacks what a rewritten average computes on the way.
    probes = [number for number, tensor in enumerate(rebuilt.probed) if id(tensor) in seen]
    expected = [*outputs, *(seen[id(rebuilt.probed[number])] for number in probes)]
    given = tree.flatten(rebuilt.probe(tree.flatten(samples), training=False))
    found = [*given[: len(outputs)], *(given[len(outputs) + number] for number in probes)]
    tolerance = tolerance_of(description.graph)
    differences = [relative_difference(one, two) for one, two in zip(found, expected, strict=True)]
    worst = max(differences, default=0.0)
    count = int(tree.flatten(samples)[0].shape[0])
    if not worst <= tolerance:
        raise ProofError(
            f"The cut model differs from the original with the removed parts held at zero by {worst:.3g} "
            f"relative, more than {tolerance:g}, on {count} {data} samples. Nothing is returned. "
            "A rule of a custom layer may be wrong; exclude its layers, or report this model."
        )
    return Proof(worst, tolerance, count, data, bool(corrections))


def tolerance_of(graph: Graph) -> float:
    """What two runs of a model may differ by, relative: that of its least exact dtype."""
    layers = [c.operation for c in graph.calls if isinstance(c.operation, keras.layers.Layer)]
    dtypes = {str(layer.compute_dtype) for layer in layers}
    return max([TOLERANCE["float32"], *(TOLERANCE.get(dtype, 0.0) for dtype in dtypes)])


def relative_difference(found: Any, expected: Any) -> float:
    """Largest difference over the largest expected magnitude; infinite where shapes differ."""
    one = np.asarray(ops.convert_to_numpy(found), np.float64)
    two = np.asarray(ops.convert_to_numpy(expected), np.float64)
    if one.shape != two.shape:
        return float("inf")
    if one.size == 0:
        return 0.0
    scale = max(float(np.abs(two).max()), 1e-30)
    return float(np.abs(one - two).max()) / scale


def run(
    description: Description,
    samples: Any,
    kept: Kept,
    watch: Callable[[Site, list[Any]], None] | None = None,
) -> Any:
    """Run the flat original with what is not kept held at zero wherever it appears.

    Args:
        description: The original.
        samples: Inputs, nested as the model takes them.
        kept: What stays.
        watch: Called with every site and its outputs.
    """
    graph = description.graph
    values = input_values(graph, samples)
    standing_in = [other for other in description.instead.values() if other is not None]
    uses = last_uses(graph.calls, [*graph.outputs, *standing_in])
    for site, done in zip(description.sites, uses, strict=True):
        args, kwargs = fill(values, site.call.args), fill(values, site.call.kwargs)
        outputs = tree.flatten(_call(site, args, kwargs, kept))
        outputs = [
            _hold(output, description.labels(tensor), kept)
            for output, tensor in zip(outputs, site.call.outputs, strict=True)
        ]
        outputs = [
            _instead(output, tensor, description, values)
            for output, tensor in zip(outputs, site.call.outputs, strict=True)
        ]
        for output, tensor in zip(outputs, site.call.outputs, strict=True):
            values[id(tensor)] = output
        if watch is not None:
            watch(site, outputs)
        for identity in done:
            values.pop(identity, None)
    return fill(values, graph.output_structure)


def _instead(value: Any, tensor: Tensor, description: Description, values: Any) -> Any:
    """What a tensor counts as: itself, zero, or another tensor; masked if it is masked itself."""
    if id(tensor) not in description.instead:
        return value
    other = description.instead[id(tensor)]
    mask = backend.get_keras_mask(value)
    if other is None:
        value = ops.zeros_like(value)
        if mask is not None:
            backend.set_keras_mask(value, mask)
        return value
    value = values[id(other)]
    return ops.copy(value) if mask is None else value


def _call(site: Site, args: Any, kwargs: Any, kept: Kept) -> Any:
    with with_masks_afterwards((args, kwargs)):
        return _called(site, args, kwargs, kept)


def _called(site: Site, args: Any, kwargs: Any, kept: Kept) -> Any:
    operation = site.call.operation
    if site.reference is not None and any(
        kept.cuts(labels) for tensor in site.inputs for labels in site.known[id(tensor)]
    ):
        return _masked_alike(site, args, site.reference(operation, args, kwargs, kept))
    held = [(variable, axis, labels) for variable, axis, labels in site.held if kept.cuts(labels)]
    if held:
        return _with_rows_zeroed(operation, held, args, kwargs, kept)
    return run_call(site.call, args, kwargs)


def _masked_alike(site: Site, args: Any, value: Any) -> Any:
    """What stands in for a layer's output, with the mask that the layer itself would hand on."""
    if site.call.outputs[0].masked and args:
        mask = tree.map_structure(backend.get_keras_mask, args[0])
        backend.set_keras_mask(value, site.operation.compute_mask(args[0], mask))
    return value


def _with_rows_zeroed(operation: Any, held: Any, args: Any, kwargs: Any, kept: Kept) -> Any:
    before = [(variable, read_array(variable)) for variable, _, _ in held]
    try:
        for variable, axis, labels in held:
            shape = [1] * len(variable.shape)
            shape[axis] = -1
            mask = kept.mask(labels).reshape(shape)
            variable.assign(read_array(variable) * mask)
        return operation(*args, **kwargs)
    finally:
        for variable, value in reversed(before):
            variable.assign(value)


def _hold(value: Any, axes: Axes, kept: Kept) -> Any:
    mask = backend.get_keras_mask(value)
    for axis, labels in enumerate(axes):
        if labels is None or not kept.cuts(labels):
            continue
        shape = [1] * len(axes)
        shape[axis] = -1
        keep = kept.mask(labels).reshape(shape)
        value = ops.where(keep, value, ops.zeros_like(value))
    if mask is not None:
        backend.set_keras_mask(value, mask)
    return value


def random_samples(description: Description, num_samples: int = 5, seed: int = 0) -> Any:
    """Random inputs: normal values; for integer inputs, numbers below the smallest table they index."""
    generator = np.random.default_rng(seed)
    limits = _token_limits(description)

    def draw(tensor: Tensor, symbol: Any) -> Any:
        del symbol
        shape = (num_samples, *(16 if size is None else size for size in tensor.shape[1:]))
        limit = limits.get(id(tensor))
        if limit is not None:
            return generator.integers(1 if limit > 1 else 0, limit, shape).astype(tensor.dtype)
        if "int" in tensor.dtype or tensor.dtype == "bool":
            return np.ones(shape, tensor.dtype)
        return generator.standard_normal(shape).astype(np.float32)

    flat = [draw(t, t) for t in description.graph.inputs]
    return tree.pack_sequence_as(description.graph.input_structure, flat)


def _token_limits(description: Description) -> dict[int, int]:
    """Inputs that index tables (perhaps after casts and slices), and the number of rows."""
    root: dict[int, int] = {id(tensor): id(tensor) for tensor in description.graph.inputs}
    limits: dict[int, int] = {}
    for site in description.sites:
        operation = site.call.operation
        sources = {root[id(t)] for t in site.inputs if id(t) in root}
        rows = getattr(operation, "input_dim", None)
        if isinstance(rows, int) and site.inputs and id(site.inputs[0]) in root:
            identity = root[id(site.inputs[0])]
            limits[identity] = min(rows, limits.get(identity, rows))
        elif len(sources) == 1 and not site.weights:
            for tensor in site.call.outputs:
                root[id(tensor)] = next(iter(sources))
    return limits
