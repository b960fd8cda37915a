"""Building a model without memory for its variables, and giving them values afterwards.

Inside a `keras.StatelessScope` variables get a shape but no value. Keras keeps them in a
process-wide list and would run their initialisers at the end of whatever scope closes next, so they
are taken out of that list again, whatever happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import keras
from keras.src.backend.common import global_state

from secateur.errors import FileFormatError
from secateur.keras.variables import variable_shape

if TYPE_CHECKING:
    from secateur.keras.protocols import Variable

_PENDING = "uninitialized_variables"


class Deferred(list["Variable"]):
    """The variables made while deferring, at most `budget` numbers in all if a budget is set."""

    def __init__(self, budget: int | None) -> None:
        super().__init__()
        self._budget = budget
        self._used = 0

    def append(self, variable: Variable) -> None:
        """Take in a variable that Keras has just made.

        The check stands here, not after the model is built, because some layers read their
        variables while they are built, and the initialiser that answers takes the memory.
        """
        self._used += prod(variable_shape(variable))
        if self._budget is not None and self._used > self._budget:
            raise FileFormatError(
                f"The model's configuration asks for more weights than the {self._budget} numbers "
                "the "
                f"file holds; variable {variable.name!r} has shape {variable_shape(variable)}."
            )
        super().append(variable)


@contextmanager
def deferred_variables(budget: int | None = None) -> Iterator[Deferred]:
    """Within the block, variables that are made get no values: see `set_value`.

    Args:
        budget: Most numbers that the variables may have in all; None for no limit.

    Raises:
        FileFormatError: The budget is exceeded.
    """
    before = global_state.get_global_attribute(_PENDING)
    deferred = Deferred(budget)
    global_state.set_global_attribute(_PENDING, deferred)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield deferred
    finally:
        global_state.set_global_attribute(_PENDING, before if before is not None else [])


def is_deferred(variable: Variable) -> bool:
    """Whether a variable has a shape but no value yet."""
    return variable._value is None


def set_value(variable: Variable, value: Any) -> None:
    """Give a variable a value, its first one where it was deferred.

    Args:
        variable: The variable.
        value: A tensor or array of its shape and dtype.
    """
    if not is_deferred(variable):
        variable.assign(value)
        return
    # The initialiser that the layer chose would fill memory only for it to be overwritten.
    variable._initializer = lambda _, dtype: keras.ops.convert_to_tensor(value, dtype=dtype)
    variable._deferred_initialize()
