"""From layer names, patterns, layers and layer types to the weights they mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import keras

from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.tensors import FoundTensors, WeightTensor

if TYPE_CHECKING:
    from secateur.keras.protocols import Layer
    from secateur.keras.walk import Place

Selector: TypeAlias = "str | type | Layer"
Value = TypeVar("Value")

_MAX_NAMES_SHOWN = 20


@dataclass(frozen=True)
class _Match:
    """A weight that a selector means; of two selectors the higher rank decides."""

    tensor: WeightTensor
    rank: tuple[int, int]
    by_own_name: bool


def select_tensors(
    found: FoundTensors,
    include: Selector | Iterable[Selector] | None = None,
    exclude: Selector | Iterable[Selector] | None = None,
) -> tuple[WeightTensor, ...]:
    """The weights to prune: those included, or all defaults, without those excluded.

    A selector is a layer, a layer type, or a string: the full name of a weight ("dense/kernel"),
    the name or path of a layer ("dense", "block/dense"), or a case-sensitive pattern with `*`, `?`,
    `[`. A pattern with "/" is held against weight names and layer paths, one without only against
    layer names. A layer stands for everything inside it.

    A layer in `include` stands for the weights in it that are pruned by default; where there are
    none, as in an Embedding or a custom layer, for those pruned on request. Biases and
    normalisation go only by their own name, as "dense/bias" or "*/bias"; a bare `*` after the last
    "/" does not name them.

    Args:
        found: What `find_tensors` returned.
        include: One selector or several; None for everything that is pruned by default.
        exclude: One selector or several.

    Returns:
        The selected weights in the model's order.

    Raises:
        InvalidArgumentError: A selector matches nothing, or nothing that it may select.
        ArgumentTypeError: A selector is none of the above.
    """
    if include is None:
        chosen = {tensor.name for tensor in found.tensors if tensor.default}
    else:
        chosen = {
            match.tensor.name
            for selector in _listed(include)
            for match in _included(found, selector)
        }
    for selector in _listed(exclude if exclude is not None else ()):
        chosen -= {match.tensor.name for match in _find_matches(found, selector)}
    return tuple(tensor for tensor in found.tensors if tensor.name in chosen)


def resolve_targets(found: FoundTensors, targets: Mapping[Selector, Value]) -> dict[str, Value]:
    """Spread a mapping such as {"dense": 0.9, "conv*": 0.5} over the weights it means.

    A weight's own name beats a layer, an inner layer beats the layers around it, and both beat
    patterns and types. Two of one kind that want different values for a weight are an error, never
    a matter of order.

    Args:
        found: What `find_tensors` returned.
        targets: Selector, as in `select_tensors`'s `include`, -> any value.

    Returns:
        Weight name -> value, in the model's order; weights that nothing selects are left out.

    Raises:
        InvalidArgumentError: A selector matches nothing, or two of one kind contradict each other.
        ArgumentTypeError: A selector is of no known kind.
    """
    best: dict[str, tuple[tuple[int, int], Selector, Value]] = {}
    for selector, value in targets.items():
        for match in _included(found, selector):
            name = match.tensor.name
            known = best.get(name)
            if known is None or match.rank > known[0]:
                best[name] = (match.rank, selector, value)
            elif match.rank == known[0] and value != known[2]:
                raise InvalidArgumentError(
                    f"Weight {name!r} is given {known[2]!r} by {known[1]!r} and {value!r} by "
                    f"{selector!r}; give it one value by its own name."
                )
    return {tensor.name: best[tensor.name][2] for tensor in found.tensors if tensor.name in best}


def _listed(selectors: Selector | Iterable[Selector]) -> Sequence[Selector]:
    if isinstance(selectors, (str, type, keras.Layer)):
        return [selectors]
    if isinstance(selectors, Iterable):
        return list(selectors)
    raise ArgumentTypeError(
        f"Expected layer names, patterns, layers or layer types, got {type(selectors).__name__}."
    )


def _included(found: FoundTensors, selector: Selector) -> list[_Match]:
    matches = _find_matches(found, selector)
    named = [match for match in matches if match.by_own_name]
    inside = [match for match in matches if not match.by_own_name and match.tensor.default]
    if chosen := named + inside:
        return chosen
    on_request = [match for match in matches if not match.tensor.needs_own_name]
    if on_request:
        return on_request
    names = ", ".join(match.tensor.name for match in matches)
    raise InvalidArgumentError(
        f"{selector!r} matches only biases or normalisation, which are pruned by their own name "
        "alone; "
        f"to mean them, name one of: {names}."
    )


def _find_matches(found: FoundTensors, selector: Selector) -> list[_Match]:
    matches = [match for tensor in found.tensors if (match := _match(tensor, selector)) is not None]
    if not matches:
        raise InvalidArgumentError(_no_match_message(found, selector))
    return matches


def _match(tensor: WeightTensor, selector: Selector) -> _Match | None:
    if isinstance(selector, str):
        return _match_string(tensor, selector)
    for depth, place in reversed(list(enumerate(tensor.places))):
        if selector is place.layer:
            return _Match(tensor, (2, depth), by_own_name=False)
        if isinstance(selector, type) and isinstance(place.layer, selector):
            return _Match(tensor, (1, 0), by_own_name=False)
    if isinstance(selector, (type, keras.Layer)):
        return None
    raise ArgumentTypeError(
        "Expected a layer name, a pattern, a layer or a layer type, "
        f"got {type(selector).__name__}: {selector!r}."
    )


def _match_string(tensor: WeightTensor, selector: str) -> _Match | None:
    if selector == tensor.name:
        return _Match(tensor, (3, 0), by_own_name=True)
    is_pattern = any(character in selector for character in "*?[")
    if is_pattern and "/" in selector and fnmatchcase(tensor.name, selector):
        says_which = bool(selector.rpartition("/")[2].strip("*"))
        return _Match(tensor, (1, 0), by_own_name=says_which)
    for depth, place in reversed(list(enumerate(tensor.places))):
        names = _layer_names(place)
        if selector in names:
            return _Match(tensor, (2, depth), by_own_name=False)
        if is_pattern and any(fnmatchcase(name, selector) for name in names):
            return _Match(tensor, (1, 0), by_own_name=False)
    return None


def _layer_names(place: Place) -> tuple[str, str, str]:
    return place.layer.name, place.path.rpartition("/")[2], place.path


def _no_match_message(found: FoundTensors, selector: Selector) -> str:
    if not isinstance(selector, str):
        return f"{selector!r} is no layer, or type of layer, of this model that holds weights."
    for name, reason in found.left:
        if selector in (name, name.rpartition("/")[0]):
            return f"{selector!r} cannot be pruned: {reason}."
    layers = list(dict.fromkeys(place.path for tensor in found.tensors for place in tensor.places))
    names = {
        name for tensor in found.tensors for place in tensor.places for name in _layer_names(place)
    }
    names |= {tensor.name for tensor in found.tensors}
    close = difflib.get_close_matches(selector, sorted(names), n=3)
    hint = f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
    shown = ", ".join(layers[:_MAX_NAMES_SHOWN])
    rest = f" and {len(layers) - _MAX_NAMES_SHOWN} more" if len(layers) > _MAX_NAMES_SHOWN else ""
    return f"{selector!r} matches no layer or weight.{hint} Layers with weights: {shown}{rest}."
