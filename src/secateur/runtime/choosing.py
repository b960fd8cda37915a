"""Which kernel multiplies by a matrix.

Every candidate is timed on this CPU; dense has the benefit of the doubt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native import spmm
from secateur._kernels.native.spmm import Epilogue, Floats

Timer: TypeAlias = Callable[[Callable[[], object]], float]
Multiply: TypeAlias = Callable[[], object]

DENSE_ADVANTAGE = 1.05
"""A sparse kernel must be this much faster than dense to be taken."""

MAX_SMALL_ROWS = 16
MAX_CSR_ROWS = 4
MAX_DENSITY = 0.65
"""Above, no sparse kernel can win, so none is packed."""

MIN_SIZE = 4096
"""Matrices of fewer weights are multiplied in less time than it takes to choose."""

_MAX_FILL = 1.5
"""Blocks of several outputs are tried if they hold at most this many times the non-zeros."""


def time_best(run: Callable[[], object], *, repeats: int = 5) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    run()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


@dataclass(frozen=True)
class Kernel:
    """One way to multiply by a matrix.

    Attributes:
        name: "dense", "blocked 1x1", "blocked 4x1", "bitmask", "csr".
        scratch: rows -> floats of working memory.
        bind: (y, x, residual, scratch, epilogue) -> what runs.
        num_bytes: Of the packed weights.
    """

    name: str
    scratch: Callable[[int], int]
    bind: Callable[[Floats, Floats, Floats | None, Floats, Epilogue], Multiply]
    num_bytes: int


@dataclass
class Matrix:
    """A weight matrix, with the kernels chosen for it so far.

    Attributes:
        name: For reports.
        weights: (inputs, outputs), float32, as Keras keeps it.
        bias: (outputs,) or None.
        kernels: By number of rows.
    """

    name: str
    weights: Floats
    bias: Floats | None
    kernels: dict[int, Kernel] = field(default_factory=dict)
    packed: dict[str, Kernel] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """How many inputs it has."""
        return int(self.weights.shape[0])

    @property
    def outputs(self) -> int:
        """How many outputs it has."""
        return int(self.weights.shape[1])

    @property
    def density(self) -> float:
        """Share of weights that are not zero."""
        size = self.weights.size
        return float(np.count_nonzero(self.weights)) / size if size else 0.0

    def kernel(self, rows: int, timer: Timer) -> Kernel:
        """The kernel for this many rows, timed at the first call."""
        if rows not in self.kernels:
            self.kernels[rows] = _choose(self, rows, timer)
            used = {kernel.name for kernel in self.kernels.values()}
            self.packed = {name: kernel for name, kernel in self.packed.items() if name in used}
        return self.kernels[rows]


def _no_scratch(rows: int) -> int:
    del rows
    return 0


def dense_kernel(matrix: Matrix) -> Kernel:
    """NumPy's BLAS, then bias, activation and residual in one pass."""
    weights = np.ascontiguousarray(matrix.weights)
    bias = matrix.bias

    def bind(
        y: Floats, x: Floats, residual: Floats | None, scratch: Floats, epilogue: Epilogue
    ) -> Multiply:
        del scratch
        if bias is None and residual is None and epilogue.number == 0:
            return lambda: np.matmul(x, weights, out=y)

        def run() -> None:
            np.matmul(x, weights, out=y)
            spmm.finish_rows(y, bias, residual, epilogue)

        return run

    return Kernel("dense", _no_scratch, bind, weights.nbytes)


def blocked_kernel(matrix: Matrix, height: int, block: int) -> Kernel:
    """Blocks of `height` outputs x 1 input, samples in the vector direction."""
    packed = spmm.pack_blocked(matrix.weights.T, height, block)
    bias = matrix.bias

    def bind(
        y: Floats, x: Floats, residual: Floats | None, scratch: Floats, epilogue: Epilogue
    ) -> Multiply:
        return lambda: spmm.multiply_blocked(packed, x, y, bias, residual, epilogue, scratch)

    return Kernel(f"blocked {height}x1", packed.scratch_floats, bind, packed.num_bytes())


def small_kernel(matrix: Matrix, name: str) -> Kernel:
    """Weights in the vector direction, for few samples."""
    pack: Any = spmm.pack_bitmask if name == "bitmask" else spmm.pack_short_csr
    packed = pack(matrix.weights.T)
    bias = matrix.bias

    def bind(
        y: Floats, x: Floats, residual: Floats | None, scratch: Floats, epilogue: Epilogue
    ) -> Multiply:
        del scratch
        return lambda: spmm.multiply_small(packed, x, y, bias, residual, epilogue)

    return Kernel(name, _no_scratch, bind, packed.num_bytes())


def candidates(matrix: Matrix, rows: int) -> Iterator[Kernel]:
    """The sparse kernels that could be worth it."""
    density = matrix.density
    if density > MAX_DENSITY or matrix.weights.size < MIN_SIZE:
        return
    # 64 samples of 128 inputs are 32 KiB; one packing serves every number of rows.
    block = 128
    yield _once(matrix, "blocked 1x1", partial(blocked_kernel, matrix, 1, block))
    for height in (4, 8):
        if _fill(matrix.weights, height) <= _MAX_FILL * density:
            tall = partial(blocked_kernel, matrix, height, block)
            yield _once(matrix, f"blocked {height}x1", tall)
    if rows <= MAX_SMALL_ROWS:
        yield _once(matrix, "bitmask", lambda: small_kernel(matrix, "bitmask"))
    if rows <= MAX_CSR_ROWS and matrix.inputs <= spmm.MAX_CSR_INPUTS:
        yield _once(matrix, "csr", lambda: small_kernel(matrix, "csr"))


def _once(matrix: Matrix, name: str, make: Callable[[], Kernel]) -> Kernel:
    if name not in matrix.packed:
        matrix.packed[name] = make()
    return matrix.packed[name]


def _fill(weights: NDArray[Any], height: int) -> float:
    """Share of weights in blocks of `height` outputs that hold a non-zero."""
    inputs, outputs = weights.shape
    whole = outputs // height * height
    blocks = (weights[:, :whole] != 0).reshape(inputs, -1, height).any(axis=2)
    held = np.count_nonzero(blocks) * height + np.count_nonzero(weights[:, whole:])
    return float(held) / max(1, weights.size)


def _choose(matrix: Matrix, rows: int, timer: Timer) -> Kernel:
    dense = _once(matrix, "dense", lambda: dense_kernel(matrix))
    sparse = list(candidates(matrix, rows))
    if not sparse or rows == 0:
        return dense
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, matrix.inputs), np.float32)
    y = np.empty((rows, matrix.outputs), np.float32)

    def seconds(kernel: Kernel) -> float:
        scratch = np.empty(kernel.scratch(rows), np.float32)
        return timer(kernel.bind(y, x, None, scratch, Epilogue()))

    best, best_seconds = dense, seconds(dense) / DENSE_ADVANTAGE
    for kernel in sparse:
        taken = seconds(kernel)
        if taken < best_seconds:
            best, best_seconds = kernel, taken
    return best
