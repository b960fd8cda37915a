"""Measure what subnetworks emit: run the flat model over data and watch the tensors that units end in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops, tree

from secateur.errors import InvalidArgumentError, NonFiniteError
from secateur.groups import Units
from secateur.keras.bypass_measuring import BypassMeter
from secateur.keras.cut_rules import Site
from secateur.keras.data import mask_of
from secateur.keras.describe import Description, everything
from secateur.keras.flatten import Call
from secateur.keras.padding import Keep, PaddedBatch, Padding
from secateur.keras.proof import run
from secateur.network import Labels
from secateur.outputs import OutputStatistics


@dataclass(eq=False)
class Emission:
    """A tensor whose axis carries units.

    Attributes:
        name: Operation that makes the units.
        axis: Axis of the units.
        labels: Their slots.
        statistics: Counted so far.
        call: What computes the tensor.
    """

    name: str
    axis: int
    labels: Labels
    statistics: OutputStatistics
    call: Call


def measure_outputs(
    description: Description,
    units: Units,
    batches: Iterable[Any],
    measure: str,
    meter: BypassMeter | None = None,
) -> npt.NDArray[np.float64]:
    """Score every unit by what it emits on data.

    A unit is measured where it leaves its subnetwork: after the activations and normalisations that
    follow its layer and nothing else reads. Of a unit made by several layers (a residual sum) the
    largest counts, so that it goes only if all of its parts are weak.

    Args:
        description: The flat model.
        units: What goes together.
        batches: Inputs, nested as the model takes them.
        measure: "mean", "rms", "max" or "std" of the absolute output.
        meter: Watches branches, layers and blocks in the same pass.

    Returns:
        (units,), float64; +inf for units that are measured nowhere.

    Raises:
        InvalidArgumentError: No batch came.
        NonFiniteError: An activation is NaN or infinite; names the layer.
    """
    tensors, inner = _places(description)
    keep_all = everything(description)
    count = 0
    padded: PaddedBatch

    def watch(site: Site, outputs: list[Any]) -> None:
        for tensor, value in zip(site.call.outputs, outputs, strict=True):
            keep = padded.of_value(site.call, value)
            for emission in tensors.get(id(tensor), ()):
                _count(emission, value, keep)
            if meter is not None:
                meter.see(tensor, value, keep)

    def hear(emission: Emission, value: Any) -> None:
        _count(emission, value, padded.of_value(emission.call, value))

    padding = Padding(description.graph, mask_of(batches))
    with _listening(inner, hear):
        for batch, padded in padding.batches(batches):  # noqa: B007 - read by what watches
            count += 1
            if meter is not None:
                inputs = zip(description.graph.inputs, tree.flatten(batch), strict=True)
                meter.begin({id(tensor): value for tensor, value in inputs})
            run(description, batch, keep_all, watch)
    if not count:
        raise InvalidArgumentError("data holds no samples.")
    scores = np.full(units.num_units, -np.inf)
    for emission in [*(e for found in tensors.values() for e in found), *(e for _, e in inner)]:
        if not emission.statistics.count:
            continue
        values = emission.statistics.measure(measure)  # type: ignore[arg-type]
        np.maximum.at(scores, units.unit_of[emission.labels], values)
    return np.where(np.isneginf(scores), np.inf, scores)


def _count(emission: Emission, value: Any, keep: Keep | None) -> None:
    array = ops.convert_to_numpy(value)
    if emission.statistics.dim is not None:
        moved = np.moveaxis(array, emission.axis, -2)
        lead = moved.shape[:-2]
    else:
        moved = np.moveaxis(array, emission.axis, -1)
        lead = moved.shape[:-1]
    mask = None if keep is None else keep(lead)
    try:
        emission.statistics.update(np.ascontiguousarray(moved), mask=mask)
    except NonFiniteError as error:
        raise NonFiniteError(
            f"The outputs of layer {emission.name!r} hold NaN or infinite values on this data; "
            "mend the model or the data before cutting."
        ) from error


def _places(
    description: Description,
) -> tuple[dict[int, list[Emission]], list[tuple[Any, Emission]]]:
    """Tensors to watch, and inner layers whose input is to be watched (attention heads)."""
    readers: dict[int, list[Site]] = {}
    for site in description.sites:
        for tensor in {id(t): t for t in site.inputs}.values():
            readers.setdefault(id(tensor), []).append(site)
    final = {id(tensor) for tensor in description.graph.outputs}
    tensors: dict[int, list[Emission]] = {}
    inner: list[tuple[Any, Emission]] = []
    for site in description.sites:
        for sublayer, axis, labels, dim in site.emitted:
            statistics = OutputStatistics(labels.size, name=site.name, dim=dim)
            inner.append((sublayer, Emission(site.name, axis, labels, statistics, site.call)))
        if not site.made or not site.call.outputs:
            continue
        tensor = site.call.outputs[0]
        while id(tensor) not in final and len(readers.get(id(tensor), ())) == 1:
            (reader,) = readers[id(tensor)]
            if not reader.passes or len(reader.call.outputs) != 1:
                break
            if len(reader.call.outputs[0].shape) != len(tensor.shape):
                break
            tensor = reader.call.outputs[0]
        for axis, own in enumerate(description.labels(tensor)):
            if own is None or "float" not in tensor.dtype:
                continue
            statistics = OutputStatistics(own.size, name=site.name)
            emission = Emission(site.name, axis, own, statistics, site.call)
            tensors.setdefault(id(tensor), []).append(emission)
            break
    return tensors, inner


@contextlib.contextmanager
def _listening(
    inner: list[tuple[Any, Emission]], hear: Callable[[Emission, Any], None]
) -> Iterator[None]:
    """Count what goes into inner layers while this lasts."""

    def listener(sublayer: Any, emission: Emission) -> Callable[..., Any]:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            hear(emission, tree.flatten(x)[0])
            return type(sublayer).call(sublayer, x, *args, **kwargs)

        return call

    try:
        for sublayer, emission in inner:
            sublayer.__dict__["call"] = listener(sublayer, emission)
        yield
    finally:
        for sublayer, _ in inner:
            sublayer.__dict__.pop("call", None)
