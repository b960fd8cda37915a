"""What a compression is to reach: zeros, weights, bytes, multiplications or time."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from secateur.errors import InvalidArgumentError
from secateur.files import save
from secateur.keras.complexity import count_macs, gzipped_keras_bytes, latencies
from secateur.keras.tensors import find_tensors
from secateur.keras.variables import read_array


@dataclass(frozen=True)
class Comparison:
    """A figure of the original and of a candidate, and what it has to come down to.

    Attributes:
        before: The original's.
        after: The candidate's.
        limit: What `after` may be at the most.
    """

    before: float
    after: float
    limit: float

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return self.after <= self.limit

    @property
    def ratio(self) -> float:
        """How many times smaller the candidate is."""
        return self.before / self.after if self.after else float("inf")


class Goal(ABC):
    """A figure that is to become small enough.

    Attributes:
        name: What it is.
        unit: What it counts.
        margin: The share of the limit that pruning aims at, where training changes the figure.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    margin: ClassVar[float] = 1.0

    @abstractmethod
    def compare(
        self, original: Any, candidate: Any, sample: Any, before: float | None = None
    ) -> Comparison:
        """Measure a candidate.

        Args:
            original: The model that is compressed.
            candidate: What has become of it.
            sample: A batch of data as both take it.
            before: The original's figure, if it was measured already; saves time where the two do
                not have to be measured side by side.
        """


@dataclass(frozen=True)
class _Smaller(Goal):
    """Exactly one of the fields is set.

    Attributes:
        ratio: So many times smaller than the original, at least 1.
        value: At most this, in the figure's own unit.
    """

    ratio: float | None = None
    value: float | None = None

    def __post_init__(self) -> None:
        if (self.ratio is None) == (self.value is None):
            raise InvalidArgumentError(
                f"{type(self).__name__} takes either ratio= or value=, got "
                f"ratio={self.ratio!r} and value={self.value!r}."
            )
        if self.ratio is not None and not self.ratio >= 1:
            raise InvalidArgumentError(
                f"ratio says how many times smaller, at least 1; got {self.ratio!r}."
            )
        if self.value is not None and not self.value >= 0:
            raise InvalidArgumentError(f"value must be at least 0, got {self.value!r}.")

    def compare(
        self, original: Any, candidate: Any, sample: Any, before: float | None = None
    ) -> Comparison:
        """See `Goal.compare`."""
        before = self._before(original, sample) if before is None else before
        return self._compared(before, self._measure(candidate, sample))

    def _compared(self, before: float, after: float) -> Comparison:
        limit = before / self.ratio if self.ratio is not None else self.value
        assert limit is not None
        return Comparison(before, after, limit)

    def _before(self, original: Any, sample: Any) -> float:
        return self._measure(original, sample)

    @abstractmethod
    def _measure(self, model: Any, sample: Any) -> float:
        """The figure of one model."""


class Size(_Smaller):
    """Bytes of our file in the small profile; the original's figure is the gzip of its `.keras` file.

    That file is written without the optimizer's state, which would make the ratio look larger.

    Example:
        >>> Size(ratio=10)
        Size(ratio=10, value=None)
    """

    name, unit = "size", "bytes"
    margin = 0.97  # trained weights are coded a little worse than those that were only zeroed

    def _before(self, original: Any, sample: Any) -> float:
        del sample
        return float(gzipped_keras_bytes(original))

    def _measure(self, model: Any, sample: Any) -> float:
        del sample
        return float(file_bytes(model))


class Parameters(_Smaller):
    """Weights of any kind that are not zero."""

    name, unit = "parameters", "weights"

    def _measure(self, model: Any, sample: Any) -> float:
        del sample
        return float(sum(int((read_array(v) != 0).sum()) for v in model.weights))


class Macs(_Smaller):
    """Multiplications by weights that are not zero, for one sample."""

    name, unit = "macs", "multiplications"

    def _measure(self, model: Any, sample: Any) -> float:
        return float(count_macs(model, sample).nonzero)


class Latency(_Smaller):
    """Median seconds of a compiled call on the sample batch, in plain Keras.

    Zeros save no time there, so only cutting brings it down. Original and candidate are measured in
    turn, each time.
    """

    name, unit = "latency", "seconds"

    def compare(
        self, original: Any, candidate: Any, sample: Any, before: float | None = None
    ) -> Comparison:
        """See `Goal.compare`; the original is always measured again, beside the candidate."""
        del before
        return self._compared(*latencies([original, candidate], sample))

    def _measure(self, model: Any, sample: Any) -> float:
        return latencies([model], sample)[0]


@dataclass(frozen=True)
class Sparsity(Goal):
    """Fraction of zeros in the weight matrices that are pruned by default.

    Attributes:
        zeros: Wanted, between 0 and 1.
    """

    zeros: float

    name, unit = "density", "of the weights"

    def __post_init__(self) -> None:
        if not 0 < self.zeros < 1:
            raise InvalidArgumentError(f"zeros must lie between 0 and 1, got {self.zeros!r}.")

    def compare(
        self, original: Any, candidate: Any, sample: Any, before: float | None = None
    ) -> Comparison:
        """See `Goal.compare`; the figures are densities."""
        del sample
        before = density(original) if before is None else before
        return Comparison(before, density(candidate), 1.0 - self.zeros)


def density(model: Any) -> float:
    """Fraction of the weights in weight matrices that are not zero; embeddings are not counted.

    Args:
        model: A built Keras model.
    """
    arrays = [read_array(t.variable) for t in find_tensors(model).tensors if t.default]
    size = sum(array.size for array in arrays)
    return sum(int((array != 0).sum()) for array in arrays) / max(size, 1)


def file_bytes(what: Any) -> int:
    """Bytes of the file that `save` writes in its small profile.

    Args:
        what: As for `save`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path, what, profile="small")
        return path.stat().st_size
