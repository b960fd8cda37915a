"""Which kernel multiplies by a matrix.

Few candidates are packed and timed on this CPU, and dense has the benefit of the doubt. Matrices that
are alike (shape, share and shape of the non-zeros) are decided on together, by the first of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np

from secateur._kernels.native import spmm
from secateur._kernels.native.spmm import Epilogue, Floats

Multiply: TypeAlias = Callable[[], object]
Timer: TypeAlias = Callable[[Multiply, Multiply], float]
"""(what to time, what to do before each run of it) -> seconds."""

DENSE_ADVANTAGE = 1.05
"""A sparse kernel must be this much faster than dense to be taken."""

MAX_LOOKUP_ROWS = 8
MAX_BITMASK_ROWS = 16
MAX_CSR_ROWS = 4
MAX_CSR_DENSITY = 0.04
"""Above, sixteen outputs side by side are always faster than a gather."""

MIN_BITMASK_DENSITY = 0.05
"""Below, a word of sixteen weights holds too few non-zeros to be worth its arithmetic."""

MAX_BITMASK_DENSITY = 0.9
"""Above, a bit for each weight is more than what is saved."""

MAX_DENSITY = 0.65
"""Above, no other sparse kernel can win, so none is packed."""

MIN_SIZE = 4096
"""Matrices of fewer weights are multiplied in less time than it takes to choose."""

_MAX_FILL = 1.5
"""Blocks of several outputs are tried if they hold at most this many times the non-zeros."""

_GOOD_FILL = 1.1
"""Blocks that hold no more than this are taken without trying lower ones."""

_SECONDS = 0.004
"""How long a candidate is timed, if three runs do not take longer."""

_MAX_COLD_ROWS = 16
"""With more rows a product is bound by arithmetic, wherever its weights come from."""

_MAX_OTHERS = 1 << 26
"""Bytes; reading more between two runs changes nothing on caches of usual size."""


def time_best(run: Multiply, before: Multiply) -> float:
    """Seconds of the fastest of some runs, after one to warm up."""
    run()
    best, runs, end = float("inf"), 0, time.perf_counter() + _SECONDS
    while runs < 3 or (time.perf_counter() < end and runs < 20):
        before()
        start = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


_NOTHING = Epilogue()


@dataclass(frozen=True)
class Call:
    """The arrays of one product, y = activation(x W + bias) + residual.

    Attributes:
        y: (rows, outputs), written, or panels.
        x: (rows, inputs), or panels.
        rows: How many samples.
        scratch: As many floats as the kernel needs.
        residual: As many elements as y, or None.
        epilogue: The activation.
    """

    y: Floats
    x: Floats
    rows: int
    scratch: Floats
    residual: Floats | None = None
    epilogue: Epilogue = _NOTHING


@dataclass(frozen=True)
class Kernel:
    """One way to multiply by a matrix.

    Attributes:
        name: "dense", "blocked 1x1", "blocked 4x1", "lookup", "bitmask", "n:m", "csr".
        scratch: rows -> floats of working memory.
        bind: From arrays to what runs.
        num_bytes: Of the packed weights.
        takes_panels: Whether x and y may be in panels, see `spmm.multiply_blocked`.
    """

    name: str
    scratch: Callable[[int], int]
    bind: Callable[[Call], Multiply]
    num_bytes: int
    takes_panels: bool = False


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

    @cached_property
    def density(self) -> float:
        """Share of weights that are not zero."""
        size = self.weights.size
        return float(np.count_nonzero(self.weights)) / size if size else 0.0

    @cached_property
    def height(self) -> int:
        """The tallest blocks of outputs that hold few zeros beside the non-zeros, 1 to 8."""
        for height in (8, 4):
            if self.fill(height) <= _MAX_FILL:
                return height
        return 1

    @cached_property
    def is_even(self) -> bool:
        """Whether every sixteen inputs of an output have about as many non-zeros: n:m."""
        words = self.outputs * -(-self.inputs // 16)
        room = words * spmm.widest_word(self.weights.T)
        return room <= _GOOD_FILL * self.density * self.weights.size

    def fill(self, height: int) -> float:
        """Weights in blocks of `height` outputs with a non-zero, as a multiple of the non-zeros."""
        held = spmm.count_blocks(self.weights.T, height) * height
        return held / max(1.0, self.density * self.weights.size)

    def forget_unused(self) -> None:
        """Free what was packed and not chosen."""
        used = {kernel.name for kernel in self.kernels.values()}
        self.packed = {name: kernel for name, kernel in self.packed.items() if name in used}


def _no_scratch(rows: int) -> int:
    del rows
    return 0


def dense_kernel(matrix: Matrix) -> Kernel:
    """NumPy's BLAS, then bias, activation and residual in one pass."""
    weights = np.ascontiguousarray(matrix.weights)
    bias = matrix.bias

    def bind(call: Call) -> Multiply:
        x, y, residual = call.x, call.y, call.residual
        if bias is None and residual is None and call.epilogue.number == 0:
            return lambda: np.matmul(x, weights, out=y)

        def run() -> None:
            np.matmul(x, weights, out=y)
            spmm.finish_rows(y, bias, residual, call.epilogue)

        return run

    return Kernel("dense", _no_scratch, bind, weights.nbytes)


