"""Statistics of what goes into the weights of a group, all their uses counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from secateur._kernels.native.gemm import matmul
from secateur.arrays import Array
from secateur.keras.calibrating import CalibrationWalk, Rows
from secateur.keras.staging import Schedule, TapGroup
from secateur.keras.tensors import WeightTensor
from secateur.keras.variables import read_array

Make: TypeAlias = Callable[[tuple[int, int], str, int], Any]
"""From the shape of a run of rows, the layer's name, and the width of companion rows: the dense
network's inputs or the outputs that are wanted; 0 where both networks are one."""


Wanted: TypeAlias = Callable[[Rows], Array]


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
        wanted = self._outputs(group)
        for rows in walk.rows(group.inlets):
            _count(statistics, rows, wanted)
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
        companion = shape[0 if makes_up(group) else 1] if beside else 0
        return [self._make(shape, name, companion) for _ in range(group.groups)]

    def _outputs(self, group: TapGroup) -> Wanted | None:
        """What the weight is to put out less its bias, where that is not what it does of the inputs."""
        if not makes_up(group):
            return None
        tensor = self._tensors[id(group.members[0].variable)]
        matrix = tensor.to_matrix(read_array(tensor.variable)).astype(np.float32)

        def wanted(rows: Rows) -> Array:
            dense = rows.dense[0].astype(np.float32, copy=False)  # (lead..., in)
            flat = matmul(np.ascontiguousarray(dense.reshape(-1, dense.shape[-1])), matrix.T)
            outputs: Array = flat.reshape(*dense.shape[:-1], len(matrix))
            return outputs if rows.missed is None else outputs + rows.missed

        return wanted


def makes_up(group: TapGroup) -> bool:
    """Whether a group's weight is to make up for what its output is added to has lost."""
    return group.inlets[0].added is not None


def _count(statistics: list[Any], rows: Rows, wanted: Wanted | None = None) -> None:
    for number, own in enumerate(statistics):
        now = rows.compressed[number]
        if getattr(own, "has_cross", False):
            companion = rows.dense[number] if wanted is None else wanted(rows)
            own.update(now, companion, mask=rows.keep)
        else:
            own.update(now, mask=rows.keep)
