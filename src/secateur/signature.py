"""What a model takes, and whether a batch of arrays is that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from secateur.arrays import BFLOAT16, Array
from secateur.errors import ArgumentTypeError, InvalidArgumentError

Batch: TypeAlias = Array | list[Array] | dict[str, Array]


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        name: Its name, the key by which a mapping of arrays is read.
        shape: With the batch axis first; None for a size that is left open.
        dtype: "float32", "int32", "bfloat16", "bool", "string", ...
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        sizes = ["batch" if self.shape[:1] == (None,) else str(self.shape[0])] if self.shape else []
        sizes += ["any" if size is None else str(size) for size in self.shape[1:]]
        return f"{self.name!r} {self.dtype} ({', '.join(sizes)})"


@dataclass(frozen=True)
class InputSignature:
    """All inputs of a model, and the collection in which it takes them.

    Attributes:
        inputs: In the model's order.
        structure: "single" (one array), "list" or "dict" (by the inputs' names).
    """

    inputs: tuple[InputSpec, ...]
    structure: Literal["single", "list", "dict"] = "single"

    def __str__(self) -> str:
        kind = {"single": "", "list": "a list of ", "dict": "a dict of "}[self.structure]
        return kind + ", ".join(map(str, self.inputs))

    @property
    def batch_size(self) -> int | None:
        """The batch size that the model is built for, where it is built for one only."""
        return next((spec.shape[0] for spec in self.inputs if spec.shape and spec.shape[0]), None)

    @property
    def takes_strings(self) -> bool:
        """Whether an input is of strings."""
        return any(spec.dtype == "string" for spec in self.inputs)

    def match(self, batch: Batch) -> Batch:
        """Check a batch, and hand it back in the model's own structure, ranks and dtypes.

        As in Keras, a trailing axis of size 1 is added or taken away where only that is amiss, and
        entries of a mapping that the model does not know are left out.

        Args:
            batch: An array, a list of arrays in the order of the inputs, or arrays by name.

        Returns:
            One array, a list or a dict, as `structure` says.

        Raises:
            ArgumentTypeError: A dtype that the input cannot take without loss.
            InvalidArgumentError: Another number of inputs, a missing name, a rank or shape that
                does not fit, token ids out of range.

        Example:
            >>> signature = InputSignature((InputSpec("x", (None, 3), "float32"),))
            >>> signature.match(np.zeros((2, 3))).dtype
            dtype('float32')
        """
        arrays = self._in_order(batch)
        problems = [_shape_problem(spec, array) for spec, array in arrays]
        if any(problems):
            self._refuse(batch, "; ".join(filter(None, problems)) + ".")
        matched = {spec.name: _cast(spec, _fit_rank(spec, array)) for spec, array in arrays}
        if self.structure == "dict":
            return matched
        values = list(matched.values())
        return values[0] if self.structure == "single" else values

    def _in_order(self, batch: Batch) -> list[tuple[InputSpec, Array]]:
        names = [spec.name for spec in self.inputs]
        if isinstance(batch, Mapping):
            missing = [name for name in names if name not in batch]
            if missing:
                self._refuse(batch, f"nothing is given for {', '.join(map(repr, missing))}.")
            return [(spec, batch[spec.name]) for spec in self.inputs]
        arrays = [batch] if isinstance(batch, np.ndarray) else batch
        if len(arrays) != len(self.inputs):
            stack = " Samples of one input are stacked first: numpy.stack(x)." * (len(names) == 1)
            self._refuse(
                batch, f"{len(arrays)} arrays came for {len(self.inputs)} input(s).{stack}"
            )
        if self.structure == "dict" and len(arrays) > 1:
            self._refuse(batch, f"the inputs go by name; pass a dict with the keys {names}.")
        return list(zip(self.inputs, arrays, strict=True))

    def _refuse(self, batch: Batch, problem: str) -> None:
        raise InvalidArgumentError(
            f"The data does not fit the model. Came: {describe(batch)}. Expected: {self}. "
            f"Problem: {problem}"
        )


def describe(batch: object) -> str:
    """Say what arrays a collection holds: names, dtypes and shapes."""
    if isinstance(batch, np.ndarray):
        return f"{batch.dtype} {batch.shape}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key!r}: {describe(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        shown = ", ".join(describe(value) for value in batch[:4])
        return f"[{shown}{', ...' if len(batch) > 4 else ''}]"
    return type(batch).__name__


def _fit_rank(spec: InputSpec, array: Array) -> Array:
    if array.ndim == len(spec.shape) + 1 and array.shape[-1] == 1:
        return array[..., 0]
    if array.ndim == len(spec.shape) - 1 and spec.shape[-1] == 1 and array.ndim:
        return array[..., np.newaxis]
    return array


def _shape_problem(spec: InputSpec, array: Array) -> str | None:
    shape = _fit_rank(spec, array).shape
    if len(shape) == len(spec.shape):
        wrong = [
            f"axis {axis} is {size}, not {expected}"
            for axis, (size, expected) in enumerate(zip(shape, spec.shape, strict=True))
            if expected is not None and size != expected
        ]
        return f"{spec.name!r}: {', '.join(wrong)}" if wrong else None
    problem = f"{spec.name!r} has {len(shape)} axes, not {len(spec.shape)}"
    if len(shape) == len(spec.shape) - 1:
        problem += (
            "; if the batch axis is missing, add it with dataset.batch(32) or x[numpy.newaxis]"
        )
    return problem


def _cast(spec: InputSpec, array: Array) -> Array:
    if spec.dtype == "string":
        if array.dtype.kind in "OSU":
            return array
        raise ArgumentTypeError(f"Input {spec} takes strings, got {array.dtype} {array.shape}.")
    if array.dtype.kind in "OSU":
        raise ArgumentTypeError(
            f"Input {spec} takes numbers, got strings or objects ({array.dtype} {array.shape}); "
            "tokenise text first, with the tokenizer or TextVectorization that the model was "
            "trained with, and pass the token ids."
        )
    if array.dtype == BFLOAT16:
        # ml_dtypes does not say how bfloat16 compares with integers; float32 holds all of it.
        array = array.astype(np.float32)
    target = BFLOAT16 if spec.dtype == "bfloat16" else np.dtype(spec.dtype)
    if array.dtype == target:
        return array
    if array.dtype.kind == "c":
        raise ArgumentTypeError(f"Input {spec} takes real numbers, got {array.dtype}.")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(target)
    if target.kind in "biu" and not np.array_equal(cast, array):
        raise ArgumentTypeError(
            f"Input {spec} cannot hold the values that came as {array.dtype}: they have fractions, "
            f"or lie outside of {spec.dtype}. Round them or pick the right array, then pass "
            f"x.astype({spec.dtype!r})."
        )
    if target.itemsize < array.itemsize and np.isinf(cast).sum() != np.isinf(array).sum():
        raise ArgumentTypeError(
            f"Input {spec} cannot hold the values that came as {array.dtype}: they overflow to "
            f"infinity in {spec.dtype}. Scale them as for training."
        )
    return cast
