"""What branches put out on data, what layers and blocks change, or norms where there is no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops

from secateur.errors import NonFiniteError
from secateur.keras.bypass import Candidate
from secateur.keras.cut_rules.site import channel_axis
from secateur.keras.flatten import Tensor
from secateur.keras.flow import weights_of
from secateur.keras.padding import Keep
from secateur.keras.variables import read_array
from secateur.outputs import OutputStatistics


class BypassMeter:
    """Watches the tensors that candidates begin and end in, while a model runs over data.

    The output of a branch is its tensor t = f(x); a layer or block between a and b puts out what
    it changes, b - a. Each is one subnetwork: measured over all its elements at unmasked positions.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._statistics: dict[str, OutputStatistics] = {}
        self._ends: dict[int, list[Candidate]] = {}
        self._entries: dict[int, int] = {}
        for one in candidates:
            self._ends.setdefault(id(one.exit), []).append(one)
            if one.entry is not None:
                self._entries[id(one.entry)] = self._entries.get(id(one.entry), 0) + 1
        self._values: dict[int, npt.NDArray[Any]] = {}
        self._due: dict[int, int] = {}

    def begin(self, inputs: Mapping[int, Any]) -> None:
        """A new batch: the model's inputs, by identity of their tensors."""
        self._values.clear()
        self._due = dict(self._entries)
        for identity, value in inputs.items():
            if identity in self._entries:
                self._values[identity] = np.asarray(value)

    def see(self, tensor: Tensor, value: Any, keep: Keep | None) -> None:
        """A tensor of the graph was computed, and this tells its real positions."""
        ends = self._ends.get(id(tensor), ())
        if not ends and id(tensor) not in self._entries:
            return
        array = ops.convert_to_numpy(value)
        for one in ends:
            self._count(one, array, keep)
        if id(tensor) in self._entries:
            self._values[id(tensor)] = array

    def _count(self, one: Candidate, array: npt.NDArray[Any], keep: Keep | None) -> None:
        if one.entry is not None:
            array = array - self._values[id(one.entry)]
            self._due[id(one.entry)] -= 1
            if not self._due[id(one.entry)]:
                del self._values[id(one.entry)]
        rows = array if one.exit.shape[-1] is not None else array[..., None]
        mask = None if keep is None else keep(rows.shape[:-1])
        if one.name not in self._statistics:
            self._statistics[one.name] = OutputStatistics(rows.shape[-1], name=one.name)
        try:
            self._statistics[one.name].update(np.ascontiguousarray(rows), mask=mask)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"What {one.name!r} puts out holds NaN or infinite values on this data; "
                "mend the model or the data before cutting."
            ) from error

    def outputs(self, measure: str) -> dict[str, float]:
        """Per name, the measure over all elements; 0 where every position was masked."""
        return {
            name: overall(own, measure) if own.count else 0.0
            for name, own in self._statistics.items()
        }


def overall(statistics: OutputStatistics, measure: str) -> float:
    """One measure over all elements, from those of the columns (all of which have as many).

    Example:
        >>> statistics = OutputStatistics(2)
        >>> statistics.update(np.array([[1.0, -3.0], [1.0, -3.0]]))
        >>> [overall(statistics, measure) for measure in ("mean", "max", "std")]
        [2.0, 3.0, 2.0]
    """
    if measure == "max":
        return float(statistics.measure("max").max())
    if measure == "mean":
        return float(statistics.measure("mean").mean())
    squares = np.square(statistics.measure("rms" if measure == "rms" else "std")).mean()
    if measure == "std":
        squares += np.var(statistics.mean)
    return float(np.sqrt(squares))


def weight_outputs(candidates: Sequence[Candidate]) -> dict[str, float]:
    """Without data, the rms that a part's last weights emit, per name.

    For a matrix W with `out` outputs that is ||W||_F / sqrt(out), the root mean square of x W for
    inputs x whose elements are independent with mean 0 and variance 1; of a layer with several
    matrices (an attention) the last counts, its output projection. For a normalisation it is
    sqrt(mean(scale^2) + mean(offset^2)), whatever goes in.
    """
    return {one.name: _last_weights(one) for one in candidates}


def _last_weights(one: Candidate) -> float:
    call = next(call for call in reversed(one.calls) if weights_of(call))
    arrays = [(str(v.name), read_array(v).astype(np.float64)) for v in weights_of(call)]
    rank = max(array.ndim for _, array in arrays)  # The bias of a projection to heads has two axes.
    matrices = [array for _, array in arrays if array.ndim == rank >= 2]
    if matrices:
        shape = call.outputs[0].shape
        width = shape[channel_axis(call.operation, len(shape))] or matrices[-1].shape[-1]
        return float(np.sqrt(np.square(matrices[-1]).sum() / width))
    shown = [array for name, array in arrays if name in ("gamma", "scale", "beta")]
    shown = shown or [array for _, array in arrays]
    return float(np.sqrt(sum(np.square(array).mean() for array in shown)))
