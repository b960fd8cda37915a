"""Inputs that gradients can move: numbers, and tokens by way of their embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from secateur.arrays import Array
from secateur.errors import InvalidArgumentError
from secateur.keras.token_prior import likely_ids

Generator = np.random.Generator
_WHITE = 0.5  # share of white noise in smooth noise: without it, covariances are all but singular


class SoftInput(Protocol):
    """One input of a model while a batch for it is made."""

    @property
    def values(self) -> Array:
        """What the model is given."""

    def start(self, size: int, rng: Generator, lengths: Lengths) -> None:
        """Begin a batch."""

    def step(self, gradients: Sequence[Array], rate: float, rng: Generator) -> None:
        """Move against the gradients of the loss."""


@dataclass(frozen=True)
class Tokens:
    """What is known of how texts become token ids.

    Attributes:
        padding: The id that fills rows up; None for rows that are always full.
        lengths: Shortest and longest number of real tokens; None for 1 to the length of the rows.
        side: Where the padding stands.
        begin: Ids that every text begins with, such as BERT's `[CLS]`.
        end: Ids that every text ends with, such as BERT's `[SEP]`.

    Raises:
        InvalidArgumentError: A value that makes no sense.

    Example:
        >>> Tokens(padding=0, lengths=(8, 32), begin=(101,), end=(102,)).side
        'right'
    """

    padding: int | None = 0
    lengths: tuple[int, int] | None = None
    side: Literal["right", "left"] = "right"
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.side not in ("right", "left"):
            raise InvalidArgumentError(f"side must be 'right' or 'left', got {self.side!r}.")
        if self.lengths is not None:
            low, high = self.lengths
            if not 1 <= low <= high:
                raise InvalidArgumentError(
                    "lengths must be (shortest, longest), 1 <= shortest <= longest; got "
                    f"{self.lengths}."
                )
            if self.padding is None:
                raise InvalidArgumentError("lengths are given, but padding is None; name its id.")


class Lengths:
    """How many positions of each row are real; the same for all inputs of one length."""

    def __init__(self, tokens: Tokens, size: int, rng: Generator) -> None:
        self._tokens, self._rng, self.size = tokens, rng, size
        self._drawn: dict[int, Array] = {}

    def of(self, length: int) -> Array:
        """(size,) int64, each from 1 to `length`."""
        if length not in self._drawn:
            low, high = self._tokens.lengths or (1, length)
            fixed = len(self._tokens.begin) + len(self._tokens.end)
            low, high = (min(max(end, fixed + 1), length) for end in (low, high))
            if self._tokens.padding is None:
                low = high = length
            self._drawn[length] = self._rng.integers(low, high + 1, self.size)
        return self._drawn[length]

    def real(self, length: int) -> Array:
        """(size, length) bool, true where a position is real."""
        columns = np.arange(length)[None, :]
        if self._tokens.side == "left":
            columns = columns[:, ::-1]
        return columns < self.of(length)[:, None]


class Adam:
    """Moments of gradients, and steps by them (Kingma & Ba, arXiv 1412.6980, algorithm 1).

    Args:
        each: Whether every number has a second moment of its own, or all share one.
    """

    def __init__(self, *, each: bool = True) -> None:
        self._each = each
        self._mean: Array | float = 0.0
        self._square: Array | float = 0.0
        self._count = 0

    def step(self, gradient: Array) -> Array:
        """What is to be subtracted, for a learning rate of 1."""
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        square = gradient**2 if self._each else np.mean(gradient**2)
        self._square = 0.999 * self._square + 0.001 * square
        mean = self._mean / (1 - 0.9**self._count)
        square = self._square / (1 - 0.999**self._count)
        return np.asarray(mean / (np.sqrt(square) + 1e-12), np.float32)


class FloatInput:
    """Numbers of a common root mean square: their directions move, and that as a whole.

    Numbers need a bound, since confidence and activations grow with them without end. Steps are of
    one size for the whole batch, so that what no gradient reaches stays as it is.

    Args:
        shape: Without the batch axis.
        dtype: Of the model's input.
        scale: Multiplies what has a root mean square of 1; broadcasts to `shape`.
        offset: Is added to that.
        smooth: Start from noise whose amplitudes fall with the frequency, as those of images do.
        cost: What the logarithm of the root mean square costs, so that it moves to where the gain is
            as much; None to hold it at `scale`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        scale: Array,
        offset: Array,
        *,
        smooth: bool = False,
        cost: float | None = None,
    ) -> None:
        self._shape, self._dtype = shape, dtype
        self._scale, self._offset = scale, offset
        self._smooth, self._cost = smooth, cost
        self._latent: Array = np.zeros(0, np.float32)
        self._log_scale: Array = np.zeros(1, np.float32)

    def start(self, size: int, rng: Generator, lengths: Lengths) -> None:
        """Begin with noise."""
        del lengths
        self._latent = rng.normal(size=(size, *self._shape)).astype(np.float32)
        if self._smooth:
            soft = smoothed(self._latent)
            self._latent = soft / np.sqrt(np.mean(soft**2)) + _WHITE * self._latent
        self._log_scale = np.zeros(1, np.float32)
        self._moments = Adam(each=False), Adam()

    @property
    def values(self) -> Array:
        """What the model is given."""
        unit = self._latent / self._size() * np.exp(self._log_scale)
        return np.asarray(unit * self._scale + self._offset).astype(self._dtype)

    def _size(self) -> float:
        return float(np.sqrt(np.mean(self._latent**2))) + 1e-12

    def step(self, gradients: Sequence[Array], rate: float, rng: Generator) -> None:
        """Move against the gradient, along the sphere of equal root mean square."""
        del rng
        size = self._size()
        unit = self._latent / size
        given = sum(np.asarray(g, np.float32) for g in gradients) * self._scale
        given = given * np.exp(self._log_scale)
        along = given - unit * np.mean(given * unit)
        if self._cost is not None:
            change = np.reshape(np.sum(given * unit) + self._cost, 1)
            self._log_scale -= rate * self._moments[1].step(change)
        self._latent = self._latent / size - rate * self._moments[0].step(along)


