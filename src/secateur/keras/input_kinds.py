"""What kind each input of a model is: numbers, tokens that are looked up, a mask, or given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from secateur.arrays import Array
from secateur.errors import InvalidArgumentError, UnsupportedModelError
from secateur.keras.flatten import Call, Graph, Source, Tensor, input_structure
from secateur.keras.soft_inputs import FloatInput, GivenInput, SoftInput, TokenInput, Tokens
from secateur.keras.walk import is_graph
from secateur.signature import InputSignature, InputSpec

_SAME_ORDER = ("Cast", "Identity", "Reshape", "Squeeze", "ExpandDims", "Flatten", "Copy")
_POINTWISE = (keras.layers.Rescaling, keras.layers.Normalization)
_OVER_SPACE = (
    keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D, keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D,
    keras.layers.BatchNormalization, keras.layers.ZeroPadding2D,
)  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What the user says of the inputs.

    Attributes:
        shapes: Sizes that the model leaves open: input name -> shape without the batch axis.
        tokens: Of all inputs that are token ids.
        mask: Name of the input that is 1 where a position is real.
        fixed: Input name -> its values, for each sample or the same for all.
        share: Of token positions that move.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tokens: Tokens = field(default_factory=Tokens)
    mask: str | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0


@dataclass(frozen=True, eq=False)
class Input:
    """An input of a model and what moves it.

    Attributes:
        name: Its name.
        soft: The values, batch by batch.
        tensor: Of the graph.
        lookups: Calls whose output's gradients move it; for numbers its own do.
    """

    name: str
    soft: SoftInput
    tensor: Tensor
    lookups: tuple[Call, ...] = ()


def find_inputs(
    graph: Graph, signature: InputSignature, told: Told, cost: float | None
) -> list[Input]:
    """Say of each input what it is.

    Args:
        graph: The model, flat.
        signature: What the model takes.
        told: What the user says.
        cost: What the scale of numbers costs, see `FloatInput`.

    Raises:
        InvalidArgumentError: A name that no input has; an open size; values that do not fit.
        UnsupportedModelError: Strings, or integers that are neither looked up nor told.
    """
    names = [spec.name for spec in signature.inputs]
    asked = [*told.shapes, *told.fixed, *([told.mask] if told.mask else [])]
    if unknown := [name for name in asked if name not in names]:
        raise InvalidArgumentError(f"No input is called {unknown[0]!r}; the inputs are {names}.")
    return [
        _input(graph, spec, tensor, told, cost)
        for spec, tensor in zip(signature.inputs, graph.inputs, strict=True)
    ]


def known_shapes(
    model: Any, signature: InputSignature, asked: Mapping[str, tuple[int, ...]] | tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Shapes by name: what the user says, and for the rest what a subclassed model was called on.

    Args:
        model: As it was given: a trace of a subclassed one leaves its sizes open.
        signature: What it takes.
        asked: By name, or the one shape of the one input.

    Raises:
        InvalidArgumentError: One shape for several inputs.
    """
    names = [spec.name for spec in signature.inputs]
    if not isinstance(asked, Mapping):
        if len(names) != 1:
            raise InvalidArgumentError(
                f"shapes is one shape, {asked}, but the model has the inputs {names}; give them by name."
            )
        return {names[0]: tuple(asked)}
    shapes = dict(asked)
    if is_graph(model):
        return shapes
    seen = tree.flatten(input_structure(model))
    for spec, tensor in zip(signature.inputs, seen, strict=True):
        built = tuple(tensor.shape[1:])
        if None in spec.shape[1:] and None not in built:
            shapes.setdefault(spec.name, built)
    return shapes


def _input(graph: Graph, spec: InputSpec, tensor: Tensor, told: Told, cost: float | None) -> Input:
    if spec.dtype == "string":
        raise UnsupportedModelError(
            f"Input {spec} takes strings, and no gradient leads to text. Generate for the part of the "
            "model behind its TextVectorization or lookup layer, keras.Model(token_ids, outputs)."
        )
    shape = _shape(spec, told.shapes)
    if spec.name in told.fixed:
        return Input(spec.name, _given(spec, shape, told.fixed[spec.name]), tensor)
    if spec.name == told.mask:
        return Input(spec.name, GivenInput(shape, spec.dtype, None), tensor)
    lookups = _lookups(graph, tensor)
    if lookups:
        tables = [table for _, table in lookups]
        soft = TokenInput(shape, spec.dtype, tables, told.tokens, told.share)
        return Input(spec.name, soft, tensor, tuple(call for call, _ in lookups))
    if "float" not in spec.dtype:
        raise UnsupportedModelError(
            f"Input {spec} is neither numbers nor looked up in an embedding, so nothing tells its "
            f"values. If it says which positions are real, pass mask={spec.name!r}; else give its "
            f"values, fixed={{{spec.name!r}: array}}."
        )
    scale, offset, smooth = _numbers(graph, tensor, shape)
    numbers = FloatInput(shape, spec.dtype, scale, offset, smooth=smooth, cost=cost)
    return Input(spec.name, numbers, tensor)


