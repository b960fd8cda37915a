"""Masks that survive training: every zero of a pruned model stays a zero.

Keras applies `variable.constraint` after each step of its optimizers, in `fit` and in custom loops
alike. A mask that stands there needs no wrapper and no custom object: the model stays an ordinary
one, and its saved file says nothing of it. After loading a file, `keep_zeros` puts the masks back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from secateur.arrays import Array
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.tensors import WeightTensor, find_tensors
from secateur.keras.variables import read_array, variable_shape

if TYPE_CHECKING:
    from secateur.keras.protocols import Model


class KeepZeros(keras.constraints.Constraint):  # type: ignore[misc]
    """Holds the weights that a mask names at zero.

    Args:
        mask: Boolean, of the variable's shape; True = keep.
        inner: The constraint that was there before; it is applied first.
        owner: The model whose optimizer trains the variable. Slots of that optimizer (moving
            averages above all) are held at zero too, else they would bring removed weights back
            when they are written over the weights.
    """

    def __init__(self, mask: Array, inner: Any = None, owner: Any = None) -> None:
        self.mask = keras.Variable(np.asarray(mask, np.bool_), dtype="bool", trainable=False)
        self.inner = inner
        self._owner = (lambda: None) if owner is None else weakref.ref(owner)

    def __call__(self, w: Any) -> Any:
        """The constrained weight, zero where the mask is False."""
        value = ops.convert_to_tensor(w) if self.inner is None else self.inner(w)
        keep = ops.convert_to_tensor(self.mask)
        for slot in self.slots(w):
            slot.assign(ops.where(keep, slot, ops.zeros_like(slot)))
        return ops.where(keep, value, ops.zeros_like(value))

    def slots(self, variable: Any) -> Iterator[Any]:
        """Slots of the optimizer that have the variable's shape."""
        optimizer = getattr(self._owner(), "optimizer", None)
        for slot in slots_of(optimizer, variable):
            if tuple(slot.shape) == tuple(variable.shape):
                yield slot

    def enforce(self, variable: Any) -> None:
        """Zero the variable and its slots now."""
        variable.assign(self(variable))


