"""`compile`, and the engine it returns."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import secateur.runtime.layers  # noqa: F401  (fills the tables of lowering)
from secateur.errors import FileFormatError, InvalidArgumentError, UnsupportedModelError
from secateur.runtime.choosing import Chooser, Timer, time_best
from secateur.runtime.lowering import Context, Lower, Site, leaves, lower_graph
from secateur.runtime.planning import Bound, Builder, Plan, Value
from secateur.runtime.reading import Source, Weights, read_source, reading, walk_kinds

_MAX_PLANS = 16


@dataclass(frozen=True)
class Support:
    """Whether a model can be compiled; true if so.

    Attributes:
        unknown: Path -> class name of every layer and operation that the runtime does not know.
    """

    unknown: Mapping[str, str]

    def __bool__(self) -> bool:
        return not self.unknown


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: its name, its shape without the batch (None: any), its dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class _Prepared:
    """A plan with the arenas it has been bound to, of which a call takes one for itself."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._lock = threading.Lock()
        self._free: list[Bound] = [plan.bind()]

    @contextmanager
    def bound(self) -> Iterator[Bound]:
        """An arena nobody else runs in; one more is made only when all are in use."""
        with self._lock:
            taken = self._free.pop() if self._free else None
        if taken is None:
            taken = self.plan.bind()
        try:
            yield taken
        finally:
            with self._lock:
                self._free.append(taken)


class Engine:
    """A compiled model. Made by `compile`; any number of threads may call it.

    Attributes:
        batch: Samples that are computed at a time.
        inputs: What it takes.
    """

    def __init__(self, source: Source, batch: int, context: Context) -> None:
        self.batch = batch
        self._source = source
        self._context = context
        self._compiling = threading.Lock()
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], _Prepared] = OrderedDict()
        self.inputs = _input_specs(source.config)

    def predict(self, x: Any) -> Any:
        """The model's outputs for some samples, as `keras.Model.predict` gives them.

        Args:
            x: An array (samples, ...), or a list, tuple or dict (by name) of them.

        Returns:
            An array, or arrays nested as the model's outputs are; the caller's own.

        Raises:
            InvalidArgumentError: Number or shape of the arrays do not fit the model.
        """
        arrays = self._check(x)
        total = arrays[0].shape[0]
        pieces = []
        for start in range(0, max(total, 1), self.batch):
            pieces.append(self._run([array[start : start + self.batch] for array in arrays]))
        return pieces[0] if len(pieces) == 1 else _joined(pieces)

    __call__ = predict

    def prepare(self, *shapes: Sequence[int]) -> None:
        """Plan for inputs of these shapes (batch included), so that the first call need not.

        Args:
            shapes: One per input.
        """
        self._prepared(tuple(tuple(int(n) for n in shape) for shape in shapes))

    def kernels(self) -> dict[str, dict[int, str]]:
        """Which kernel was chosen: matrix -> number of rows -> name."""
        return {
            name: {rows: kernel.name for rows, kernel in matrix.kernels.items()}
            for name, matrix in self._context.matrices.items()
        }

    def _check(self, x: Any) -> list[NDArray[Any]]:
        if isinstance(x, Mapping):
            missing = [spec.name for spec in self.inputs if spec.name not in x]
            if missing:
                raise InvalidArgumentError(f"The inputs {missing} are missing, got {sorted(x)}.")
            given = [x[spec.name] for spec in self.inputs]
        else:
            given = list(x) if isinstance(x, (list, tuple)) and len(self.inputs) > 1 else [x]
        if len(given) != len(self.inputs):
            raise InvalidArgumentError(
                f"The model takes {len(self.inputs)} arrays, "
                f"{[spec.name for spec in self.inputs]}, got {len(given)}."
            )
        arrays = [np.asarray(array) for array in given]
        for spec, array in zip(self.inputs, arrays, strict=True):
            wanted = (None, *spec.shape)
            fits = array.ndim == len(wanted) and all(
                size is None or size == extent
                for size, extent in zip(wanted, array.shape, strict=True)
            )
            if not fits or array.shape[0] != arrays[0].shape[0]:
                raise InvalidArgumentError(
                    f"Input {spec.name!r} takes an array of shape {wanted} with as many samples "
                    f"as the others, got {array.shape}."
                )
        return arrays

    def _run(self, arrays: list[NDArray[Any]]) -> Any:
        prepared = self._prepared(tuple(array.shape for array in arrays))
        with prepared.bound() as bound:
            for target, array in zip(bound.inputs, arrays, strict=True):
                np.copyto(target, array, casting="unsafe")
            try:
                bound.run()
            except (ValueError, TypeError) as error:
                # The inputs have been checked: what does not fit is within the model.
                raise FileFormatError(
                    f"The model's arrays do not fit its configuration: {error}."
                ) from error
            return _map(prepared.plan.outputs, lambda value: bound.array(value).copy())

    def _prepared(self, shapes: tuple[tuple[int, ...], ...]) -> _Prepared:
        with self._compiling:
            found = self._plans.get(shapes)
            if found is None:
                with reading(self._source):
                    found = _Prepared(self._lowered(shapes))
                self._plans[shapes] = found
                if len(self._plans) > _MAX_PLANS:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(shapes)
            return found

    def _lowered(self, shapes: tuple[tuple[int, ...], ...]) -> Plan:
        builder = Builder()
        config = self._source.config
        weights = Weights("", self._source.arrays)
        site = Site(config["config"], weights, builder, self._context, config["class_name"])
        inputs = [
            builder.empty(shape, spec.dtype)
            for shape, spec in zip(shapes, self.inputs, strict=True)
        ]
        for value in inputs:
            value.is_shared = True
        outputs = lower_graph(site, inputs[0] if len(inputs) == 1 else inputs)
        kept = [value for value in leaves(outputs) if isinstance(value, Value)]
        self._context.chooser.release()
        return builder.plan(inputs, outputs, kept)