def _shape(spec: InputSpec, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    known = spec.shape[1:]
    given = shapes.get(spec.name)
    if given is None:
        if None in known:
            raise InvalidArgumentError(
                f"Input {spec} leaves sizes open; say them without the batch axis: "
                f"shapes={{{spec.name!r}: {tuple(size or 32 for size in known)}}}, say."
            )
        return tuple(int(size) for size in known if size is not None)
    fits = len(given) == len(known) and all(
        size >= 1 and size == (own or size) for size, own in zip(given, known, strict=True)
    )
    if not fits:
        raise InvalidArgumentError(f"shapes[{spec.name!r}] is {given}, which does not fit {spec}.")
    return tuple(given)


def _given(spec: InputSpec, shape: tuple[int, ...], value: Any) -> GivenInput:
    rows = np.asarray(value)
    own = shape if rows.ndim <= len(shape) else (len(rows), *shape)
    try:
        spread = np.broadcast_to(rows, own)
    except ValueError:
        raise InvalidArgumentError(
            f"fixed[{spec.name!r}] has the shape {rows.shape}; expected {shape}, or that behind an "
            "axis of samples."
        ) from None
    return GivenInput(shape, spec.dtype, spread)


def _lookups(graph: Graph, tensor: Tensor) -> list[tuple[Call, Array]]:
    """Calls that look the input up, with their tables (ids, width)."""
    same = {id(tensor)}
    sources: dict[int, Any] = {}
    found = []
    for call in graph.calls:
        if isinstance(call.operation, Source):
            sources[id(call.outputs[0])] = call.operation.variable
        kind = type(call.operation).__name__
        first = call.inputs[:1]
        if kind in _SAME_ORDER and first and id(first[0]) in same:
            same.update(id(output) for output in call.outputs)
        elif isinstance(call.operation, keras.layers.Embedding):
            if first and id(first[0]) in same:
                found.append((call, _numpy(call.operation.embeddings)))
        elif kind == "OneHot" and first and id(first[0]) in same:
            found.append((call, np.eye(int(call.operation.num_classes), dtype=np.float32)))
        elif kind == "Take" and len(call.inputs) == 2 and getattr(call.operation, "axis", 1) == 0:
            table = sources.get(id(call.inputs[0]))
            if table is not None and id(call.inputs[1]) in same:
                rows = _numpy(table)
                found.append((call, rows.reshape(len(rows), -1)))
    return found


def _numbers(graph: Graph, tensor: Tensor, shape: tuple[int, ...]) -> tuple[Array, Array, bool]:
    """Scale and offset that give what lies behind preprocessing unit scale; whether it is an image."""
    scale: Array = np.ones((), np.float32)
    offset: Array = np.zeros((), np.float32)
    readers = [call for call in graph.calls if any(t is tensor for t in call.inputs)]
    while len(readers) == 1 and isinstance(readers[0].operation, _POINTWISE):
        one, two = _affine(readers[0].operation)
        # y = one * x + two; the next layers see y = (own scale) * unit + (own offset) at last.
        scale, offset = scale * one, offset * one + two
        tensor = readers[0].outputs[0]
        readers = [call for call in graph.calls if any(t is tensor for t in call.inputs)]
    smooth = len(shape) > 1 and any(isinstance(call.operation, _OVER_SPACE) for call in readers)
    first = 1 / np.where(np.abs(scale) > 1e-12, scale, 1)
    return np.asarray(first, np.float32), np.asarray(-offset * first, np.float32), smooth


def _affine(layer: Any) -> tuple[Array, Array]:
    if isinstance(layer, keras.layers.Rescaling):
        return np.asarray(layer.scale, np.float32), np.asarray(layer.offset, np.float32)
    mean, deviation = (_numpy(own)[0] for own in (layer.mean, ops.sqrt(layer.variance)))
    if layer.invert:
        return np.asarray(deviation), np.asarray(mean)
    factor = 1 / np.maximum(deviation, 1e-7)
    return np.asarray(factor), np.asarray(-mean * factor)


def _numpy(value: Any) -> Array:
    return np.asarray(ops.convert_to_numpy(value), np.float32)
