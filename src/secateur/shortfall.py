"""Whether a cut took clearly less than was asked for, and what held it back."""

from __future__ import annotations

from secateur.cut_plan import CutPlan, GroupCut

_ENOUGH = 2 / 3
_MOST_REASONS = 4
_LONGEST_REASON = 140


def shortfall(plan: CutPlan) -> str:
    """What to tell a user who gets less than was asked for; "" where that is not so.

    Rounding of widths and a layer that cannot be cut are ordinary, and the plan says so where they
    happen. Told is only what adds up: fewer than two thirds of the units that were to go do go.
    Layers that are outputs of the model, or that the user left out, are not asked.

    Args:
        plan: The plan.

    Example:
        >>> from secateur.cut_plan import GroupCut
        >>> held = GroupCut("a", ("a",), "neuron", 10, (0,), "rounded", asked=4)
        >>> shortfall(CutPlan("model", "mean", (held,)))
        "Of 4 units that were to go from 'model' only 1 can. a: rounded."
    """
    asked = sum(group.asked for group in plan.groups)
    gone = sum(len(group.removed) for group in plan.groups)
    if gone and gone >= _ENOUGH * asked:
        return ""
    if not asked:
        return "" if plan.bypassed else _nothing(plan)
    if gone or plan.bypassed:
        start = f"Of {asked:,} units that were to go from {plan.model!r} only {gone:,} can."
    else:
        start = f"Nothing was cut from {plan.model!r}: none of {asked:,} units can go."
    return f"{start} {_reasons(plan)}."


def _nothing(plan: CutPlan) -> str:
    """Nothing was asked for, or nothing that may go."""
    reasons = dict.fromkeys([*(own.why for own in plan.bypasses if own.why)])
    if all(group.why for group in plan.groups):
        reasons |= dict.fromkeys(group.why for group in plan.groups)
    said = "; ".join(map(_short, list(reasons)[:_MOST_REASONS]))
    return f"Nothing was cut from {plan.model!r}: {said or 'nothing that can go was to go'}."


def _reasons(plan: CutPlan) -> str:
    """What held back most, first, with the groups it held back."""
    held: dict[str, list[GroupCut]] = {}
    for group in plan.groups:
        if len(group.removed) < group.asked:
            held.setdefault(group.why, []).append(group)
    order = sorted(held.items(), key=lambda item: -sum(_missing(group) for group in item[1]))
    parts = [f"{_names(groups)}: {_short(why)}" for why, groups in order[:_MOST_REASONS]]
    if len(order) > _MOST_REASONS:
        parts.append(f"and {len(order) - _MOST_REASONS} more reasons, in the plan")
    return "; ".join(parts)


def _missing(group: GroupCut) -> int:
    return group.asked - len(group.removed)


def _names(groups: list[GroupCut]) -> str:
    more = f" and {len(groups) - 2} more" if len(groups) > 2 else ""
    return ", ".join(group.name for group in groups[:2]) + more


def _short(why: str) -> str:
    why = why.removeprefix("held back: ")
    return why if len(why) <= _LONGEST_REASON else why[: _LONGEST_REASON - 3] + "..."
