"""Calls as they are made in use: compiled where the backend compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A call of a function of tensors, compiled for these arguments; it waits for the result.

    Args:
        function: A model, layer, or any function of tensors.
        *arguments: Arrays or tensors, or lists or dicts of them.
    """
    given = tree.map_structure(ops.convert_to_tensor, arguments)
    leaves = tree.flatten(given)

    def flat(*own: Any) -> Any:
        return function(*tree.pack_sequence_as(given, own))

    run = _compile(flat, leaves)
    return lambda: tree.map_structure(ops.convert_to_numpy, run(*leaves))


def _compile(function: Callable[..., Any], given: Any) -> Callable[..., Any]:
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow

        # A concrete function: the many that are timed are no retracing that should be warned of.
        traced = tensorflow.function(function, autograph=False).get_concrete_function(*given)
        concrete: Callable[..., Any] = traced
        return concrete
    if backend == "jax":
        import jax

        jitted: Callable[..., Any] = jax.jit(function)
        return jitted
    return function
