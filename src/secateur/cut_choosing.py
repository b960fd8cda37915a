"""From targets to units: how many of each group go, and which, with widths rounded."""

from __future__ import annotations

import fnmatch
import math
import numbers
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from secateur.arguments import as_names
from secateur.bypass_plan import BYPASS_KINDS, matches
from secateur.cut_plan import GroupCut
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.groups import Group

KINDS = ("neuron", "channel", "unit", "head", "embedding")
Scores = Mapping[str, npt.NDArray[np.float64]]


def check_keep(keep: Any) -> None:
    """Refuse what names no counts.

    Raises:
        ArgumentTypeError: Neither a mapping nor None.
    """
    if keep is not None and not isinstance(keep, Mapping):
        raise ArgumentTypeError(f"keep must be a dict, such as {{'dense': 32}}, got {keep!r}.")


@dataclass(frozen=True)
class CutTarget:
    """How much goes; exactly one of the first three is given.

    Attributes:
        threshold: Units whose score is strictly below it go.
        ratio: Fraction of the units that go, 0 to 1 (1 excluded).
        keep: Layer name -> units that stay.
        relative: `threshold` counts in multiples of the mean score of the layer.
        scope: "layer" (each layer loses `ratio`) or "global" (ranked together, by score over the
            layer's mean).
    """

    threshold: float | None = None
    ratio: float | None = None
    keep: Mapping[str, int] | None = None
    relative: bool = False
    scope: str = "layer"

    def __post_init__(self) -> None:
        given = [name for name in ("threshold", "ratio", "keep") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidArgumentError(
                f"Give exactly one of threshold, ratio and keep, got {given or 'none'}."
            )
        self._check_types()
        if self.ratio is not None and not 0 <= self.ratio < 1:
            raise InvalidArgumentError(f"ratio must be in [0, 1), got {self.ratio!r}.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InvalidArgumentError(f"threshold must be finite, got {self.threshold!r}.")
        if self.scope not in ("layer", "global"):
            raise InvalidArgumentError(f"scope must be 'layer' or 'global', got {self.scope!r}.")
        if self.relative and self.threshold is None:
            raise InvalidArgumentError("relative=True is for a threshold; give threshold=0.1, say.")
        if self.scope == "global" and self.ratio is None:
            raise InvalidArgumentError("scope='global' is for a ratio; give ratio=0.5, say.")

    def _check_types(self) -> None:
        for name in ("threshold", "ratio"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, numbers.Real):
                raise ArgumentTypeError(f"{name} must be a number, got {value!r}.")
        check_keep(self.keep)
        for name, count in (self.keep or {}).items():
            if not isinstance(count, numbers.Integral):
                raise ArgumentTypeError(f"keep[{name!r}] must be an integer, got {count!r}.")

    def most(self, groups: Sequence[Group], names: Sequence[str]) -> Sequence[int | None]:
        """How many units each group can lose at most; None where the scores decide."""
        if self.ratio is not None and self.scope == "layer":
            return [math.floor(self.ratio * len(group.units) + 0.5) for group in groups]
        if self.keep is not None:
            return _by_counts(groups, names, self.keep, [""] * len(groups))
        return [None] * len(groups)


@dataclass(frozen=True)
class Choice:
    """Which groups may be cut, and how widths are rounded.

    Attributes:
        align: Kept widths are multiples of it, where that leaves anything to cut.
        granularity: Kinds of units that may go; None = all.
        include: Layer names (with wildcards); None = all.
        exclude: Layer names that stay whole.
    """

    align: int = 8
    granularity: Collection[str] | None = None
    include: Collection[str] | None = None
    exclude: Collection[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.align, bool) or not isinstance(self.align, int) or self.align < 1:
            raise InvalidArgumentError(
                f"align must be an integer of at least 1 or 'auto', got {self.align!r}."
            )
        for name, none in (("granularity", None), ("include", None), ("exclude", ())):
            given = getattr(self, name)
            object.__setattr__(self, name, none if given is None else as_names(name, given))
        known = (*KINDS, *BYPASS_KINDS)
        unknown = set(self.granularity or ()) - set(known)
        if unknown:
            raise InvalidArgumentError(f"granularity must be among {known}, got {sorted(unknown)}.")

    def refusal(self, group: Group) -> str:
        """Why a group stays whole, or ""."""
        return group.reason or self.omission(group)

    def omission(self, group: Group) -> str:
        """Why the user leaves a group whole, or ""."""
        if self.granularity is not None and group.kind not in _listed(self.granularity):
            return f"granularity does not name {group.kind}s"
        if self.include is not None and not matches(group.makers, self.include):
            return "not included"
        if matches(group.makers, self.exclude):
            return "excluded"
        return ""

    def step(self, group: Group) -> int:
        """Number of units that make up a multiple of `align` positions."""
        return 1 if group.kind == "head" else self.align // math.gcd(self.align, group.span)


def _listed(words: Collection[str] | None) -> list[str]:
    """Several words, one, or none."""
    return [words] if isinstance(words, str) else list(words or ())


def unique_names(groups: Sequence[Group]) -> list[str]:
    """A name for each group: its first maker, numbered where a maker has several groups."""
    seen: dict[str, int] = {}
    names = []
    for group in groups:
        first = group.makers[0]
        seen[first] = seen.get(first, 0) + 1
        names.append(first if seen[first] == 1 else f"{first}#{seen[first]}")
    return names


def choose(
    groups: Sequence[Group],
    scores: Scores,
    target: CutTarget,
    choice: Choice,
    known: Collection[str] = (),
) -> tuple[GroupCut, ...]:
    """Decide which units go.

    Args:
        groups: All groups.
        scores: Per name (`unique_names`), a score for each unit; higher = keep. Of equal scores the
            earlier unit goes first.
        target: How much goes.
        choice: What may go, and rounding.
        known: Further names that `include` and `exclude` may mean.

    Raises:
        InvalidArgumentError: `keep` or `include` names what is not there, or the threshold would
            empty every layer.
    """
    names = unique_names(groups)
    _check_names(groups, names, target, choice, known)
    refusals = [choice.refusal(group) for group in groups]
    wanted = _wanted(groups, names, scores, target, refusals)
    free = [i for i, why in enumerate(refusals) if not why]
    if (
        target.threshold is not None
        and free
        and all(wanted[i] >= len(groups[i].units) for i in free)
    ):
        raise InvalidArgumentError(
            f"threshold={target.threshold} would empty every layer: the largest score is "
            f"{max(float(scores[names[i]].max()) for i in free):.4g}. Give a smaller one."
        )
    cuts = []
    for group, name, why, count in zip(groups, names, refusals, wanted, strict=True):
        width = len(group.units)
        if why:
            asked = 0 if group.is_output or choice.omission(group) else count
            cuts.append(GroupCut(name, group.makers, group.kind, width, (), why, asked))
            continue
        given = target.keep is not None
        allowed, note = (count, "") if given else _allowed(group, count, choice)
        order = np.argsort(scores[name], kind="stable")[:allowed]
        removed = tuple(sorted(int(position) for position in order))
        cuts.append(GroupCut(name, group.makers, group.kind, width, removed, note, count))
    return tuple(cuts)


def _check_names(
    groups: Sequence[Group],
    names: Sequence[str],
    target: CutTarget,
    choice: Choice,
    known: Collection[str],
) -> None:
    makers = {maker for group in groups for maker in group.makers} | set(names)
    unknown = sorted(set(target.keep or ()) - makers)
    if unknown:
        raise InvalidArgumentError(
            f"keep names layers that make no units: {unknown}; there are {sorted(makers)[:20]}."
        )
    makers |= set(known)
    for patterns in (choice.include, choice.exclude):
        lost = [p for p in _listed(patterns) if not any(fnmatch.fnmatchcase(m, p) for m in makers)]
        if lost:
            raise InvalidArgumentError(
                f"No layer is called {lost}; there are {sorted(makers)[:20]}."
            )


def _wanted(
    groups: Sequence[Group],
    names: Sequence[str],
    scores: Scores,
    target: CutTarget,
    refusals: Sequence[str],
) -> list[int]:
    """How many units each group is to lose, before rounding."""
    if target.keep is not None:
        return _by_counts(groups, names, target.keep, refusals)
    if target.threshold is not None:
        counts = []
        for name in names:
            own = scores[name][np.isfinite(scores[name])]
            bar = target.threshold * (float(own.mean()) if target.relative and own.size else 1.0)
            counts.append(int(np.count_nonzero(own < bar)))
        return counts
    assert target.ratio is not None
    ratio = target.ratio
    by_layer = [math.floor(ratio * len(group.units) + 0.5) for group in groups]
    if target.scope == "layer":
        return by_layer
    counts = _globally(groups, names, scores, ratio, refusals)
    return [
        own if why else count for own, why, count in zip(by_layer, refusals, counts, strict=True)
    ]


def _meant(
    groups: Sequence[Group], names: Sequence[str], keep: Mapping[str, int]
) -> list[dict[str, int]]:
    """Per group, what of `keep` is meant for it.

    A layer that has a group of its own, as attention its heads, may help to make another one, as the
    stream that it is added to: its name means the first alone.
    """
    own = dict(zip(names, (group.makers for group in groups), strict=True))
    return [
        {n: count for n, count in keep.items() if n == name or own.get(n, makers) == makers}
        for name, makers in own.items()
    ]


def _by_counts(
    groups: Sequence[Group], names: Sequence[str], keep: Mapping[str, int], refusals: Sequence[str]
) -> list[int]:
    meant = _meant(groups, names, keep)
    return [_by_count(*own) for own in zip(groups, names, meant, refusals, strict=True)]


def _by_count(group: Group, name: str, keep: Mapping[str, int], why: str) -> int:
    asked = [keep[n] for n in dict.fromkeys((name, *group.makers)) if n in keep]
    if not asked:
        return 0
    width = len(group.units)
    if why:
        raise InvalidArgumentError(f"keep names {name!r}, which cannot be cut: {why}.")
    if len(set(asked)) > 1:
        raise InvalidArgumentError(f"keep gives {asked} for layers that are tied: {group.makers}.")
    if not 1 <= asked[0] <= width:
        raise InvalidArgumentError(f"keep[{name!r}] must be from 1 to {width}, got {asked[0]!r}.")
    return int(width - asked[0])


def _globally(
    groups: Sequence[Group],
    names: Sequence[str],
    scores: Scores,
    ratio: float,
    refusals: Sequence[str],
) -> list[int]:
    free = [i for i, why in enumerate(refusals) if not why]
    if not free:
        return [0] * len(groups)
    relative = [scores[names[i]] / max(float(scores[names[i]].mean()), 1e-30) for i in free]
    order = np.argsort(np.concatenate(relative), kind="stable")
    owner = np.repeat(free, [own.size for own in relative])
    going = owner[order[: math.floor(ratio * order.size + 0.5)]]
    return [int(count) for count in np.bincount(going, minlength=len(groups))]


def _allowed(group: Group, count: int, choice: Choice) -> tuple[int, str]:
    """How many may go: the kept width is rounded up, and never none."""
    width = len(group.units)
    step = choice.step(group)
    kept = min(width, max(1, -(-(width - count) // step)) * step)
    note = ""
    if count >= width:
        note = f"held back: all {width} were to go, a layer keeps at least {kept}"
    elif kept > width - count:
        note = f"held back: {width - count} rounded up to {kept} by align={choice.align}"
    return width - kept, note


def carried_over(groups: Sequence[Group], cuts: Sequence[GroupCut]) -> tuple[GroupCut, ...]:
    """Cuts of groups as they are now, after what they were chosen for has changed around them.

    A group goes on losing what the cut of a group of the same kind and width with a common maker
    takes away; other groups stay whole.

    Args:
        groups: As they are now.
        cuts: Of groups as they were.
    """
    left = list(cuts)
    result = []
    for group, name in zip(groups, unique_names(groups), strict=True):
        fitting = [cut for cut in left if _fits(cut, group)]
        fitting.sort(key=lambda cut: cut.makers != group.makers)
        if group.reason or not fitting:
            why = group.reason or "it was not there before the plan was edited"
            result.append(GroupCut(name, group.makers, group.kind, len(group.units), (), why))
            continue
        left.remove(fitting[0])
        result.append(replace(fitting[0], name=name, makers=group.makers))
    return tuple(result)


def _fits(cut: GroupCut, group: Group) -> bool:
    alike = cut.kind == group.kind and cut.width == len(group.units)
    return alike and bool(set(cut.makers) & set(group.makers))
