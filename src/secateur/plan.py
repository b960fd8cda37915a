"""A pruning plan: what is to go, as a value that prints, compares and turns into JSON and back.

A cut is three numbers whatever the size of the model, so a plan is small: it holds no masks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any

from secateur._kernels.native.select import Cut
from secateur.criteria import Criterion, get_criterion
from secateur.errors import InvalidArgumentError
from secateur.patterns import Pattern, parse_pattern
from secateur.selection import Norm, Target

_FORMAT = 1


@dataclass(frozen=True)
class TensorShape:
    """Shape and dtype of a tensor that a plan was made for."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Decision:
    """What goes from tensors that are ranked together.

    Attributes:
        names: The tensors, in the order that breaks ties.
        target: What was asked for; None where the n:m pattern is the target.
        cut: The first candidate that stays, in ranking order; None where the pattern decides, or each
            row alone.
        threshold: The saliency at the cut.
    """

    names: tuple[str, ...]
    target: Target | None = None
    cut: Cut | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class PrunePlan:
    """What is to be pruned and why; nothing has changed yet.

    Attributes:
        criterion: How weights are scored.
        pattern: Which weights go together.
        norm: How the saliency of a block is made.
        decisions: One for each group that is ranked together.
        tensors: Shape and dtype of every tensor that was scored.
    """

    criterion: Criterion
    pattern: Pattern
    norm: Norm
    decisions: tuple[Decision, ...]
    tensors: Mapping[str, TensorShape]

    def check_fits(self, shapes: Mapping[str, TensorShape]) -> None:
        """Raise `InvalidArgumentError` if the plan was made for other tensors."""
        if dict(shapes) == dict(self.tensors):
            return
        differing = sorted(
            name for name in {*shapes, *self.tensors} if shapes.get(name) != self.tensors.get(name)
        )
        raise InvalidArgumentError(
            f"This plan was made for other tensors; {differing[:5]} differ in name, shape or dtype. "
            "Make a new plan for these."
        )

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(
            {
                "format": _FORMAT,
                "criterion": _criterion_to_dict(self.criterion),
                "pattern": str(self.pattern),
                "norm": self.norm,
                "decisions": [_decision_to_dict(decision) for decision in self.decisions],
                "tensors": {name: asdict(tensor) for name, tensor in self.tensors.items()},
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> PrunePlan:
        """Read a plan that `to_json` wrote.

        Raises:
            InvalidArgumentError: The text is not such a plan.
        """
        try:
            data = json.loads(text)
            if data["format"] != _FORMAT:
                raise InvalidArgumentError(
                    f"The plan has format {data['format']!r}; this version reads {_FORMAT}."
                )
            return cls(
                criterion=_criterion_from_dict(data["criterion"]),
                pattern=parse_pattern(data["pattern"]),
                norm=data["norm"],
                decisions=tuple(_decision_from_dict(entry) for entry in data["decisions"]),
                tensors={
                    name: TensorShape(tuple(entry["shape"]), entry["dtype"])
                    for name, entry in data["tensors"].items()
                },
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InvalidArgumentError(
                f"Not a pruning plan as PrunePlan.to_json writes it: {error!r}."
            ) from error

    def __str__(self) -> str:
        lines = [f"prune by {self.criterion.name}, {self.pattern}:"]
        for decision in self.decisions:
            names = ", ".join(decision.names)
            size = sum(self.tensors[name].size for name in decision.names)
            lines.append(f"  {names} ({size:,} weights): {_describe(decision)}")
        return "\n".join(lines)


def _describe(decision: Decision) -> str:
    target = decision.target
    if target is not None and target.ranks_rows:
        if target.sparsity is not None:
            return f"sparsity {target.sparsity:.2%} of each row"
        return f"{target.count:,} of each row go"
    if target is None or decision.threshold is None:
        return "by the pattern"
    if target.sparsity is not None:
        return f"sparsity {target.sparsity:.2%}, saliency below {decision.threshold:.4g} goes"
    if target.count is not None:
        return f"{target.count:,} go, saliency below {decision.threshold:.4g}"
    return f"saliency below {target.threshold:.4g} goes"


def _decision_to_dict(decision: Decision) -> dict[str, Any]:
    return {
        "names": list(decision.names),
        "target": None if decision.target is None else asdict(decision.target),
        "cut": None if decision.cut is None else list(decision.cut),
        "threshold": decision.threshold,
    }


def _decision_from_dict(entry: Mapping[str, Any]) -> Decision:
    return Decision(
        names=tuple(entry["names"]),
        target=None if entry["target"] is None else Target(**entry["target"]),
        cut=None if entry["cut"] is None else Cut(*map(int, entry["cut"])),
        threshold=entry["threshold"],
    )


def _criterion_to_dict(criterion: Criterion) -> dict[str, Any]:
    value: Any = criterion
    settings: dict[str, Any] = asdict(value) if is_dataclass(criterion) else {}
    return {"name": criterion.name, "settings": settings}


def _criterion_from_dict(entry: Mapping[str, Any]) -> Criterion:
    plain: Any = get_criterion(entry["name"])
    criterion: Criterion = replace(plain, **entry["settings"]) if entry["settings"] else plain
    return criterion
