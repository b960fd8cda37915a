"""Keep a compiled model compiled: loss, metrics, learning rate, and the optimizer's slots, cut like their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import tree

from secateur.keras.cut_rules import Kept
from secateur.keras.variables import read_array
from secateur.network import Axes, MaybeLabels

Pairs = Sequence[tuple[Any, Any, Axes]]
"""Variable of the original, its successor, labels of its axes."""


def carry_compilation(source: Any, target: Any, pairs: Pairs, kept: Kept) -> None:
    """Compile `target` like `source`; does nothing if `source` is not compiled."""
    if not source.compiled or not hasattr(source, "_compile_config"):
        return
    config = dict(source._compile_config.config)
    config = {name: tree.map_structure(_again, value) for name, value in config.items()}
    config["optimizer"] = type(source.optimizer).from_config(source.optimizer.get_config())
    target.compile(**config)
    if source.optimizer.built:
        _carry_slots(source.optimizer, target.optimizer, pairs, kept)


def _again(value: Any) -> Any:
    if isinstance(value, keras.Metric):
        return type(value).from_config(value.get_config())
    return value


def _carry_slots(source: Any, target: Any, pairs: Pairs, kept: Kept) -> None:
    successors = {id(old): (new, axes) for old, new, axes in pairs}
    order = [v for v in source._trainable_variables if id(v) in successors]
    target.build([successors[id(variable)][0] for variable in order])
    positions = [i for i, v in enumerate(source._trainable_variables) if id(v) in successors]
    done: set[int] = set()
    for name, old_slots in vars(source).items():
        new_slots = getattr(target, name, None)
        if not _are_slots(old_slots, len(source._trainable_variables)) or name.startswith("_train"):
            continue
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
