"""What subnetworks emit on data: statistics of outputs, streamed over batches in one pass.

The output of a subnetwork is o_p = sum_q w_pq a_q where it feeds the output layer, and
a_q = f(sum_p w_qp o_p) between hidden layers, f its activation. It is measured on calibration
data, by mean |o| (default), root mean square, max |o| or standard deviation. The sums are float64.
Variances come from deviations about a sample of the same unit, merged over blocks by Chan, Golub &
LeVeque ("Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979), so a
large constant output has a deviation of zero, not of what is left of two large squares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from secateur.activations import Activation, ActivationLike, parse_activation
from secateur.arrays import Array, check_float_array
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError

Measure: TypeAlias = Literal["mean", "rms", "max", "std"]
Float64: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
MEASURES: tuple[str, ...] = get_args(Measure)

# Where the sums are merged. A fixed number, so that the result depends on the data alone.
_BLOCK_ELEMENTS = 1 << 21
# What is converted, gathered or activated at a time: 384 KiB of float32 stay in cache.
_TILE_ELEMENTS = 96 * 1024


class OutputStatistics:
    """Statistics of the outputs of `units` subnetworks, one pass, any number of batches.

    With `dim`, a unit emits a vector (an attention head: `(..., heads, dim)`): |o| is that vector's
    l2 norm; std is the root of the mean squared distance from the mean vector, so it is zero just
    where the vector never changes; `mean` is the mean vector.

    Every leading axis counts as samples: an element (batch, time) is one position.

    Args:
        units: Number of units, at least 1: size of the last axis (with `dim`, the last but one).
        name: The layer that emits them, for messages.
        dim: Length of the vector that each unit emits; None where a unit emits a number.

    Raises:
        InvalidArgumentError: `units` or `dim` below 1.

    Example:
        >>> statistics = OutputStatistics(2, name="dense")
        >>> statistics.update(np.array([[1.0, -2.0], [3.0, -2.0]]))
        >>> statistics.measure("mean"), statistics.measure("std"), statistics.mean
        (array([2., 2.]), array([1., 0.]), array([ 2., -2.]))
    """

    def __init__(self, units: int, *, name: str = "", dim: int | None = None) -> None:
        if units < 1 or (dim is not None and dim < 1):
            raise InvalidArgumentError(f"units and dim must be at least 1, got {units} and {dim}.")
        self.units = units
        self.dim = dim
        self.name = name
        self._columns = _Moments(units * (dim or 1))
        self._norms = None if dim is None else _Moments(units)

    @property
    def count(self) -> int:
        """Number of positions counted so far."""
        return self._columns.count

    @property
    def mean(self) -> Float64:
        """Signed mean output, (units,) or (units, dim), float64: what is folded into the next bias.

        Raises:
            InvalidArgumentError: Nothing has been counted yet.
        """
        self._require_samples()
        mean = self._columns.mean
        return mean if self.dim is None else mean.reshape(self.units, self.dim)

    def measure(self, name: Measure = "mean") -> Float64:
        """Compute one measure of every unit's output.

        Args:
            name: "mean" (mean |o|), "rms" (root of mean o^2), "max" (max |o|) or "std" (population
                standard deviation).

        Returns:
            (units,) float64, >= 0.

        Raises:
            InvalidArgumentError: An unknown measure, or nothing has been counted yet.
        """
        if name not in MEASURES:
            raise InvalidArgumentError(
                f"Unknown output measure {name!r}; choose one of {', '.join(MEASURES)}."
            )
        self._require_samples()
        sizes = self._columns if self._norms is None else self._norms
        if name == "mean":
            return sizes.abs_sum / self.count
        if name == "max":
            return sizes.largest.copy()
        squares = self._columns.square_deviation / self.count
        if name == "rms":
            squares = squares + self._columns.mean**2
        return np.asarray(np.sqrt(squares.reshape(self.units, -1).sum(axis=1)))

    def update(
        self,
        batch: Array,
        *,
        mask: Array | None = None,
        activation: ActivationLike = "linear",
        axis: int = -1,
    ) -> None:
        """Count a batch in.

        Args:
            batch: (..., units), or (..., units, dim) with `dim`; float16, bfloat16, float32 or
                float64. Read in place where it is C-contiguous with the units last.
            mask: Boolean, of the leading axes' shape; True = counted. For padded positions.
            activation: Applied to `batch` while it is read, which then holds pre-activations.
            axis: Where the units are, for channels-first outputs (copies). Not with `dim`.

        Raises:
            ArgumentTypeError: Not a float array, or a mask that is not boolean.
            InvalidArgumentError: A shape that does not fit.
            NonFiniteError: NaN or Inf among the counted; names the layer. The batch is not counted.
        """
        rows, keep = self._rows(np.asarray(batch), mask, axis)
        known = parse_activation(activation)
        columns = _Moments(self._columns.units)
        norms = None if self._norms is None else _Moments(self.units)
        step = max(4, _BLOCK_ELEMENTS // rows.shape[1])
        for start in range(0, len(rows), step):
            kept = None if keep is None else keep[start : start + step]
            self._count_block(rows[start : start + step], kept, known, columns, norms)
        self._columns.merge(columns)
        if self._norms is not None and norms is not None:
            self._norms.merge(norms)

    def merge(self, other: OutputStatistics) -> None:
        """Count in what another has counted, as if this one had seen its batches too.

        Raises:
            InvalidArgumentError: The other counts another number of units.
        """
        if (self.units, self.dim) != (other.units, other.dim):
            raise InvalidArgumentError(
                f"Cannot merge statistics of {other.units} units (dim {other.dim}) into those of "
                f"{self.units} units (dim {self.dim}): they measure different layers."
            )
        self._columns.merge(other._columns)
        if self._norms is not None and other._norms is not None:
            self._norms.merge(other._norms)

    def _require_samples(self) -> None:
        if not self.count:
            raise InvalidArgumentError(
                f"No output of {self._whose()} has been counted: update() was not called, or every "
                "position was masked."
            )

    def _whose(self) -> str:
        return f"layer {self.name!r}" if self.name else "the layer"

    def _rows(self, batch: Array, mask: Array | None, axis: int) -> tuple[Array, Array | None]:
        check_float_array(batch, f"The output of {self._whose()}")
        if axis != -1 and self.dim is None and -batch.ndim <= axis < batch.ndim:
            batch = np.moveaxis(batch, axis, -1)
        tail = (self.units,) if self.dim is None else (self.units, self.dim)
        if batch.shape[-len(tail) :] != tail or (self.dim is not None and axis != -1):
            raise InvalidArgumentError(
                f"The output of {self._whose()} has shape {batch.shape} (units on axis {axis}); "
                f"expected (..., {', '.join(map(str, tail))})."
            )
        lead = batch.shape[: -len(tail)]
        if mask is not None:
            mask = np.asarray(mask)
            if mask.dtype != np.bool_:
                raise ArgumentTypeError(
                    f"mask must be boolean (True = counted), got {mask.dtype}; use mask != 0."
                )
            if mask.shape != lead:
                raise InvalidArgumentError(
                    f"mask has shape {mask.shape}; the leading axes of {self._whose()} are {lead}."
                )
            mask = mask.reshape(-1)
        return np.ascontiguousarray(batch).reshape(-1, self._columns.units), mask

    def _count_block(
        self,
        block: Array,
        keep: Array | None,
        activation: Activation,
        columns: _Moments,
        norms: _Moments | None,
    ) -> None:
        fused = activation.kernel == "relu" and norms is None
        bent = activation if fused else None
        column_sums = _BlockSums(columns.units)
        norm_sums = None if norms is None else _BlockSums(norms.units)
        # An infinite or immense value makes the sums infinite; that is found below, and named.
        with np.errstate(over="ignore", invalid="ignore"):
            for tile in _tiles(block, keep, parse_activation(None) if fused else activation):
                column_sums.add(tile, bent)
                if norm_sums is not None and self.dim is not None:
                    norm_sums.add(_norms(tile, self.dim), None)
            self._check_finite(column_sums)
            columns.merge(column_sums.moments())
            if norms is not None and norm_sums is not None:
                norms.merge(norm_sums.moments())

    def _check_finite(self, sums: _BlockSums) -> None:
        bad = ~(np.isfinite(sums.abs_sum) & np.isfinite(sums.dev_square))
        if not bad.any():
            return
        units = np.unique(np.flatnonzero(bad) // (self.dim or 1))
        shown = ", ".join(map(str, units[:5])) + (", ..." if len(units) > 5 else "")
        raise NonFiniteError(
            f"The output of {self._whose()} is NaN or infinite, or too large to be squared, "
            f"in {len(units)} of {self.units} units ({shown}). Check the calibration data and the "
            "model's weights for NaN, Inf and exploded values."
        )


class _Moments:
    """Count, mean, squared deviation, sum and maximum of |o| per column; merged by Chan's rule.

    The mean is kept as an offset from a sample: as one number it would lose what small differences
    between the means of large outputs tell of their deviation.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self.count = 0
        self.shift: Float64 = np.zeros(units)
        self.offset: Float64 = np.zeros(units)
        self.square_deviation = np.zeros(units)
        self.abs_sum = np.zeros(units)
        self.largest = np.zeros(units)

    @property
    def mean(self) -> Float64:
        return self.shift + self.offset

    def merge(self, other: _Moments) -> None:
        if not other.count:
            return
        if not self.count:
            self.shift = other.shift
        total = self.count + other.count
        share = other.count / total
        delta = (other.shift - self.shift) + (other.offset - self.offset)
        self.square_deviation += other.square_deviation + delta * delta * (self.count * share)
        self.offset = self.offset + delta * share
        self.abs_sum += other.abs_sum
        np.maximum(self.largest, other.largest, out=self.largest)
        self.count = total


