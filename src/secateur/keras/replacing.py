"""Names of a module that mean something else for a while, in one thread.

Keras offers no way to be told what a `call` does to symbolic tensors, so while a model is traced some
of its names are replaced. Other threads keep seeing what was there: the replacement asks
which thread it is in. One trace runs at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TRACING = threading.RLock()


@contextlib.contextmanager
def one_trace_at_a_time() -> Iterator[None]:
    """Wait until no other thread traces a model."""
    with _TRACING:
        yield


def here_only(function: Callable[..., Any], elsewhere: Callable[..., Any]) -> Callable[..., Any]:
    """`function` in this thread, `elsewhere` in all others.

    Example:
        >>> chosen = here_only(lambda: "here", lambda: "elsewhere")
        >>> seen = [chosen()]
        >>> other = threading.Thread(target=lambda: seen.append(chosen()))
        >>> other.start(); other.join(); seen
        ['here', 'elsewhere']
    """
    owner = threading.get_ident()

    def chosen(*args: Any, **kwargs: Any) -> Any:
        own = threading.get_ident() == owner
        return function(*args, **kwargs) if own else elsewhere(*args, **kwargs)

    return chosen


@contextlib.contextmanager
def replaced_here(module: Any, functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Replace functions of a module for this thread, while this lasts.

    Args:
        module: The module.
        functions: What its names stand for meanwhile.
    """
    with _TRACING:
        before = {name: getattr(module, name) for name in functions}
        try:
            for name, function in functions.items():
                setattr(module, name, here_only(function, before[name]))
            yield
        finally:
            for name, function in before.items():
                setattr(module, name, function)
