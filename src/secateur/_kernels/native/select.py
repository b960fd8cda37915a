"""Selection: which of the numbers in several arrays go when exactly k must, and taking them out.

The arrays are ranked together but never concatenated or copied. What goes is said by three numbers
(`Cut`), whatever the size of the arrays.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from secateur import _core
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError

Array: TypeAlias = npt.NDArray[Any]
Order: TypeAlias = Literal["magnitude", "value"]

_ORDER_CODES = {"magnitude": 0, "value": 1}
_DTYPE_CODES = {
    np.dtype(np.float16): 0,
    np.dtype(ml_dtypes.bfloat16): 1,
    np.dtype(np.float32): 2,
    np.dtype(np.float64): 3,
}
_BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}


class Cut(NamedTuple):
    """What goes: x at (segment, position) iff (key(x), segment, position) < this cut.

    Attributes:
        key: An unsigned integer that orders like |x| (the bits without the sign) or like x
            (2^(bits-1) plus or minus the bits without the sign); both zeros have the same.
        segment: Index of an array: of those that tie with the key, all in arrays before it go.
        position: Flat index in that array: those before it tie and go, too.
    """

    key: int
    segment: int
    position: int


class CutStatistics(NamedTuple):
    """What a cut did to one array.

    Attributes:
        num_removed: How many numbers went.
        largest_removed: The largest |x| (order "magnitude") or x ("value") that went, or None.
        smallest_kept: The smallest that stayed, or None.
    """

    num_removed: int
    largest_removed: float | None
    smallest_kept: float | None


def find_cut(arrays: Sequence[Array], k: int, order: Order = "magnitude") -> Cut:
    """Find the cut below which exactly `k` numbers of all `arrays` together lie.

    The cut names the first number that stays; of equals the one that stands earlier goes first.
    Its segment and position are 0 unless some of the numbers that tie with it go. Costs little more
    than one read of the arrays, and less than 64 MB of memory for 1e9 float32.

    Args:
        arrays: C-contiguous arrays of one dtype (float16, bfloat16, float32, float64), any shapes.
        k: How many go, 0 to the number of all elements.
        order: Rank by "magnitude" (|x|) or by "value" (x).

    Raises:
        InvalidArgumentError: An array or `k` cannot be used; the message says why.
        NonFiniteError: A number is NaN, or infinite where magnitude is ranked; `index` names the
            first array with such a number.

    Example:
        >>> weights = [np.float32([3, -1]), np.float32([[0.5, 1]])]
        >>> find_cut(weights, 2)  # 0.5 and -1 go; 1 ties with -1 but stands later
        Cut(key=1065353216, segment=1, position=1)
    """
    order_code = _order_code(order)
    if len(arrays) == 0:
        _check_count(k, 0)
        return Cut(0, 0, 0)
    dtype, bits = _bits_of(arrays)
    _check_count(k, sum(array.size for array in arrays))
    key, segment, position, non_finite = _core.find_cut(bits, dtype, order_code, operator.index(k))
    if non_finite is not None:
        raise _non_finite_error(non_finite, "NaN" if order == "value" else "NaN or infinite")
    return Cut(key, segment, position)


def cut_at(threshold: float, dtype: npt.DTypeLike, order: Order = "magnitude") -> Cut:
    """The cut below which exactly the numbers under a threshold lie.

    Args:
        threshold: x goes iff |x| (order "magnitude") or x ("value") < threshold, compared exactly:
            0 removes nothing by magnitude, infinity all that is finite.
        dtype: Of the arrays the cut is for.
        order: "magnitude" or "value".

    Raises:
        InvalidArgumentError: The threshold is NaN, or the dtype is not one of the four.

    Example:
        >>> cut_at(0.0, np.float32)
        Cut(key=0, segment=0, position=0)
    """
    if math.isnan(threshold):
        raise InvalidArgumentError("The threshold must be a number, got NaN.")
    return Cut(_core.cut_at(threshold, _dtype_code(np.dtype(dtype)), _order_code(order)), 0, 0)


def cut_value(cut: Cut, dtype: npt.DTypeLike, order: Order = "magnitude") -> float:
    """The number whose key a cut has: |x| (order "magnitude") or x ("value").

    Raises:
        InvalidArgumentError: No number of this dtype and order has the key.

    Example:
        >>> cut_value(cut_at(0.5, np.float16), np.float16)
        0.5
    """
    code = _dtype_code(np.dtype(dtype))
    _check_key(cut.key, np.dtype(dtype).itemsize)
    try:
        return _core.cut_value(cut.key, code, _order_code(order))
    except ValueError as error:
        raise _bad_key(cut.key) from error


def check_finite(arrays: Sequence[Array]) -> None:
    """Make sure that no number is NaN or infinite, in one read.

    Args:
        arrays: C-contiguous arrays of one dtype (float16, bfloat16, float32, float64), any shapes.

    Raises:
        InvalidArgumentError: An array cannot be used; the message says why.
        NonFiniteError: `index` names the first array with such a number.

    Example:
        >>> check_finite([np.float32([1, 2])])
    """
    if len(arrays) == 0:
        return
    dtype, bits = _bits_of(arrays)
    non_finite = _core.find_non_finite(bits, dtype)
    if non_finite is not None:
        raise _non_finite_error(non_finite, "NaN or infinite")


def apply_cut(
    arrays: Sequence[Array],
    cut: Cut,
    order: Order = "magnitude",
    *,
    out: Sequence[Array] | None = None,
    masks: Sequence[Array] | None = None,
) -> list[CutStatistics]:
    """Take out what lies below a cut, in one pass; with neither `out` nor `masks`, only count.

    Args:
        arrays: C-contiguous arrays of one dtype, as given to `find_cut`. NaN is not looked for.
        cut: From `find_cut` or `cut_at`, for the same dtype and order.
        order: "magnitude" or "value".
        out: Per array one of the same dtype and shape that gets x where it stays and +0 where it
            goes; may be the array itself.
        masks: Per array a bool array of the same shape that gets True where x stays.

    Returns:
        Per array how many went, the largest that went and the smallest that stayed.

    Raises:
        InvalidArgumentError: An array cannot be used, or outputs share memory.

    Example:
        >>> weights = np.float32([3, -1, 0.5])
        >>> apply_cut([weights], cut_at(1.0, np.float32), out=[weights])
        [CutStatistics(num_removed=1, largest_removed=0.5, smallest_kept=1.0)]
        >>> weights
        array([ 3., -1.,  0.], dtype=float32)
    """
    order_code = _order_code(order)
    out_bits = None if out is None else _outputs_of(arrays, out, "out", None)
    mask_bits = None if masks is None else _outputs_of(arrays, masks, "masks", np.dtype(np.bool_))
    if len(arrays) == 0:
        return []
    dtype, bits = _bits_of(arrays)
    _check_key(cut.key, arrays[0].dtype.itemsize)
    if cut.segment < 0 or cut.position < 0:
        raise InvalidArgumentError(f"A cut's segment and position must not be negative, got {cut}.")
    try:
        rows = _core.apply_cut(
            bits, dtype, order_code, cut.key, cut.segment, cut.position, out_bits, mask_bits
        )
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot apply {cut}: {error}.") from error
    return [CutStatistics(*row) for row in rows]


def apply_mask(values: Array, mask: Array, out: Array) -> None:
    """Write `values` where `mask` is True and +0 elsewhere.

    Args:
        values: C-contiguous, float16, bfloat16, float32 or float64, any shape.
        mask: C-contiguous, bool, of the same shape; True = keep.
        out: C-contiguous, of the same dtype and shape; may be `values`.

    Raises:
        InvalidArgumentError: An array cannot be used, or `out` shares memory in another way.

    Example:
        >>> weights = np.float32([1, 2])
        >>> apply_mask(weights, np.array([False, True]), weights)
        >>> weights
        array([0., 2.], dtype=float32)
    """
    dtype, bits = _bits_of([values])
    [mask_bits] = _outputs_of([values], [mask], "mask", np.dtype(np.bool_), written=False)
    [out_bits] = _outputs_of([values], [out], "out", None)
    try:
        _core.apply_mask(bits[0], mask_bits, out_bits, dtype)
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot apply the mask: {error}.") from error


def mask_statistics(values: Array, mask: Array, order: Order = "magnitude") -> CutStatistics:
    """What a mask that no cut made did to an array, in one read.

    Args:
        values: C-contiguous, float16, bfloat16, float32 or float64, any shape. NaN is not looked
            for.
        mask: C-contiguous, bool, of the same shape; True = stays.
        order: Whether the extremes are of |x| ("magnitude") or of x ("value").

    Returns:
        How many went, the largest that went and the smallest that stayed.

    Raises:
        InvalidArgumentError: An array cannot be used; the message says why.

    Example:
        >>> mask_statistics(np.float32([1, -2, 3]), np.array([False, True, True]))
        CutStatistics(num_removed=1, largest_removed=1.0, smallest_kept=2.0)
    """
    order_code = _order_code(order)
    dtype, bits = _bits_of([values])
    [mask_bits] = _outputs_of([values], [mask], "mask", np.dtype(np.bool_), written=False)
    return CutStatistics(*_core.mask_statistics(bits[0], mask_bits, dtype, order_code))


def count_zeros(array: Array) -> int:
    """How many zeros of either sign an array holds, in one parallel read.

    Args:
        array: C-contiguous, float16, bfloat16, float32 or float64, any shape, without NaN.

    Raises:
        InvalidArgumentError: The array cannot be used; the message says why.

    Example:
        >>> count_zeros(np.float32([0.0, -0.0, 1.0]))
        2
    """
    # The smallest number above zero has key 1.
    return apply_cut([array], Cut(1, 0, 0))[0].num_removed


def read_pass(array: Array) -> int:
    """Read an array once and do nothing else worth its time: the yardstick of all measurements.

    Args:
        array: C-contiguous, any dtype whose items have 1, 2, 4 or 8 bytes.

    Returns:
        The sum of its 64-bit words modulo 2^64.

    Example:
        >>> read_pass(np.arange(3, dtype=np.uint64))
        3
    """
    _check_layout(array, "array")
    return _core.read_pass(array.view(np.uint8 if array.itemsize == 1 else _BITS[array.itemsize]))


def _bits_of(arrays: Sequence[Array]) -> tuple[int, list[Array]]:
    """The dtype's code and the arrays seen as unsigned integers, none copied."""
    for i, array in enumerate(arrays):
        _check_layout(array, f"arrays[{i}]")
        if array.dtype != arrays[0].dtype:
            raise InvalidArgumentError(
                f"Arrays that are ranked together must have one dtype; arrays[0] has "
                f"{arrays[0].dtype}, arrays[{i}] has {array.dtype}. Convert with x.astype()."
            )
    code = _dtype_code(arrays[0].dtype)
    return code, [array.view(_BITS[array.itemsize]) for array in arrays]


