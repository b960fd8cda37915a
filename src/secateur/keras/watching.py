"""Run a model over data and see what goes into some of its weight matrices."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from secateur.keras.consumers import Consumer
from secateur.keras.curvature import output_curvature
from secateur.keras.data import mask_of
from secateur.keras.describe import everything
from secateur.keras.flatten import Call, Graph
from secateur.keras.padding import Keep, PaddedBatch, Padding
from secateur.keras.rebuild import rebuild
from secateur.keras.running import run_graph
from secateur.keras.taps import Tap, open_graph, taps_of
from secateur.keras.workbench import Bench

See = Callable[[Tap, Call, tuple[Any, ...], dict[str, Any], Keep | None], None]
"""Called with a tap, its call, the values of its arguments, and what tells which positions count."""


def watch_taps(bench: Bench, wanted: Container[int], batches: Iterable[Any], see: See) -> None:
    """Run a model, without what is bypassed, and see every call that uses one of the wanted weights.

    Args:
        bench: The model.
        wanted: Identities of weights of the original.
        batches: Calibration data, nested as the model takes it.
        see: Sees each tap of each such call.
    """
    opened, original = _opened(bench)
    taps = {
        id(call): [
            own
            for own in (_of_original(tap, original) for tap in taps_of(call))
            if id(own.variable) in wanted
        ]
        for call in opened.calls
    }
    padding = Padding(opened, mask_of(batches))
    for batch, padded in padding.batches(batches):

        def visit(
            call: Call,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            padded: PaddedBatch = padded,
        ) -> None:
            for tap in taps[id(call)]:
                see(tap, call, args, kwargs, padded.of(call, args))

        run_graph(opened, batch, visit)


def watch_curvature(
    bench: Bench, wanted: Mapping[int, Consumer], batches: Iterable[Any]
) -> dict[int, np.ndarray[Any, np.dtype[np.float64]]]:
    """What the model's outputs lose by errors of what some weights put out, see `output_curvature`.

    Args:
        bench: The model, without what is bypassed.
        wanted: By identity of a weight of the original, what reads units by it.
        batches: Calibration data.

    Returns:
        By identity of the weight, (out, out); nothing where it is not known.
    """
    opened, original = _opened(bench)
    meant, sizes = {}, {}
    for call in opened.calls:
        for tap in taps_of(call):
            identity = id(original.get(id(tap.variable), tap.variable))
            if identity in wanted:
                shape = np.empty(wanted[identity].variable.shape, np.bool_)
                meant[id(tap.variable)] = identity
                sizes[id(tap.variable)] = len(wanted[identity].matrix(shape))
    found = output_curvature(opened, sizes, batches)
    return {meant[identity]: curvature for identity, curvature in found.items()}


def _of_original(tap: Tap, original: Mapping[int, Any]) -> Tap:
    """A tap that names the variables of the original."""
    bias = tap.bias and replace(
        tap.bias, variable=original.get(id(tap.bias.variable), tap.bias.variable)
    )
    return replace(tap, variable=original.get(id(tap.variable), tap.variable), bias=bias)


def _opened(bench: Bench) -> tuple[Graph, dict[int, Any]]:
    """The graph that is run; and by identity of a variable in it the original's, if it is another."""
    graph = bench.description.graph
    if not bench.reduction.names:
        return open_graph(graph.model, graph.input_structure), {}
    # Attention is opened while a model is traced, so what is bypassed has to be gone from a model.
    built, pairs = rebuild(bench.description, everything(bench.description))
    return open_graph(built.model), {id(new): old for old, new, _ in pairs}
