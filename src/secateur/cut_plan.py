"""Which units go, as a value: printed, edited, saved."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from secateur.bypass_plan import PLURALS, Bypass
from secateur.errors import InvalidArgumentError

_FORMAT = 2
# Format 1 knew no bypasses.
_READABLE = (1, 2)


@dataclass(frozen=True)
class GroupCut:
    """What goes from one group of units.

    Attributes:
        name: Name of the group, unique in the plan.
        makers: The layers whose outputs the units are; more than one where they are tied.
        kind: "neuron", "channel", "unit", "head" or "embedding".
        width: Number of units.
        removed: Units that go, by position.
        why: Why less goes than was asked for, or nothing; "" otherwise.
        asked: Number of units that were to go by the target alone; none of an output of the model, or
            of a layer that the user left out.
    """

    name: str
    makers: tuple[str, ...]
    kind: str
    width: int
    removed: tuple[int, ...] = ()
    why: str = ""
    asked: int = 0

    @property
    def kept(self) -> int:
        """Number of units that stay."""
        return self.width - len(self.removed)

    def __str__(self) -> str:
        tied = f", tied to {', '.join(self.makers[1:4])}" if len(self.makers) > 1 else ""
        more = f" and {len(self.makers) - 4} more" if len(self.makers) > 4 else ""
        note = f" ({self.why})" if self.why else ""
        plural = self.kind + ("s" if self.width != 1 else "")
        return f"{self.name}: {self.width} -> {self.kept} {plural}{tied}{more}{note}"


@dataclass(frozen=True)
class CutPlan:
    """What is to be cut, from where, tied to what and why; nothing has changed yet.

    Attributes:
        model: Name of the model it was made for.
        measure: How units were scored.
        groups: Every group, cut or not.
        walls: Operations that nothing is cut across, and why.
        bypasses: Branches, layers and blocks that were asked about, bypassed or not. The groups
            are those of the model without the bypassed ones.
        fold: Whether the means of removed units are folded into the next biases.
        repair: The damping with which the layers that read them are refit after the cut; None = they
            are not.
    """

    model: str
    measure: str
    groups: tuple[GroupCut, ...]
    walls: Mapping[str, str] = field(default_factory=dict)
    bypasses: tuple[Bypass, ...] = ()
    fold: bool = False
    repair: float | None = None
    binding: Callable[[CutPlan], Any] | None = field(default=None, repr=False, compare=False)
    regrouping: Callable[[CutPlan], CutPlan] | None = field(default=None, repr=False, compare=False)

    def __getitem__(self, name: str) -> GroupCut | Bypass:
        """The bypass or group of this name, or the first group that a layer of this name makes."""
        for bypass in self.bypasses:
            if bypass.name == name:
                return bypass
        return self.group(name)

    def group(self, name: str) -> GroupCut:
        """The group of this name, or the first that a layer of this name makes."""
        for group in self.groups:
            if group.name == name:
                return group
        for group in self.groups:
            if name in group.makers:
                return group
        raise InvalidArgumentError(
            f"No group or layer {name!r} in this plan; there are {[g.name for g in self.groups][:20]}."
        )

    def edit(self, name: str, removed: Sequence[int] | bool) -> CutPlan:
        """The same plan with other units to go from one group, or another bypass made or not.

        Args:
            name: Group, or a layer that makes it; or a bypass ("branch:dense_1").
            removed: Positions of the units that go; for a bypass, whether it goes.

        Raises:
            InvalidArgumentError: Unknown name, positions out of range, or none would be left; for a
                bypass, the plan is bound to no model, or the model would lose an operand that a
                sum cannot do without.
        """
        if any(bypass.name == name for bypass in self.bypasses):
            return self._edit_bypass(name, removed)
        if isinstance(removed, bool):
            raise InvalidArgumentError(
                f"{name!r} is no bypass of this plan; there are {[b.name for b in self.bypasses]}. "
                "For a group, give the positions of the units that go."
            )
        group = self.group(name)
        positions = tuple(sorted({int(position) for position in removed}))
        if positions and not (positions[0] >= 0 and positions[-1] < group.width):
            raise InvalidArgumentError(
                f"Group {group.name!r} has units 0 to {group.width - 1}, got {positions}."
            )
        if len(positions) >= group.width:
            raise InvalidArgumentError(
                f"Group {group.name!r} would be empty; keep at least one unit."
            )
        new = replace(group, removed=positions, why="edited", asked=len(positions))
        return replace(self, groups=tuple(new if g is group else g for g in self.groups))

    def _edit_bypass(self, name: str, removed: Any) -> CutPlan:
        if not isinstance(removed, bool):
            raise InvalidArgumentError(
                f"{name!r} goes as a whole or not: give True or False, got {removed!r}."
            )
        if self.regrouping is None:
            raise InvalidArgumentError(
                "What else can be cut depends on the bypasses, and this plan is bound to no model; "
                "bind it first: plan = sc.bind_plan(plan, model)."
            )
        bypasses = tuple(
            replace(own, removed=removed, why="edited") if own.name == name else own
            for own in self.bypasses
        )
        return self.regrouping(replace(self, bypasses=bypasses))

    @property
    def bypassed(self) -> frozenset[str]:
        """Names of the branches, layers and blocks that go."""
        return frozenset(bypass.name for bypass in self.bypasses if bypass.removed)

    def apply(self) -> Any:
        """Cut the model the plan was made for; see `secateur.cut`.

        Raises:
            InvalidArgumentError: The plan was read from JSON and is bound to no model.
            ProofError: The cut model is not what the original with the parts held at zero is.
        """
        if self.binding is None:
            raise InvalidArgumentError(
                "This plan is bound to no model; bind it first: plan = sc.bind_plan(plan, model)."
            )
        return self.binding(self)

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(
            {
                "format": _FORMAT,
                "model": self.model,
                "measure": self.measure,
                "groups": [asdict(group) for group in self.groups],
                "walls": dict(self.walls),
                "bypasses": [asdict(bypass) for bypass in self.bypasses],
                "fold": self.fold,
                "repair": self.repair,
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> CutPlan:
        """Read a plan that `to_json` wrote; it is bound to no model yet.

        Raises:
            InvalidArgumentError: The text is not such a plan.
        """
        try:
            data = json.loads(text)
            if data["format"] not in _READABLE:
                raise InvalidArgumentError(
                    f"The plan has format {data['format']!r}; this version reads {_READABLE}."
                )
            groups = tuple(_group_from_dict(entry) for entry in data["groups"])
            listed = data["bypasses"] if data["format"] > 1 else ()
            bypasses = tuple(Bypass.from_dict(entry) for entry in listed)
            damping = data.get("repair")
            return cls(
                str(data["model"]),
                str(data["measure"]),
                groups,
                dict(data["walls"]),
                bypasses,
                bool(data.get("fold", False)),
                None if damping is None else float(damping),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidArgumentError):
                raise
            raise InvalidArgumentError(
                f"Not a cutting plan as to_json writes it: {error!r}."
            ) from error

    def __str__(self) -> str:
        cut = [group for group in self.groups if group.removed]
        whole = [group for group in self.groups if not group.removed]
        units = sum(len(group.removed) for group in cut)
        total = sum(group.width for group in self.groups)
        asked = sum(group.asked for group in self.groups)
        told = f" ({asked:,} were to go)" if asked > units else ""
        lines = [f"cut {self.model} by {self.measure}: {units:,} of {total:,} units go{told}"]
        if self.bypasses:
            lines[0] += f", {len(self.bypassed)} of {len(self.bypasses)} {self._bypass_kinds()}"
        lines += [f"  {bypass}" for bypass in self.bypasses if bypass.removed]
        lines += [f"  {group}" for group in cut]
        if self.fold and cut:
            refit = ", and the layers that read it are refit" if self.repair is not None else ""
            lines.append(f"the means of what goes are folded into the next biases{refit}")
        if whole or len(self.bypassed) < len(self.bypasses):
            lines.append("left whole:")
            lines += [f"  {bypass}" for bypass in self.bypasses if not bypass.removed]
            lines += [f"  {group}" for group in whole]
        if self.walls:
            lines.append("walls, across which nothing is cut:")
            lines += [f"  {name}: {why}" for name, why in self.walls.items()]
        return "\n".join(lines)

    def _bypass_kinds(self) -> str:
        kinds = dict.fromkeys(bypass.kind for bypass in self.bypasses)
        return ", ".join(PLURALS[kind] for kind in kinds)


def _group_from_dict(entry: Mapping[str, Any]) -> GroupCut:
    removed = tuple(int(position) for position in entry["removed"])
    width = int(entry["width"])
    if list(removed) != sorted(set(removed)) or any(not 0 <= p < width for p in removed):
        raise ValueError(f"group {entry['name']!r} removes units it does not have")
    if width and len(removed) >= width:
        raise ValueError(f"group {entry['name']!r} would be empty")
    return GroupCut(
        name=str(entry["name"]),
        makers=tuple(str(name) for name in entry["makers"]),
        kind=str(entry["kind"]),
        width=width,
        removed=removed,
        why=str(entry["why"]),
        asked=int(entry.get("asked", len(removed))),
    )
