"""From what users ask for by name to how one matrix is pruned on data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from secateur.arguments import check_damping, check_switch
from secateur.arrays import Array
from secateur.criteria import CRITERIA, Criterion, Magnitude, get_criterion
from secateur.data_criteria import (
    DATA_CRITERIA,
    ActivationPath,
    DataCriterion,
    get_data_criterion,
)
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.layer_pruning import Recipe, Scorer
from secateur.reconstruction import ADMM, SOLVERS, Refit, Solver
from secateur.statistics import InputStatistics

# These choose what goes and repair what stays in one; published ones are what their papers say.
_PUBLISHED = ("sparsegpt",)
_WHOLE = ("admm", *_PUBLISHED)


@dataclass(frozen=True)
class Method:
    """What was asked for, beside how much.

    Attributes:
        criterion: A criterion of weights or of data, "admm" or "sparsegpt" by name; a `Criterion`;
            None for the best.
        reconstruction: "refit", "sparsegpt", "admm", a `Solver`, or "none"; None for what suits the
            criterion.
        damping: Ridge of the least squares, > 0; None for what suits.
        asymmetric: Whether the dense network's outputs are what is kept; None for what suits.
        refit_bias: Whether biases are refitted; None for what suits.
        refit_norms: Whether scales and offsets of normalisations are, too; None for what suits.
    """

    criterion: str | Criterion | DataCriterion | None = None
    reconstruction: str | Solver | None = None
    damping: float | None = None
    asymmetric: bool | None = None
    refit_bias: bool | None = None
    refit_norms: bool | None = None

    def __post_init__(self) -> None:
        """Check what no later step looks at before it is used.

        Raises:
            ArgumentTypeError: A switch that is not True or False, a damping that is no number.
            InvalidArgumentError: A damping that is not positive and finite.
        """
        for name in ("asymmetric", "refit_bias", "refit_norms"):
            if getattr(self, name) is not None:
                check_switch(name, getattr(self, name))
        if self.damping is not None:
            check_damping(self.damping)


def make_recipe(method: Method) -> tuple[Recipe, Criterion | DataCriterion | None]:
    """The recipe of a method, and the criterion whose scores it is to be given, if that is so.

    Raises:
        InvalidArgumentError: An unknown name, or two that do not go together.
        ArgumentTypeError: Neither a name nor an object that can do it.

    Example:
        >>> make_recipe(Method())[0].name
        'admm'
        >>> make_recipe(Method("magnitude", "refit"))[0].name
        'magnitude + refit'
    """
    criterion = method.criterion
    if criterion is None or (isinstance(criterion, str) and criterion in _WHOLE):
        return _whole(method, criterion), None
    scorer, weights = _scorer(method)
    solver = _solver(method.reconstruction)
    recipe = Recipe(scorer, solver, False, **_settings(method, ours=solver is not None))
    return recipe, weights


def _whole(method: Method, criterion: Any) -> Recipe:
    if criterion is None:
        solver = ADMM() if method.reconstruction is None else _solver(method.reconstruction)
        if solver is None:
            raise InvalidArgumentError(
                "reconstruction='none' leaves it to the criterion what goes; name one, such as "
                "criterion='wanda'."
            )
        return Recipe(None, solver, False, **_settings(method, ours=True))
    finish = _solver(method.reconstruction)
    if finish is not None and not isinstance(finish, Refit):
        raise InvalidArgumentError(
            f"criterion={criterion!r} changes the weights that stay itself; beside it reconstruction "
            f"may be 'refit' or left out, got {method.reconstruction!r}."
        )
    ours = criterion not in _PUBLISHED
    return Recipe(None, SOLVERS[criterion](), finish is not None, **_settings(method, ours=ours))


def refits_norms(method: Method, recipe: Recipe) -> bool:
    """Whether normalisations behind the pruned weights are refitted: it takes a dense network beside.

    Raises:
        InvalidArgumentError: It is asked for without one.
    """
    if method.refit_norms and not recipe.asymmetric:
        raise InvalidArgumentError(
            "refit_norms=True needs asymmetric=True: it looks at both networks."
        )
    return recipe.asymmetric if method.refit_norms is None else method.refit_norms


def _settings(method: Method, *, ours: bool) -> dict[str, Any]:
    """Targets, refitted bias, damping and ridge: our best, or as published."""
    asymmetric = ours if method.asymmetric is None else method.asymmetric
    # A target that is itself fitted to data wants a larger ridge than papers without one use.
    damping = 0.2 if ours else 0.1 if asymmetric else 0.01
    return {
        "asymmetric": asymmetric,
        "residual": ours and asymmetric,
        "weighted": ours,
        "intercept": ours if method.refit_bias is None else method.refit_bias,
        "damping": damping if method.damping is None else method.damping,
        "ridge": "input" if ours else "mean",
    }


def _solver(reconstruction: str | Solver | None) -> Solver | None:
    if reconstruction is None or reconstruction == "none":
        return None
    if isinstance(reconstruction, str):
        if reconstruction not in SOLVERS:
            raise InvalidArgumentError(
                f"Unknown reconstruction {reconstruction!r}; expected 'none', "
                f"{', '.join(map(repr, sorted(SOLVERS)))}, or a solver object."
            )
        return SOLVERS[reconstruction]()
    if isinstance(reconstruction, type) or not hasattr(reconstruction, "solve"):
        raise ArgumentTypeError(
            f"reconstruction must be a name or an object with `name` and `solve`, got "
            f"{reconstruction!r}."
        )
    return reconstruction


def _scorer(method: Method) -> tuple[Scorer, Criterion | DataCriterion | None]:
    """What scores, and where it is not done one matrix at a time, what is to score beforehand."""
    criterion = method.criterion
    if isinstance(criterion, str):
        if criterion in DATA_CRITERIA:
            criterion = get_data_criterion(criterion)
        elif criterion not in CRITERIA:
            known = sorted({*CRITERIA, *DATA_CRITERIA, *_WHOLE})
            raise InvalidArgumentError(
                f"Unknown criterion {criterion!r}; with data expected one of "
                f"{', '.join(map(repr, known))}, or a criterion object."
            )
        else:
            criterion = get_criterion(criterion)
        if hasattr(criterion, "damping"):
            damping = 0.01 if method.damping is None else method.damping
            criterion = replace(criterion, damping=damping)  # type: ignore[type-var]
    if isinstance(criterion, DataCriterion) and not isinstance(criterion, type):
        alone = criterion.needs != "gradients" and not isinstance(criterion, ActivationPath)
        return (FromData(criterion), None) if alone else (_Given(criterion.name), criterion)
    weights = get_criterion(criterion)  # type: ignore[arg-type]
    return _Given(weights.name), weights


@dataclass(frozen=True)
class FromData:
    """A criterion over input statistics, one matrix at a time."""

    criterion: DataCriterion

    @property
    def name(self) -> str:
        """Name of the criterion."""
        return self.criterion.name

    def scores(self, weight: Array, statistics: InputStatistics) -> Array:
        """See `secateur.layer_pruning.Scorer`."""
        return self.criterion.decide([weight], [statistics])[0]


@dataclass(frozen=True)
class _Given:
    """Stands for scores that are handed in."""

    name: str

    def scores(self, weight: Array, statistics: InputStatistics) -> Array:
        raise AssertionError(f"scores {weight.shape} for {statistics.name} were not handed in")


def weight_criterion(criterion: str | Criterion | DataCriterion | None) -> Criterion:
    """The criterion of a pruning without data.

    Raises:
        InvalidArgumentError: It needs data, or is unknown.
    """
    if criterion is None:
        return Magnitude()
    seeing = {*_WHOLE, *DATA_CRITERIA} - {*CRITERIA}
    sees = isinstance(criterion, str) and criterion in seeing
    if sees or (isinstance(criterion, DataCriterion) and not isinstance(criterion, type)):
        raise InvalidArgumentError(
            f"criterion={criterion!r} needs calibration samples: pass data=..., or choose 'magnitude'."
        )
    return get_criterion(criterion)  # type: ignore[arg-type]
