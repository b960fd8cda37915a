"""What a compression is to reach: zeros, weights, bytes, multiplications or time."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from secateur.compression.costs import Costs, WeightCost, binary_entropy, prunable
from secateur.errors import InvalidArgumentError
from secateur.files import save
from secateur.keras.complexity import count_macs, gzipped_keras_bytes, latencies, weight_uses
from secateur.keras.tensors import WeightTensor, find_tensors
from secateur.keras.variables import read_array
from secateur.storage.encodings import encode


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
        by_zeros: Whether zeros bring it down.
        by_cutting: Whether smaller layers do.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    margin: ClassVar[float] = 1.0
    by_zeros: ClassVar[bool] = True
    by_cutting: ClassVar[bool] = True

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

    def costs(self, original: Any, sample: Any) -> Costs:
        """What the original's weight matrices take of the figure, about: what plans are made with.

        Args:
            original: The model that is compressed.
            sample: A batch of data as it takes it.
        """
        tensors = prunable(original)
        found = self.prices(original, tensors, sample)
        weights = {name: own for name, own in found.items() if own.per_weight > 0}
        own = {t.name: read_array(t.variable) for t in tensors if t.name in weights}
        taken = sum(
            weights[name].of(int(np.count_nonzero(array)), array.size)
            for name, array in own.items()
        )
        # A model that is nothing but its copy: what its figure is before anything is gone.
        figure = self.compare(original, original, sample).after
        return Costs(weights, max(figure - taken, 0.0))

    def prices(
        self, model: Any, tensors: Sequence[WeightTensor], sample: Any
    ) -> dict[str, WeightCost]:
        """Weight name -> what it costs, for those of the matrices that cost anything.

        By default the figure is shared out evenly over all weights.
        """
        figure = self.compare(model, model, sample).after
        size = sum(int(np.prod(tensor.shape)) for tensor in tensors)
        return {tensor.name: WeightCost(figure / max(size, 1)) for tensor in tensors}


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

    def prices(
        self, model: Any, tensors: Sequence[WeightTensor], sample: Any
    ) -> dict[str, WeightCost]:
        """See `Goal.prices`: bits of the values by coding them, and of the positions by entropy."""
        del model, sample
        return {tensor.name: _coded(read_array(tensor.variable)) for tensor in tensors}


class Parameters(_Smaller):
    """Weights of any kind that are not zero."""

    name, unit = "parameters", "weights"

    def _measure(self, model: Any, sample: Any) -> float:
        del sample
        return float(sum(int((read_array(v) != 0).sum()) for v in model.weights))

    def prices(
        self, model: Any, tensors: Sequence[WeightTensor], sample: Any
    ) -> dict[str, WeightCost]:
        """See `Goal.prices`."""
        del model, sample
        return {tensor.name: WeightCost(1.0) for tensor in tensors}


class Macs(_Smaller):
    """Multiplications by weights that are not zero, for one sample."""

    name, unit = "macs", "multiplications"

    def _measure(self, model: Any, sample: Any) -> float:
        return float(count_macs(model, sample).nonzero)

    def prices(
        self, model: Any, tensors: Sequence[WeightTensor], sample: Any
    ) -> dict[str, WeightCost]:
        """See `Goal.prices`; what is looked up and not multiplied, as embeddings, has none."""
        uses = weight_uses(model, sample)
        known = [tensor for tensor in tensors if id(tensor.variable) in uses]
        return {tensor.name: WeightCost(uses[id(tensor.variable)]) for tensor in known}


class Latency(_Smaller):
    """Median seconds of a compiled call on the sample batch, in plain Keras.

    Zeros save no time there, so only cutting brings it down. Original and candidate are measured in
    turn, each time.
    """

    name, unit = "latency", "seconds"
    by_zeros = False

    def compare(
        self, original: Any, candidate: Any, sample: Any, before: float | None = None
    ) -> Comparison:
        """See `Goal.compare`; the original is always measured again, beside the candidate."""
        del before
        return self._compared(*latencies([original, candidate], sample))

    def _measure(self, model: Any, sample: Any) -> float:
        return latencies([model], sample)[0]

    def prices(
        self, model: Any, tensors: Sequence[WeightTensor], sample: Any
    ) -> dict[str, WeightCost]:
        """See `Goal.prices`: the time is shared out by multiplications."""
        weights = Macs(ratio=1).prices(model, tensors, sample)
        macs = sum(
            weights[t.name].per_weight * float(np.prod(t.shape))
            for t in tensors
            if t.name in weights
        )
        share = self._measure(model, sample) / max(macs, 1.0)
        return {name: WeightCost(share * own.per_weight) for name, own in weights.items()}


@dataclass(frozen=True)
class Sparsity(Goal):
    """Fraction of zeros in the weight matrices that are pruned by default.

    Attributes:
        zeros: Wanted, between 0 and 1.
    """

    zeros: float

    name, unit = "density", "of the weights"
    by_cutting = False

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

    def prices(
        self, model: Any, tensors: Sequence[WeightTensor], sample: Any
    ) -> dict[str, WeightCost]:
        """See `Goal.prices`; embeddings are not counted."""
        del model, sample
        counted = [tensor for tensor in tensors if tensor.default]
        size = sum(int(np.prod(tensor.shape)) for tensor in counted)
        return {tensor.name: WeightCost(1.0 / max(size, 1)) for tensor in counted}


def _coded(array: np.ndarray[Any, Any]) -> WeightCost:
    """Bytes of a weight in our file, found by coding the array as it is."""
    _, parts, kept = encode(np.ascontiguousarray(array), "small")
    positions = array.size * binary_entropy(kept / max(array.size, 1)) / 8
    values = max(sum(part.nbytes for part in parts) - positions, 0.0)
    return WeightCost(values / max(kept, 1), 1 / 8)


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
