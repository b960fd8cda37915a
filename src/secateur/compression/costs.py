"""What weight matrices take of the figure that a compression is to bring down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from secateur.arrays import Array
from secateur.keras.tensors import WeightTensor, find_tensors


@dataclass(frozen=True)
class WeightCost:
    """What one weight matrix costs, by how many of its weights are not zero.

    Attributes:
        per_weight: Of each weight that is not zero, in the goal's unit.
        per_bit: Of each bit that it takes to say which weights these are.
    """

    per_weight: float
    per_bit: float = 0.0

    def of(self, kept: float, size: float) -> float:
        """The cost of `kept` weights among `size`.

        Example:
            >>> WeightCost(per_weight=4.0, per_bit=0.125).of(kept=4, size=8)
            17.0
        """
        return self.per_weight * kept + self.per_bit * size * binary_entropy(kept / max(size, 1))


def binary_entropy(share: float) -> float:
    """Bits that it takes to say of one thing whether it belongs to such a share of all.

    Example:
        >>> binary_entropy(0.5), binary_entropy(0.0)
        (1.0, 0.0)
    """
    if not 0 < share < 1:
        return 0.0
    return -share * math.log2(share) - (1 - share) * math.log2(1 - share)


@dataclass(frozen=True)
class Costs:
    """What a model's weight matrices cost, and what everything else does.

    Attributes:
        prices: Weight name -> its cost; weights that are not in it save nothing.
        fixed: What is left of the model's figure without them.
    """

    prices: Mapping[str, WeightCost]
    fixed: float

    def dense(self, sizes: Mapping[str, float]) -> float:
        """What matrices of these sizes cost without a zero."""
        return sum(self.prices[name].of(size, size) for name, size in sizes.items())


def prunable(model: Any) -> list[WeightTensor]:
    """Weight matrices that a compression may prune, embeddings among them."""
    tensors = find_tensors(model).tensors
    return [tensor for tensor in tensors if tensor.default or tensor.role == "embedding"]


def sizes_of(model: Any, names: Mapping[str, Any]) -> dict[str, int]:
    """Number of weights of those of the named matrices that the model has."""
    return {t.name: math.prod(t.shape) for t in prunable(model) if t.name in names}


def kept_within(
    saliencies: Mapping[str, Array], prices: Mapping[str, WeightCost], budget: float
) -> int:
    """How many weights can stay, the most salient of all matrices together, under a budget.

    Args:
        saliencies: Weight name -> saliencies of any shape; higher = keep.
        prices: Weight name -> its cost.
        budget: What they may cost together.

    Returns:
        The largest number that costs no more, of those with a saliency above 0; 0 where even one weight
        costs more.

    Example:
        >>> scores = {"a": np.array([4.0, 1.0]), "b": np.array([3.0, 2.0])}
        >>> kept_within(scores, {"a": WeightCost(1.0), "b": WeightCost(10.0)}, budget=12.0)
        2
    """
    each = [np.sort(np.asarray(own, np.float64), axis=None) for own in saliencies.values()]
    together = np.sort(np.concatenate(each))[::-1]
    priced = [prices[name] for name in saliencies]

    def cost(kept: int) -> float:
        """Of equal saliencies at the edge all matrices are taken to keep theirs."""
        lowest = together[kept - 1]
        counts = [own.size - np.searchsorted(own, lowest, side="left") for own in each]
        parts = zip(priced, counts, each, strict=True)
        return sum(price.of(int(count), own.size) for price, count, own in parts)

    low, high = 0, int(np.count_nonzero(together > 0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle - 1)
    return low
