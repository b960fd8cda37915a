"""How much the model's outputs depend on every output of its layers, without labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from secateur.keras.backward import gradients, run_outputs, spread_scales
from secateur.keras.data_pruning import Opened
from secateur.keras.flatten import Call
from secateur.keras.matrix_calls import puts_out_rows
from secateur.keras.sampling import some_samples
from secateur.keras.taps import taps_of
from secateur.keras.tensors import WeightTensor

_SAMPLES = 64
_BATCH_SIZE = 8

# What seems not to matter on these samples may on others.
_LEAST = 1e-4

Float64: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def output_importance(opened: Opened) -> dict[str, Float64]:
    """Mean squared change of the model's outputs per squared change of each output of a layer.

    With f the model's outputs (each as a part of its spread over the data, before a softmax or sigmoid)
    and z what a layer puts out before its activation, it is E |df / dz_j|^2, summed over positions: the
    diagonal of the Gauss-Newton matrix of the squared error of f. The square of one backward pass of a
    random combination of the outputs, with signs for coefficients, has it as its expectation.

    Args:
        opened: The model made ready for a walk; it is not changed.

    Returns:
        Weight name -> (out,) float64, > 0, of mean 1. Weights whose layer does more than a product with
        one matrix (recurrent ones, depthwise), and those that no gradient reaches, are left out.

    References:
        Hutchinson, "A stochastic estimator of the trace of the influence matrix" (1990), section 2.
        Differs from the paper: it gives the diagonal, by the squares of J^T r.
    """
    real = opened.padding.given
    batches, _ = some_samples(opened.batches, _SAMPLES, _BATCH_SIZE, real)
    batches = list(opened.trimmed(batches))
    tensors = {id(tensor.variable): tensor for tensor in opened.chosen.tensors}
    calls = _calls(opened, tensors)
    scales = spread_scales([run_outputs(opened.graph, batch).outputs for batch in batches])
    random = np.random.default_rng(0)

    def signs(number: int, output: Any) -> Any:
        scale = scales[number]
        drawn = random.choice([-scale, scale], size=tuple(output.shape))
        return drawn if scale else None

    found: dict[str, Any] = {}
    for batch in batches:
        for call, gradient in gradients(opened.graph, batch, calls, signs):
            (tap,) = taps_of(call)
            tensor = tensors[id(tap.variable)]
            rows = tensor.to_matrix(np.empty(tensor.shape, np.int8)).shape[0]
            squares = np.square(gradient).reshape(-1, rows).sum(axis=0)
            found[tensor.name] = found.get(tensor.name, 0.0) + squares
    return {
        name: np.maximum(total / total.mean(), _LEAST)
        for name, total in found.items()
        if np.isfinite(total).all() and total.any()
    }


def _calls(opened: Opened, tensors: Mapping[int, WeightTensor]) -> list[Call]:
    found = []
    for call in opened.graph.calls:
        taps = taps_of(call)
        if len(taps) == 1 and id(taps[0].variable) in tensors and puts_out_rows(call):
            found.append(call)
    return found
