"""Fold the mean of what is removed into the next bias, so that a constant unit costs nothing.

A consumer computes W x + b. Held at zero, its removed inputs R are missed by W_R x_R; the constant that
makes up for most of that is its mean over the data, W_R mean(x_R), added to b. The mean is of what the
consumer really takes, so whatever stands between a unit and its consumer is right by measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops
from keras.src.layers.convolutional.base_conv_transpose import BaseConvTranspose
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from secateur.errors import NonFiniteError
from secateur.groups import Units
from secateur.keras.consumers import Consumer, find_consumers
from secateur.keras.corrections import AddedBias, Corrections, bias_entry, einsum_bias_axes
from secateur.keras.cut_rules.site import Kept, Site, channel_axis
from secateur.keras.describe import Description
from secateur.keras.flatten import Call
from secateur.keras.padding import Keep, counted
from secateur.keras.taps import Bias, Tap
from secateur.keras.watching import watch_taps
from secateur.keras.workbench import Bench

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Folding:
    """Means that were folded.

    Attributes:
        corrections: Biases (and means of normalisations) that change, and biases to be added.
        folded: Consumer -> where the mean of its removed inputs went: "bias", "new bias" or
            "moving mean of ...".
        held: Consumer -> why its removed inputs are held at zero instead.
        shifts: By identity of a consumer's weight, what was folded, one number per row of its matrix.
        norms: By identity of a consumer's weight, the normalisation whose moving mean took it up.
    """

    corrections: Corrections = field(default_factory=Corrections)
    folded: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    shifts: Mapping[int, Float64] = field(default_factory=dict, repr=False)
    norms: Mapping[int, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        count = len(self.folded)
        plural = "" if count == 1 else "s"
        lines = [f"means of removed units folded into {count} layer{plural}"] if count else []
        unusual = {name: where for name, where in self.folded.items() if where != "bias"}
        lines += [f"  {name}: {where}" for name, where in unusual.items()]
        lines += [f"  {name}: held at zero, {why}" for name, why in self.held.items()]
        return "\n".join(lines)


def fold_means(bench: Bench, kept: Kept, batches: Iterable[Any]) -> Folding:
    """Work out what folding the means of removed units changes.

    Args:
        bench: The original, without what is bypassed.
        kept: What stays.
        batches: Calibration data, nested as the model takes it.

    Returns:
        The corrections, at the original's size; nothing has changed yet.

    Raises:
        NonFiniteError: What goes into a layer is NaN or infinite.
    """
    description = bench.description
    consumers = [own for own in find_consumers(description) if own.removed(kept).any()]
    held = _sums_without_weights(description, bench.units, kept, consumers)
    return _Folder(bench, kept, held).fold(consumers, batches)


class _Folder:
    def __init__(self, bench: Bench, kept: Kept, held: dict[str, str]) -> None:
        self.bench = bench
        self.kept = kept
        self.corrections = Corrections()
        self.folded: dict[str, str] = {}
        self.held = held
        self.shifts: dict[int, Float64] = {}
        self.norms: dict[int, Any] = {}

    def fold(self, consumers: Sequence[Consumer], batches: Iterable[Any]) -> Folding:
        wanted = {}
        for consumer in consumers:
            if consumer.trouble:
                self.held[consumer.name] = consumer.trouble
            else:
                wanted[id(consumer.variable)] = consumer
        if wanted:
            means = mean_rows(self.bench, wanted, batches)
            for identity, consumer in wanted.items():
                self._fold(consumer, means.get(identity))
        return Folding(self.corrections, self.folded, self.held, self.shifts, self.norms)

    def _fold(self, consumer: Consumer, seen: tuple[Tap, Float64] | None) -> None:
        if seen is None:
            kind = type(consumer.owner).__name__
            self.held[consumer.name] = f"it is not known what goes into a weight of a {kind}"
            return
        tap, mean = seen
        rows = self._shift(consumer, mean)
        shift = per_output(consumer.owner, rows)
        bias = tap.bias or bias_beside(consumer.owner)
        norm = None if bias is not None else norm_after(self.bench.description, consumer)
        if bias is not None:
            self._shift_bias(bias, shift)
            self.folded[consumer.name] = "bias"
        elif norm is not None:
            self.corrections.shift(norm.moving_mean, -shift)
            self.folded[consumer.name] = f"moving mean of {norm.name}"
            self.norms[id(consumer.variable)] = norm
        elif why := self._add_bias(consumer, shift):
            self.held[consumer.name] = why
            return
        else:
            self.folded[consumer.name] = "new bias"
        self.shifts[id(consumer.variable)] = rows

    def _shift(self, consumer: Consumer, mean: Float64) -> Float64:
        """W_R mean(x_R), one number per row of the matrix."""
        value = self.corrections.value_of(consumer.variable)
        matrix = consumer.matrix(value).astype(np.float64)
        gone = consumer.removed(self.kept)
        parts = np.split(matrix[:, gone], len(mean))  # each (rows of the group, removed)
        return np.concatenate([part @ own[gone] for part, own in zip(parts, mean, strict=True)])

    def _shift_bias(self, bias: Bias, shift: Float64) -> None:
        by = np.zeros(bias.variable.shape)
        part = by if bias.part is None else by[bias.part]
        part[...] = shift.reshape(part.shape)
        self.corrections.shift(bias.variable, by)

    def _add_bias(self, consumer: Consumer, shift: Float64) -> str:
        """Add a bias; returns why not, or ""."""
        owner = consumer.owner
        if isinstance(getattr(owner, "bias", None), keras.Variable):
            return "its bias has no entry for each of its outputs"
        if bias_entry(consumer.site.call.operation, owner) is None:
            return f"a {type(owner).__name__} takes no bias"
        labels = consumer.output_axes
        value, axes = shift, labels
        if isinstance(owner, layers.EinsumDense):
            shaped = _einsum_bias(consumer, shift)
            if shaped is None:
                return "its outputs stand in another order than those of its kernel"
            value, axes = shaped
        elif isinstance(owner, layers.GRUCell) and owner.reset_after:
            number = int(consumer.variable is owner.recurrent_kernel)
            value = np.zeros((2, shift.size))
            value[number] = shift
            axes = (None, *labels)
        known = self.corrections.added.get(id(owner))
        if known is not None:
            value = value + known.value
        self.corrections.added[id(owner)] = AddedBias(owner, value, axes)
        return ""


def _einsum_bias(consumer: Consumer, shift: Float64) -> tuple[Float64, Any] | None:
    owner = consumer.owner
    _, kernel, out = owner.equation.replace(" ", "").replace("->", ",").split(",")
    made = einsum_bias_axes(owner)
    if made != "".join(letter for letter in kernel if letter in made):
        return None
    labels = dict(zip(kernel, consumer.axes, strict=True))
    sizes = dict(zip(kernel, consumer.variable.shape, strict=True))
    tail = out[min(out.index(letter) for letter in made) :]
    shape = [sizes[letter] if letter in made else 1 for letter in tail]
    return shift.reshape(shape), tuple(labels[x] if x in made else None for x in tail)


def per_output(owner: Any, rows: Float64) -> Float64:
    """What numbers for the rows of a layer's matrix are on average for its outputs.

    Rows of a transposed convolution are (taps, out); of the taps, each position of the output meets one
    in prod(strides), borders left aside. Of all other layers a row is an output.
    """
    if not isinstance(owner, BaseConvTranspose):
        return rows
    return np.asarray(rows.reshape(-1, owner.filters).sum(axis=0) / np.prod(owner.strides))


def bias_beside(owner: Any) -> Bias | None:
    """The bias of layers whose matrix does not give their outputs one by one, so no tap names it."""
    if isinstance(owner, (BaseConvTranspose, ConvLSTMCell)) and owner.bias is not None:
        return Bias(owner.bias)
    return None


def mean_rows(
    bench: Bench, wanted: Mapping[int, Consumer], batches: Iterable[Any]
) -> dict[int, tuple[Tap, Float64]]:
    """The mean of what goes into weight matrices of the original.

    Args:
        bench: The original, without what is bypassed.
        wanted: Consumers by identity of their weight.
        batches: Calibration data.

    Returns:
        By identity of the weight, its tap and the mean row (groups, in), over all positions that
        count and all calls; a weight that no tap tells of is left out.

    Raises:
        NonFiniteError: A mean is NaN or infinite; names the layer.
    """
    sums: dict[int, tuple[Tap, Float64, int]] = {}

    def see(tap: Tap, call: Call, args: Any, kwargs: Any, keep: Keep | None) -> None:
        identity = id(tap.variable)
        if keep is None and not isinstance(call.operation, (layers.RNN, layers.Bidirectional)):
            weight, *given = _batch_mean(args, kwargs)
        else:
            weight, given = 1, [args, kwargs]
        rows = counted(tap.rows(*given), keep, tap.groups)
        _, total, count = sums.get(identity, (tap, np.zeros(()), 0))
        total = total + rows.sum(axis=1, dtype=np.float64) * weight
        sums[identity] = (tap, total, count + rows.shape[1] * weight)

    watch_taps(bench, wanted, batches, see)
    means = {}
    for identity, (tap, total, count) in sums.items():
        if not np.isfinite(total).all():
            raise NonFiniteError(
                f"What goes into {wanted[identity].name!r} holds NaN or infinite values on this "
                "data; mend the model or the data before cutting."
            )
        means[identity] = (tap, total / max(count, 1))
    return means


def _batch_mean(args: Any, kwargs: Any) -> tuple[int, Any, Any]:
    """A batch of one sample, the mean: rows are linear in the input, so their mean is that of it."""
    size = 0

    def mean(leaf: Any) -> Any:
        nonlocal size
        if not ops.is_tensor(leaf) or len(leaf.shape) < 2:
            return leaf
        array = np.asarray(ops.convert_to_numpy(leaf))
        size = len(array)
        found = np.mean(array, axis=0, keepdims=True, dtype=np.float64)
        return found if array.dtype == np.float64 else found.astype(np.float32)

    args, kwargs = keras.tree.map_structure(mean, (args, kwargs))
    return size, args, kwargs


def norm_after(description: Description, consumer: Consumer) -> Any:
    """The batch normalisation that alone reads what a layer puts out, value by value; or None."""
    layer, site = consumer.owner, consumer.site
    plain = getattr(layer, "activation", None) in (None, keras.activations.linear)
    if site.call.operation is not layer or consumer.num_calls != 1 or not plain:
        return None
    output = site.call.outputs[0]
    readers = [s for s in description.sites if any(t is output for t in s.inputs)]
    if len(readers) != 1 or any(t is output for t in description.graph.outputs):
        return None
    norm = readers[0].call.operation
    uses = [s for s in description.sites if s.call.operation is norm]
    if type(norm) is not layers.BatchNormalization or len(uses) != 1:
        return None
    rank = len(output.shape)
    made = _made_axis(layer, rank)
    return norm if made is not None and norm.axis % rank == made else None


def _made_axis(layer: Any, rank: int) -> int | None:
    """The one axis of a layer's output that its kernel makes; None where there are more."""
    if isinstance(layer, layers.EinsumDense):
        out = layer.equation.split("->")[1].strip()
        made = einsum_bias_axes(layer)
        return rank - 1 if len(made) == 1 and out.endswith(made) else None
    if isinstance(layer, layers.Dense):
        return rank - 1
    return channel_axis(layer, rank)


def _sums_without_weights(
    description: Description, units: Units, kept: Kept, consumers: Sequence[Consumer]
) -> dict[str, str]:
    """Calls that sum over removed positions without a weight matrix, so no bias makes up for them."""
    weighted = {id(consumer.site) for consumer in consumers}
    return {
        site.name: "it sums over removed units without a weight matrix"
        for site in description.sites
        if id(site) not in weighted and _loses(site, units, kept)
    }


def _loses(site: Site, units: Units, kept: Kept) -> bool:
    """Whether removed units go in and do not come out."""
    out = [units.unit_of[own] for labels in site.results for own in labels if own is not None]
    passed = np.unique(np.concatenate(out)) if out else np.zeros(0, np.int64)
    return any(
        labels is not None and not np.isin(units.unit_of[labels[~kept.mask(labels)]], passed).all()
        for tensor in site.inputs
        for labels in site.known.get(id(tensor), ())
    )
