"""Keep a cut model compiled: `compiling.carry_compile`, and the optimizer's slots sliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from secateur.keras.compiling import compile_alike
from secateur.keras.cut_rules import Kept
from secateur.keras.variables import read_array
from secateur.network import Axes, MaybeLabels

Pairs = Sequence[tuple[Any, Any, Axes]]
"""Variable of the original, its successor, labels of its axes."""


def carry_compilation(source: Any, target: Any, pairs: Pairs, kept: Kept) -> None:
    """Compile `target` like `source`; does nothing if `source` is not compiled.

    Unlike `compiling.carry_compile`, which copies slots between variables of one shape, this cuts
    them like their weights, and leaves out those of weights that are gone.

    Args:
        source: The model that was cut.
        target: What is left of it.
        pairs: Which variable of `target` stands for which of `source`.
        kept: What stays.

    Raises:
        UnsupportedModelError: A metric or the optimizer cannot be made anew.
    """
    if not compile_alike(source, target):
        return
    old, new = source.optimizer, target.optimizer
    if old is None or not old.built:
        return
    successors = {id(variable): (heir, axes) for variable, heir, axes in pairs}
    heirs = [successors[id(v)][0] for v in old._trainable_variables if id(v) in successors]
    known = {id(heir) for heir, _ in successors.values()}
    # Biases that the cut added come last, so that the slots of the others keep their order.
    new.build([*heirs, *(v for v in target.trainable_variables if id(v) not in known)])
    _carry_slots(old, new, successors, kept)
    if isinstance(old, keras.optimizers.LossScaleOptimizer):
        _carry_slots(old.inner_optimizer, new.inner_optimizer, successors, kept)


def _carry_slots(
    source: Any, target: Any, successors: Mapping[int, tuple[Any, Axes]], kept: Kept
) -> None:
    order = [v for v in source._trainable_variables if id(v) in successors]
    positions = [i for i, v in enumerate(source._trainable_variables) if id(v) in successors]
    for name, old_slots in vars(source).items():
        if isinstance(old_slots, keras.Variable) and len(old_slots.shape) == 0:
            # Step counts, learning rate, loss scale: by attribute, since names come more than once.
            getattr(target, name).assign(read_array(old_slots))
        if not _are_slots(old_slots, len(source._trainable_variables)) or name.startswith("_train"):
            continue
        new_slots = getattr(target, name)
        for index, position in enumerate(positions):
            old, new = old_slots[position], new_slots[index]
            if not isinstance(old, keras.Variable):
                continue
            axes = successors[id(order[index])][1]
            own = _slot_axes(name, old, order[index], axes)
            new.assign(np.reshape(kept.take(read_array(old), own), new.shape))


def _are_slots(value: Any, count: int) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != count or not count:
        return False
    return any(isinstance(item, keras.Variable) for item in value)


def _slot_axes(name: str, slot: Any, variable: Any, axes: Axes) -> Sequence[MaybeLabels]:
    """Labels of a slot's axes: those of its weight, or of a factor, which lacks one of the last two.

    Of Adafactor's two factors of a square weight only the name tells which is which.
    """
    own, shape = tuple(slot.shape), tuple(variable.shape)
    if own == shape:
        return axes
    without_last, without_other = shape[:-1], (*shape[:-2], *shape[-1:])
    if len(shape) >= 2 and own == without_other and (name == "_c" or own != without_last):
        return (*axes[:-2], axes[-1])
    if own == without_last:
        return axes[:-1]
    return (None,) * len(own)
