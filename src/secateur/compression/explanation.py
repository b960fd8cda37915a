"""Why a compression chose what it did, to be read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from secateur.compression.planning import Blueprint, Plan
from secateur.compression.sensitivity import Sensitivity
from secateur.keras.tensors import find_tensors
from secateur.keras.variables import read_array

_SHOWN_DENSITY = 0.1


@dataclass(frozen=True)
class Trial:
    """A plan that was tried at the whole goal, for a short time.

    Attributes:
        plan: What was tried.
        epochs: Of training.
        quality: Of the metric on the validation data; NaN where nothing could be made.
        figure: The goal's figure that was reached.
        note: Why there is no quality, or "".
        seconds: What it took.
    """

    plan: Plan
    epochs: int
    quality: float
    figure: float
    note: str = ""
    seconds: float = 0.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Read what `dataclasses.asdict` gave."""
        return cls(**{**data, "plan": Plan(**data["plan"])})


@dataclass(frozen=True)
class LayerChoice:
    """What became of one weight matrix, and what it would have cost.

    Attributes:
        name: The weight.
        size: Number of weights before and after.
        kept: Weights that are not zero in the end.
        score: What its weights were ranked by, "" where none were pruned.
        by_pruning: Increase of the loss with this matrix alone pruned to a density of 0.1, by the
            better score; NaN where that was not measured.
    """

    name: str
    size: tuple[int, int]
    kept: int
    score: str
    by_pruning: float

    @property
    def technique(self) -> str:
        """One of "cut", "prune", "cut and prune", "keep"."""
        words = ["cut"] * (self.size[1] < self.size[0]) + ["prune"] * (self.kept < self.size[1])
        return " and ".join(words) or "keep"

    def __str__(self) -> str:
        before, after = self.size
        density = self.kept / max(after, 1)
        score = f" by {self.score}" if self.score and "prune" in self.technique else ""
        return (
            f"{self.name:44} {self.technique:13} {before:>9,} -> {after:>9,} weights, "
            f"{density:7.2%} kept{score:13} loss at 10 % alone {_number(self.by_pruning)}"
        )


@dataclass(frozen=True)
class Explanation:
    """What `method="auto"` measured, tried and chose.

    Attributes:
        measured: Sensitivities of all layers, one at a time.
        trials: Plans that were tried at the whole goal, in order.
        chosen: The plan that won.
        layers: What became of each weight matrix.
        metric: What the trials' quality is.
    """

    measured: Sensitivity
    trials: tuple[Trial, ...]
    chosen: Plan | None
    layers: tuple[LayerChoice, ...]
    metric: str

    @property
    def epochs(self) -> int:
        """Epochs of training that the trials took together."""
        return sum(trial.epochs for trial in self.trials)

    def to_dict(self) -> Any:
        """As plain values, for JSON; what is no finite number, which JSON has not, as None."""
        return _finite(
            {
                "measured": self.measured.to_dict(),
                "trials": [asdict(trial) for trial in self.trials],
                "chosen": None if self.chosen is None else asdict(self.chosen),
                "layers": [{**asdict(own), "technique": own.technique} for own in self.layers],
                "metric": self.metric,
            }
        )

    def __str__(self) -> str:
        lines = ["tried at the whole goal:"]
        for trial in self.trials:
            mark = " <- chosen" if trial.plan == self.chosen else ""
            found = trial.note or f"{self.metric} {trial.quality:.4f}, figure {trial.figure:,.6g}"
            plural = "s" if trial.epochs != 1 else ""
            lines.append(f"  {trial.plan.name:34} {trial.epochs} epoch{plural}: {found}{mark}")
        if self.chosen is None:
            lines.append("  no plan could be tried to its end")
        lines += ["what became of the layers:", *(f"  {layer}" for layer in self.layers)]
        if self.measured.cut:
            lines.append("what cutting one group alone would cost in loss, after repair:")
        for name, own in self.measured.cut.items():
            costs = ", ".join(f"to {kept}: {_number(v)}" for kept, v in own.losses.items())
            lines.append(f"  {name} ({own.width} {own.kind}s) {costs}")
        return "\n".join(lines)


def layer_choices(
    original: Any, model: Any, measured: Sensitivity, blueprint: Blueprint | None
) -> tuple[LayerChoice, ...]:
    """What became of each weight matrix that was measured.

    Args:
        original: The model as it was, or a copy of it.
        model: What it has become.
        measured: The sensitivities; what they do not name is left out.
        blueprint: Tells the scores.
    """
    after = {t.name: read_array(t.variable) for t in find_tensors(model).tensors}
    scores = blueprint.scores if blueprint is not None else {}
    found = []
    for tensor in find_tensors(original).tensors:
        if tensor.name not in measured.sizes or tensor.name not in after:
            continue
        own, array = measured.pruned.get(tensor.name, {}), after[tensor.name]
        losses = [curve.get(_SHOWN_DENSITY, math.nan) for curve in own.values()]
        found.append(
            LayerChoice(
                tensor.name,
                (math.prod(tensor.shape), array.size),
                int(np.count_nonzero(array)),
                scores.get(tensor.name, ""),
                min(losses, default=math.nan),
            )
        )
    return tuple(found)


def _number(value: float) -> str:
    return "not measured" if math.isnan(value) else f"+{value:.4f}"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(own) for own in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
