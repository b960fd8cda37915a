"""What a layer is fed: norms, means and Gram matrices of its inputs, streamed in one pass.

Products are float32 over blocks of a fixed number of rows, sums are float64. Every block is
centred about its own mean before it is squared and the blocks are merged by Chan, Golub & LeVeque's
rule (1979), so inputs that are large and nearly constant keep the digits of their small variation.
Since the blocks are filled from the stream of rows, how the stream was split into batches does not
change a bit of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

from secateur._kernels.native.gemm import add_cross, add_gram, mirror_upper
from secateur.arrays import Array
from secateur.counted_rows import Float64, RowBuffer, checked_rows, whose
from secateur.errors import InvalidArgumentError
from secateur.outputs import OutputStatistics

T = TypeVar("T")

# Rows of a matrix that outer products are added to at a time: they then stay in the cache.
_OUTER_ROWS = 64

# Corrections of rank one that wait to be added together: each alone would pass over inputs^2 numbers.
_MOST_DEFERRED = 64


class InputStatistics:
    """Count, mean and Gram matrix of the rows X that a layer is fed, one pass, any batches.

    With `cross`, also of X against the rows that the same positions carry in the dense network: what
    the asymmetric target of `secateur.reconstruction` needs. Memory: inputs^2 float64 for the Gram,
    the same for the cross product, and a block of rows.

    Args:
        inputs: Width of a row, at least 1.
        name: The layer, for messages.
        cross: Whether `update` is given companion rows too: True for rows of the same width, a number
            for rows of that width.

    Raises:
        InvalidArgumentError: A width below 1.

    Example:
        >>> statistics = InputStatistics(2, name="dense")
        >>> statistics.update(np.array([[1.0, 2.0], [3.0, 0.0]], np.float32))
        >>> statistics.gram
        array([[5., 1.],
               [1., 2.]])
    """

    def __init__(self, inputs: int, *, name: str = "", cross: bool | int = False) -> None:
        width = inputs if cross is True else int(cross)
        if inputs < 1 or width < 0:
            raise InvalidArgumentError(f"inputs must be at least 1, got {inputs}, cross={cross}.")
        self.inputs = inputs
        self.name = name
        self.cross_inputs = width
        self._count = 0
        self._mean: Float64 = np.zeros(inputs)
        self._dense_mean: Float64 = np.zeros(width)
        # Only its upper triangle is added to, and mirrored when it is asked for.
        self._scatter: Float64 = np.zeros((inputs, inputs))
        self._mirrored = True
        self._cross_scatter: Float64 = np.zeros((inputs, width))
        self._rows = RowBuffer(inputs)
        self._dense_rows = RowBuffer(width) if width else None
        self._deferred: list[tuple[float, Float64, Float64]] = []
        self._made: dict[Hashable, Any] = {}
        self._made_at = 0

    @property
    def has_cross(self) -> bool:
        """Whether rows of the dense network are counted too."""
        return self.cross_inputs > 0

    @property
    def count(self) -> int:
        """Number N of positions counted so far."""
        return self._count + self._rows.filled

    @property
    def mean(self) -> Float64:
        """Mean row, (inputs,) float64."""
        self._flush()
        return self._mean.copy()

    @property
    def dense_mean(self) -> Float64:
        """Mean of the dense network's rows, (cross_inputs,) float64."""
        self._flush(cross=True)
        return self._dense_mean.copy()

    @property
    def gram(self) -> Float64:
        """X^T X / N, (inputs, inputs) float64."""
        covariance = self.covariance
        _add_outer(covariance, self._mean[None], self._mean[None])
        return covariance

    @property
    def covariance(self) -> Float64:
        """(X - mean)^T (X - mean) / N, (inputs, inputs) float64: the Gram of a layer with a bias."""
        self._flush()
        if not self._mirrored:
            mirror_upper(self._scatter)
            self._mirrored = True
        return self._scatter / self._count

    @property
    def cross(self) -> Float64:
        """X^T X_dense / N, (inputs, cross_inputs) float64."""
        covariance = self.cross_covariance
        _add_outer(covariance, self._mean[None], self._dense_mean[None])
        return covariance

    @property
    def cross_covariance(self) -> Float64:
        """(X - mean)^T (X_dense - dense_mean) / N, (inputs, cross_inputs) float64."""
        self._flush(cross=True)
        return self._cross_scatter / self._count

    @property
    def norms(self) -> Float64:
        """Root mean square of every input, (inputs,) float64: ||X_i||_2 / sqrt(N)."""
        self._flush()
        squares = np.diagonal(self._scatter) / self._count + self._mean**2
        return np.asarray(np.sqrt(squares))

    def update(
        self, rows: Array, dense_rows: Array | None = None, mask: Array | None = None
    ) -> None:
        """Count a batch of rows in.

        Args:
            rows: (..., inputs); float16, bfloat16, float32 or float64.
            dense_rows: (..., cross_inputs), the same positions in the dense network; with `cross`.
            mask: Boolean, of the leading axes' shape; True = counted. For padded positions.

        Raises:
            ArgumentTypeError: Not a float array, or a mask that is not boolean.
            InvalidArgumentError: A shape that does not fit, or companion rows missing or unasked for.
            NonFiniteError: NaN or Inf among the counted, or too large to be squared in float32; names
                the layer. The batch is not counted.
        """
        if (dense_rows is not None) != self.has_cross:
            raise InvalidArgumentError(
                f"The statistics of {whose(self.name)} were made with cross={self.has_cross}, but "
                f"dense_rows were {'given' if dense_rows is not None else 'not given'}."
            )
        kept = checked_rows(rows, mask, self.inputs, self.name)
        if self._dense_rows is None or dense_rows is None:
            for start, stop in self._rows.pieces(len(kept)):
                self._rows.add(kept[start:stop])
                self._count_full()
            return
        if np.shape(rows)[:-1] != np.shape(dense_rows)[:-1]:
            raise InvalidArgumentError(
                f"rows of {whose(self.name)} have shape {np.shape(rows)}, dense_rows "
                f"{np.shape(dense_rows)}; they must be the same positions."
            )
        dense_kept = checked_rows(dense_rows, mask, self.cross_inputs, self.name)
        for start, stop in self._rows.pieces(len(kept)):
            self._rows.add(kept[start:stop])
            self._dense_rows.add(dense_kept[start:stop])
            self._count_full()

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made of the statistics under this key; made anew when more has been counted.

        Args:
            key: Says what it is and all that it depends on.
            make: Makes it.

        Example:
            >>> statistics = InputStatistics(1)
            >>> statistics.update(np.ones((2, 1), np.float32))
            >>> statistics.remember("trace", lambda: np.trace(statistics.gram))
            np.float64(1.0)
        """
        if self._made_at != self.count:
            self.forget()
            self._made_at = self.count
        if key not in self._made:
            self._made[key] = make()
        made: T = self._made[key]
        return made

    def forget(self) -> None:
        """Let go of what `remember` keeps, for statistics that live on."""
        self._made = {}

    def merge(self, other: InputStatistics) -> None:
        """Count in what another has counted, as if this one had seen its batches too.

        Raises:
            InvalidArgumentError: The other counts rows of another width.
        """
        if (self.inputs, self.cross_inputs) != (other.inputs, other.cross_inputs):
            raise InvalidArgumentError(
                f"Cannot merge statistics of {other.inputs} inputs (cross {other.cross_inputs}) into "
                f"those of {self.inputs} (cross {self.cross_inputs}): they are of other layers."
            )
        self._count_block()
        other._count_block()
        other._settle()
        self._scatter += other._scatter
        self._mirrored = False
        self._cross_scatter += other._cross_scatter
        self._merge(other._count, other._mean, other._dense_mean)

    def _flush(self, cross: bool = False) -> None:
        if cross and not self.has_cross:
            raise InvalidArgumentError(
                f"The statistics of {whose(self.name)} hold no rows of the dense network; make them "
                "with cross=True."
            )
        self._count_block()
        self._settle()
        for rows in (self._rows, self._dense_rows):
            if rows is not None:
                rows.release()
        if not self._count:
            raise InvalidArgumentError(
                f"No input of {whose(self.name)} has been counted: update() was not called, or every "
                "position was masked."
            )

    def _count_full(self) -> None:
        if self._rows.is_full:
            self._count_block()

    def _count_block(self) -> None:
        if not self._rows.filled:
            return
        rows, mean, rest = self._rows.take_centred()
        add_gram(rows, self._scatter)
        self._mirrored = False
        dense_mean, dense_rest = self._dense_mean, self._dense_mean
        if self._dense_rows is not None:
            dense, dense_mean, dense_rest = self._dense_rows.take_centred()
            add_cross(rows, dense, self._cross_scatter)
        self._defer(-len(rows), rest, dense_rest)
        self._merge(len(rows), mean, dense_mean)

    def _merge(self, count: int, mean: Float64, dense_mean: Float64) -> None:
        """Count means in; the scatter about them is added by the caller."""
        if not count:
            return
        total = self._count + count
        share = count / total
        delta, dense_delta = mean - self._mean, dense_mean - self._dense_mean
        self._defer(self._count * share, delta, dense_delta)
        self._mean += delta * share
        self._dense_mean += dense_delta * share
        self._count = total

    def _defer(self, weight: float, own: Float64, dense: Float64) -> None:
        """Add weight * own own^T, and own dense^T: many at once, since one takes as long as all."""
        self._deferred.append((weight, own, dense))
        if len(self._deferred) >= _MOST_DEFERRED:
            self._settle()

    def _settle(self) -> None:
        deferred, self._deferred = self._deferred, []
        if not deferred:
            return
        weights = np.array([weight for weight, _, _ in deferred])[:, None]
        own = np.stack([own for _, own, _ in deferred])  # (terms, inputs)
        weighted = own * weights
        _add_outer(self._scatter, weighted, own, upper=True)
        self._mirrored = False
        if self.has_cross:
            dense = np.stack([dense for _, _, dense in deferred])
            _add_outer(self._cross_scatter, weighted, dense)


class DiagonalStatistics:
    """Count, mean and norms of a layer's inputs: for criteria that need no Gram matrix.

    Args:
        inputs: Width of a row, at least 1.
        name: The layer, for messages.

    Example:
        >>> statistics = DiagonalStatistics(2)
        >>> statistics.update(np.array([[1.0, 2.0], [7.0, 2.0]], np.float32))
        >>> statistics.norms, statistics.mean
        (array([5., 2.]), array([4., 2.]))
    """

    def __init__(self, inputs: int, *, name: str = "") -> None:
        self._moments = OutputStatistics(inputs, name=name)

    @property
    def inputs(self) -> int:
        """Width of a row."""
        return self._moments.units

    @property
    def name(self) -> str:
        """The layer, for messages."""
        return self._moments.name

    @property
    def count(self) -> int:
        """Number of positions counted so far."""
        return self._moments.count

    @property
    def mean(self) -> Float64:
        """Mean row, (inputs,) float64."""
        return self._moments.mean

    @property
    def norms(self) -> Float64:
        """Root mean square of every input, (inputs,) float64: ||X_i||_2 / sqrt(N)."""
        return self._moments.measure("rms")

    def update(self, rows: Array, mask: Array | None = None) -> None:
        """Count a batch of rows (..., inputs) in; see `InputStatistics.update`."""
        self._moments.update(checked_rows(rows, mask, self.inputs, self.name))

    def merge(self, other: DiagonalStatistics) -> None:
        """Count in what another has counted; raises InvalidArgumentError for another width."""
        self._moments.merge(other._moments)


def _add_outer(out: Float64, left: Float64, right: Float64, upper: bool = False) -> None:
    """Add left^T right to out, (terms, rows) and (terms, columns): no second matrix of out's size.

    With `upper`, what lies left of the blocks on the diagonal is not touched.
    """
    for start in range(0, len(out), _OUTER_ROWS):
        here = slice(start, start + _OUTER_ROWS)
        first = start if upper else 0
        out[here, first:] += left[:, here].T @ right[:, first:]
