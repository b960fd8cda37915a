"""Which width a layer is cut to, when times of its widths are known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

_MULTIPLES = (1, 4, 8, 16, 32)
_SIMPLE = 4
TOLERANCE = 0.04
"""Times that differ by less, relative, count as equal."""


@dataclass(frozen=True)
class Width:
    """A width that was settled for one group.

    Attributes:
        kept: Units that stay.
        note: Why, for the plan.
        slow: Whether the cut is not faster than leaving the group whole.
    """

    kept: int
    note: str = ""
    slow: bool = False


def candidates(asked: int, width: int, span: int = 1) -> list[int]:
    """Widths worth a try: the asked one, and the next multiples of 4, 8, 16 and 32 positions.

    Never below what was asked for: no unit goes that was to stay.

    Args:
        asked: Units that are to stay, 1 to `width`.
        width: Units there are.
        span: Positions that one unit takes.

    Example:
        >>> candidates(50, 100)
        [50, 52, 56, 64]
    """
    steps = [multiple // math.gcd(multiple, span) for multiple in _MULTIPLES]
    return sorted({min(width, -(-asked // step) * step) for step in steps})


def pick(times: Mapping[int, float], span: int = 1, tolerance: float = TOLERANCE) -> int:
    """The smallest of the fastest widths, and among equals rather a multiple of 4 positions.

    A larger width that is as fast as a smaller one costs nothing and keeps more; one that is not
    faster than a simple smaller one keeps more than is needed.

    Args:
        times: Seconds per width.
        span: Positions that one unit takes.
        tolerance: Relative differences that count as none.

    Example:
        >>> pick({50: 1.31, 52: 1.0, 56: 0.99, 64: 1.2})
        52
        >>> pick({50: 1.0, 52: 1.01, 56: 1.2, 64: 1.3})
        52
        >>> pick({50: 1.0, 52: 1.3, 56: 1.2, 64: 1.3})
        50
    """
    best = min(times.values())
    fast = sorted(width for width, time in times.items() if time <= best * (1 + tolerance))
    simple = [width for width in fast if width * span % _SIMPLE == 0]
    return (simple or fast)[0]


def settle(
    times: Mapping[int, float], asked: int, width: int, span: int = 1, *, fixed: bool = False
) -> Width:
    """Pick a width, and say why.

    Args:
        times: Seconds for every candidate and for `width`, the whole.
        asked: Units that were to stay.
        width: Units there are.
        span: Positions that one unit takes.
        fixed: The asked width stands; only whether it is faster is of interest.

    Example:
        >>> settle({6: 0.002, 8: 0.001, 10: 0.003}, 6, 10)
        Width(kept=8, note='align=auto: 6 would take 2 ms, 8 take 1 ms, all 10 take 3 ms', slow=False)
    """
    smaller = {own: time for own, time in times.items() if own < width}
    kept = asked if fixed or not smaller else pick(smaller, span)
    if kept >= width or not smaller:
        return Width(kept)
    slow = times[kept] > times[width] * (1 - TOLERANCE)
    parts = [f"{kept} take {_milliseconds(times[kept])}", f"all {width} take "]
    parts[1] += _milliseconds(times[width])
    if kept != asked:
        parts.insert(0, f"{asked} would take {_milliseconds(times[asked])}")
    told = "align=auto: " + ", ".join(parts)
    return Width(kept, f"not faster here; {told}" if slow else told, slow)


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
