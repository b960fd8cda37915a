"""How much of a layer is to go and in which pattern; scores -> mask, exactly so many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from secateur._kernels.native import patterns as pattern_kernels
from secateur._kernels.native import saliency as saliency_kernels
from secateur._kernels.native import select as select_kernels
from secateur.arrays import Array
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.patterns import NM, Block, Pattern, Unstructured, parse_pattern
from secateur.selection import Norm, Target, row_masks

LayerScope: TypeAlias = Literal["layer", "row"]


@dataclass(frozen=True)
class LayerTarget:
    """What is to go from one (out, in) matrix.

    Attributes:
        pattern: "unstructured", "n:m" (n kept of m, its own target) or "block:RxC".
        sparsity: Fraction of the weights (or blocks) that go, 0 to 1, rounded to whole ones.
        count: How many weights (or blocks) go; with scope "row", from each row.
        mask: Exactly these go: bool (out, in), True = keep. Nothing else is then given.
        scope: What is ranked together: the "layer", or each "row" (output; of blocks, each row of them).

    Raises:
        InvalidArgumentError: Not exactly one target, or one out of range.

    Example:
        >>> LayerTarget(sparsity=0.5).mask_of(np.array([[3.0, -1.0], [2.0, 0.5]], np.float32))
        array([[ True, False],
               [ True, False]])
    """

    pattern: str | Pattern = "unstructured"
    sparsity: float | None = None
    count: int | None = None
    mask: Array | None = field(default=None, compare=False)
    scope: LayerScope = "layer"

    def __post_init__(self) -> None:
        if self.scope not in ("layer", "row"):
            raise InvalidArgumentError(f"scope must be 'layer' or 'row', got {self.scope!r}.")
        numbers = (self.sparsity, self.count)
        if self.mask is not None:
            if np.asarray(self.mask).dtype != np.bool_ or np.ndim(self.mask) != 2:
                raise ArgumentTypeError("mask must be a boolean (out, in) matrix, True = keep.")
            if numbers != (None, None):
                raise InvalidArgumentError("A mask is itself the target; give no other.")
        elif isinstance(self.parsed, NM):
            if numbers != (None, None):
                raise InvalidArgumentError(
                    f"The pattern {self.parsed} is itself the target; give no other."
                )
        else:
            Target(sparsity=self.sparsity, count=self.count)

    @property
    def parsed(self) -> Pattern:
        """The pattern as a value."""
        return parse_pattern(self.pattern)

    def num_removed(self, units: int) -> int:
        """How many of so many weights or blocks that are ranked together go."""
        return Target(sparsity=self.sparsity, count=self.count).num_removed(units)

    def mask_of(self, scores: Array, norm: Norm = "l2") -> Array:
        """Mask that keeps the entries of largest |score|, exactly as many as the target says.

        Args:
            scores: (out, in) float32 or float64, C-contiguous.
            norm: How a block's score is made of its entries'.

        Returns:
            (out, in) bool, True = keep. Of equals those of the earlier position go first.

        Raises:
            InvalidArgumentError: The target's mask is of another shape, or its count too large.
            NonFiniteError: A score is not finite.
        """
        if self.mask is not None:
            return self._fixed_mask(scores.shape)
        pattern = self.parsed
        if isinstance(pattern, NM):
            return pattern_kernels.nm_mask(scores, pattern.n, pattern.m)
        if isinstance(pattern, Unstructured):
            return self.units_mask(scores)
        blocks = saliency_kernels.block_scores(scores, pattern.rows, pattern.cols, norm)
        shape = (scores.shape[0], scores.shape[1])
        return pattern_kernels.expand_block_mask(
            self.units_mask(blocks), shape, pattern.rows, pattern.cols
        )

    def units_mask(self, scores: Array) -> Array:
        """The same over a matrix of units, be they weights or blocks."""
        mask = np.empty(scores.shape, np.bool_)
        if self.scope == "row":
            select_kernels.check_finite([scores])
            return row_masks(np.abs(scores), self.num_removed(scores.shape[1]))
        cut = select_kernels.find_cut([scores], self.num_removed(scores.size))
        select_kernels.apply_cut([scores], cut, masks=[mask])
        return mask

    def _fixed_mask(self, shape: tuple[int, ...]) -> Array:
        assert self.mask is not None
        if self.mask.shape != shape:
            raise InvalidArgumentError(
                f"mask has shape {self.mask.shape}; the weight matrix has {shape}."
            )
        return self.mask.copy()

    @property
    def is_block(self) -> bool:
        """Whether rectangles go as one."""
        return isinstance(self.parsed, Block)
