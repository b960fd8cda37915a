"""Choose the plan for a model, its data and its goal: measure, try the few best, keep the winner."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import keras

from secateur.compression.costs import Costs, sizes_of
from secateur.compression.explanation import Explanation, Trial, layer_choices
from secateur.compression.goals import Goal
from secateur.compression.moves import Candidate, Setting
from secateur.compression.planned import cut_by, prune_and_train
from secateur.compression.planning import Plan, Planner
from secateur.compression.quality import Quality
from secateur.compression.sensitivity import (
    Sensitivity,
    calibration_slice,
    measure_cutting,
    measure_pruning,
)
from secateur.keras.cloning import clone_model

_FINALISTS = 2
# A plan's figure is known to about one per cent before it is made.
_MARGIN = 0.985

Tell = Callable[[str], None]


@dataclass
class Adaptive:
    """How `method="auto"` comes to its plan; then a `Move` that follows it.

    The layers are measured one at a time. A dynamic programme over these losses makes plans for the
    whole goal; each is tried with a short training, the best two with a longer one, and the one with
    the better quality on the validation data is followed.

    Attributes:
        setting: What all steps share.
        goal: What is to be reached.
        before: The original's figure.
        limit: What the figure is to come down to.
        sample: A batch of inputs.
        measured: Sensitivities, once they are known.
        trials: Plans that were tried so far.

    References:
        Frantar & Alistarh, "SPDY" (ICML 2022; arXiv 2201.13096): the dynamic programme over layers.
        Jamieson & Talwalkar, "Non-stochastic Best Arm Identification" (AISTATS 2016; arXiv
        1502.07943): successive halving.
        Differs from the paper: losses are those of the model with one layer changed, not of a layer's
        output; the search is over few plans, each trained for a while, and not over coefficients.
    """

    setting: Setting
    goal: Goal
    before: float
    limit: float
    sample: Any
    measured: Sensitivity | None = None
    trials: list[Trial] = field(default_factory=list)
    method: str = "auto"

    def __post_init__(self) -> None:
        # A subclassed model's weights get other names in a copy, and steps are made of copies.
        self._source = clone_model(self.setting.original)
        self._costs: Costs | None = None
        self._plans: list[Plan] | None = None

    @property
    def costs(self) -> Costs:
        """What weight matrices take of the figure."""
        if self._costs is None:
            self._costs = self.goal.costs(self._source, self.sample)
        return self._costs

    @property
    def planner(self) -> Planner:
        """Works out what a plan does; once sensitivities are known."""
        assert self.measured is not None
        return Planner(self.measured, self.costs, self.goal.by_zeros, self.goal.by_cutting)

    # ---- Finding the plan ----

    def prepare(self, tell: Tell) -> Iterator[None]:
        """Measure and try, and stop after each part that is worth saving.

        Args:
            tell: Called with what is being done.
        """
        if self.measured is None:
            self.measured = self._measure(tell)
            yield
        while (plan := self._next()) is not None:
            tell(f"try: {plan.name}")
            self._try(plan, self._epochs(len(self.trials)))
            yield

    def _measure(self, tell: Tell) -> Sensitivity:
        samples = calibration_slice(self.setting.train)
        names = list(sizes_of(self._source, self.costs.prices))
        loss = Quality(samples, "loss", "min").of(self._source)
        found = Sensitivity(loss, sizes_of(self._source, self.costs.prices))
        if self.goal.by_zeros:
            for name, losses in measure_pruning(self._source, names, samples):
                tell(f"measured pruning {name}")
                found.pruned[name] = losses
        if self.goal.by_cutting:
            for name, own in measure_cutting(self._source, names, samples):
                tell(f"measured cutting {name}")
                found.cut[name] = own
        return found

    def plans(self) -> list[Plan]:
        """Plans that are tried."""
        if self._plans is None:
            self._plans = self.planner.plans(self.aim)
        return self._plans

    @property
    def aim(self) -> float:
        """The figure at which plans are tried: the goal's, or as near to it as plans come."""
        return self.planner.nearest(self.limit * _MARGIN)

    @property
    def share_prepared(self) -> float:
        """Which part of all epochs, those of the first step included, the trials so far took."""
        if self.measured is None:
            return 0.0
        count, step = len(self.plans()), self.setting.tuning.epochs
        whole = count * self._epochs(0) + _FINALISTS * self._epochs(count) + step
        return sum(self._epochs(number) for number in range(len(self.trials))) / whole

    def _epochs(self, number: int) -> int:
        """Of a trial: two in the first round, then three, more where steps have many."""
        step = self.setting.tuning.epochs
        first = number < len(self.plans())
        return min(step, max(2, step // 8) if first else max(3, step // 4))

    def _next(self) -> Plan | None:
        plans = self.plans()
        if len(self.trials) < len(plans):
            return plans[len(self.trials)]
        first, second = self.trials[: len(plans)], self.trials[len(plans) :]
        finalists = self._ranked(first)[:_FINALISTS]
        if len(finalists) < 2 or len(second) >= len(finalists):
            return None
        return finalists[len(second)].plan

    def _ranked(self, trials: list[Trial]) -> list[Trial]:
        """Trials that came to something, best first; of equals the earlier one."""
        quality = self.setting.quality
        made = [trial for trial in trials if trial.quality == trial.quality]
        sign = 1 if quality.mode == "min" else -1
        return sorted(made, key=lambda trial: sign * trial.quality)

    def _try(self, plan: Plan, epochs: int) -> None:
        started = time.monotonic()
        made = self._build(self._source, plan, self.aim, epochs, self.setting.seed)
        figure = self.before
        if made.model is not None:
            compared = (self.setting.original, made.model, self.sample, self.before)
            figure = self.goal.compare(*compared).after
        note = made.note or ("" if made.quality == made.quality else "its loss became NaN")
        seconds = time.monotonic() - started
        self.trials.append(Trial(plan, made.epochs, made.quality, figure, note, seconds))

    # ---- Following it ----

    @property
    def chosen(self) -> Plan | None:
        """The plan that is followed; None where none could be made."""
        if self.measured is None:
            return None
        count = len(self.plans())
        ranked = self._ranked(self.trials[count:]) or self._ranked(self.trials[:count])
        return ranked[0].plan if ranked else None

    def share_needed(self) -> float:
        """What part of the original's figure to ask the plan for, by what came of its trial."""
        tried = [trial for trial in self.trials if trial.plan == self.chosen]
        # Values that were trained under pruning take other bits than those that prices were made of.
        ratio = tried[-1].figure / self.aim if tried else 1.0
        return self.aim / min(max(ratio, 0.9), 1.1) / self.before

    def make(self, model: Any, amount: float, number: int) -> Candidate:
        """Follow the plan down to the share `amount` of the original's figure."""
        if self.chosen is None:
            return Candidate(None, note="no plan comes down to the goal")
        seed = self.setting.seed + number
        epochs = self.setting.tuning.epochs
        return self._build(model, self.chosen, amount * self.before, epochs, seed)

    def _build(self, model: Any, plan: Plan, limit: float, epochs: int, seed: int) -> Candidate:
        blueprint = self.planner.blueprint(plan, limit)
        if blueprint is None:
            return Candidate(None, note="no choice of layers comes down so far")
        keras.utils.set_random_seed(seed)
        candidate = cut_by(self.setting, model, blueprint.keep)
        if plan.ranking == "none":
            if candidate.count_params() == model.count_params():
                return Candidate(None, note="nothing is left to cut")
        elif blueprint.keep:
            # What is cut is gone from the biases, too, and widths are whole numbers.
            planner = self._planner_of(candidate)
            blueprint = planner.blueprint(replace(plan, cut_share=1.0), limit)
            if blueprint is None:
                return Candidate(None, note="no choice of layers comes down so far")
        prices = self.costs.prices
        setting = replace(self.setting, tuning=replace(self.setting.tuning, epochs=epochs))
        quality = prune_and_train(setting, candidate, blueprint, prices)
        return Candidate(candidate, quality, epochs=epochs)

    def _planner_of(self, model: Any) -> Planner:
        """A planner for what is left after a cut."""
        assert self.measured is not None
        found = self.goal.costs(model, self.sample)
        costs = Costs(self.costs.prices, found.fixed)
        measured = replace(self.measured, sizes=sizes_of(model, costs.prices), cut={})
        return Planner(measured, costs, self.goal.by_zeros, by_cutting=False)

    def explain(self, model: Any) -> Explanation | None:
        """What was measured, tried and chosen, and what became of a model by it."""
        if self.measured is None:
            return None
        chosen = self.chosen
        blueprint = None if chosen is None else self.planner.blueprint(chosen, self.aim)
        return Explanation(
            self.measured,
            tuple(self.trials),
            chosen,
            layer_choices(self._source, model, self.measured, blueprint),
            self.setting.quality.metric,
        )

    # ---- On disk ----

    def to_dict(self) -> dict[str, Any]:
        """What is known so far, as plain values."""
        return {
            "measured": None if self.measured is None else self.measured.to_dict(),
            "trials": [asdict(trial) for trial in self.trials],
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take up what `to_dict` gave."""
        if data["measured"] is not None:
            self.measured = Sensitivity.from_dict(data["measured"])
        self.trials = [Trial.from_dict(trial) for trial in data["trials"]]
