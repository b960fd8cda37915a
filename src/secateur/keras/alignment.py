"""`align="auto"`: time layers at some widths on this machine, as they are run, and settle on one each."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops, tree

from secateur.alignment import Width, candidates, settle
from secateur.cut_choosing import Scores
from secateur.cut_plan import GroupCut
from secateur.errors import CutNotFasterWarning, InvalidArgumentError
from secateur.groups import Group, Units
from secateur.keras.calling import compiled
from secateur.keras.cut_rules import Kept, Site
from secateur.keras.describe import Description, everything
from secateur.keras.flatten import Tensor
from secateur.keras.proof import run
from secateur.keras.rebuild import made_again
from secateur.timing import median_times

_FALLBACK = 8
_ROUNDS = 30
_SECONDS_EACH = 0.5


@dataclass(frozen=True)
class Work:
    """One layer at one width, ready to be made and timed.

    Attributes:
        key: Equal for what takes equally long: class of the layer, its config, shapes that go in.
        make: Makes a call of it, compiled, on inputs of that shape.
    """

    key: Hashable
    make: Callable[[], Callable[[], Any]]


Timer = Callable[[Sequence[Work]], Sequence[float]]
"""Seconds that each takes, timed side by side."""


def time_works(works: Sequence[Work]) -> list[float]:
    """Median seconds of each, compiled and timed side by side."""
    calls = [work.make() for work in works]
    return median_times(calls, rounds=_ROUNDS, seconds=_SECONDS_EACH)


@dataclass(frozen=True)
class AutoAlign:
    """How widths are timed.

    Attributes:
        seconds: No layer is begun after so long; what was not timed is rounded up to a multiple of
            8.
        timer: Tells how long layers take.
        clock: Tells the time.
    """

    seconds: float = 20.0
    timer: Timer = time_works
    clock: Callable[[], float] = time.perf_counter

    @classmethod
    def of(cls, align: Any) -> AutoAlign | None:
        """The one that `align` asks for, or None for a number.

        Raises:
            InvalidArgumentError: Another word than "auto".
        """
        if isinstance(align, cls):
            return align
        if isinstance(align, str):
            if align != "auto":
                raise InvalidArgumentError(
                    f"align must be an integer of at least 1 or 'auto', got {align!r}."
                )
            return cls()
        return None

    def widen(
        self,
        description: Description,
        units: Units,
        groups: Sequence[Group],
        cuts: Sequence[GroupCut],
        scores: Scores,
        batch: Any,
        fixed: bool = False,
        progress: Callable[[str, int | None], None] | None = None,
    ) -> tuple[GroupCut, ...]:
        """Keep more units where the layers are not slower for it, and warn where a cut is no faster.

        Args:
            description: The flat model.
            units: What goes together.
            groups: All groups.
            cuts: What goes of each, not rounded.
            scores: Score of each unit, by name of the group.
            batch: Inputs; their sizes are those that are timed.
            fixed: No width is changed; only slow cuts are told.
            progress: Called with every group that was timed, and how many there are.

        Warns:
            CutNotFasterWarning: Names the groups.
        """
        bench = _Bench(self, description, units, groups, cuts, scores, _shapes(description, batch))
        pairs = [(g, c) for g, c in zip(groups, cuts, strict=True) if c.removed]
        slow, widened = [], {}
        for group, cut in pairs:
            settled = bench.settle(group, cut, fixed)
            widened[cut.name] = _widened(cut, settled, scores[cut.name])
            if settled.slow:
                slow.append(f"{cut.name} ({cut.width} -> {settled.kept})")
            if progress is not None:
                progress(f"timed {cut.name}", len(pairs))
        if slow:
            warnings.warn(_told(slow), CutNotFasterWarning, stacklevel=3)
        return tuple(widened.get(cut.name, cut) for cut in cuts)


def _told(slow: Sequence[str]) -> str:
    more = f" and {len(slow) - 5} more" if len(slow) > 5 else ""
    return (
        f"Smaller but not faster on this machine: {', '.join(slow[:5])}{more}. "
        "The plan tells the times; exclude these layers, or cut them further."
    )


def _widened(cut: GroupCut, settled: Width, scores: npt.NDArray[np.float64]) -> GroupCut:
    """The best of the units that were to go stay after all."""
    if settled.kept == cut.kept:
        return replace(cut, why=settled.note or cut.why)
    worst = np.argsort(scores, kind="stable")[: cut.width - settled.kept]
    removed = tuple(sorted(int(position) for position in worst))
    return replace(cut, removed=removed, why=settled.note)


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor: its shape on the batch, and its values if they are indices."""

    shape: tuple[int, ...]
    dtype: str
    indices: Any = None


def _shapes(description: Description, batch: Any) -> dict[int, _Value]:
    values: dict[int, _Value] = {}

    def note(tensor: Tensor, value: Any) -> None:
        is_float = "float" in tensor.dtype
        indices = None if is_float else ops.convert_to_numpy(value)
        values[id(tensor)] = _Value(tuple(value.shape), tensor.dtype, indices)

    def watch(site: Site, outputs: list[Any]) -> None:
        for tensor, value in zip(site.call.outputs, outputs, strict=True):
            note(tensor, value)

    for tensor, value in zip(description.graph.inputs, tree.flatten(batch), strict=True):
        note(tensor, np.asarray(value))
    run(description, batch, everything(description), watch)
    return values


