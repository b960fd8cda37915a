"""The one table of rules: how each layer and op passes labels on, and how it shrinks.

A rule is a function of a `Site`, one call of one layer or op. It reads the labels of the inputs,
says which slots index
each weight and each output axis, and which entries of the config (or arguments of the call) follow.
See `dense` in
`linear.py` for the pattern.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from secateur.errors import ArgumentTypeError
from secateur.keras.cut_rules.site import Site
from secateur.keras.flatten import Opener

Rule = Callable[[Site], None]

_LAYERS: dict[str, Rule] = {}
_OPS: dict[str, Rule] = {}
_CUSTOM: dict[type, Rule] = {}
_OPENERS: dict[str, Opener] = {}


def layer(*names: str) -> Callable[[Rule], Rule]:
    """Row for stock layers, by class name."""
    return _adder(_LAYERS, names)


def op(*names: str) -> Callable[[Rule], Rule]:
    """Row for `keras.ops`, by the class name of the recorded operation."""
    return _adder(_OPS, names)


def opens(*names: str) -> Callable[[Opener], Opener]:
    """What to trace in place of a layer's own `call`, by "package>Class"."""

    def add(opener: Opener) -> Opener:
        _OPENERS.update(dict.fromkeys(names, opener))
        return opener

    return add


def opener_of(operation: Any) -> Opener | None:
    """The opener of a layer, or None."""
    if type(operation) in _CUSTOM:
        return None
    if is_stock(operation):
        return _OPENERS["*"] if has_foreign_activation(operation) else None
    package = type(operation).__module__.split(".")[0]
    return _OPENERS.get(f"{package}>{type(operation).__name__}")


def has_foreign_activation(operation: Any) -> bool:
    """Whether a stock layer applies a function that Keras does not define."""
    function = getattr(operation, "activation", None)
    if function is None or isinstance(operation, keras.layers.RNN) or not callable(function):
        return False
    module = getattr(function, "__module__", "") or type(function).__module__
    return str(module).split(".")[0] != "keras"


def _adder(rows: dict[str, Rule], names: tuple[str, ...]) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        rows.update(dict.fromkeys(names, rule))
        return rule

    return add


def register_rule(layer_class: type, rule: Rule | None = None) -> Any:
    """Teach secateur to cut a layer of yours.

    Args:
        layer_class: A subclass of `keras.layers.Layer`; instances of exactly this class follow the
            rule.
        rule: A function of a `Site`. Left out, `register_rule(Layer)` is a decorator.

    Raises:
        ArgumentTypeError: `layer_class` is no layer or operation class, or `rule` cannot be called.

    Example:
        >>> import keras
        >>> class Double(keras.layers.Layer):
        ...     def call(self, x):
        ...         return 2 * x
        >>> @register_rule(Double)
        ... def double(site):
        ...     site.output(*site.axes())
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Operation)):
        raise ArgumentTypeError(f"register_rule needs a layer class, got {layer_class!r}.")
    if rule is None:
        return lambda function: register_rule(layer_class, function)
    if not callable(rule):
        raise ArgumentTypeError(f"A rule is a function of a Site, got {type(rule).__name__}.")
    _CUSTOM[layer_class] = rule
    return rule


def is_stock(operation: Any) -> bool:
    """Whether Keras itself defines the class of a layer or op."""
    return type(operation).__module__.split(".")[0] == "keras"


def find(operation: Any) -> Rule | None:
    """The rule for a layer or op, or None."""
    if type(operation) in _CUSTOM:
        return _CUSTOM[type(operation)]
    if not is_stock(operation):
        return None
    rows = _LAYERS if isinstance(operation, keras.layers.Layer) else _OPS
    return rows.get(type(operation).__name__)


def is_leaf(operation: Any) -> bool:
    """Whether a layer is taken whole: it has a rule, or is a stock layer, not a model or Lambda."""
    if type(operation) in _CUSTOM:
        return True
    if isinstance(operation, (keras.Model, keras.layers.Lambda)):
        return False
    return type(operation).__module__.startswith("keras.src.layers")