def compile(
    model: Any,
    *,
    batch: int = 32,
    length: int | None = None,
    layers: Mapping[str, Lower] | None = None,
    timer: Timer | None = None,
) -> Engine:
    """Make an engine that computes what a Keras model computes, faster where its weights are zero.

    For every weight matrix the candidates are timed on this CPU at this batch size, and a sparse
    kernel is taken where it beats dense by a margin. Computes in float32 whatever the model's dtype.

    Args:
        model: The result of `prune` or `cut`, a Keras model, or the path of a file that `save`
            wrote; for a file neither Keras nor TensorFlow is needed.
        batch: Samples computed at a time, at least 1; `predict` takes any number.
        length: For inputs with axes of no fixed extent (text): plan for this extent at once. Other
            lengths are planned when they come, and the last few plans are kept.
        layers: Class name -> how to lower a layer of your own: called as `lower(site, *args,
            **kwargs)`, see `secateur.runtime.layers`.
        timer: (what to time, what to do before each run of it) -> seconds; for tests.

    Raises:
        UnsupportedModelError: It has a layer that the runtime does not know; the message names it.
        FileFormatError: The file is damaged.

    Example:
        >>> import numpy as np
        >>> source = chain_of_arrays([np.eye(3, dtype=np.float32)], ["relu"])
        >>> compile(source, batch=2).predict(np.array([[1.0, 2.0, 3.0]], np.float32))
        array([[1., 2., 3.]], dtype=float32)
    """
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise InvalidArgumentError(f"batch must be a whole number of at least 1, got {batch!r}.")
    source = read_source(model)
    with reading(source):
        return _compiled(source, batch, length, timer, layers)


def _compiled(
    source: Source,
    batch: int,
    length: int | None,
    timer: Timer | None,
    layers: Mapping[str, Lower] | None,
) -> Engine:
    model_bytes = sum(array.nbytes for array in source.arrays.values() if array.ndim > 1)
    chooser = Chooser(time_best if timer is None else timer, model_bytes)
    context = Context(chooser, custom=dict(layers or {}))
    found = _support(source, context)
    if not found:
        shown = ", ".join(f"{path!r} ({kind})" for path, kind in found.unknown.items())
        raise UnsupportedModelError(
            f"The runtime does not know these layers: {shown}. Use the Keras model itself, or teach "
            "the runtime with compile(..., layers={class name: function})."
        )
    engine = Engine(source, batch, context)
    shapes = [_concrete((batch, *spec.shape), length) for spec in engine.inputs]
    if all(shape is not None for shape in shapes):
        engine.prepare(*[shape for shape in shapes if shape is not None])
    return engine


