"""How a weight array of any rank is seen as an (out, in) matrix.

A layout has one letter per axis of the array: `i` for an axis that is summed over (an input of the
layer, or a tap of a convolution) and `o` for one that appears in the output. `*` repeats the letter
before it as often as needed, none included. A Dense kernel is "io", a convolution's of any rank
"i*o".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any, TypeAlias

import numpy as np

from secateur.errors import InvalidArgumentError

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class MatrixView:
    """A weight array seen as a matrix.

    Attributes:
        to_matrix: Takes a C-contiguous array of the weight's shape and gives the 2-D view of it.
        num_outputs: Outputs of the layer that the weight feeds. Row r of the matrix feeds output
            r % num_outputs; the matrix has a multiple of `num_outputs` rows.
        interleaved: Empty, or why the rows are not outputs and the columns not inputs. Such a
            matrix serves where every weight stands alone, not for n:m, blocks or whole rows.
    """

    to_matrix: Callable[[Array], Array]
    num_outputs: int
    interleaved: str = ""


def check_layout(layout: str) -> str:
    """Return `layout` if it is well formed.

    Raises:
        InvalidArgumentError: It is not made of `i`, `o` and at most one `*`.

    Example:
        >>> check_layout("i*o")
        'i*o'
    """
    if not re.fullmatch(r"[io]+(\*[io]*)?", layout):
        raise InvalidArgumentError(
            "A layout has one letter per axis, 'i' for inputs and 'o' for outputs, and may "
            "repeat one "
            f"with '*', such as 'io' or 'i*o'; got {layout!r}."
        )
    return layout


def expand_layout(layout: str, rank: int) -> str:
    """One letter per axis of an array of `rank` axes.

    Raises:
        InvalidArgumentError: The layout cannot have that many axes.

    Example:
        >>> expand_layout("i*oi", 4)
        'iioi'
    """
    check_layout(layout)
    head, star, tail = layout.partition("*")
    if star:
        repeats = rank - len(head) - len(tail) + 1
        if repeats >= 0:
            return head[:-1] + head[-1] * repeats + tail
    elif len(head) == rank:
        return head
    raise InvalidArgumentError(f"Layout {layout!r} does not fit a weight of {rank} axes.")


def view_as_matrix(layout: str, shape: tuple[int, ...]) -> MatrixView:
    """The matrix view of an array of `shape` under `layout`; nothing is ever copied.

    Where inputs stand before outputs or after them, the matrix is exactly (out, in). Where inputs
    stand on both sides, as in a transposed convolution's (kh, kw, out, in), no (out, in) view
    exists in two dimensions; the view is then ((kh, kw, out), in), each row still feeding one
    output. Any other order is `interleaved`.

    Args:
        layout: As described in this module.
        shape: Shape of the weight, at least one axis.

    Raises:
        InvalidArgumentError: The layout does not fit the rank.

    Example:
        >>> view = view_as_matrix("io", (3, 2))
        >>> view.to_matrix(np.zeros((3, 2))).shape
        (2, 3)
    """
    letters = expand_layout(layout, len(shape))
    num_outputs = prod(size for letter, size in zip(letters, shape, strict=True) if letter == "o")
    num_inputs = prod(size for letter, size in zip(letters, shape, strict=True) if letter == "i")
    runs = "".join(letter for letter, _ in groupby(letters))
    if runs in ("io", "i"):
        return MatrixView(lambda array: array.reshape(num_inputs, num_outputs).T, num_outputs)
    if runs in ("oi", "o"):
        return MatrixView(lambda array: array.reshape(num_outputs, num_inputs), num_outputs)
    if runs == "ioi":
        split = len(letters.rstrip("i"))
        rows, last = prod(shape[:split]), prod(shape[split:])
        return MatrixView(lambda array: array.reshape(rows, last), num_outputs)
    return MatrixView(
        lambda array: array.reshape(prod(shape[:-1]), shape[-1]),
        num_outputs,
        f"inputs and outputs alternate in its axes ({letters}, shape {shape}), "
        "so no (out, in) view exists",
    )
