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
from secateur.keras.importance import output_importance
from secateur.keras.results import Result
from secateur.keras.scoring import score
from secateur.keras.sensitivity import Alone
from secateur.keras.sharing import ALLOCATIONS, allot, rank_together
from secateur.keras.tensors import WeightTensor
from secateur.keras.variables import read_array
from secateur.keras.weight_pruning import How
from secateur.layer_pruning import Recipe
from secateur.patterns import NM, Block, Pattern
from secateur.pruning import Progress, array_targets
from secateur.recipes import FromData, Method, make_recipe, refits_norms
from secateur.reconstruction import SparseGPT
from secateur.report import Left, PruneReport
from secateur.selection import Norm, check_norm

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


_OTHER_PLAN = "This plan was made for other weights, or by other settings; make a new plan."


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

    def __post_init__(self) -> None:
        """Check the norm, which is looked at only where there are blocks."""
        check_norm(self.norm)

    def decide(self, model: Model) -> tuple[DataPrunePlan, tuple[Left, ...]]:
        """How much of each weight of a model goes."""
        opened, job = self._job(model, None)
        return data_plan(opened.chosen, job), opened.chosen.left

    def run(
        self,
        model: Model,
        plan: DataPrunePlan | None,
        progress: Progress | None = None,
        *,
        restores: bool,
    ) -> Result:
        """Prune a model's own weights, as much as a plan says if there is one.

        Args:
            model: Is changed.
            plan: Made by `decide`.
            progress: As for `prune`.
            restores: Whether it is what it was after an error; see `CalibrationWalk`.
        """
        opened, job = self._job(model, progress, plan)
        job = replace(job, restores=restores)
        result = prune_on_data(model, opened, job)
        _warn_if_short(result.report, self.pattern)
        return result

    def _job(
        self, model: Model, progress: Progress | None, plan: DataPrunePlan | None = None
    ) -> tuple[Opened, Job]:
        recipe, criterion = make_recipe(self.method)
        scope = "layer" if self.how.scope is None else self.how.scope
        allocation = self._allocation(recipe, scope)
        self._check(allocation, scope)
        chosen = self._choose(model)
        strict = self.selection.include is not None or isinstance(self.how.sparsity, Mapping)
        norms = refits_norms(self.method, recipe)
        opened = open_for_walk(
            model,
            chosen,
            self.calibration,
            strict=strict,
            norms=norms,
            residuals=recipe.residual and recipe.asymmetric,
        )
        scores = {} if criterion is None else score(model, opened, self.calibration, criterion)
        importance = output_importance(opened) if self._weighs(recipe, scope) else {}
        masks: dict[str, Array] = {}
        if plan is not None and set(plan.shares) != set(opened.chosen.names):
            raise InvalidArgumentError(_OTHER_PLAN)
        if plan is not None and allocation != "uniform":
            shares = dict(plan.shares)  # what they were measured by is not measured again
        elif scope in ("layer", "row") or isinstance(self.pattern, NM):
            shares = self._shares(opened, allocation, scope, recipe, importance, progress)
        else:
            shares, masks = self._together(model, opened, scope, recipe, scores)
        settings = {
            "allocation": allocation,
            "damping": recipe.damping,
            "asymmetric": recipe.asymmetric,
            "residual": recipe.residual and recipe.asymmetric,
            "refit_bias": recipe.intercept,
            "refit_norms": norms,
        }
        job = Job(
            recipe,
            self.pattern,
            shares,
            scores,
            importance,
            masks,
            settings,
            memory=self.calibration.memory,
            progress=progress,
        )
        if plan is not None and plan != data_plan(opened.chosen, job):
            raise InvalidArgumentError(_OTHER_PLAN)
        return opened, job

    def _allocation(self, recipe: Recipe, scope: Any) -> str:
        """What was asked for, or the best that goes with the rest: published methods share alike."""
        if self.allocation is not None:
            return self.allocation
        free = recipe.residual and self._shares_one_sparsity(scope)
        return "loss" if free else "uniform"

    def _weighs(self, recipe: Recipe, scope: Any) -> bool:
        """Whether outputs are ranked against each other by a solver, so that it matters which count."""
        chooses = recipe.scorer is None and scope != "row"
        return recipe.weighted and chooses and not isinstance(self.pattern, NM)

    def _shares_one_sparsity(self, scope: Any) -> bool:
        alone = scope in ("layer", "row") and isinstance(self.how.sparsity, (int, float))
        return alone and not isinstance(self.pattern, NM)

    def _choose(self, model: Model) -> Chosen:
        chosen = choose(model, self.selection, self.pattern, self.how.sparsity)
        if not isinstance(self.how.sparsity, Mapping):
            return chosen
        named = chosen.spread(self.how.sparsity)
        tensors = tuple(tensor for tensor in chosen.tensors if tensor.name in named)
        return replace(chosen, tensors=tensors)

    def _check(self, allocation: str, scope: Any) -> None:
        if not isinstance(scope, Mapping) and scope not in ("global", "layer", "row"):
            raise InvalidArgumentError(
                "scope must be 'global', 'layer', 'row' or a mapping of layer name to group, got "
                f"{scope!r}."
            )
        if allocation not in ALLOCATIONS:
            raise InvalidArgumentError(
                f"Unknown allocation {allocation!r}; expected one of "
                f"{', '.join(map(repr, ALLOCATIONS))}."
            )
        if allocation != "uniform" and not self._shares_one_sparsity(scope):
            raise InvalidArgumentError(
                f"allocation={allocation!r} shares one sparsity out over layers; it goes with "
                "sparsity=FRACTION, scope 'layer' or 'row', and no n:m pattern."
            )

    def _shares(
        self,
        opened: Opened,
        allocation: str,
        scope: Any,
        recipe: Recipe,
        importance: Mapping[str, Array],
        progress: Progress | None,
    ) -> dict[str, Share]:
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
        if allocation == "uniform":
            return shares
        # One sweep tells what a layer's error is nearly as well as the best solver, in less time.
        swept = replace(recipe, scorer=None, solver=SparseGPT(), finish=False, asymmetric=False)
        alone = Alone(swept, self.pattern, scope, float(sparsity), importance)
        counts = allot(allocation, opened, alone, self.calibration.memory, progress)
        sizes = {tensor.name: int(np.prod(tensor.shape)) for tensor in chosen.tensors}
        if scope == "layer":
            return {t.name: Share(count=self._units(t, counts[t.name])) for t in chosen.tensors}
        return {n: Share(sparsity=count / sizes[n], scope=scope) for n, count in counts.items()}

    def _units(self, tensor: WeightTensor, count: int) -> int:
        """Weights as whole blocks, where those go together."""
        if not isinstance(self.pattern, Block):
            return count
        height, width = tensor.to_matrix(read_array(tensor.variable)).shape
        blocks = -(-int(height) // self.pattern.rows) * -(-int(width) // self.pattern.cols)
        return round(count / int(height * width) * blocks)

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
