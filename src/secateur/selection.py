"""From saliencies to masks: how many go, which are ranked together, and which ones go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from secateur._kernels.native import patterns as pattern_kernels
from secateur._kernels.native import saliency as saliency_kernels
from secateur._kernels.native import select as select_kernels
from secateur._kernels.native.select import Cut
from secateur.arrays import Array, Arrays, contiguous, like, matrix_view, named_arrays
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError
from secateur.patterns import NM, Block, Pattern, Unstructured, parse_pattern

Scope: TypeAlias = Literal["global", "layer", "row"] | Mapping[str, str]
Norm: TypeAlias = Literal["l1", "l2"]
View: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True)
class Target:
    """How much is to go: exactly one of the three is set.

    Attributes:
        sparsity: Fraction of zeros asked for, 0 to 1.
        threshold: Everything whose saliency is strictly below goes.
        count: How many weights (or blocks) go.
        by_row: Whether sparsity and count are of each row (output) of each matrix.
    """

    sparsity: float | None = None
    threshold: float | None = None
    count: int | None = None
    by_row: bool = False

    def __post_init__(self) -> None:
        numbers = {k: v for k, v in vars(self).items() if k != "by_row"}
        given = {key: value for key, value in numbers.items() if value is not None}
        if len(given) != 1:
            raise InvalidArgumentError(
                f"Give exactly one of sparsity, threshold and count; got {given or 'none of them'}."
            )
        for name, value in given.items():
            if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.number)):
                raise ArgumentTypeError(f"{name} must be a number, got {value!r}.")
        if self.sparsity is not None and not 0 <= self.sparsity <= 1:
            raise InvalidArgumentError(
                f"sparsity is the fraction of zeros, from 0 to 1; got {self.sparsity}."
            )
        if self.threshold is not None and math.isnan(self.threshold):
            raise InvalidArgumentError("threshold must be a number or inf, got nan.")
        if self.count is not None and (self.count != int(self.count) or self.count < 0):
            raise InvalidArgumentError(f"count must be a whole number >= 0, got {self.count}.")

    @property
    def ranks_rows(self) -> bool:
        """Whether rows are ranked one by one; below a threshold it is all the same."""
        return self.by_row and self.threshold is None

    def num_removed(self, size: int) -> int:
        """How many of `size` candidates go (only for a sparsity or a count)."""
        if self.sparsity is not None:
            return round(float(self.sparsity) * size)
        assert self.count is not None
        if self.count > size:
            raise InvalidArgumentError(
                f"count={self.count} asks for more than the {size} there are to remove; "
                "lower it or name more tensors."
            )
        return int(self.count)


@dataclass(frozen=True)
class Ranked:
    """What is compared: arrays of keys, and whether they are ordered by value or by magnitude."""

    arrays: dict[str, Array]
    order: Literal["magnitude", "value"]


def check_finite(arrays: Mapping[str, Array]) -> None:
    """Raise `NonFiniteError` naming the first array that holds a NaN or an infinity."""
    with _naming(arrays):
        select_kernels.check_finite(list(arrays.values()))


def find_cut(ranked: Ranked, names: Sequence[str], target: Target) -> Cut:
    """Find the cut that removes what `target` asks for from the named arrays, ranked together."""
    arrays = {name: ranked.arrays[name] for name in names}
    if not arrays:
        raise InvalidArgumentError("There is nothing to rank: no arrays were given.")
    if target.threshold is not None:
        dtype = next(iter(arrays.values())).dtype
        return select_kernels.cut_at(float(target.threshold), dtype, ranked.order)
    size = sum(array.size for array in arrays.values())
    with _naming(arrays):
        return select_kernels.find_cut(
            list(arrays.values()), target.num_removed(size), ranked.order
        )


class _naming:  # noqa: N801 - reads as a phrase: with _naming(arrays)
    """Add the tensor's name to a `NonFiniteError` that knows only its index."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._names = list(arrays)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NonFiniteError) and (error.index is not None or len(self._names) == 1):
            name = self._names[error.index or 0]
            raise NonFiniteError(
                f"Tensor {name!r} holds NaN or infinite values; mend or exclude it before pruning."
            ) from error


