"""How much of each weight of a model goes, where one target is set for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from secateur import allocation
from secateur.arrays import Array
from secateur.data_criteria import OBS, DataCriterion, Wanda
from secateur.keras.choosing import Chosen, arrays_of
from secateur.keras.data_pruning import Opened
from secateur.keras.scoring import score_inputs
from secateur.keras.sensitivity import Alone, losses_alone
from secateur.patterns import NM, Block, Pattern
from secateur.pruning import Progress
from secateur.selection import Norm, Ranked, Target, block_ranked, fill_masks, find_cut

ALLOCATIONS = ("uniform", "erk", "lamp", "owl", "global", "loss")


def allot(
    name: str, opened: Opened, alone: Alone, memory: int, progress: Progress | None = None
) -> dict[str, int]:
    """Whole numbers of weights to remove that add up to the sparsity of all.

    Args:
        name: One of `ALLOCATIONS`.
        opened: The model made ready for a walk.
        alone: How one weight is pruned; its sparsity is the fraction of all chosen weights, 0 to 1.
        memory: Bytes of activations that may be kept in memory.
        progress: Called with each weight's name when what it costs is measured, where it is.
    """
    tensors, sparsity = opened.chosen.tensors, alone.sparsity
    sizes = {tensor.name: int(np.prod(tensor.shape)) for tensor in tensors}
    # With one weight, or all or nothing to go, there is nothing to share out.
    if name == "uniform" or len(sizes) == 1 or not 0 < sparsity < 1:
        return allocation.uniform(sizes, sparsity)
    if name == "loss":
        return allocation.by_loss(sizes, losses_alone(opened, alone, memory, progress), sparsity)
    if name == "erk":
        return allocation.erk({tensor.name: tensor.shape for tensor in tensors}, sparsity)
    if name == "lamp":
        return allocation.lamp(arrays_of(tensors).arrays, sparsity)
    if name == "owl":
        return allocation.owl(_scores(opened, Wanda(), memory), sparsity)
    return allocation.ranked(_scores(opened, OBS(), memory), sparsity, normalise=True)


def _scores(opened: Opened, criterion: DataCriterion, memory: int) -> dict[str, Array]:
    found = score_inputs(opened, opened.chosen.tensors, criterion, memory)
    return {name: found[name] for name in opened.chosen.names}


def rank_together(
    chosen: Chosen,
    scores: Mapping[str, Array],
    groups: Sequence[tuple[tuple[str, ...], Target | None]],
    pattern: Pattern,
    norm: Norm,
    *,
    normalise: bool,
) -> dict[str, Array]:
    """Masks of the weights' shapes, for groups of weights whose scores are compared.

    Args:
        chosen: The weights.
        scores: (out, in) of each; by their absolute values.
        groups: Names, and how much of them together goes.
        pattern: Unstructured or blocks.
        norm: How a block's score is made of its weights'.
        normalise: Divide each matrix's scores by their root mean square first.
    """
    assert not isinstance(pattern, NM)
    matrices = {name: _comparable(scores[name], normalise) for name in chosen.names}
    ranked = Ranked(matrices, "value")
    if isinstance(pattern, Block):
        ranked = block_ranked(matrices, pattern, norm)
    masks = {tensor.name: np.ones(tensor.shape, np.bool_) for tensor in chosen.tensors}
    flat = {name: np.empty(matrix.shape, np.bool_) for name, matrix in matrices.items()}
    for names, target in groups:
        assert target is not None
        fill_masks(ranked, names, find_cut(ranked, names, target), pattern, flat)
    for tensor in chosen.tensors:
        if any(tensor.name in names for names, _ in groups):
            tensor.to_matrix(masks[tensor.name])[...] = flat[tensor.name]
    return masks


def _comparable(matrix: Array, normalise: bool) -> Array:
    wide = np.abs(np.ascontiguousarray(matrix, np.float32))
    scale = float(np.sqrt(np.mean(np.square(wide, dtype=np.float64)))) if normalise else 1.0
    return wide / np.float32(scale) if scale > 0 else wide
