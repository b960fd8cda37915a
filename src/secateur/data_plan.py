"""What pruning on data is to do, as a value that prints and turns into JSON and back.

It says how much of each weight goes and by which method. Which weights go and what the rest become is
only known once the data has been through the model, so it holds no masks: those are in the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from secateur.errors import InvalidArgumentError
from secateur.patterns import Pattern, parse_pattern
from secateur.plan import TensorShape

_FORMAT = 1
_KIND = "prune on data"


@dataclass(frozen=True)
class Share:
    """How much of one weight goes: one of the first three, or none where the pattern says it.

    Attributes:
        sparsity: Fraction of its weights (or blocks).
        count: So many weights (or blocks).
        threshold: What scores strictly below.
        scope: "layer", or "row": the same share of every output's inputs.
    """

    sparsity: float | None = None
    count: int | None = None
    threshold: float | None = None
    scope: str = "layer"


@dataclass(frozen=True)
class DataPrunePlan:
    """What goes from which weight, and by which method.

    Attributes:
        method: What chooses the weights that go, and what repairs the ones that stay.
        pattern: Which weights go together.
        settings: damping, asymmetric, refit_bias, allocation.
        shares: Weight name -> how much of it goes, in the order of the model.
        tensors: Shape and dtype of each.
    """

    method: str
    pattern: Pattern
    settings: Mapping[str, Any]
    shares: Mapping[str, Share]
    tensors: Mapping[str, TensorShape]

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(
            {
                "kind": _KIND,
                "format": _FORMAT,
                "method": self.method,
                "pattern": str(self.pattern),
                "settings": dict(self.settings),
                "shares": {name: asdict(share) for name, share in self.shares.items()},
                "tensors": {name: asdict(tensor) for name, tensor in self.tensors.items()},
            },
            indent=2,
        )

    @classmethod
    def from_json(cls, text: str) -> DataPrunePlan:
        """Read a plan that `to_json` wrote.

        Raises:
            InvalidArgumentError: The text is not such a plan.
        """
        try:
            data = json.loads(text)
            if (data["kind"], data["format"]) != (_KIND, _FORMAT):
                raise InvalidArgumentError(
                    f"The plan is {data['kind']!r}, format {data['format']!r}; expected {_KIND!r}, "
                    f"format {_FORMAT}."
                )
            return cls(
                method=data["method"],
                pattern=parse_pattern(data["pattern"]),
                settings=data["settings"],
                shares={name: Share(**entry) for name, entry in data["shares"].items()},
                tensors={
                    name: TensorShape(tuple(entry["shape"]), entry["dtype"])
                    for name, entry in data["tensors"].items()
                },
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise InvalidArgumentError(
                f"Not a plan as DataPrunePlan.to_json writes it: {error!r}."
            ) from error

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        lines = [f"prune on data by {self.method}, {self.pattern} ({settings}):"]
        for name, share in self.shares.items():
            lines.append(f"  {name} ({self.tensors[name].size:,} weights): {_describe(share)}")
        return "\n".join(lines)


def _describe(share: Share) -> str:
    each = " of every row" if share.scope == "row" else ""
    if share.sparsity is not None:
        return f"{share.sparsity:.2%}{each} go"
    if share.count is not None:
        return f"{share.count:,}{each} go"
    if share.threshold is not None:
        return f"what scores below {share.threshold:.4g} goes"
    return "by the pattern"