class TokenInput:
    """Token ids: their embeddings move, and the nearest rows of the table are what the model is given.

    The gradient is taken at the real rows and applied to free vectors, so what is returned is what
    was optimised. Each step looks for nearer rows among some at random: for large vocabularies that
    is much cheaper than all, and it keeps samples apart.

    Args:
        shape: Without the batch axis.
        dtype: Of the model's input.
        tables: Tables that ids are looked up in, (vocabulary, width) each.
        tokens: Padding and the like.
        share: Of the positions that move, 0 to 1. A class shows in few words: where all move, texts
            become lists of them, unlike any text.
        num_candidates: Rows that are looked at in each step.

    References:
        Wen et al., "Hard Prompts Made Easy" (arXiv 2302.03668), algorithm 1 (differs: rows are looked
        for in random subsets).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        tables: Sequence[Array],
        tokens: Tokens,
        share: float = 1.0,
        num_candidates: int = 1024,
    ) -> None:
        rows = min(len(table) for table in tables)
        self._table = np.concatenate([table[:rows] for table in tables], axis=1)
        self._table = np.ascontiguousarray(self._table, np.float32)
        self._shape, self._dtype, self._tokens = shape, dtype, tokens
        self._length = math.prod(shape)
        self._share, self._count = share, num_candidates
        self._unit = float(np.sqrt(np.mean(self._table**2))) + 1e-12
        special = {*tokens.begin, *tokens.end}
        wrong = [own for own in special if not 0 <= own < rows]
        if wrong:
            raise InvalidArgumentError(
                f"begin and end name the ids {wrong}, but the vocabulary has {rows} ids, from 0."
            )
        if self._padded:
            special.add(tokens.padding)  # type: ignore[arg-type]
        free = np.setdiff1d(np.arange(rows), sorted(special))
        self._free = free if len(free) else np.arange(rows)
        self._prior = likely_ids(self._table, self._free)

    @property
    def _padded(self) -> bool:
        # A single number is a category, not a text that could be shorter.
        return self._tokens.padding is not None and self._length > 1

    def start(self, size: int, rng: Generator, lengths: Lengths) -> None:
        """Begin with ids at random, of lengths at random."""
        length = self._length
        self._ids = rng.choice(self._free, (size, length), p=self._prior)
        real = lengths.real(length) if self._padded else np.ones((size, length), bool)
        self._moving = real & (rng.random(real.shape) < self._share)
        if length > 1:
            self._put(self._tokens.begin, real, from_end=False)
            self._put(self._tokens.end, real, from_end=True)
        if self._padded:
            self._ids[~real] = self._tokens.padding
        self._soft = self._table[self._ids]
        self._moments = Adam()

    def _put(self, ids: Sequence[int], real: Array, *, from_end: bool) -> None:
        """Set the first or last real positions, and let them be."""
        order = np.cumsum(real, axis=1)
        for number, token in enumerate(ids):
            place = order.max(axis=1) - len(ids) + number + 1 if from_end else number + 1
            here = real & (order == np.reshape(place, (-1, 1)))
            self._ids[here] = token
            self._moving &= ~here

    @property
    def values(self) -> Array:
        """What the model is given."""
        return self._ids.reshape(-1, *self._shape).astype(self._dtype)

    def step(self, gradients: Sequence[Array], rate: float, rng: Generator) -> None:
        """Move the soft embeddings, and take nearer rows where there are some."""
        size, length = self._ids.shape
        rows = [np.asarray(g, np.float32).reshape(size, length, -1) for g in gradients]
        gradient = np.concatenate(rows, axis=-1)
        self._soft -= rate * self._unit * self._moments.step(gradient)
        moving = np.nonzero(self._moving)
        if not len(moving[0]):
            return
        drawn = np.unique(rng.choice(self._free, self._count, p=self._prior))
        soft = self._soft[moving]
        found, gap = nearest(soft, self._table[drawn])
        now = np.sum((soft - self._table[self._ids[moving]]) ** 2, axis=1)
        self._ids[moving] = np.where(gap < now, drawn[found], self._ids[moving])


class GivenInput:
    """An input that is told: the same value everywhere, rows in turn, or where positions are real.

    Args:
        shape: Without the batch axis.
        dtype: Of the model's input.
        rows: (n, ...) in turn, or (...) the same for all; None for 1 at real positions and 0 elsewhere.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, rows: Array | None) -> None:
        self._shape, self._dtype, self._rows = shape, dtype, rows
        self._next = 0
        self.values = np.zeros(0)

    def start(self, size: int, rng: Generator, lengths: Lengths) -> None:
        """Fill in a batch."""
        del rng
        if self._rows is None:
            self.values = lengths.real(math.prod(self._shape)).reshape(size, *self._shape)
        elif self._rows.ndim > len(self._shape):
            order = np.arange(self._next, self._next + size) % len(self._rows)
            self.values, self._next = self._rows[order], self._next + size
        else:
            self.values = np.broadcast_to(self._rows, (size, *self._shape))
        self.values = self.values.astype(self._dtype)

    def step(self, gradients: Sequence[Array], rate: float, rng: Generator) -> None:
        """Nothing moves."""