def groups_of(names: Sequence[str], scope: Scope) -> list[tuple[str, ...]]:
    """Split names into the groups that are ranked together, in order of first appearance.

    Args:
        names: Tensor names.
        scope: "global" (all together), "layer" (each alone), "row" (each alone too: its rows are
            then ranked one by one), or a mapping of tensor name to group label; names it leaves out
            are ranked alone.
    """
    if scope == "global":
        return [tuple(names)] if names else []
    if scope in ("layer", "row"):
        return [(name,) for name in names]
    if not isinstance(scope, Mapping):
        raise InvalidArgumentError(
            "scope must be 'global', 'layer', 'row' or a mapping of tensor name to group, "
            f"got {scope!r}."
        )
    if unknown := set(scope) - set(names):
        raise InvalidArgumentError(
            f"scope names tensors that do not exist: {sorted(unknown)}; there are {list(names)}."
        )
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        label = ("group", str(scope[name])) if name in scope else ("alone", name)
        groups.setdefault(label, []).append(name)
    return [tuple(group) for group in groups.values()]


def cut_masks(
    ranked: Ranked, names: Sequence[str], cut: Cut, masks: Sequence[Array]
) -> list[select_kernels.CutStatistics]:
    """Fill `masks` (True = keep) for a cut; returns what went and what stayed, per array."""
    arrays = [ranked.arrays[name] for name in names]
    return select_kernels.apply_cut(arrays, cut, ranked.order, masks=list(masks))


def check_norm(norm: object) -> None:
    """Refuse a norm of blocks that there is not, also where there are no blocks.

    Raises:
        InvalidArgumentError: Neither "l1" nor "l2".
    """
    if norm not in ("l1", "l2"):
        raise InvalidArgumentError(f"norm must be 'l1' or 'l2', got {norm!r}.")


def block_ranked(views: Mapping[str, Array], pattern: Block, norm: Norm) -> Ranked:
    """Score every block of (out, in) matrices by its l1 or l2 norm."""
    check_norm(norm)
    scores = {}
    for name, view in views.items():
        with _naming({name: view}):
            scores[name] = saliency_kernels.block_scores(view, pattern.rows, pattern.cols, norm)
    return Ranked(scores, "value")


def expand_blocks(block_mask: Array, mask: Array, pattern: Block) -> None:
    """Write a mask of blocks into the (out, in) mask of their weights."""
    order: Literal["C", "F"] = "C" if mask.flags.c_contiguous else "F"
    pattern_kernels.expand_block_mask(
        block_mask, (mask.shape[0], mask.shape[1]), pattern.rows, pattern.cols, order, mask
    )


def nm_mask(
    name: str, view: Array, pattern: NM, order: Literal["magnitude", "value"], mask: Array
) -> None:
    """Fill a mask that keeps the n best of every m consecutive inputs of an (out, in) matrix."""
    with _naming({name: view}):
        pattern_kernels.nm_mask(view, pattern.n, pattern.m, order, mask)


def row_masks(scores: Array, num_removed: int) -> Array:
    """Keep all but the `num_removed` smallest entries of every row; of equals the earlier go first.

    Args:
        scores: (rows, n), compared by value; no NaN.
        num_removed: How many of each row go, 0 to n.

    Returns:
        (rows, n) bool, True = keep.

    Example:
        >>> import numpy as np
        >>> row_masks(np.array([[2.0, 1.0, 1.0], [0.0, 5.0, 4.0]]), 1)
        array([[ True, False,  True],
               [False,  True,  True]])
    """
    if num_removed <= 0 or not scores.size:
        return np.ones(scores.shape, np.bool_)
    edge = np.partition(scores, num_removed - 1, axis=1)[:, num_removed - 1 : num_removed]
    below = scores < edge
    ties = scores == edge
    missing = num_removed - below.sum(axis=1, keepdims=True)
    removed: Array = below | (ties & (np.cumsum(ties, axis=1) <= missing))
    return ~removed


