"""From measured sensitivities and a budget to what becomes of each layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator

from secateur.allocation import Float64, least_loss
from secateur.compression.costs import Costs
from secateur.compression.sensitivity import CutLosses, Sensitivity, widths_between

Ranking = Literal["magnitude", "taylor", "layers", "none"]

# Densities that the programme may choose from: fine where a step costs little and changes much.
_OPTIONS = np.append(np.geomspace(1.0, 0.003, 96), 0.0)
# Of the dense cost: where a goal asks for less, nothing is left that could be trained.
_LEAST_SHARE = 0.005
_CUT_SHARES = (0.85, 0.7, 0.5, 0.35)


@dataclass(frozen=True)
class Plan:
    """A way to spend a budget; what it does to each layer follows from what was measured.

    Attributes:
        name: What messages call it.
        ranking: How weights are chosen: "magnitude" or "taylor" ranks those of all layers together,
            "layers" gives each a density and the score that fits it, "none" prunes nothing.
        cut_share: What cutting leaves of the cost of the dense model, before anything is pruned; 1
            cuts nothing.
        power: Exponent of the measured losses; below 1 evens layers out.
        even: Whether all layers lose the same share of their units, whatever was measured.
    """

    name: str
    ranking: Ranking
    cut_share: float = 1.0
    power: float = 1.0
    even: bool = False


@dataclass(frozen=True)
class Blueprint:
    """What a plan does to each layer at a given budget.

    Attributes:
        keep: Name of a group of units -> how many stay.
        densities: Weight name -> share of its weights that stay; empty where all are ranked
            together.
        scores: Weight name -> what its weights are ranked by.
        budget: What the weight matrices may cost together.
        loss: What the programme expects of it: the sum of the losses measured one at a time.
    """

    keep: dict[str, int] = field(default_factory=dict)
    densities: dict[str, float] = field(default_factory=dict)
    scores: dict[str, str] = field(default_factory=dict)
    budget: float = math.inf
    loss: float = math.nan


@dataclass(frozen=True)
class Planner:
    """Works out blueprints.

    Attributes:
        measured: The sensitivities.
        costs: What weight matrices take of the goal's figure.
        by_zeros: Whether zeros bring the figure down.
        by_cutting: Whether smaller layers do.
    """

    measured: Sensitivity
    costs: Costs
    by_zeros: bool = True
    by_cutting: bool = True

    @property
    def names(self) -> list[str]:
        """Weight matrices that cost something."""
        return [name for name in self.measured.sizes if name in self.costs.prices]

    @property
    def sizes(self) -> dict[str, float]:
        """Their sizes before anything is cut."""
        return {name: float(self.measured.sizes[name]) for name in self.names}

    def nearest(self, limit: float) -> float:
        """The limit, or where no choice of layers comes down to it the least that is worth a trial."""
        dense = self.costs.dense(self.sizes)
        if self.by_zeros:
            return max(limit, self.costs.fixed + _LEAST_SHARE * dense)
        shares = np.geomspace(1.0, 0.01, 60) * dense + self.costs.fixed
        plan = Plan("", "none", cut_share=0.0)
        possible = [at for at in shares if self.blueprint(plan, float(at)) is not None]
        return max(limit, float(min(possible, default=limit)))

    def plans(self, limit: float) -> list[Plan]:
        """The plans that are worth a trial, for a figure to be reached.

        Args:
            limit: What the figure is to come down to.
        """
        if not self.by_zeros:
            return [
                Plan("cut by measured losses", "none", cut_share=0.0),
                Plan("cut by flattened losses", "none", cut_share=0.0, power=0.5),
                Plan("cut evenly", "none", cut_share=0.0, even=True),
            ]
        # Of layers that are not trained, gradients say nothing: they cannot be ranked with the others.
        taylor = all("taylor" in self.measured.pruned[name] for name in self.names)
        found = [Plan("prune by taylor", "taylor")] if taylor else []
        found += [
            Plan("prune by magnitude", "magnitude"),
            Plan("prune by measured losses", "layers"),
        ]
        share = self._best_share(limit) if self.by_cutting and self.measured.cut else None
        if share is not None:
            found.append(Plan("cut and prune by measured losses", "layers", cut_share=share))
            if taylor:
                found.append(Plan("cut, then prune by taylor", "taylor", cut_share=share))
        return found

    def _best_share(self, limit: float) -> float | None:
        """How far to cut before pruning: the least sum of measured losses; None if no cut is possible."""
        losses = {}
        for share in _CUT_SHARES:
            made = self.blueprint(Plan("", "layers", cut_share=share), limit)
            if made is not None and made.keep:
                losses[share] = made.loss
        return min(losses, key=lambda share: losses[share]) if losses else None

    def blueprint(self, plan: Plan, limit: float) -> Blueprint | None:
        """What becomes of each layer, so that the figure comes down to a limit.

        Args:
            plan: How the budget is spent.
            limit: What the figure may be.

        Returns:
            None where the plan cannot come so far.
        """
        budget = limit - self.costs.fixed
        if budget <= 0:
            return None
        dense = self.costs.dense(self.sizes)
        share = max(plan.cut_share, budget / dense) if plan.cut_share < 1 else 1.0
        keep, cut_loss = self._cuts(plan, share) if share < 1 else ({}, 0.0)
        if keep is None:
            return None
        sizes = self._sizes_after(keep)
        if plan.ranking == "none":
            return Blueprint(keep, budget=budget, loss=cut_loss)
        if plan.ranking != "layers":
            scores = {name: str(plan.ranking) for name in self.names}
            return Blueprint(keep, {}, scores, budget)
        return self._densities(plan, sizes, budget, keep, cut_loss)

    def _densities(
        self,
        plan: Plan,
        sizes: Mapping[str, float],
        budget: float,
        keep: dict[str, int],
        cut_loss: float,
    ) -> Blueprint | None:
        options = {name: _pruning_options(self.measured.pruned[name], plan) for name in self.names}
        costs = {
            name: [self.costs.prices[name].of(d * sizes[name], sizes[name]) for d, _, _ in own]
            for name, own in options.items()
        }
        losses = {name: [loss for _, _, loss in own] for name, own in options.items()}
        picks = least_loss(costs, losses, budget)
        if picks is None:
            return None
        chosen = {name: options[name][pick] for name, pick in picks.items()}
        return Blueprint(
            keep,
            {name: density for name, (density, _, _) in chosen.items()},
            {name: score for name, (_, score, _) in chosen.items()},
            budget,
            cut_loss + sum(loss for _, _, loss in chosen.values()),
        )

    def _cuts(self, plan: Plan, share: float) -> tuple[dict[str, int] | None, float]:
        """Units that stay, so that the dense model costs a share of what it did; and their losses."""
        dense = self.costs.dense(self.sizes)
        if plan.even:
            return self._even_cuts((1 - share) * dense), math.nan
        widths = {name: _widths(own, plan.power) for name, own in self.measured.cut.items()}
        saved = {
            name: [self._saved(self.measured.cut[name], kept) for kept, _ in own]
            for name, own in widths.items()
        }
        costs = {name: [max(own) - saving for saving in own] for name, own in saved.items()}
        most = sum(max(own) for own in saved.values())
        losses = {name: [loss for _, loss in own] for name, own in widths.items()}
        picks = least_loss(costs, losses, most - (1 - share) * dense) if widths else None
        if picks is None:
            return None, math.inf
        chosen = {name: widths[name][pick] for name, pick in picks.items()}
        keep = {n: kept for n, (kept, _) in chosen.items() if kept < self.measured.cut[n].width}
        return keep, sum(loss for _, loss in chosen.values())

    def _even_cuts(self, needed: float) -> dict[str, int] | None:
        """The least share of all groups' units that saves enough, if any does."""
        for share in np.linspace(0.02, 0.75, 74):
            keep = {}
            for name, own in self.measured.cut.items():
                widths = widths_between(own.kind, min(own.losses), own.width)
                keep[name] = int(widths[np.searchsorted(widths, (1 - share) * own.width - 1e-9)])
            saved = sum(self._saved(self.measured.cut[name], kept) for name, kept in keep.items())
            if saved >= needed:
                return {n: kept for n, kept in keep.items() if kept < self.measured.cut[n].width}
        return None

    def _saved(self, own: CutLosses, kept: int) -> float:
        """What cutting one group alone takes off the cost of the dense model."""
        prices, sizes = self.costs.prices, self.sizes
        return sum(
            prices[name].of((1 - share) * sizes[name], (1 - share) * sizes[name])
            for name, share in _shares(own, kept).items()
            if name in sizes
        )

    def _sizes_after(self, keep: Mapping[str, int]) -> dict[str, float]:
        """Sizes of the matrices when all groups are cut; a matrix shrinks by each of its axes."""
        sizes = self.sizes
        for group, kept in keep.items():
            for name, share in _shares(self.measured.cut[group], kept).items():
                if name in sizes:
                    sizes[name] *= share
        return sizes


