"""What a cut does to make up for what it removes: the choice, and whether the arguments allow it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from secateur.arguments import check_damping, check_switch
from secateur.errors import InvalidArgumentError
from secateur.outputs import MEASURES
from secateur.unit_criteria import UNIT_CRITERIA, UnitCriterion, UnitOBS
from secateur.unit_scores import WEIGHT_MEASURES

# Of the encoder of the benchmarks, a tenth to a fifth serves best on text that was not seen.
_REPAIR_DAMPING = 0.15


@dataclass(frozen=True)
class Compensation:
    """How units are scored, and what is done about those that go.

    Attributes:
        measure: How units are scored.
        fold: Whether their means are folded into the next biases.
        repair: The damping with which the layers that read them are refit; None = they are not.
        criterion: What scores units by the layers that read them; None if their output or weights do.
    """

    measure: str
    fold: bool
    repair: float | None
    criterion: UnitCriterion | None

    @classmethod
    def of(
        cls,
        measure: str | None,
        fold: bool | None,
        repair: bool,
        damping: float | None,
        has_data: bool,
    ) -> Compensation:
        """Fill in the defaults and check.

        Raises:
            ArgumentTypeError: A switch that is not True or False.
            InvalidArgumentError: A measure that is not known, or needs what is not there; a damping
                out of range; folding or repair that is impossible.
        """
        for name, switch in (("fold", fold), ("repair", repair)):
            if switch is not None:
                check_switch(name, switch)
        measure = measure or ("obs" if repair else "mean" if has_data else "path")
        if repair and not has_data:
            raise InvalidArgumentError(
                "repair=True takes data: layers are refit on it. Pass data=."
            )
        _check_measure(measure, has_data)
        if damping is not None:
            check_damping(damping)
        if fold and not has_data:
            raise InvalidArgumentError(
                "fold=True takes data: the means of removed units are measured on it. Pass data=."
            )
        if fold is False and (repair or measure == "std"):
            why = (
                "repair=True refits biases, which folds means"
                if repair
                else "measure='std' lets units go that are constant but not zero, so their means must "
                "be folded"
            )
            raise InvalidArgumentError(f"{why}: leave fold=False out.")
        criterion = UNIT_CRITERIA.get(measure)
        if damping is not None and isinstance(criterion, UnitOBS):
            criterion = replace(criterion, damping=damping)
        refit = (_REPAIR_DAMPING if damping is None else damping) if repair else None
        return cls(measure, has_data if fold is None else fold, refit, criterion)


def _check_measure(measure: str, has_data: bool) -> None:
    known = (*MEASURES, *UNIT_CRITERIA) if has_data else WEIGHT_MEASURES
    if measure not in known:
        hint = "with" if has_data else "without"
        raise InvalidArgumentError(f"measure {hint} data must be one of {known}, got {measure!r}.")
