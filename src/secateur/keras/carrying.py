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
    new.build([successors[id(v)][0] for v in old._trainable_variables if id(v) in successors])
    _carry_slots(old, new, successors, kept)
    if isinstance(old, keras.optimizers.LossScaleOptimizer):
        _carry_slots(old.inner_optimizer, new.inner_optimizer, successors, kept)


def _carry_slots(
    source: Any, target: Any, successors: Mapping[int, tuple[Any, Axes]], kept: Kept
) -> None:
    order = [v for v in source._trainable_variables if id(v) in successors]
    positions = [i for i, v in enumerate(source._trainable_variables) if id(v) in successors]
    done: set[int] = set()
    for name, old_slots in vars(source).items():
        if not _are_slots(old_slots, len(source._trainable_variables)) or name.startswith("_train"):
            continue
        new_slots = getattr(target, name)
        for index, position in enumerate(positions):
            old, new = old_slots[position], new_slots[index]
            if not isinstance(old, keras.Variable):
                continue
            done.add(id(old))
            _assign(old, new, order[index], successors[id(order[index])][1], kept)
    rest = [v for v in source.variables if id(v) not in done and len(v.shape) == 0]
    for old in rest:
        for new in target.variables:
            if new.name == old.name and len(new.shape) == 0:
                new.assign(read_array(old))


def _are_slots(value: Any, count: int) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != count or not count:
        return False
    return any(isinstance(item, keras.Variable) for item in value)


def _assign(old: Any, new: Any, variable: Any, axes: Axes, kept: Kept) -> None:
    """Cut a slot like its weight; factored slots lack the weight's last axis or the one before."""
    shape = tuple(variable.shape)
    own: Sequence[MaybeLabels] | None = None
    if tuple(old.shape) == shape:
        own = axes
    elif tuple(old.shape) == shape[:-1]:
        own = axes[:-1]
    elif len(shape) >= 2 and tuple(old.shape) == (*shape[:-2], shape[-1]):
        own = (*axes[:-2], axes[-1])
    elif tuple(old.shape) == tuple(new.shape):
        own = (None,) * len(old.shape)
    if own is not None:
        value = kept.take(read_array(old), own)
        new.assign(np.reshape(value, new.shape))