def nearest(points: Array, rows: Array) -> tuple[Array, Array]:
    """For each point the nearest row, and the square of the distance.

    Args:
        points: (n, width) float32.
        rows: (m, width) float32.

    Returns:
        (n,) positions of rows; (n,) squared distances, float32.
    """
    gaps = np.sum(rows**2, axis=1)[None, :] - 2 * points @ rows.T  # (n, m)
    found = gaps.argmin(axis=1)
    return found, gaps[np.arange(len(points)), found] + np.sum(points**2, axis=1)


def smoothed(noise: Array) -> Array:
    """Noise whose amplitude falls as 1 / frequency over the inner axes, as in natural images.

    Args:
        noise: (batch, axis, ..., channels), with one to three axes between.

    References:
        Field (1987), "Relations between the statistics of natural images and the response properties
        of cortical cells", fig. 7.
    """
    axes = tuple(range(1, noise.ndim - 1))
    grids = np.meshgrid(*(np.fft.fftfreq(noise.shape[a]) for a in axes), indexing="ij")
    frequency = np.sqrt(sum(grid**2 for grid in grids))
    lowest = 1 / max(noise.shape[a] for a in axes)
    factor = 1 / np.maximum(frequency, lowest)
    factor = factor.reshape(1, *factor.shape, 1)
    spectrum = np.fft.fftn(noise, axes=axes) * factor
    return np.asarray(np.fft.ifftn(spectrum, axes=axes).real, np.float32)
