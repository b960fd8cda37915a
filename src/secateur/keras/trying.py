"""Try several choices of units on the data and keep that by which the model's outputs lose least."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from keras import ops
from keras.src import backend

from secateur.arrays import Array
from secateur.cut_plan import GroupCut
from secateur.groups import Group
from secateur.keras.backward import run_outputs, squashed_calls
from secateur.keras.data import Batches, mask_of
from secateur.keras.flatten import Graph
from secateur.keras.output_roles import maker_of, role_of
from secateur.keras.padding import Padding
from secateur.keras.sampling import num_samples, some_samples
from secateur.keras.taps import open_graph

Float64: TypeAlias = npt.NDArray[np.float64]
# So many samples tell choices apart; the time that trying takes does not grow with the data.
_TRIED = 2048
_BATCH_SIZE = 32

Scores: TypeAlias = Mapping[str, Float64]
"""Per name of a group, a score for each unit."""


def best_scores(
    scores: Mapping[str, Scores],
    groups: Sequence[Group],
    names: Sequence[str],
    choose: Callable[[Scores], tuple[GroupCut, ...]],
    loss: Callable[[tuple[GroupCut, ...]], float],
    by_kind: bool,
) -> tuple[str, Scores]:
    """The scores by which least is lost: one measure for all groups, or one for each kind of unit.

    First each measure is tried for all, then for each kind of unit in turn the others in place of the
    best, so few cuts are made.

    Args:
        scores: By measure; of equal losses the first stays.
        groups: That are cut.
        names: Of the groups.
        choose: What goes, by the scores.
        loss: What the model loses by a cut.
        by_kind: Whether measures may be mixed: only where the number that goes from a group does not
            depend on the scores.

    Returns:
        The measure, those that were mixed joined by "+", and the scores.
    """
    known: dict[tuple[tuple[int, ...], ...], float] = {}

    def lost(chosen: Mapping[str, str]) -> float:
        cuts = choose(_mixed(scores, chosen))
        key = tuple(cut.removed for cut in cuts)
        if key not in known:
            known[key] = loss(cuts)
        return known[key]

    kinds = {name: group.kind for name, group in zip(names, groups, strict=True)}
    wholes: list[dict[str, str]] = [dict.fromkeys(names, measure) for measure in scores]
    best = min(wholes, key=lost)
    for kind in dict.fromkeys(kinds.values()) if by_kind else ():
        others = [
            {name: one[name] if kinds[name] == kind else best[name] for name in names}
            for one in wholes
        ]
        best = min([best, *others], key=lost)
    cuts = choose(_mixed(scores, best))
    used = {best[name] for name, cut in zip(names, cuts, strict=True) if cut.removed}
    told = [measure for measure in scores if measure in used] or list(scores)[:1]
    return "+".join(told), _mixed(scores, best)


def _mixed(scores: Mapping[str, Scores], chosen: Mapping[str, str]) -> Scores:
    return {name: scores[measure][name] for name, measure in chosen.items()}


def fit_and_judge(
    graph: Graph, batches: Iterable[Any]
) -> tuple[Batches, list[tuple[Any, Array | None]]]:
    """A few of the samples in two halves: one to repair tried cuts on, one to judge them by.

    What was fitted says little about which fit is the better: more is made up for on the samples that
    were seen. Both halves are the same in whatever order the samples come; a single sample is both.

    Args:
        graph: The model, flat.
        batches: Data that can be read more than once; what comes with it as a mask goes along.

    Returns:
        The one half; and the batches of the other, each with its real positions, (samples, time) bool,
        where the mask tells any.
    """
    padding = Padding(graph, mask_of(batches))
    total = min(sum(num_samples(batch) for batch in batches), _TRIED)
    size = max(1, min(_BATCH_SIZE, total // 2))
    drawn, rows = some_samples(batches, total, size, padding.given)
    ends = np.cumsum([num_samples(batch) for batch in drawn])
    numbers = np.split(rows, ends[:-1])
    some = padding.of_samples(rows)
    real = [
        some.given(batch, end - num_samples(batch)) for batch, end in zip(drawn, ends, strict=True)
    ]
    mask = padding.array
    own = mask_of(batches) if mask is None else mask[np.concatenate(numbers[::2])]
    judged = list(zip(drawn, real, strict=True))
    return Batches(drawn[::2], own), judged[1::2] or judged


class OutputLoss:
    """What a model's outputs lose when another takes its place, without labels.

    The squared error of each output as a part of its variance, over samples and positions; summed over
    the outputs. Of what a softmax or sigmoid makes it is that of what goes in, for a softmax less what is
    added to all classes: divergences of probabilities hang on the few samples whose sure answers change,
    and of a thousand samples too few do to tell choices apart. Outputs that are no floats do not count,
    and neither do padded positions.

    Args:
        model: The original.
        batches: Batches, each with its real positions as `fit_and_judge` gives them.
        sample: As `open_graph` takes it.
    """

    def __init__(
        self, model: Any, batches: Sequence[tuple[Any, Array | None]], sample: Any = None
    ) -> None:
        self.batches = batches
        self.wanted = list(self._outputs(open_graph(model, sample)))
        self.spreads = [_variance(own) for own in zip(*self.wanted, strict=True)]

    def _outputs(self, graph: Graph) -> Iterator[list[Float64]]:
        ends = [maker_of(graph, tensor) for tensor in graph.outputs]
        softmax = [end in squashed_calls(graph) and role_of(end) == "probabilities" for end in ends]
        for batch, real in self.batches:
            outputs = run_outputs(graph, batch).outputs
            yield [_rows(own, centred, real) for own, centred in zip(outputs, softmax, strict=True)]

    def __call__(self, model: Any) -> float:
        """What is lost with this model in the original's place."""
        errors = np.zeros(len(self.spreads))
        counts = np.zeros(len(self.spreads))
        for wanted, found in zip(self.wanted, self._outputs(open_graph(model)), strict=True):
            for number, (one, two) in enumerate(zip(wanted, found, strict=True)):
                errors[number] += np.square(one - two).sum()
                counts[number] += len(one)
        known = np.array(self.spreads) > 0
        return float(sum(errors[known] / counts[known] / np.array(self.spreads)[known]))


def _rows(output: Any, centred: bool, real: Array | None) -> Float64:
    """An output as (positions, entries) of the last axis; nothing but zeros of what is no float."""
    array = np.asarray(ops.convert_to_numpy(output))
    for mask in (real, backend.get_keras_mask(output)):
        if mask is not None and array.ndim > 2 and array.shape[:2] == tuple(mask.shape):
            array = np.where(np.asarray(mask)[(..., *[None] * (array.ndim - 2))], array, 0)
    wide = (
        array.astype(np.float64)
        if np.issubdtype(array.dtype, np.floating)
        else np.zeros(array.shape)
    )
    rows = wide.reshape(-1, wide.shape[-1]) if wide.ndim > 1 else wide.reshape(-1, 1)
    return rows - rows.mean(axis=1, keepdims=True) if centred else rows


def _variance(parts: Sequence[Float64]) -> float:
    """Of the rows, summed over their entries."""
    count = sum(len(rows) for rows in parts)
    mean = np.sum([rows.sum(axis=0) for rows in parts], axis=0) / count
    return float(sum(np.square(rows - mean).sum() for rows in parts)) / count
