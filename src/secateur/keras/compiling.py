"""Keeping a model compiled: from one model to its copy, with the optimizer's state."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
from keras.src.saving import serialization_lib

from secateur.errors import UnsupportedModelError
from secateur.keras.walk import named_variables

if TYPE_CHECKING:
    from secateur.keras.protocols import Model, Variable


def carry_compile(
    source: Model, target: Model, counterparts: Mapping[int, Variable] | None = None
) -> None:
    """Compile `target` the way `source` is, with the same optimizer state; do nothing if it is not.

    Optimizers and metrics are made anew from their configs, custom ones included. Losses,
    functions and learning-rate schedules keep no state and are shared. Slots, step count and
    learning rate are copied if the optimizer has been used.

    Args:
        source: A model, compiled or not.
        target: A copy of it.
        counterparts: id of a variable of `source` -> the variable of `target` in its place; by
            default variables are paired by name.

    Raises:
        UnsupportedModelError: A metric or the optimizer cannot be made anew, or the optimizer was
            used on a variable that `target` lacks.
    """
    if compile_alike(source, target) and source.optimizer is not None and source.optimizer.built:
        _copy_optimizer_state(source, target, counterparts or _paired_by_name(source, target))


def compile_alike(source: Model, target: Model) -> bool:
    """Compile `target` the way `source` is, with a fresh optimizer; say whether `source` was.

    Args:
        source: A model, compiled or not.
        target: A model with the same outputs.

    Raises:
        UnsupportedModelError: A metric or the optimizer cannot be made anew.
    """
    if not source.compiled or not hasattr(source, "_compile_config"):
        return False
    target.compile(**{key: _copy(value) for key, value in source._compile_config.config.items()})
    return True


def _copy(value: Any) -> Any:
    """Copy nested metrics and optimizers; everything else passes through."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copy(inner) for inner in value)
    if isinstance(value, keras.Metric):
        return _copy_metric(value)
    if isinstance(value, keras.optimizers.Optimizer):
        return _copy_optimizer(value)
    return value


def _copy_metric(metric: Any) -> Any:
    if type(metric) is keras.metrics.MeanMetricWrapper:
        return keras.metrics.MeanMetricWrapper(
            metric._fn, name=metric.name, dtype=metric._dtype_policy, **metric._fn_kwargs
        )
    with _made_anew(metric):
        copied = type(metric).from_config(metric.get_config())
    if keeps_settings(metric):
        return copied
    raise UnsupportedModelError(
        f"Metric {metric.name!r} ({type(metric).__name__}) of the model cannot be copied: "
        "its config leaves out some of its settings. Prune a model that is not compiled and "
        "compile the result."
    )


def keeps_settings(thing: Any) -> bool:
    """Whether the config of a loss or metric has all of its settings.

    That of `keras.losses.Huber`, for one, leaves out `delta` (Keras 3.15).
    """
    settings = getattr(thing, "_fn_kwargs", None)
    if settings is None:
        return True
    with _made_anew(thing):
        again = type(thing).from_config(thing.get_config())
    return bool(getattr(again, "_fn_kwargs", None) == settings)


def _copy_optimizer(optimizer: Any) -> Any:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return type(optimizer)(
            _copy_optimizer(optimizer.inner_optimizer),
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
            name=optimizer.name,
        )
    with _made_anew(optimizer):
        config = optimizer.get_config()
        schedule = optimizer._learning_rate
        if callable(schedule) and not isinstance(schedule, keras.Variable):
            config["learning_rate"] = schedule
        return type(optimizer).from_config(config)


@contextmanager
def _made_anew(thing: Any) -> Iterator[None]:
    try:
        with _known(thing):
            yield
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(thing).__name__} {thing.name!r} of the compiled model cannot be copied: "
            f"{type(error).__name__}: {error}. Give it a get_config() that returns the arguments "
            "of "
            "__init__; or prune a model that is not compiled and compile the result."
        ) from error


@contextmanager
def _known(thing: Any) -> Iterator[None]:
    """Let configs refer to the custom classes and functions that `thing` holds."""
    held = {
        getattr(value, "__name__", type(value).__name__): (
            value if isinstance(value, types.FunctionType) else type(value)
        )
        for value in vars(thing).values()
        if isinstance(value, types.FunctionType) or hasattr(type(value), "from_config")
    }
    with (
        warnings.catch_warnings(),
        keras.saving.custom_object_scope(held),
        serialization_lib.SafeModeScope(False),
    ):
        warnings.filterwarnings("ignore", message=".*includes a `lambda`")
        yield


def _paired_by_name(source: Model, target: Model) -> dict[int, Variable]:
    there = {named.name: named.variable for named in named_variables(target)}
    return {
        id(named.variable): there[named.name]
        for named in named_variables(source)
        if named.name in there
    }


def _copy_optimizer_state(
    source: Model, target: Model, counterparts: Mapping[int, Variable]
) -> None:
    trained = source.optimizer._trainable_variables
    missing = [variable.path for variable in trained if id(variable) not in counterparts]
    if missing:
        raise UnsupportedModelError(
            f"The optimizer of model {source.name!r} was used on variables that its copy lacks: "
            f"{', '.join(missing)}. Compile the model again before copying it."
        )
    # In the order of the source, so that the slots of both stand in the same order.
    target.optimizer.build([counterparts[id(variable)] for variable in trained])
    pairs = zip(source.optimizer.variables, target.optimizer.variables, strict=True)
    for old, new in pairs:
        new.assign(old.value)
