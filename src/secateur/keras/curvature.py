"""How much the model's outputs lose by errors of what its layers put out, without labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from keras import ops

from secateur.keras.backward import Seeds, gradients, run_outputs, spread_scales, squashed_calls
from secateur.keras.data import mask_of
from secateur.keras.flatten import Call, Graph
from secateur.keras.matrix_calls import puts_out_rows
from secateur.keras.output_roles import maker_of, role_of
from secateur.keras.padding import Padding
from secateur.keras.sampling import some_samples
from secateur.keras.taps import taps_of
from secateur.output_refit import Squash, squashed

Float64: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

# A model that is sure of most samples shows on few of them what its decisions hang on, so it takes many.
_SAMPLES = 1024
_BATCH_SIZE = 32


def output_curvature(
    graph: Graph, sizes: Mapping[int, int], batches: Iterable[Any]
) -> dict[int, Float64]:
    """What the model's outputs lose by an error e of what a layer puts out: e^T G e on average.

    G = E J^T M J is a Gauss-Newton matrix, J being the Jacobian of the outputs, before a softmax or
    sigmoid, by what the layer puts out before its activation. M is what an error there costs: half of it
    the Fisher information of the probabilities, which is the curvature of the Kullback-Leibler divergence
    from what the model says now, so that errors count where they turn a decision; half of it alike for
    all classes (for a softmax: but for what is added to all of them), since what seems decided on these
    samples may not be on others. Other outputs count alike, as parts of their spread.

    Args:
        graph: The model, flat, attention opened; it is not changed.
        sizes: By identity of a weight, how many rows its (out, in) matrix has.
        batches: Data that can be read more than once.

    Returns:
        By identity of a weight, G, (out, out) float64, positive semidefinite, of mean diagonal 1. Left
        out are weights whose layer does more than a product with one matrix, and those that no gradient
        reaches.

    References:
        Martens, "New insights and perspectives on the natural gradient method" (arXiv 1412.1193),
        section 8. Differs from the paper: the half that does not depend on the decision. Estimated by
        random signs (Hutchinson 1990), and drawn towards its diagonal as by as many rows as it has.
    """
    real = Padding(graph, mask_of(batches)).given
    drawn, _ = some_samples(batches, _SAMPLES, _BATCH_SIZE, real)
    calls = [call for call in graph.calls if _is_wanted(call, sizes)]
    if not calls:
        return {}
    seeds = _seeds(graph, [run_outputs(graph, batch).outputs for batch in drawn])
    sums: dict[int, Float64] = {}
    counts: dict[int, int] = {}
    for batch in drawn:
        for call, gradient in gradients(graph, batch, calls, seeds):
            identity = id(taps_of(call)[0].variable)
            rows = gradient.reshape(-1, sizes[identity])  # (positions, out)
            rows = rows[rows.any(axis=1)]
            sums[identity] = sums.get(identity, 0.0) + rows.T @ rows
            counts[identity] = counts.get(identity, 0) + len(rows)
    return {
        identity: _shrunk(total, counts[identity])
        for identity, total in sums.items()
        if np.isfinite(total).all() and total.any()
    }


def _is_wanted(call: Call, sizes: Mapping[int, int]) -> bool:
    taps = taps_of(call)
    return len(taps) == 1 and id(taps[0].variable) in sizes and puts_out_rows(call)


def _shrunk(total: Float64, count: int) -> Float64:
    """Mean diagonal 1, drawn towards the diagonal where few rows were seen."""
    size = len(total)
    scaled = total * (size / np.trace(total))
    return np.asarray((count * scaled + size * np.diag(np.diagonal(scaled))) / (count + size))


def _seeds(graph: Graph, outputs: Sequence[Sequence[Any]]) -> Seeds:
    """Random vectors r with E r r^T = M, see `output_curvature`."""
    scales = spread_scales(outputs)
    ends = [maker_of(graph, tensor) for tensor in graph.outputs]
    roles = [role_of(end) if end in squashed_calls(graph) else None for end in ends]
    doubts = [
        0.0 if role is None else _mean_doubt([_array(value) for value in own], role)
        for own, role in zip(zip(*outputs, strict=True), roles, strict=True)
    ]
    random = np.random.default_rng(0)

    def seed(number: int, output: Any) -> Float64 | None:
        if not scales[number]:
            return None
        logits, role = _array(output), roles[number]
        signs, others = random.choice([-1.0, 1.0], size=(2, *logits.shape))
        if role is None:
            return np.asarray(signs * scales[number])
        if role == "probabilities":
            others -= others.mean(axis=-1, keepdims=True)
            others *= np.sqrt(others.shape[-1] / max(others.shape[-1] - 1, 1))
        doubt = doubts[number]
        fisher = fisher_root(logits, role, signs) / np.sqrt(doubt) if doubt > 0 else 0.0
        return np.asarray(fisher + others)

    return seed


def _mean_doubt(logits: Sequence[Float64], role: str) -> float:
    """The mean diagonal of the Fisher information: p (1 - p)."""
    kind: Squash = "sigmoid" if role == "sigmoid" else "softmax"
    chances = [squashed(own, kind) for own in logits]
    total = sum(float((p * (1 - p)).sum()) for p in chances)
    return total / sum(p.size for p in chances)


def fisher_root(logits: Float64, role: str, signs: Float64) -> Float64:
    """A s, with A A^T the Fisher information of a softmax or sigmoid by its logits.

    Of a softmax that is diag(p) - p p^T, with A = diag(sqrt p) - p sqrt(p)^T; of a sigmoid p (1 - p).

    Args:
        logits: (..., classes).
        role: "probabilities" or "sigmoid".
        signs: s, of their shape.

    Example:
        >>> fisher_root(np.zeros((1, 2)), "probabilities", np.array([[1.0, -1.0]]))
        array([[ 0.70710678, -0.70710678]])
    """
    if role == "sigmoid":
        p = squashed(logits, "sigmoid")
        return np.asarray(np.sqrt(p * (1 - p)) * signs)
    p = squashed(logits, "softmax")
    root = np.sqrt(p) * signs
    return np.asarray(root - p * root.sum(axis=-1, keepdims=True))


def _array(value: Any) -> Float64:
    return np.asarray(ops.convert_to_numpy(value)).astype(np.float64)
