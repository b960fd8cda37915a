"""Score units by the layers that read them: rows of calibration data for a `UnitCriterion`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.cut_choosing import Choice, CutTarget
from secateur.groups import Group
from secateur.keras.consumers import Consumer, find_consumers
from secateur.keras.flatten import Call
from secateur.keras.padding import Keep, counted
from secateur.keras.taps import Tap
from secateur.keras.variables import read_array
from secateur.keras.watching import watch_curvature, watch_taps
from secateur.keras.workbench import Bench
from secateur.unit_criteria import Reader, UnitCriterion

Float64 = npt.NDArray[np.float64]

# Statistics that are gathered in one pass over the data; beyond that it takes more passes.
_BYTES_A_PASS = 2 << 30


def score_groups(
    bench: Bench,
    batches: Iterable[Any],
    criterion: UnitCriterion,
    target: CutTarget,
    choice: Choice,
) -> tuple[list[Group], dict[str, Float64]]:
    """Score the groups that may be cut.

    Args:
        bench: The model.
        batches: Calibration data, nested as the model takes it; read again for every pass.
        criterion: The criterion.
        target: How much goes; tells how far units need to be ranked.
        choice: Which groups may be cut; no others are scored.

    Returns:
        The groups, those that cannot be scored with the reason; and per name of a group a score for
        each unit, +inf where there is none.

    Raises:
        NonFiniteError: What goes into a layer is NaN or infinite; names it.
        InvalidArgumentError: A Gram matrix would be too large.
    """
    wanted = {n: group for n, group in enumerate(bench.groups) if not choice.refusal(group)}
    counts = enumerate(target.most(bench.groups, bench.names))
    most = {number: count for number, count in counts if count is not None}
    found, unread = _Scorer(bench, batches, criterion).score(wanted, most)
    groups = [
        replace(group, reason=group.reason or unread.get(number, ""))
        for number, group in enumerate(bench.groups)
    ]
    scores = {
        name: found.get(number, np.full(len(groups[number].units), np.inf))
        for number, name in enumerate(bench.names)
    }
    return groups, scores


class _Scorer:
    def __init__(self, bench: Bench, batches: Iterable[Any], criterion: UnitCriterion) -> None:
        self.bench = bench
        self.batches = batches
        self.criterion = criterion
        self.consumers = [c for c in find_consumers(bench.description) if not c.trouble]
        self.units_of = {id(c): bench.units.unit_of[np.stack(c.slots)] for c in self.consumers}

    def score(
        self, groups: Mapping[int, Group], most: Mapping[int, int]
    ) -> tuple[dict[int, Float64], dict[int, str]]:
        """By number of a group, its units' scores; or why there are none."""
        readers = {number: self._readers_of(group) for number, group in groups.items()}
        unread = {
            number: "no weight matrix reads it, so only its output can be measured"
            for number, own in readers.items()
            if not own
        }
        scores: dict[int, Float64] = {}
        for numbers in self._rounds({n: own for n, own in readers.items() if own}):
            wanted = {id(c.variable): c for number in numbers for c in readers[number]}
            seen = self._gather(wanted)
            for number in numbers:
                group = groups[number]
                if not all(id(c.variable) in seen for c in readers[number]):
                    unread[number] = "it is not known what goes into a layer that reads it"
                    continue
                own = [self._read_by(c, group, seen[id(c.variable)]) for c in readers[number]]
                scores[number] = self.criterion.scores(group.units, own, most.get(number))
        return scores, unread

    def _readers_of(self, group: Group) -> list[Consumer]:
        return [c for c in self.consumers if np.isin(group.units, self.units_of[id(c)]).any()]

    def _read_by(self, consumer: Consumer, group: Group, reader: Reader) -> Reader:
        """The reader, as it reads this group: where two axes take units, by that of the group."""
        own = self.units_of[id(consumer)]
        (axis, *_) = (number for number, row in enumerate(own) if np.isin(group.units, row).any())
        return replace(reader, units=own[axis])

    def _gather(self, wanted: Mapping[int, Consumer]) -> dict[int, Reader]:
        """Readers with their statistics, by identity of the weight."""
        taps: dict[int, Tap] = {}
        statistics: dict[int, tuple[Any, ...]] = {}

        def see(tap: Tap, call: Call, args: Any, kwargs: Any, keep: Keep | None) -> None:
            del call
            identity = id(tap.variable)
            rows = counted(tap.rows(args, kwargs), keep, tap.groups)  # (groups, positions, in)
            if identity not in statistics:
                name = wanted[identity].name
                taps[identity] = tap
                statistics[identity] = tuple(
                    self.criterion.statistics(rows.shape[-1], name) for _ in rows
                )
            for own, part in zip(statistics[identity], rows, strict=True):
                own.update(np.ascontiguousarray(part))

        watch_taps(self.bench, wanted, self.batches, see)
        curved = self.criterion.curved
        curvature = watch_curvature(self.bench, wanted, self.batches) if curved else {}
        return {
            identity: replace(
                self._reader(wanted[identity], taps[identity], statistics[identity]),
                curvature=curvature.get(identity),
            )
            for identity in statistics
        }

    def _reader(self, consumer: Consumer, tap: Tap, statistics: tuple[Any, ...]) -> Reader:
        matrix = consumer.matrix(read_array(consumer.variable))
        weights = tuple(np.split(matrix.astype(np.float32), tap.groups))
        return Reader(consumer.name, weights, self.units_of[id(consumer)][0], statistics)

    def _rounds(self, readers: Mapping[int, Sequence[Consumer]]) -> list[list[int]]:
        """Numbers of groups, parted so that the statistics of each part's readers are not too large."""
        rounds: list[list[int]] = []
        known: set[int] = set()
        size = 0
        for number, own in readers.items():
            sizes = {id(c): self.criterion.size(c.slots[0].size) for c in own}
            new = sum(own for identity, own in sizes.items() if identity not in known)
            if not rounds or size + new > _BYTES_A_PASS:
                rounds.append([])
                known, size, new = set(), 0, sum(sizes.values())
            rounds[-1].append(number)
            known.update(sizes)
            size += new
        return rounds
