"""Statistics of what goes into the weights of a group, all their uses counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from secateur.keras.calibrating import CalibrationWalk, Rows
from secateur.keras.staging import Schedule, TapGroup
from secateur.keras.tensors import WeightTensor
from secateur.keras.variables import read_array

Make: TypeAlias = Callable[[tuple[int, int], str, bool], Any]
"""From the shape of a run of rows, the layer's name, and whether a dense network stands beside."""


class Gatherer:
    """Makes statistics for groups of a walk and counts the rows in.

    Args:
        tensors: Weight tensors by identity of their variables.
        make: Makes empty statistics.
    """

    def __init__(self, tensors: Mapping[int, WeightTensor], make: Make) -> None:
        self._tensors = tensors
        self._make = make
        self._later: dict[int, list[Any]] = {}

    def look_ahead(self, walk: CalibrationWalk, schedule: Schedule) -> None:
        """Count shared weights' later uses, in the given network: call it before anything changes."""
        waiting = [(group, inlet) for group in schedule.all_groups for inlet in group.later]
        if not waiting:
            return
        self._later = {id(group): self._empty(group) for group, _ in waiting}
        for number, rows in walk.dense_rows([inlet for _, inlet in waiting]):
            _count(self._later[id(waiting[number][0])], rows)

    def gather(self, walk: CalibrationWalk, group: TapGroup) -> list[Any]:
        """Statistics for the group at hand, one for each run of rows with inputs of its own."""
        statistics = self._empty(group)
        for rows in walk.rows(group.inlets):
            _count(statistics, rows)
        for own, more in zip(statistics, self._later.pop(id(group), ()), strict=False):
            own.merge(more)
        return statistics

    def _empty(self, group: TapGroup) -> list[Any]:
        tensor = self._tensors[id(group.members[0].variable)]
        rows, width = tensor.to_matrix(read_array(tensor.variable)).shape
        # Before anything was changed upstream both networks are one.
        beside = group.level > 0 or group.position > 0
        name = tensor.name.rpartition("/")[0] or tensor.name
        shape = (rows // group.groups, width)
        return [self._make(shape, name, beside) for _ in range(group.groups)]


def _count(statistics: list[Any], rows: Rows) -> None:
    for number, own in enumerate(statistics):
        now = rows.compressed[number]
        if getattr(own, "has_cross", False):
            own.update(now, rows.dense[number], mask=rows.keep)
        else:
            own.update(now, mask=rows.keep)
