"""Which branches, layers and blocks are bypassed: offers, targets, and the decision as a value."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from secateur.errors import InvalidArgumentError
from secateur.unit_criteria import UNIT_CRITERIA

BYPASS_KINDS = ("branch", "layer", "block")
# Measures of units alone: by what is constant, and by what the layers that read a unit lose.
_OF_UNITS = ("std", *UNIT_CRITERIA)
PLURALS = {"branch": "branches", "layer": "layers", "block": "blocks"}


@dataclass(frozen=True)
class Offer:
    """A part of a network that could be bypassed.

    Attributes:
        name: Unique name, "kind:layer".
        kind: "branch" (an operand of a sum, held at zero), "layer" or "block" (identity instead).
        makers: Operations in it that hold weights.
        reason: Why it must stay, or "".
    """

    name: str
    kind: str
    makers: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True)
class Bypass:
    """What the plan says about one of them.

    Attributes:
        name: Unique name, "kind:layer".
        kind: "branch", "layer" or "block".
        makers: Operations in it that hold weights.
        output: What it puts out (a branch) or changes (a layer or block), by the plan's measure.
        removed: Whether it goes.
        why: Why it stays though it was to go, or nothing of it may; "" otherwise.
    """

    name: str
    kind: str
    makers: tuple[str, ...]
    output: float
    removed: bool = False
    why: str = ""

    def __str__(self) -> str:
        others = [maker for maker in self.makers if maker != self.name.split(":")[1].split("#")[0]]
        more = f" with {', '.join(others[:4])}" if others else ""
        more += f" and {len(others) - 4} more" if len(others) > 4 else ""
        note = f" ({self.why})" if self.why else ""
        does = "goes" if self.removed else "stays"
        verb = "puts out" if self.kind == "branch" else "changes"
        return f"{self.name}{more}: {does}, {verb} {self.output:.4g}{note}"

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Bypass:
        """Read what `dataclasses.asdict` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is not that.
        """
        if entry["kind"] not in BYPASS_KINDS:
            raise ValueError(f"bypass of unknown kind {entry['kind']!r}")
        if not isinstance(entry["removed"], bool):
            raise TypeError(f"removed must be true or false, got {entry['removed']!r}")
        return cls(
            name=str(entry["name"]),
            kind=str(entry["kind"]),
            makers=tuple(str(name) for name in entry["makers"]),
            output=float(entry["output"]),
            removed=entry["removed"],
            why=str(entry["why"]),
        )


@dataclass(frozen=True)
class BypassTarget:
    """How many branches, layers and blocks go.

    Attributes:
        kinds: Kinds that may go.
        threshold: Those whose output is strictly below it go.
        relative: `threshold` counts in multiples of the mean over the kind.
        ratio: Fraction of each kind that goes.
        keep: Kind -> how many stay.
        include: Names of layers (wildcards allowed); others stay. None = all.
        exclude: Names of layers that stay.
        counted: Names of layers of which a number of units is to stay, so they do.
        asked: Whether the user named the kinds.
    """

    kinds: tuple[str, ...] = ()
    threshold: float | None = None
    relative: bool = False
    ratio: float | None = None
    keep: Mapping[str, int] | None = None
    include: Collection[str] | None = None
    exclude: Collection[str] = ()
    counted: Collection[str] = ()
    asked: bool = False

    def refusal(self, offer: Offer) -> str:
        """Why an offer is not taken, or ""."""
        names = (offer.name, *offer.makers)
        if offer.reason:
            return offer.reason
        if self.include is not None and not matches(names, self.include):
            return "not included"
        if set(names) & set(self.counted):
            return "keep names a layer in it"
        return "excluded" if matches(names, self.exclude) else ""


def matches(names: Sequence[str], patterns: Collection[str]) -> bool:
    """Whether any of the names is like any of the patterns."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in listed)


