"""Sparse times dense: matrices packed for the runtime's kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from secateur import _core
from secateur.activations import Activation
from secateur.errors import InvalidArgumentError

Floats: TypeAlias = NDArray[np.float32]
SmallMatrix: TypeAlias = _core.BitmaskMatrix | _core.LookupMatrix | _core.ShortCsrMatrix

_NUMBERS = {
    name: number
    for number, name in enumerate(
        (
            "linear",
            "relu",
            "tanh",
            "sigmoid",
            "silu",
            "gelu",
            "gelu_tanh",
            "hard_sigmoid",
            "hard_silu",
            "elu",
            "selu",
            "softplus",
            "exponential",
            "softsign",
        )
    )
}
MAX_CSR_INPUTS = 65536


@dataclass(frozen=True)
class Epilogue:
    """What is done to the sums before they are written: `activation(sum + bias) + residual`.

    Attributes:
        number: The kernels' number of the activation.
        slope: Its first parameter.
        ceiling: Its second parameter.
    """

    number: int = 0
    slope: float = 0.0
    ceiling: float = float("inf")

    @staticmethod
    def of(activation: Activation) -> Epilogue:
        """The epilogue of an activation.

        Example:
            >>> Epilogue.of(Activation("relu6")).ceiling
            6.0
        """
        return Epilogue(_NUMBERS[activation.kernel], activation.slope, activation.ceiling)


def check_weights(weights: Floats) -> Floats:
    """Raise unless these are float32 weights (outputs, inputs); any strides will do."""
    if weights.ndim != 2 or weights.dtype != np.float32:
        raise InvalidArgumentError(
            "The runtime's kernels take float32 weights of shape (outputs, inputs), got shape "
            f"{weights.shape} and dtype {weights.dtype}."
        )
    return weights


def pack_blocked(weights: Floats, height: int = 1, block: int = 128) -> _core.BlockedMatrix:
    """Pack weights in blocks of `height` outputs x 1 input.

    Args:
        weights: (outputs, inputs), float32.
        height: 1 (unstructured), 4 or 8.
        block: Inputs that are kept in L1 at a time, 16 to 256.

    Raises:
        InvalidArgumentError: Not such a matrix, height or block.

    Example:
        >>> pack_blocked(np.eye(20, 30, dtype=np.float32)).entries()
        20
    """
    try:
        return _core.BlockedMatrix(check_weights(weights), height, block)
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot pack these weights: {error}.") from error


def pack_bitmask(weights: Floats, *, even: bool = False) -> _core.BitmaskMatrix:
    """Pack weights as one bit each and the non-zeros, for up to about a dozen samples.

    Args:
        weights: (outputs, inputs), float32.
        even: Give every sixteen inputs of an output the same room, that of those with the most
            non-zeros: for n:m patterns, where nothing is lost by it and nothing need be counted.

    Example:
        >>> pack_bitmask(np.eye(20, 30, dtype=np.float32)).entries()
        20
    """
    return _core.BitmaskMatrix(check_weights(weights), even)


def pack_lookup(weights: Floats) -> _core.LookupMatrix:
    """Pack weights for sixteen outputs side by side, for a few samples of sparse weights.

    Raises:
        InvalidArgumentError: Too many inputs.

    Example:
        >>> pack_lookup(np.eye(20, 30, dtype=np.float32)).entries()
        20
    """
    try:
        return _core.LookupMatrix(check_weights(weights))
    except ValueError as error:
        raise InvalidArgumentError(f"Cannot pack these weights: {error}.") from error


def count_blocks(weights: Floats, height: int) -> int:
    """How many blocks of `height` outputs x 1 input hold a non-zero.

    Example:
        >>> count_blocks(np.eye(20, 30, dtype=np.float32), 4)
        20
    """
    return _core.count_blocks(check_weights(weights), height)


def widest_word(weights: Floats) -> int:
    """The most non-zeros among inputs 16 i ... 16 i + 15 of any output.

    Example:
        >>> widest_word(np.eye(20, 30, dtype=np.float32))
        1
    """
    return _core.widest_word(check_weights(weights))


def pack_short_csr(weights: Floats) -> _core.ShortCsrMatrix:
    """Pack weights as CSR with 16-bit columns, for a sample or two.

    Raises:
        InvalidArgumentError: More than 65,536 inputs.

    Example:
        >>> pack_short_csr(np.eye(20, 30, dtype=np.float32)).entries()
        20
    """
    if check_weights(weights).shape[1] > MAX_CSR_INPUTS:
        raise InvalidArgumentError(
            f"16-bit columns reach {MAX_CSR_INPUTS} inputs, got {weights.shape[1]}."
        )
    return _core.ShortCsrMatrix(weights)


def panel_floats(rows: int, features: int) -> int:
    """How many floats samples take in panels: 64 at a time, the last ones filled up.

    Example:
        >>> panel_floats(65, 10)
        800
    """
    return _core.panel_floats(rows, features)


def multiply_blocked(
    matrix: _core.BlockedMatrix,
    x: Floats,
    y: Floats,
    rows: int,
    bias: Floats | None,
    residual: Floats | None,
    epilogue: Epilogue,
    scratch: Floats,
) -> None:
    """Y = activation(x W^T + bias) + residual.

    Args:
        matrix: W, of shape (outputs, inputs).
        x: (rows, inputs), C-contiguous, or what another product wrote in panels.
        y: (rows, outputs), C-contiguous, written; or (panel_floats(rows, outputs),) for another
            product to read, aligned to 64 bytes.
        rows: How many samples.
        bias: (outputs,) or None.
        residual: As many elements as y, or None; none if y is in panels.
        epilogue: The activation.
        scratch: At least `matrix.scratch_floats(rows)` elements, overwritten; none for x in panels.
    """
    matrix.multiply(
        x, y, rows, bias, residual, epilogue.number, epilogue.slope, epilogue.ceiling, scratch
    )


def multiply_small(
    matrix: SmallMatrix,
    x: Floats,
    y: Floats,
    bias: Floats | None,
    residual: Floats | None,
    epilogue: Epilogue,
) -> None:
    """As `multiply_blocked`, for matrices packed as bitmask, for lookup or as CSR."""
    matrix.multiply(x, y, bias, residual, epilogue.number, epilogue.slope, epilogue.ceiling)


def finish_rows(
    y: Floats, bias: Floats | None, residual: Floats | None, epilogue: Epilogue
) -> None:
    """Y = activation(y + bias) + residual, in place, y of shape (rows, outputs)."""
    _core.finish_rows(y, bias, residual, epilogue.number, epilogue.slope, epilogue.ceiling)