class _BlockSums:
    """Sums of one block about a shift: one of the block's own values per column.

    That bounds the cancellation: no sample lies further from the mean than sqrt(count) deviations.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self.count = 0
        self.shift: Float64 = np.zeros(units)
        self.abs_sum: Float64 = np.zeros(units)
        self.dev_sum: Float64 = np.zeros(units)
        self.dev_square: Float64 = np.zeros(units)
        self.largest: Float64 = np.zeros(units)

    def add(self, tile: Array, bent: Activation | None) -> None:
        """Add a C-contiguous float32 or float64 (rows, units); `bent` is a relu to be fused."""
        from secateur._kernels import jit  # imports Numba

        if not len(tile):
            return
        if not self.count:
            self.shift = _first_row(tile, bent)
        sums = self.shift, self.abs_sum, self.dev_sum, self.dev_square, self.largest
        if bent is None:
            jit.accumulate_kernel(tile.dtype.name)(tile, *sums)
        else:
            kernel = jit.accumulate_relu_kernel(tile.dtype.name)
            kernel(tile, bent.slope, bent.ceiling, *sums)
        self.count += len(tile)

    def moments(self) -> _Moments:
        moments = _Moments(self.units)
        if self.count:
            moments.count = self.count
            moments.shift, moments.offset = self.shift, self.dev_sum / self.count
            moments.square_deviation = np.maximum(
                self.dev_square - self.dev_sum**2 / self.count, 0.0
            )
            moments.abs_sum, moments.largest = self.abs_sum, self.largest
        return moments


def _first_row(tile: Array, bent: Activation | None) -> Float64:
    row = tile[0].astype(np.float64)
    if bent is not None:
        above = np.maximum(row, 0.0)
        row = np.minimum(above, bent.ceiling) + bent.slope * (row - above)
    return np.where(np.isfinite(row), row, 0.0)


def _tiles(block: Array, keep: Array | None, activation: Activation) -> Iterator[Array]:
    """Yield the kept rows, activated, as float32 or float64; the block itself if it is that."""
    work = block.dtype if block.dtype in (np.float32, np.float64) else np.dtype(np.float32)
    if keep is None and work == block.dtype and activation.kernel == "linear":
        yield block
        return
    step = max(4, _TILE_ELEMENTS // block.shape[1])
    for start in range(0, len(block), step):
        tile = block[start : start + step]
        if keep is not None:
            tile = tile[keep[start : start + step]]
        yield _activate(tile.astype(work, copy=False), activation)


def _activate(z: Array, activation: Activation) -> Array:
    """Apply an activation to a C-contiguous float32 or float64 array; linear returns the array."""
    from secateur._kernels import jit  # imports Numba

    if activation.kernel == "linear":
        return z
    out = np.empty_like(z)
    kernel = jit.activation_kernel(activation.kernel, z.dtype.name)
    kernel(z.reshape(-1), activation.slope, activation.ceiling, out.reshape(-1))
    return out


def _norms(tile: Array, dim: int) -> Float64:
    from secateur._kernels import jit  # imports Numba

    vectors = tile.reshape(-1, dim)
    out = np.empty(len(vectors))
    jit.norms_kernel(tile.dtype.name)(vectors, out)
    return out.reshape(len(tile), -1)


def subnetwork_outputs(
    weights: Array,
    bias: Array | None,
    inputs: Array,
    activation: ActivationLike = "linear",
    *,
    name: str = "",
) -> Array:
    """Compute a_q = f(sum_p w_qp o_p + b_q), the outputs of a fully connected layer's subnetworks.

    Args:
        weights: (out, in) float16, bfloat16, float32 or float64: a Keras kernel transposed.
        bias: (out,) or None.
        inputs: (..., in), the outputs o_p of the layer before.
        activation: f.
        name: The layer, for messages.

    Returns:
        (..., out), float64 if any argument is, else float32 (half types are computed in float32).

    Raises:
        ArgumentTypeError: An array that is not float.
        InvalidArgumentError: Shapes that do not fit.
        NonFiniteError: NaN or Inf comes out; names the layer.

    Example:
        >>> subnetwork_outputs(np.array([[1.0, 2.0], [3.0, -4.0]]), None, np.ones((1, 2)), "relu")
        array([[3., 0.]])
    """
    arrays = {"weights": weights, "inputs": inputs} | ({} if bias is None else {"bias": bias})
    for what, array in arrays.items():
        check_float_array(array, what)
    fits = weights.ndim == 2 and inputs.ndim >= 1 and inputs.shape[-1] == weights.shape[1]
    if not fits or (bias is not None and bias.shape != weights.shape[:1]):
        raise InvalidArgumentError(
            "Expected weights (out, in), bias (out,) and inputs (..., in), got "
            + ", ".join(f"{what} {array.shape}" for what, array in arrays.items())
            + ". A Keras Dense kernel is (in, out): pass kernel.T."
        )
    wide = any(array.dtype == np.float64 for array in arrays.values())
    work = np.dtype(np.float64 if wide else np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        z = inputs.astype(work, copy=False) @ weights.T.astype(work, copy=False)
        if bias is not None:
            z += bias.astype(work, copy=False)
    out = _activate(np.ascontiguousarray(z), parse_activation(activation))
    if not np.isfinite(out).all():
        whose = f"layer {name!r}" if name else "the layer"
        raise NonFiniteError(
            f"The output of {whose} is NaN or infinite; check its weights and the inputs."
        )
    return out