def _outputs_of(
    arrays: Sequence[Array],
    outputs: Sequence[Array],
    name: str,
    dtype: np.dtype[Any] | None,
    *,
    written: bool = True,
) -> list[Array]:
    """The outputs seen as unsigned integers; `dtype` None means that of the arrays."""
    if len(outputs) != len(arrays):
        raise InvalidArgumentError(f"{name} has {len(outputs)} arrays for {len(arrays)} inputs.")
    views = []
    for i, (array, output) in enumerate(zip(arrays, outputs, strict=True)):
        _check_layout(output, f"{name}[{i}]")
        wanted = array.dtype if dtype is None else dtype
        if output.dtype != wanted or output.shape != array.shape:
            raise InvalidArgumentError(
                f"{name}[{i}] must have dtype {wanted} and shape {array.shape}, got dtype "
                f"{output.dtype} and shape {output.shape}."
            )
        if written and not output.flags.writeable:
            raise InvalidArgumentError(f"{name}[{i}] is read-only. Pass a copy: x.copy().")
        views.append(output.view(np.uint8 if output.itemsize == 1 else _BITS[output.itemsize]))
    return views


def _check_layout(array: Array, name: str) -> None:
    if not isinstance(array, np.ndarray):
        raise ArgumentTypeError(f"{name} must be a NumPy array, got {type(array).__name__}.")
    if not array.flags.c_contiguous:
        raise InvalidArgumentError(
            f"{name} of shape {array.shape} is not C-contiguous. Use np.ascontiguousarray(x)."
        )
    if not array.flags.aligned:
        raise InvalidArgumentError(f"{name} is not aligned in memory. Pass a copy: x.copy().")


def _dtype_code(dtype: np.dtype[Any]) -> int:
    code = _DTYPE_CODES.get(dtype)
    if code is None:
        raise InvalidArgumentError(
            "dtype must be float16, bfloat16, float32 or float64 in native byte order, "
            f"got {dtype}. Convert with x.astype()."
        )
    return code


def _order_code(order: Order) -> int:
    if order not in _ORDER_CODES:
        raise InvalidArgumentError(f"order must be 'magnitude' or 'value', got {order!r}.")
    return _ORDER_CODES[order]


def _check_count(k: int, total: int) -> None:
    if not 0 <= k <= total:
        raise InvalidArgumentError(
            f"k must be between 0 and {total}, the number of elements; got {k}."
        )


def _check_key(key: int, item_bytes: int) -> None:
    if not 0 <= key < 1 << (8 * item_bytes):
        raise _bad_key(key)


def _bad_key(key: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"No number of this dtype has key {key}. Use a cut that was made for this dtype and order."
    )


def _non_finite_error(index: int, what: str) -> NonFiniteError:
    return NonFiniteError(
        f"arrays[{index}] holds a number that is {what} and cannot be ranked. Replace it, or leave "
        "this array out.",
        index=index,
    )