def split_keep(keep: Mapping[str, int] | None) -> tuple[dict[str, int], dict[str, int]]:
    """Counts for kinds of bypasses ("branches", "layers", "blocks"), and those for units.

    Example:
        >>> split_keep({"branches": 4, "dense_1": 32})
        ({'branch': 4}, {'dense_1': 32})
    """
    kind_of = {plural: kind for kind, plural in PLURALS.items()}
    given = dict(keep or {})
    ours = {kind_of[name]: given.pop(name) for name in list(given) if name in kind_of}
    for kind, count in ours.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidArgumentError(
                f"keep[{PLURALS[kind]!r}] must be an integer of at least 1, got {count!r}."
            )
    return ours, given


def only_bypasses(granularity: Collection[str] | None, keep: Mapping[str, int] | None) -> bool:
    """Whether a user names branches, layers or blocks, and no units, as what may go.

    Example:
        >>> only_bypasses(("block",), None), only_bypasses(None, {"branches": 4, "dense": 8})
        (True, False)
    """
    counts, unit_counts = split_keep(keep)
    kinds = set(counts if granularity is None else granularity)
    return bool(kinds) and not unit_counts and kinds <= set(BYPASS_KINDS)


def bypass_kinds(
    granularity: Collection[str] | None,
    absolute: bool,
    counts: Mapping[str, int],
    measure: str,
) -> tuple[str, ...]:
    """Which kinds may go.

    Args:
        granularity: What the user named; None = nothing.
        absolute: Whether there is an absolute threshold for outputs on data.
        counts: How many of which kinds stay, where the user said.
        measure: How outputs are measured.

    Raises:
        InvalidArgumentError: Named, but measured by what only units can be judged by.
    """
    named = [kind for kind in BYPASS_KINDS if kind in (granularity or ()) or kind in counts]
    if measure in _OF_UNITS and named:
        raise InvalidArgumentError(
            f"measure={measure!r} judges units, but {PLURALS[named[0]]} go only by how small they "
            "are: use 'mean', 'rms' or 'max' for them."
        )
    by_default = granularity is None and absolute and measure not in _OF_UNITS
    return tuple(named) or (("branch",) if by_default else ())


def choose_bypasses(
    offers: Sequence[Offer], outputs: Mapping[str, float], target: BypassTarget
) -> tuple[Bypass, ...]:
    """Decide which go.

    Args:
        offers: All that there are.
        outputs: Per name; the weakest go first, of equal ones the earlier.
        target: How many, and of which kinds. At least one of each kind stays.

    Returns:
        One for each offer of a kind that may go.

    Raises:
        InvalidArgumentError: `keep` asks for more than there are.
    """
    result: dict[str, Bypass] = {}
    for kind in target.kinds:
        own = [offer for offer in offers if offer.kind == kind]
        refused = {offer.name: target.refusal(offer) for offer in own}
        free = [offer.name for offer in own if not refused[offer.name]]
        order = sorted(free, key=outputs.__getitem__)
        count = _count(kind, [outputs[name] for name in free], len(own), target)
        going = set(order[:count])
        held = {}
        if going and len(going) == len(own):
            held[order[-1]] = f"held back: all {len(own)} {PLURALS[kind]} were to go"
            going.discard(order[-1])
        for offer in own:
            why = refused[offer.name] or held.get(offer.name, "")
            result[offer.name] = Bypass(
                offer.name, kind, offer.makers, outputs[offer.name], offer.name in going, why
            )
    return tuple(result[offer.name] for offer in offers if offer.name in result)


def _count(kind: str, free: Sequence[float], num_all: int, target: BypassTarget) -> int:
    if target.keep is not None:
        if kind not in target.keep:
            return 0
        if target.keep[kind] > num_all:
            raise InvalidArgumentError(
                f"keep[{PLURALS[kind]!r}]={target.keep[kind]}, but the model has {num_all}."
            )
        return min(len(free), num_all - target.keep[kind])
    if target.threshold is not None:
        mean = sum(free) / len(free) if target.relative and free else 1.0
        return sum(output < target.threshold * mean for output in free)
    return math.floor((target.ratio or 0.0) * len(free) + 0.5)