def slots_of(optimizer: Any, variable: Any) -> Iterator[Any]:
    """Variables that an optimizer keeps for a variable of the model: momenta, averages, ...

    Args:
        optimizer: A Keras optimizer, used or not; None has no slots.
        variable: A variable of the model.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    trained = getattr(optimizer, "_trainable_variables", None) or []
    places = [place for place, own in enumerate(trained) if own is variable]
    if not places:
        return
    for name, value in vars(optimizer).items():
        slots = isinstance(value, (list, tuple)) and len(value) == len(trained)
        if slots and not name.startswith("_trainable"):
            slot = value[places[0]]
            if isinstance(slot, keras.Variable) and slot is not variable:
                yield slot


def keep_zeros(model: Model, masks: Mapping[str, Array] | None = None) -> dict[str, int]:
    """Hold the zeros of a model's weights at zero through any training that follows.

    `prune` does this to the model that it returns. Call it yourself after loading a pruned model
    from a `.keras` file, or after setting weights to zero by other means. It holds in `fit` with any
    Keras optimizer, and in custom loops that step through one (`optimizer.apply`); a loop that
    assigns weights by itself calls `enforce_zeros(model)` after each step.

    Args:
        model: A built Keras model.
        masks: Weight name (as in `prune`'s report) -> boolean array of its shape, True = keep.
            None: every weight matrix that holds a zero keeps all of its zeros.

    Returns:
        Weight name -> how many of its weights are held at zero.

    Raises:
        ArgumentTypeError: Not a Keras model, or a mask that is not boolean.
        InvalidArgumentError: A mask names no weight of the model, or has another shape.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="out")])
        >>> model.set_weights([np.array([[0.0, 1.0], [0.0, 1.0]]), np.ones(2)])
        >>> keep_zeros(model)
        {'out/kernel': 2}
    """
    tensors = {tensor.name: tensor for tensor in find_tensors(model).tensors}
    chosen = _zeros_of(tensors) if masks is None else _checked(masks, tensors)
    kept, new = {}, False
    for name, mask in chosen.items():
        new = _hold(tensors[name].variable, mask, model) or new
        kept[name] = mask.size - int(np.count_nonzero(mask))
    if new:
        trace_again(model)
    return kept


def hold_masks(model: Model, masks: Iterable[tuple[str, Array]]) -> dict[str, Array]:
    """Hold zeros by masks that are made one after the other, and are kept once, not twice.

    Args:
        model: As for `keep_zeros`.
        masks: Names of weights and their masks, as there.

    Returns:
        The masks by name: read-only windows on what holds the zeros.
    """
    tensors = {tensor.name: tensor for tensor in find_tensors(model).tensors}
    held, new = {}, False
    for name, mask in masks:
        variable: Any = tensors[name].variable
        new = _hold(variable, mask, model) or new
        held[name] = read_array(variable.constraint.mask)
    if new:
        trace_again(model)
    return held


def enforce_zeros(model: Model) -> None:
    """Zero again, now, what `keep_zeros` holds: the hook for training loops without an optimizer.

    Args:
        model: A Keras model.
    """
    for variable in _held(model):
        variable.constraint.enforce(variable)


def release_zeros(model: Model) -> list[str]:
    """Let go of what `keep_zeros` holds: zeros may grow back when the model is trained.

    Args:
        model: A Keras model.

    Returns:
        Names of the weights that were let go.
    """
    names = list(kept_masks(model))
    for variable in _held(model):
        _release(variable)
    trace_again(model)
    return names


def kept_masks(model: Model) -> dict[str, Array]:
    """Masks in force, by the names of the weights; boolean, True = keep.

    Args:
        model: A Keras model.
    """
    held = {id(variable): variable.constraint.mask for variable in _held(model)}
    return {
        tensor.name: read_array(held[id(tensor.variable)])
        for tensor in find_tensors(model).tensors
        if id(tensor.variable) in held
    }


def _hold(variable: Any, mask: Array, model: Any) -> bool:
    """Hold a variable at zero; says whether its constraint is another one than before."""
    held = variable.constraint
    same = isinstance(held, KeepZeros) and held._owner() is model
    if same:
        # A training step that was traced with this mask reads the new one.
        held.mask.assign(mask)
    else:
        _release(variable)
        variable.constraint = KeepZeros(mask, variable.constraint, model)
    variable.constraint.enforce(variable)
    return not same


def trace_again(model: Any) -> None:
    """Let go of a training step that was traced before constraints or optimizer were as they are.

    Args:
        model: A Keras model; callbacks may do this while `fit` is about to begin.
    """
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def _held(model: Any) -> list[Any]:
    return [v for v in model.variables if isinstance(getattr(v, "constraint", None), KeepZeros)]


def _release(variable: Any) -> None:
    if isinstance(variable.constraint, KeepZeros):
        variable.constraint = variable.constraint.inner


def _zeros_of(tensors: Mapping[str, WeightTensor]) -> dict[str, Array]:
    found = {}
    for name, tensor in tensors.items():
        if not tensor.needs_own_name:
            mask = read_array(tensor.variable) != 0
            if not mask.all():
                found[name] = mask
    return found


def _checked(masks: Mapping[str, Array], tensors: Mapping[str, WeightTensor]) -> dict[str, Array]:
    if unknown := sorted(set(masks) - set(tensors)):
        raise InvalidArgumentError(
            f"masks names weights that the model does not have: {unknown[:5]}; "
            f"there are {list(tensors)[:20]}."
        )
    for name, mask in masks.items():
        shape = variable_shape(tensors[name].variable)
        if getattr(mask, "dtype", None) != np.bool_:
            raise ArgumentTypeError(
                f"The mask of {name!r} must be a boolean array (True = keep), got "
                f"{getattr(mask, 'dtype', type(mask).__name__)}; use weights != 0."
            )
        if mask.shape != shape:
            raise InvalidArgumentError(
                f"The mask of {name!r} has shape {mask.shape}, the weight {shape}."
            )
    return dict(masks)
