"""Which weights of a model are pruned, and what is left as it is and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from secateur.errors import InvalidArgumentError
from secateur.keras.selecting import Selector, resolve_targets, select_tensors
from secateur.keras.tensors import FoundTensors, WeightTensor, find_tensors
from secateur.keras.variables import read_array
from secateur.patterns import Pattern, Unstructured
from secateur.pruning import Tensors
from secateur.report import Left

if TYPE_CHECKING:
    from secateur.keras.protocols import Model

Selectors: TypeAlias = "Selector | Iterable[Selector] | None"


@dataclass(frozen=True)
class Selection:
    """What a user says of which weights are meant.

    Attributes:
        include: As for `prune`.
        exclude: As for `prune`.
    """

    include: Selectors = None
    exclude: Selectors = None


@dataclass(frozen=True)
class Chosen:
    """The weights that are pruned.

    Attributes:
        found: Everything the model has.
        tensors: The weights, in the model's order.
        left: The rest that might be expected among them, with the reason.
    """

    found: FoundTensors
    tensors: tuple[WeightTensor, ...]
    left: tuple[Left, ...]

    @property
    def names(self) -> list[str]:
        """Their names."""
        return [tensor.name for tensor in self.tensors]

    def spread(self, targets: Any) -> Any:
        """A mapping of selectors as one of weight names; anything else as it is."""
        if not isinstance(targets, Mapping):
            return targets
        resolved = resolve_targets(self.found, targets)
        names = set(self.names)
        return {name: value for name, value in resolved.items() if name in names}


def choose(model: Model, selection: Selection, pattern: Pattern, sparsity: Any = None) -> Chosen:
    """Choose the weights to prune.

    Args:
        model: A built model.
        selection: Which.
        pattern: Weights that it cannot be read in are left.
        sparsity: Where this is a mapping and nothing is included by name, what it names is.

    Raises:
        InvalidArgumentError: A selector matches nothing, or nothing is chosen.
    """
    found = find_tensors(model)
    include = selection.include
    if isinstance(sparsity, Mapping) and include is None:
        include = list(resolve_targets(found, sparsity))
    fit, unfit = _fit_for(pattern, select_tensors(found, include, selection.exclude))
    names = {tensor.name for tensor in fit}
    left = tuple(Left(name, why) for name, why in found.left if name not in names) + unfit
    if not fit:
        unnamed = (
            "include, exclude and sparsity leave none" if found.tensors else "it has no weights"
        )
        why = "; ".join(f"{entry.name}: {entry.reason}" for entry in left) or unnamed
        raise InvalidArgumentError(f"There is nothing to prune in model {model.name!r}: {why}.")
    return Chosen(found, fit, left)


def arrays_of(chosen: Iterable[WeightTensor]) -> Tensors:
    """Their values, and how each is seen as a matrix."""
    chosen = list(chosen)
    arrays = {tensor.name: read_array(tensor.variable) for tensor in chosen}
    return Tensors(arrays, {tensor.name: tensor.to_matrix for tensor in chosen})


def _fit_for(
    pattern: Pattern, chosen: Iterable[WeightTensor]
) -> tuple[tuple[WeightTensor, ...], tuple[Left, ...]]:
    """Set those aside whose axes cannot be read as (out, in) where the pattern needs that."""
    if isinstance(pattern, Unstructured):
        return tuple(chosen), ()
    fit, unfit = [], []
    for tensor in chosen:
        if tensor.view.interleaved:
            unfit.append(Left(tensor.name, f"{tensor.view.interleaved}; {pattern} needs one"))
        else:
            fit.append(tensor)
    return tuple(fit), tuple(unfit)
