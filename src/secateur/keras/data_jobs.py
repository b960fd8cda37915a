"""From what a user asks `prune` for with data to what is done on the walk."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.arrays import Array
from secateur.data_criteria import OBS
from secateur.data_plan import DataPrunePlan, Share
from secateur.errors import InvalidArgumentError, TargetNotReachedWarning
from secateur.keras.choosing import Chosen, Selection, choose
from secateur.keras.data_pruning import (
    Calibration,
    Job,
    Opened,
    data_plan,
    open_for_walk,
    prune_on_data,
)
from secateur.keras.results import Result
from secateur.keras.scoring import score
from secateur.keras.sharing import ALLOCATIONS, allot, rank_together
from secateur.keras.weight_pruning import How
from secateur.layer_pruning import Recipe
from secateur.patterns import NM, Block, Pattern
from secateur.pruning import Progress, array_targets
from secateur.recipes import FromData, Method, make_recipe, refits_norms
from secateur.report import Left, PruneReport
from secateur.selection import Norm

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


@dataclass(frozen=True, eq=False)
class OnData:
    """A request to prune on data; see `prune` for what its parts mean."""

    how: How
    selection: Selection
    pattern: Pattern
    norm: Norm
    method: Method
    allocation: str | None
    calibration: Calibration

    @property
    def _allocation(self) -> str:
        return "uniform" if self.allocation is None else self.allocation

    def decide(self, model: Model) -> tuple[DataPrunePlan, tuple[Left, ...]]:
        """How much of each weight of a model goes."""
        opened, job = self._job(model, None)
        return data_plan(opened.chosen, job), opened.chosen.left

    def run(
        self, model: Model, plan: DataPrunePlan | None, progress: Progress | None = None
    ) -> Result:
        """Prune a model's own weights, as much as a plan says if there is one."""
        opened, job = self._job(model, progress)
        if plan is not None and plan != data_plan(opened.chosen, job):
            raise InvalidArgumentError(
                "This plan was made for other weights, or by other settings; make a new plan."
            )
        result = prune_on_data(model, opened, job)
        _warn_if_short(result.report, self.pattern)
        return result

    def _job(self, model: Model, progress: Progress | None) -> tuple[Opened, Job]:
        recipe, criterion = make_recipe(self.method)
        scope = "layer" if self.how.scope is None else self.how.scope
        self._check(scope)
        chosen = self._choose(model)
        strict = self.selection.include is not None or isinstance(self.how.sparsity, Mapping)
        norms = refits_norms(self.method, recipe)
        opened = open_for_walk(model, chosen, self.calibration, strict=strict, norms=norms)
        scores = {} if criterion is None else score(model, opened, self.calibration, criterion)
        masks: dict[str, Array] = {}
        if scope in ("layer", "row") or isinstance(self.pattern, NM):
            shares = self._shares(opened, scope)
        else:
            shares, masks = self._together(model, opened, scope, recipe, scores)
        settings = {
            "allocation": self._allocation,
            "damping": recipe.damping,
            "asymmetric": recipe.asymmetric,
            "refit_bias": recipe.intercept,
            "refit_norms": norms,
        }
        job = Job(
            recipe,
            self.pattern,
            shares,
            scores,
            masks,
            settings,
            self.calibration.memory,
            progress,
        )
        return opened, job

    def _choose(self, model: Model) -> Chosen:
        chosen = choose(model, self.selection, self.pattern, self.how.sparsity)
        if not isinstance(self.how.sparsity, Mapping):
            return chosen
        named = chosen.spread(self.how.sparsity)
        tensors = tuple(tensor for tensor in chosen.tensors if tensor.name in named)
        return replace(chosen, tensors=tensors)

    def _check(self, scope: Any) -> None:
        if not isinstance(scope, Mapping) and scope not in ("global", "layer", "row"):
            raise InvalidArgumentError(
                "scope must be 'global', 'layer', 'row' or a mapping of layer name to group, got "
                f"{scope!r}."
            )
        if self._allocation not in ALLOCATIONS:
            raise InvalidArgumentError(
                f"Unknown allocation {self.allocation!r}; expected one of "
                f"{', '.join(map(repr, ALLOCATIONS))}."
            )
        alone = scope in ("layer", "row") and isinstance(self.how.sparsity, (int, float))
        if self._allocation != "uniform" and (not alone or isinstance(self.pattern, NM)):
            raise InvalidArgumentError(
                f"allocation={self.allocation!r} shares one sparsity out over layers; it goes with "
                "sparsity=FRACTION, scope 'layer' or 'row', and no n:m pattern."
            )

    def _shares(self, opened: Opened, scope: Any) -> dict[str, Share]:
        """How much of each weight goes, where each is looked at alone."""
        chosen = opened.chosen
        sparsity = chosen.spread(self.how.sparsity)
        # The same checks as without data.
        targets = array_targets(
            chosen.names, self.pattern, "layer", sparsity, self.how.threshold, self.how.count
        )
        shares = {
            name: Share()
            if target is None
            else Share(target.sparsity, target.count, target.threshold, scope)
            for (name,), target in targets
        }
        if self._allocation == "uniform":
            return shares
        counts = allot(self._allocation, opened, float(sparsity), self.calibration.memory)
        sizes = {tensor.name: int(np.prod(tensor.shape)) for tensor in chosen.tensors}
        if scope == "layer" and not isinstance(self.pattern, Block):
            return {name: Share(count=count) for name, count in counts.items()}
        return {n: Share(sparsity=count / sizes[n], scope=scope) for n, count in counts.items()}

    def _together(
        self, model: Model, opened: Opened, scope: Any, recipe: Recipe, scores: dict[str, Array]
    ) -> tuple[dict[str, Share], dict[str, Array]]:
        """Shares and masks, where weights of several matrices are ranked together."""
        chosen = opened.chosen
        if not scores and isinstance(recipe.scorer, FromData):
            scores = score(model, opened, self.calibration, recipe.scorer.criterion)
        groups = array_targets(
            chosen.names,
            self.pattern,
            chosen.spread(scope),
            chosen.spread(self.how.sparsity),
            self.how.threshold,
            self.how.count,
        )
        normalise = not scores
        if normalise:
            if self.how.threshold is not None:
                raise InvalidArgumentError(
                    f"A threshold needs scores to compare with, and {recipe.name!r} has none; give a "
                    "sparsity, or a criterion such as 'wanda'."
                )
            scores = score(model, opened, self.calibration, OBS())
        masks = rank_together(chosen, scores, groups, self.pattern, self.norm, normalise=normalise)
        shares = {
            name: Share(count=int(mask.size - np.count_nonzero(mask)))
            for name, mask in masks.items()
        }
        if not normalise:
            return shares, masks
        if isinstance(self.pattern, Block):
            sizes = {name: mask.size for name, mask in masks.items()}
            shares = {n: Share(sparsity=(s.count or 0) / sizes[n]) for n, s in shares.items()}
        return shares, {}


def _warn_if_short(report: PruneReport, pattern: Pattern) -> None:
    short = [
        row
        for row in report
        if row.asked_sparsity is not None
        and row.num_zeros + 0.5 < row.asked_sparsity * row.size - 1e-6 * row.size
    ]
    if not short:
        return
    if isinstance(pattern, Block):
        why = "blocks go whole, and those at the edges are smaller"
    elif isinstance(pattern, NM):
        why = f"the last group of inputs is shorter than {pattern}'s"
    else:
        return  # every row loses whole weights, which is what scope "row" asks for
    listed = ", ".join(
        f"{row.name} (asked {row.asked_sparsity:.4f}, reached {row.reached_sparsity:.4f})"
        for row in short[:3]
    )
    warnings.warn(
        f"Fewer weights than asked for are zero in {len(short)} weight(s): {listed}: {why}.",
        TargetNotReachedWarning,
        stacklevel=4,
    )