def supports(model: Any, *, layers: Mapping[str, Lower] | None = None) -> Support:
    """Whether `compile` knows every layer of a model, and which it does not.

    Args:
        model: As for `compile`.
        layers: As for `compile`.

    Example:
        >>> import numpy as np
        >>> bool(supports(chain_of_arrays([np.eye(3, dtype=np.float32)], ["relu"])))
        True
    """
    source = read_source(model)
    with reading(source):
        return _support(source, Context(Chooser(), custom=dict(layers or {})))


def chain_of_arrays(
    kernels: Sequence[NDArray[Any]],
    activations: Sequence[str],
    biases: Sequence[NDArray[Any] | None] | None = None,
) -> Source:
    """A chain of dense layers from bare arrays, for `compile`.

    Args:
        kernels: Each (inputs, outputs).
        activations: One name per kernel.
        biases: One per kernel, (outputs,) or None; none at all by default.

    Raises:
        InvalidArgumentError: The lists differ in length, or a shape does not follow the one before.
    """
    biases = [None] * len(kernels) if biases is None else biases
    if not len(kernels) == len(activations) == len(biases) or not kernels:
        raise InvalidArgumentError(
            f"kernels, activations and biases must be equally many, at least one; got "
            f"{len(kernels)}, {len(activations)} and {len(biases)}."
        )
    arrays: dict[str, NDArray[Any]] = {}
    first = {"name": "input", "batch_shape": [None, kernels[0].shape[0]], "dtype": "float32"}
    layers: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": first}]
    for number, (kernel, activation, bias) in enumerate(
        zip(kernels, activations, biases, strict=True)
    ):
        if kernel.ndim != 2 or (number and kernel.shape[0] != kernels[number - 1].shape[1]):
            raise InvalidArgumentError(
                f"kernels[{number}] has shape {kernel.shape}, which does not take the outputs of "
                "the kernel before."
            )
        name = f"dense_{number}"
        arrays[f"{name}/kernel"] = kernel
        if bias is not None:
            arrays[f"{name}/bias"] = bias
        layers.append({"class_name": "Dense", "config": {"name": name, "activation": activation}})
    return Source({"class_name": "Sequential", "config": {"layers": layers}}, arrays)


def _support(source: Source, context: Context) -> Support:
    unknown = {}
    for path, kind, is_operation in walk_kinds(source.config):
        if kind != "InputLayer" and context.knows(kind, is_operation) is None:
            unknown[path] = kind
    return Support(unknown)


def _input_specs(config: Mapping[str, Any]) -> list[InputSpec]:
    inner = config["config"]
    by_name = {
        layer["config"]["name"]: layer["config"]
        for layer in inner["layers"]
        if layer["class_name"] == "InputLayer"
    }
    if config["class_name"] == "Sequential":
        first = inner["layers"][0]
        if not by_name and first["class_name"] in ("Functional", "Sequential"):
            return _input_specs(first)
        names = list(by_name)[:1]
    else:
        names = [name for name in leaves(inner["input_layers"]) if isinstance(name, str)]
    if not names:
        raise UnsupportedModelError("The model does not say what shape its input has.")
    return [
        InputSpec(
            name,
            tuple(by_name[name].get("batch_shape", by_name[name].get("shape"))[1:]),
            np.dtype(by_name[name].get("dtype") or "float32"),
        )
        for name in names
    ]


def _concrete(shape: Sequence[int | None], length: int | None) -> tuple[int, ...] | None:
    if length is None and None in shape:
        return None
    return tuple(length if size is None else size for size in shape)  # type: ignore[misc]


def _map(nest: Any, function: Callable[[Value], Any]) -> Any:
    if isinstance(nest, dict):
        return {key: _map(inner, function) for key, inner in nest.items()}
    if isinstance(nest, (list, tuple)):
        mapped = [_map(inner, function) for inner in nest]
        return mapped[0] if len(mapped) == 1 else mapped
    return function(nest)


def _joined(pieces: list[Any]) -> Any:
    first = pieces[0]
    if isinstance(first, dict):
        return {key: _joined([piece[key] for piece in pieces]) for key in first}
    if isinstance(first, list):
        return [_joined([piece[i] for piece in pieces]) for i in range(len(first))]
    return np.concatenate(pieces)
