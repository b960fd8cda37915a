"""Checks of single arguments: what came, what was expected, how to mend it."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from secateur.errors import ArgumentTypeError, InvalidArgumentError


def check_switch(name: str, value: object) -> None:
    """Refuse what is neither True nor False: "no" would count as True.

    Raises:
        ArgumentTypeError: It is not one.

    Example:
        >>> check_switch("inplace", "no")
        Traceback (most recent call last):
        secateur.errors.ArgumentTypeError: inplace must be True or False, got 'no'.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentTypeError(f"{name} must be True or False, got {value!r}.")


def check_damping(value: object, usual: float | None = None) -> None:
    """Refuse a damping that is no positive, finite number.

    Args:
        value: The damping.
        usual: What the message is to name as the usual one.

    Raises:
        ArgumentTypeError: No number.
        InvalidArgumentError: Not positive, or not finite.

    Example:
        >>> check_damping(0.01)
    """
    said = "" if usual is None else f"; {usual} is the usual one"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise ArgumentTypeError(f"damping must be a positive number, got {value!r}{said}.")
    if not 0 < float(value) < math.inf:
        raise InvalidArgumentError(f"damping must be a positive number, got {value!r}{said}.")


def check_bytes(name: str, value: Any) -> None:
    """Refuse what is no number of bytes, a whole one of at least 0.

    Raises:
        ArgumentTypeError: No whole number.
        InvalidArgumentError: A negative one.

    Example:
        >>> check_bytes("memory", 1 << 30)
    """
    wanted = f"{name} is a number of bytes, such as 1 << 30"
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ArgumentTypeError(f"{wanted}; got {value!r}.")
    if number < 0:
        raise InvalidArgumentError(f"{wanted}, and at least 0; got {number}.")


def check_callable(name: str, value: object, called: str) -> None:
    """Refuse what cannot be called, where there is anything.

    Args:
        name: The argument.
        value: What came; None for nothing.
        called: How it will be called, such as "progress(name)".

    Raises:
        ArgumentTypeError: It cannot be called.

    Example:
        >>> check_callable("progress", print, "progress(name)")
    """
    if value is not None and not callable(value):
        raise ArgumentTypeError(f"{name} must be a function, called as {called}; got {value!r}.")


def as_names(name: str, value: Any) -> Collection[str]:
    """Names as a collection; a single one counts as a collection of one.

    Raises:
        ArgumentTypeError: Neither a string nor a collection of strings.

    Example:
        >>> as_names("include", "dense")
        ('dense',)
    """
    if isinstance(value, str):
        return (value,)
    names = tuple(value) if isinstance(value, Iterable) else (value,)
    if not isinstance(value, Iterable) or not all(isinstance(own, str) for own in names):
        raise ArgumentTypeError(
            f"{name} must be a name or a list of names, such as ['dense']; got {value!r}."
        )
    return names
