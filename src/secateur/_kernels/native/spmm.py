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
SmallMatrix: TypeAlias = _core.BitmaskMatrix | _core.ShortCsrMatrix

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
        height: 1 (unstructured), 2, 4 or 8.
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


def pack_bitmask(weights: Floats) -> _core.BitmaskMatrix:
    """Pack weights as one bit each and the non-zeros, for up to about a dozen samples.

    Example:
        >>> pack_bitmask(np.eye(20, 30, dtype=np.float32)).entries()
        20
    """
    return _core.BitmaskMatrix(check_weights(weights))


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


def multiply_blocked(
    matrix: _core.BlockedMatrix,
    x: Floats,
    y: Floats,
    bias: Floats | None,
    residual: Floats | None,
    epilogue: Epilogue,
    scratch: Floats,
) -> None:
    """Y = activation(x W^T + bias) + residual.

    Args:
        matrix: W, of shape (outputs, inputs).
        x: (rows, inputs), C-contiguous.
        y: (rows, outputs), C-contiguous, written.
        bias: (outputs,) or None.
        residual: As many elements as y, or None.
        epilogue: The activation.
        scratch: At least `matrix.scratch_floats(rows)` elements, overwritten.
    """
    matrix.multiply(
        x, y, bias, residual, epilogue.number, epilogue.slope, epilogue.ceiling, scratch
    )


def multiply_small(
    matrix: SmallMatrix,
    x: Floats,
    y: Floats,
    bias: Floats | None,
    residual: Floats | None,
    epilogue: Epilogue,
) -> None:
    """As `multiply_blocked`, for matrices packed as bitmask or CSR."""
    matrix.multiply(x, y, bias, residual, epilogue.number, epilogue.slope, epilogue.ceiling)


def finish_rows(
    y: Floats, bias: Floats | None, residual: Floats | None, epilogue: Epilogue
) -> None:
    """Y = activation(y + bias) + residual, in place, y of shape (rows, outputs)."""
    _core.finish_rows(y, bias, residual, epilogue.number, epilogue.slope, epilogue.ceiling)