def select(
    saliencies: Arrays,
    *,
    sparsity: float | None = None,
    threshold: float | None = None,
    count: int | None = None,
    scope: Scope = "global",
    pattern: str | Pattern = "unstructured",
    norm: Norm = "l2",
) -> dict[str, Array] | list[Array]:
    """Turn saliencies into masks.

    Args:
        saliencies: Mapping or sequence of arrays, float16 / bfloat16 / float32 / float64, any shape;
            higher = keep. Infinite values are allowed (+inf is never removed before all others).
        sparsity: Fraction to remove, 0 to 1; `round(sparsity * size)` go, exactly.
        threshold: Everything strictly below it goes.
        count: How many go, exactly; per group of `scope`.
        scope: What is ranked together: "global", "layer" (each array alone), "row" (each output of
            each matrix alone, so sparsity and count are per row), or a mapping of array name to group.
        pattern: "unstructured", "n:m" (needs no target), or "block:RxC" (targets count blocks).
            Arrays are read as (out, in) matrices; of more than two axes, all but the first are `in`.
        norm: How a block's saliency is made of its members': "l1" or "l2".

    Returns:
        Boolean masks of the same shapes, in the same kind of collection. True = keep. Of equal
        saliencies those of the earlier (array, position) go first.

    Raises:
        InvalidArgumentError: No target or more than one, or one out of range.
        NonFiniteError: A saliency is NaN.

    Example:
        >>> import numpy as np
        >>> select([np.array([3.0, 1.0, 2.0, 1.0], np.float32)], count=2)
        [array([ True, False,  True, False])]
    """
    parsed = parse_pattern(pattern)
    named = {
        name: contiguous(array) for name, array in named_arrays(saliencies, "saliencies").items()
    }
    if isinstance(parsed, NM):
        if (sparsity, threshold, count) != (None, None, None):
            raise InvalidArgumentError(f"The pattern {parsed} is itself the target; give no other.")
        masks = {name: np.empty(array.shape, np.bool_) for name, array in named.items()}
        for name, array in named.items():
            nm_mask(name, matrix_view(array), parsed, "value", matrix_view(masks[name]))
        return like(saliencies, masks)
    target = Target(sparsity, threshold, count, by_row=scope == "row")
    masks = {name: np.empty(array.shape, np.bool_) for name, array in named.items()}
    views = {name: matrix_view(array) for name, array in named.items()}
    ranked = (
        Ranked(named, "value")
        if isinstance(parsed, Unstructured)
        else block_ranked(views, parsed, norm)
    )
    for group in groups_of(list(named), scope):
        if target.ranks_rows:
            fill_row_masks(ranked, group, target, parsed, masks)
        else:
            fill_masks(ranked, group, find_cut(ranked, group, target), parsed, masks)
    return like(saliencies, masks)


def fill_row_masks(
    ranked: Ranked,
    names: Sequence[str],
    target: Target,
    pattern: Unstructured | Block,
    masks: Mapping[str, Array],
    views: Mapping[str, View] | None = None,
) -> list[select_kernels.CutStatistics]:
    """Write masks that take the same number of weights or blocks from each row of each matrix."""
    statistics = []
    for name in names:
        view = matrix_view if views is None else views[name]
        # Scores of blocks are matrices already; others lie as their tensor does.
        keys = ranked.arrays[name]
        rows = view(keys) if isinstance(pattern, Unstructured) else keys
        with _naming({name: keys}):
            select_kernels.check_finite([keys])
        compared = np.abs(rows) if ranked.order == "magnitude" else rows
        kept = row_masks(compared, target.num_removed(rows.shape[1]))
        if isinstance(pattern, Unstructured):
            view(masks[name])[...] = kept
            statistics.append(select_kernels.mask_statistics(keys, masks[name], ranked.order))
        else:
            expand_blocks(kept, view(masks[name]), pattern)
            statistics.append(select_kernels.mask_statistics(keys, kept, ranked.order))
    return statistics


def fill_masks(
    ranked: Ranked,
    names: Sequence[str],
    cut: Cut,
    pattern: Unstructured | Block,
    masks: Mapping[str, Array],
    views: Mapping[str, View] | None = None,
) -> list[select_kernels.CutStatistics]:
    """Write the masks of one group; `views` show masks as the (out, in) matrices of their blocks."""
    if isinstance(pattern, Unstructured):
        return cut_masks(ranked, names, cut, [masks[name] for name in names])
    block_masks = [np.empty(ranked.arrays[name].shape, np.bool_) for name in names]
    statistics = cut_masks(ranked, names, cut, block_masks)
    for name, block_mask in zip(names, block_masks, strict=True):
        view = matrix_view if views is None else views[name]
        expand_blocks(block_mask, view(masks[name]), pattern)
    return statistics