@dataclass(eq=False)
class _Bench:
    """Times of layers, each timed once."""

    settings: AutoAlign
    description: Description
    units: Units
    groups: Sequence[Group]
    cuts: Sequence[GroupCut]
    scores: Scores
    values: dict[int, _Value]
    known: dict[Hashable, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = self.settings.clock()
        self.stays = np.ones(self.units.num_units, np.bool_)
        for group, cut in zip(self.groups, self.cuts, strict=True):
            self.stays[group.units[list(cut.removed)]] = False
        self.sites_of: dict[int, list[Site]] = {}
        for site in self.description.sites:
            if isinstance(site.call.operation, keras.layers.Layer):
                for unit in self._units_of(site):
                    self.sites_of.setdefault(unit, []).append(site)

    def _units_of(self, site: Site) -> list[int]:
        labels = [own for _, axes in site.weights for own in axes if own is not None]
        return np.unique(self.units.unit_of[np.concatenate(labels)]).tolist() if labels else []

    def settle(self, group: Group, cut: GroupCut, fixed: bool) -> Width:
        """Time a group at all its widths, the other groups cut as was asked, and pick one."""
        # A head is a unit of its own, and so many stay as were asked for.
        exact = fixed or group.kind == "head"
        tried = [cut.kept] if exact else candidates(cut.kept, cut.width, group.span)
        widths = sorted({*tried, cut.width})
        sites = self.sites_of.get(int(group.units[0]), [])
        kept = {width: self._kept(group, cut.name, width) for width in widths}
        times = dict.fromkeys(widths, 0.0)
        for site in sites:
            own = self._times(site, kept)
            if own is None:
                return self._untimed(group, cut, exact)
            for width in widths:
                times[width] += own[width]
        return settle(times, cut.kept, cut.width, group.span, fixed=exact)

    def _kept(self, group: Group, name: str, width: int) -> Kept:
        stays = self.stays.copy()
        order = np.argsort(self.scores[name], kind="stable")
        stays[group.units] = True
        stays[group.units[order[: order.size - width]]] = False
        return Kept(stays[self.units.unit_of])

    def _times(self, site: Site, kept: Mapping[int, Kept]) -> dict[int, float] | None:
        works = {width: _work(site, own, self.values) for width, own in kept.items()}
        new = {w.key: w for w in works.values() if w.key not in self.known}
        if new:
            if self.settings.clock() - self.start > self.settings.seconds:
                return None
            self.known.update(zip(new, self.settings.timer(list(new.values())), strict=True))
        return {width: self.known[work.key] for width, work in works.items()}

    def _untimed(self, group: Group, cut: GroupCut, exact: bool) -> Width:
        spent = f"the {self.settings.seconds:g} s for timing were spent"
        if exact:
            return Width(cut.kept, f"align=auto: not timed, {spent}")
        step = _FALLBACK // math.gcd(_FALLBACK, group.span)
        kept = min(cut.width, -(-cut.kept // step) * step)
        return Width(kept, f"align=auto: not timed, {spent}; a multiple of {_FALLBACK} stays")


def _work(site: Site, kept: Kept, values: Mapping[int, _Value]) -> Work:
    old = site.call.operation
    changes = {} if site.config_change is None else site.config_change(kept)
    call = site.call
    change = site.argument_change
    args, kwargs = (call.args, call.kwargs) if change is None else change(kept)
    shapes: dict[int, tuple[int, ...]] = {}
    taken: list[tuple[int, ...]] = []
    for tensor in call.inputs:
        own, value = site.known[id(tensor)], values[id(tensor)]
        sizes = zip(own, value.shape, strict=True)
        shapes[id(tensor)] = tuple(kept.count(labels, size) for labels, size in sizes)
        taken.append(shapes[id(tensor)])
    config = {**old.get_config(), **changes, "name": ""}
    key = (type(old), repr(config), tuple(taken))

    def make() -> Callable[[], Any]:
        layer = made_again(old, changes, old.name)
        leaves = [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, Tensor)]
        given = [_drawn(values[id(leaf)], shapes[id(leaf)]) for leaf in leaves]

        def function(*tensors: Any) -> Any:
            left = iter(tensors)
            used = tree.map_structure(
                lambda leaf: next(left) if isinstance(leaf, Tensor) else leaf, (args, kwargs)
            )
            return layer(*used[0], **used[1])

        # Weights are made outside of what is compiled.
        function(*map(ops.convert_to_tensor, given))
        return compiled(function, *given)

    return Work(key, make)


def _drawn(value: _Value, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if value.indices is not None:
        return np.asarray(value.indices)[tuple(slice(size) for size in shape)]
    drawn = np.random.default_rng(0).standard_normal(shape, np.float32)
    return np.asarray(ops.convert_to_numpy(ops.cast(drawn, value.dtype)))