def blocked_kernel(matrix: Matrix, height: int, block: int) -> Kernel:
    """Blocks of `height` outputs x 1 input, samples in the vector direction."""
    packed = spmm.pack_blocked(matrix.weights.T, height, block)
    bias = matrix.bias

    def bind(call: Call) -> Multiply:
        return partial(
            spmm.multiply_blocked,
            packed,
            call.x,
            call.y,
            call.rows,
            bias,
            call.residual,
            call.epilogue,
            call.scratch,
        )

    name = f"blocked {height}x1"
    return Kernel(name, packed.scratch_floats, bind, packed.num_bytes(), takes_panels=True)


def small_kernel(matrix: Matrix, name: str) -> Kernel:
    """Weights in the vector direction, for few samples."""
    packers: dict[str, Any] = {
        "lookup": spmm.pack_lookup,
        "bitmask": spmm.pack_bitmask,
        "n:m": partial(spmm.pack_bitmask, even=True),
        "csr": spmm.pack_short_csr,
    }
    packed = packers[name](matrix.weights.T)
    bias = matrix.bias

    def bind(call: Call) -> Multiply:
        return partial(
            spmm.multiply_small, packed, call.x, call.y, bias, call.residual, call.epilogue
        )

    return Kernel(name, _no_scratch, bind, packed.num_bytes())


def candidates(matrix: Matrix, rows: int) -> list[str]:
    """Names of the sparse kernels that could be worth it."""
    density = matrix.density
    if matrix.weights.size < MIN_SIZE or rows == 0:
        return []
    names = []
    if density <= MAX_DENSITY:
        if rows > 1 and matrix.height > 1:
            names.append(f"blocked {matrix.height}x1")
        if rows > 1 and (matrix.height == 1 or matrix.fill(matrix.height) > _GOOD_FILL):
            names.append("blocked 1x1")
        if rows <= MAX_LOOKUP_ROWS:
            names.append("lookup")
    if rows <= MAX_BITMASK_ROWS and MIN_BITMASK_DENSITY <= density <= MAX_BITMASK_DENSITY:
        names.append("n:m" if matrix.is_even else "bitmask")
    is_short = matrix.inputs <= spmm.MAX_CSR_INPUTS
    if rows <= MAX_CSR_ROWS and density <= MAX_CSR_DENSITY and is_short:
        names.append("csr")
    return names


def _packed(matrix: Matrix, name: str) -> Kernel:
    """The kernel of this name, packed at the first call."""
    found = matrix.packed.get(name)
    if found is not None:
        return found
    if name == "dense":
        made = dense_kernel(matrix)
    elif name.startswith("blocked"):
        # 64 samples of 128 inputs are 32 KiB; one packing serves every number of rows.
        made = blocked_kernel(matrix, int(name.split()[1].split("x")[0]), 128)
    else:
        made = small_kernel(matrix, name)
    matrix.packed[name] = made
    return made


class Chooser:
    """Decides which kernel multiplies by a matrix, once for all that are alike.

    In a model the weights of the other matrices pass through the caches between two products by one.
    With few rows, when the weights are most of what is read, they do so here, too: of a large model
    they come from memory then, where a packed matrix gains the most.
    """

    def __init__(self, timer: Timer = time_best, model_bytes: int = 0) -> None:
        """Start with nothing decided.

        Args:
            timer: Times the candidates.
            model_bytes: Of all weights of the model, dense.
        """
        self._timer = timer
        self._model_bytes = min(model_bytes, _MAX_OTHERS)
        self._decisions: dict[tuple[object, ...], str] = {}
        self._others = np.empty(0, np.float32)

    def kernel(self, matrix: Matrix, rows: int) -> Kernel:
        """The kernel for this many rows, chosen at the first call."""
        if rows not in matrix.kernels:
            matrix.kernels[rows] = self._choose(matrix, rows)
            matrix.forget_unused()
        return matrix.kernels[rows]

    def release(self) -> None:
        """Free what timing needs; it comes back when it is needed."""
        self._others = np.empty(0, np.float32)

    def _choose(self, matrix: Matrix, rows: int) -> Kernel:
        names = candidates(matrix, rows)
        if not names:
            return _packed(matrix, "dense")
        alike = (matrix.inputs, matrix.outputs, rows, round(20 * matrix.density), *names)
        if alike not in self._decisions:
            self._decisions[alike] = self._fastest(matrix, rows, names)
        return _packed(matrix, self._decisions[alike])

    def _fastest(self, matrix: Matrix, rows: int, names: list[str]) -> str:
        rng = np.random.default_rng(0)
        x = rng.standard_normal((rows, matrix.inputs), np.float32)
        y = np.empty((rows, matrix.outputs), np.float32)

        def seconds(name: str) -> float:
            kernel = _packed(matrix, name)
            scratch = np.empty(kernel.scratch(rows), np.float32)
            share = kernel.num_bytes / max(1, matrix.weights.nbytes)
            run = kernel.bind(Call(y, x, rows, scratch))
            return self._timer(run, self._pass_others(share if rows <= _MAX_COLD_ROWS else 0))

        best, best_seconds = "dense", seconds("dense") / DENSE_ADVANTAGE
        for name in names:
            taken = seconds(name)
            if taken < best_seconds:
                best, best_seconds = name, taken
        return best

    def _pass_others(self, share: float) -> Multiply:
        """What reads as much as the other matrices have, packed alike."""
        count = int(self._model_bytes * min(share, 1.0)) // 4
        if self._others.size < count:
            self._others = np.ones(self._model_bytes // 4, np.float32)
        return self._others[:count].max if count else lambda: None
