"""Numba kernels of output statistics and of swap search: the only module that imports Numba.

Every kernel is compiled for a signature that is written out here, on first use, so nothing that a
caller passes (a read-only array, another memory order) can set off another compilation. All stand
in this one file because Numba's cache on disk notices a change in the kernel's own file only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

_VECTOR = types.Array(types.float64, 1, "C")
_FROZEN_VECTOR = types.Array(types.float64, 1, "C", readonly=True)
_ELEMENTS = {"float32": types.float32, "float64": types.float64}


def _compile(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    signature = types.void(*arguments)
    try:
        return njit(signature, nogil=True, cache=True, error_model="numpy")(function)  # type: ignore[no-any-return]
    except RuntimeError as error:
        # Numba refuses to cache when neither the package nor the user's cache directory can be
        # written (a container with a made-up user): the kernel is the same, only compiled anew.
        if "no locator available" not in str(error):
            raise
        return njit(signature, nogil=True, error_model="numpy")(function)  # type: ignore[no-any-return]


def _array(dtype: str, ndim: int, *, readonly: bool) -> Any:
    return types.Array(_ELEMENTS[dtype], ndim, "C", readonly=readonly)


@functools.cache
def accumulate_kernel(dtype: str) -> Callable[..., None]:
    """Compile `_accumulate` for float32 or float64 outputs."""
    outputs = _array(dtype, 2, readonly=True)
    return _compile(_accumulate, outputs, _FROZEN_VECTOR, *[_VECTOR] * 4)


@functools.cache
def accumulate_relu_kernel(dtype: str) -> Callable[..., None]:
    """Compile `_accumulate_relu` for float32 or float64 pre-activations."""
    inputs = _array(dtype, 2, readonly=True)
    floats = (types.float64, types.float64)
    return _compile(_accumulate_relu, inputs, *floats, _FROZEN_VECTOR, *[_VECTOR] * 4)


@functools.cache
def activation_kernel(name: str, dtype: str) -> Callable[..., None]:
    """Compile the loop that applies one activation: `(z, slope, ceiling, out)`, flat arrays."""
    arrays = _array(dtype, 1, readonly=True), _array(dtype, 1, readonly=False)
    return _compile(_ACTIVATIONS[name], arrays[0], types.float64, types.float64, arrays[1])


@functools.cache
def norms_kernel(dtype: str) -> Callable[..., None]:
    """Compile `_norms` for float32 or float64 outputs."""
    return _compile(_norms, _array(dtype, 2, readonly=True), _VECTOR)


@functools.cache
def swap_kernel() -> Callable[..., None]:
    """Compile `_swap_rows` for float32 matrices."""
    matrix = _array("float32", 2, readonly=False)
    frozen = _array("float32", 2, readonly=True)
    mask = types.Array(types.boolean, 2, "C")
    counts = types.Array(types.int64, 1, "C")
    integers = (types.int64,) * 3
    return _compile(_swap_rows, frozen, matrix, matrix, mask, *integers, types.float64, counts)


@njit(error_model="numpy", forceinline=True)
def _add_four(  # type: ignore[no-untyped-def]
    o0, o1, o2, o3, unit, shift, abs_sum, dev_sum, dev_square, largest
):
    """Add four outputs of a unit to its sums, each accumulator loaded and stored once for all four."""
    k = shift[unit]
    a0, a1, a2, a3 = abs(o0), abs(o1), abs(o2), abs(o3)
    d0, d1, d2, d3 = o0 - k, o1 - k, o2 - k, o3 - k
    abs_sum[unit] += (a0 + a1) + (a2 + a3)
    dev_sum[unit] += (d0 + d1) + (d2 + d3)
    dev_square[unit] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    a0 = a0 if a0 > a1 else a1
    a2 = a2 if a2 > a3 else a3
    a0 = a0 if a0 > a2 else a2
    largest[unit] = a0 if a0 > largest[unit] else largest[unit]


@njit(error_model="numpy", forceinline=True)
def _add_one(  # type: ignore[no-untyped-def]
    o, unit, shift, abs_sum, dev_sum, dev_square, largest
):
    """Do as `_add_four` for the one, two or three rows that are left over."""
    size, deviation = abs(o), o - shift[unit]
    abs_sum[unit] += size
    dev_sum[unit] += deviation
    dev_square[unit] += deviation * deviation
    largest[unit] = size if size > largest[unit] else largest[unit]


def _accumulate(o, shift, abs_sum, dev_sum, dev_square, largest):  # type: ignore[no-untyped-def]
    """Add outputs (rows, units) to the sums of |o|, o - shift, (o - shift)^2 and to max |o|.

    Four rows a turn: with one row a turn the traffic between registers and cache, not memory, sets
    the pace.
    """
    rows, units = o.shape
    whole = rows - rows % 4
    for row in range(0, whole, 4):
        row0, row1, row2, row3 = o[row], o[row + 1], o[row + 2], o[row + 3]
        for unit in range(units):
            o0, o1 = np.float64(row0[unit]), np.float64(row1[unit])
            o2, o3 = np.float64(row2[unit]), np.float64(row3[unit])
            _add_four(o0, o1, o2, o3, unit, shift, abs_sum, dev_sum, dev_square, largest)
    for row in range(whole, rows):
        row0 = o[row]
        for unit in range(units):
            _add_one(np.float64(row0[unit]), unit, shift, abs_sum, dev_sum, dev_square, largest)


@njit(error_model="numpy", forceinline=True)
def _bent(x, slope, ceiling):  # type: ignore[no-untyped-def]
    """Compute the relu family without a branch; NaN and both infinities come out as NaN or Inf."""
    above = x if x > 0.0 else 0.0
    below = x - above
    capped = above if above < ceiling else ceiling
    return capped + slope * below


def _accumulate_relu(  # type: ignore[no-untyped-def]
    z, slope, ceiling, shift, abs_sum, dev_sum, dev_square, largest
):
    """Do as `_accumulate` on the relu family of pre-activations, fused: z is read once."""
    rows, units = z.shape
    whole = rows - rows % 4
    for row in range(0, whole, 4):
        row0, row1, row2, row3 = z[row], z[row + 1], z[row + 2], z[row + 3]
        for unit in range(units):
            o0 = _bent(np.float64(row0[unit]), slope, ceiling)
            o1 = _bent(np.float64(row1[unit]), slope, ceiling)
            o2 = _bent(np.float64(row2[unit]), slope, ceiling)
            o3 = _bent(np.float64(row3[unit]), slope, ceiling)
            _add_four(o0, o1, o2, o3, unit, shift, abs_sum, dev_sum, dev_square, largest)
    for row in range(whole, rows):
        row0 = z[row]
        for unit in range(units):
            o0 = _bent(np.float64(row0[unit]), slope, ceiling)
            _add_one(o0, unit, shift, abs_sum, dev_sum, dev_square, largest)


def _norms(o, out):  # type: ignore[no-untyped-def]
    """Write the l2 norm of each row of o (vectors, dim)."""
    vectors, dim = o.shape
    for row in range(vectors):
        total = 0.0
        for index in range(dim):
            value = np.float64(o[row, index])
            total += value * value
        out[row] = np.sqrt(total)


# The functions below call nothing in libm, are always inlined, and compute both sides of a choice
# before they choose: LLVM vectorises that and nothing else (exact gelu: 38 ns an element without,
# 12 with). All compute in float64 and round once on storing.


@njit(error_model="numpy", forceinline=True)
def _exp(x):  # type: ignore[no-untyped-def]
    """Compute e^x by 2^n e^r, |r| <= ln(2)/2, with a Taylor series of degree 13 for e^r."""
    bounded = x if x > -708.0 else -708.0
    bounded = bounded if bounded < 709.0 else 709.0
    # Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits of the mantissa.
    magic = bounded * 1.4426950408889634 + 6755399441055744.0
    n = magic - 6755399441055744.0
    r = (bounded - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    power = np.int64((np.float64(magic).view(np.int64) + 1023) << 52).view(np.float64)
    # The bounds would hide what is not finite, and what is too large; both must come out.
    value = p * power
    return (value if x < 709.782712893384 else np.inf) + 0.0 * x


@njit(error_model="numpy", forceinline=True)
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + _exp(-x))


@njit(error_model="numpy", forceinline=True)
def _tanh(x):  # type: ignore[no-untyped-def]
    # Below 2^-10 the quotient would lose the small numbers; x - x^3/3 has them to 1e-13 there.
    decay = _exp(-2.0 * abs(x))
    quotient = (1.0 - decay) / (1.0 + decay)
    signed = np.copysign(quotient, x)
    series = x - x * x * x * (1.0 / 3.0)
    return series if abs(x) < 0.0009765625 else signed


@njit(error_model="numpy", forceinline=True)
def _expm1(x):  # type: ignore[no-untyped-def]
    series = x * (1.0 + x * (0.5 + x * (1.0 / 6.0 + x * (1.0 / 24.0))))
    difference = _exp(x) - 1.0
    return series if abs(x) < 0.0009765625 else difference


@njit(error_model="numpy", forceinline=True)
def _erf(x):  # type: ignore[no-untyped-def]
    """Compute erf by the rational functions of Cephes (Moshier, ndtr.c) for |x| < 1 and above."""
    size = abs(x)
    size = size if size < 6.0 else 6.0
    y = size * size
    t = 9.60497373987051638749e0 * y + 9.00260197203842689217e1
    t = t * y + 2.23200534594684319226e3
    t = t * y + 7.00332514112805075473e3
    t = t * y + 5.55923013010394962768e4
    u = y + 3.35617141647503099647e1
    u = u * y + 5.21357949780152679795e2
    u = u * y + 4.59432382970980127987e3
    u = u * y + 2.26290000613890934246e4
    u = u * y + 4.92673942608635921086e4
    p = 2.46196981473530512524e-10 * size + 5.64189564831068821977e-1
    p = p * size + 7.46321056442269912687e0
    p = p * size + 4.86371970985681366614e1
    p = p * size + 1.96520832956077098242e2
    p = p * size + 5.26445194995477358631e2
    p = p * size + 9.34528527171957607540e2
    p = p * size + 1.02755188689515710272e3
    p = p * size + 5.57535335369399327526e2
    q = size + 1.32281951154744992508e1
    q = q * size + 8.67072140885989742329e1
    q = q * size + 3.54937778887819891062e2
    q = q * size + 9.75708501743205489753e2
    q = q * size + 1.82390916687909736289e3
    q = q * size + 2.24633760818710981792e3
    q = q * size + 1.65666309194161350182e3
    q = q * size + 5.57535340817727675546e2
    inner = size * t / u
    outer = 1.0 - _exp(-y) * p / q
    return np.copysign(inner if size < 1.0 else outer, x)


@njit(error_model="numpy", forceinline=True)
def _log1p_exp(x):  # type: ignore[no-untyped-def]
    """Compute log(1 + e^x) as max(x, 0) + 2 artanh(s), s = t / (2 + t) <= 1/3, t = e^-|x|."""
    t = _exp(-abs(x))
    s = t / (2.0 + t)
    y = s * s
    p = 1.0 / 27.0
    p = p * y + 1.0 / 25.0
    p = p * y + 1.0 / 23.0
    p = p * y + 1.0 / 21.0
    p = p * y + 1.0 / 19.0
    p = p * y + 1.0 / 17.0
    p = p * y + 1.0 / 15.0
    p = p * y + 1.0 / 13.0
    p = p * y + 1.0 / 11.0
    p = p * y + 1.0 / 9.0
    p = p * y + 1.0 / 7.0
    p = p * y + 1.0 / 5.0
    p = p * y + 1.0 / 3.0
    p = p * y + 1.0
    return (x if x > 0.0 else 0.0) + 2.0 * s * p


def _relu_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        out[index] = _bent(np.float64(z[index]), slope, ceiling)


def _tanh_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        out[index] = _tanh(np.float64(z[index]))


def _sigmoid_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        out[index] = _sigmoid(np.float64(z[index]))


def _hard_sigmoid_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        x = np.float64(z[index])
        out[index] = _bent(x + 3.0, 0.0, 6.0) / 6.0


def _silu_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        x = np.float64(z[index])
        out[index] = x * _sigmoid(x)


def _hard_silu_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        x = np.float64(z[index])
        out[index] = x * _bent(x + 3.0, 0.0, 6.0) / 6.0


def _gelu_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        x = np.float64(z[index])
        out[index] = 0.5 * x * (1.0 + _erf(x * 0.7071067811865476)) + 0.0 * x


def _gelu_tanh_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        x = np.float64(z[index])
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        # 1 + tanh(y) is 2 sigmoid(2 y), which does not cancel where y is very negative.
        out[index] = x * _sigmoid(2.0 * inner)


def _elu_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        x = np.float64(z[index])
        low = slope * _expm1(x)
        out[index] = x if x > 0.0 else low


def _selu_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        x = np.float64(z[index])
        low = 1.6732632423543772 * _expm1(x)
        out[index] = 1.0507009873554805 * (x if x > 0.0 else low)


def _softplus_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        out[index] = _log1p_exp(np.float64(z[index]))


def _exponential_loop(z, slope, ceiling, out):  # type: ignore[no-untyped-def]
    for index in range(z.size):
        out[index] = _exp(np.float64(z[index]))


_ACTIVATIONS = {
    "relu": _relu_loop,
    "tanh": _tanh_loop,
    "sigmoid": _sigmoid_loop,
    "hard_sigmoid": _hard_sigmoid_loop,
    "silu": _silu_loop,
    "hard_silu": _hard_silu_loop,
    "gelu": _gelu_loop,
    "gelu_tanh": _gelu_tanh_loop,
    "elu": _elu_loop,
    "selu": _selu_loop,
    "softplus": _softplus_loop,
    "exponential": _exponential_loop,
}


def _swap_rows(  # type: ignore[no-untyped-def]
    hessian, weight, residual, mask, group, candidates, max_swaps, tolerance, swaps
):
    """Exchange kept against removed weights of each row while that lowers tr((T - V) H (T - V)^T).

    H has unit diagonal and `residual` is (T - V) H. Taking out p and putting t at q changes the loss by
    v_p (2 r_p + v_p) - (r_q + v_p H_pq)^2 at the best t = r_q + v_p H_pq. Only the `candidates` kept
    weights that are cheapest to take out are tried; both places lie in the same `group` inputs.
    """
    rows, inputs = weight.shape
    cost = np.empty(inputs)
    for row in range(rows):
        v, r, kept = weight[row], residual[row], mask[row]
        for _ in range(max_swaps):
            for p in range(inputs):
                cost[p] = v[p] * (2.0 * r[p] + v[p]) if kept[p] else np.inf
            best, out_at, in_at = -tolerance, -1, -1
            for _ in range(candidates):
                p = int(np.argmin(cost))
                if not np.isfinite(cost[p]):
                    break
                start = p - p % group
                for q in range(start, min(start + group, inputs)):
                    if not kept[q]:
                        gain = np.float64(r[q]) + np.float64(v[p]) * hessian[p, q]
                        change = cost[p] - gain * gain
                        if change < best:
                            best, out_at, in_at = change, p, q
                cost[p] = np.inf
            if out_at < 0:
                break
            taken = v[out_at]
            put = np.float32(r[in_at] + taken * hessian[out_at, in_at])
            for j in range(inputs):
                r[j] += taken * hessian[out_at, j] - put * hessian[in_at, j]
            v[out_at], v[in_at] = np.float32(0.0), put
            kept[out_at], kept[in_at] = False, True
            swaps[row] += 1
