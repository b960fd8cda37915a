"""Which weights may be removed together: single ones, n:m groups or rectangular blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from secateur.errors import ArgumentTypeError, InvalidArgumentError

_MAX_M = 32


@dataclass(frozen=True)
class Unstructured:
    """Every weight stands alone.

    Example:
        >>> str(Unstructured())
        'unstructured'
    """

    def __str__(self) -> str:
        return "unstructured"


@dataclass(frozen=True)
class NM:
    """Of every `m` consecutive inputs of an output, the `n` most salient are kept.

    Matrices are (out, in); groups run along `in`. A last group shorter than `m` is treated as if it
    were filled up with zeros: it keeps its `n` best, or all it has.

    Attributes:
        n: Weights kept per group, 0 <= n <= m.
        m: Group length, 1 <= m <= 32.

    Example:
        >>> NM(2, 4).sparsity
        0.5
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.m <= _MAX_M or not 0 <= self.n <= self.m:
            raise InvalidArgumentError(
                f"An n:m pattern keeps n of m consecutive inputs, 0 <= n <= m <= {_MAX_M}; "
                f"got {self.n}:{self.m}."
            )

    @property
    def sparsity(self) -> float:
        """Fraction of zeros that the pattern makes in groups of full length."""
        return 1.0 - self.n / self.m

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Block:
    """Rectangles of `rows` outputs by `cols` inputs stay or go as one.

    The grid starts at the first output and input; blocks at the far edges may be smaller.

    Attributes:
        rows: Outputs per block, at least 1.
        cols: Inputs per block, at least 1.

    Example:
        >>> str(Block(4, 1))
        'block:4x1'
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise InvalidArgumentError(
                f"A block needs at least 1 row and 1 column, got {self.rows}x{self.cols}."
            )

    def __str__(self) -> str:
        return f"block:{self.rows}x{self.cols}"


Pattern: TypeAlias = Unstructured | NM | Block


def parse_pattern(pattern: str | Pattern) -> Pattern:
    """Turn a pattern's string form into the pattern; patterns pass through.

    Args:
        pattern: `"unstructured"`, `"n:m"` such as `"2:4"` (2 kept of 4), or `"block:RxC"` such as
            `"block:4x1"` (4 outputs by 1 input).

    Raises:
        InvalidArgumentError: The string is none of these, or its numbers are out of range.
        ArgumentTypeError: Neither a string nor a pattern.

    Example:
        >>> parse_pattern("2:4")
        NM(n=2, m=4)
    """
    if isinstance(pattern, (Unstructured, NM, Block)):
        return pattern
    if not isinstance(pattern, str):
        raise ArgumentTypeError(
            f"pattern must be a string or a pattern object, got {type(pattern).__name__}."
        )
    if pattern == "unstructured":
        return Unstructured()
    if found := re.fullmatch(r"(\d+):(\d+)", pattern):
        return NM(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"block:(\d+)x(\d+)", pattern):
        return Block(int(found[1]), int(found[2]))
    raise InvalidArgumentError(
        f"Unknown pattern {pattern!r}; expected 'unstructured', 'n:m' such as '2:4', or 'block:RxC' "
        "such as 'block:4x1'."
    )