def _pruning_options(
    measured: Mapping[str, Mapping[float, float]], plan: Plan
) -> list[tuple[float, str, float]]:
    """(density, score, loss): at each density the score that costs less."""
    curves = {
        score: _curve([1 - d for d in own], list(own.values()), 1 - _OPTIONS)
        for score, own in measured.items()
    }
    found = []
    for place, density in enumerate(_OPTIONS):
        loss, score = min((float(curve[place]), score) for score, curve in curves.items())
        found.append((float(density), score, loss**plan.power))
    return found


def _widths(own: CutLosses, power: float) -> list[tuple[int, float]]:
    """(units that stay, loss), from the narrowest that was measured up to the whole group."""
    kept = widths_between(own.kind, min(own.losses), own.width)
    gone = [own.width - n for n in own.losses]
    loss = _curve(gone, list(own.losses.values()), own.width - kept) ** power
    return [(int(n), float(value)) for n, value in zip(kept, loss, strict=True)]


def _curve(
    gone: Sequence[float], losses: Sequence[float], at: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> Float64:
    """Losses between those that were measured, 0 where nothing is gone; never falling."""
    points = {0.0: 0.0, **{float(x): float(y) for x, y in zip(gone, losses, strict=True)}}
    x = np.array(sorted(points))
    y = np.maximum.accumulate(np.array([points[own] for own in x]))
    known = np.isfinite(y)
    found = np.full(len(at), np.inf)
    inside = at <= x[known][-1] + 1e-12
    if known.sum() == 1:
        found[inside] = 0.0
        return found
    found[inside] = PchipInterpolator(x[known], y[known])(np.minimum(at[inside], x[known][-1]))
    result: Float64 = np.maximum(found, 0.0)
    return result


def _shares(own: CutLosses, kept: int) -> dict[str, float]:
    """What stays of each matrix, between the widths that were measured."""
    known = sorted([*own.shares, own.width])
    names = {name for shares in own.shares.values() for name in shares}
    return {
        name: float(np.interp(kept, known, [own.shares.get(n, {}).get(name, 1.0) for n in known]))
        for name in names
    }
