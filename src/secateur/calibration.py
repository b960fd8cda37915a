"""Calibration data: what a user holds, read as checked batches of NumPy arrays.

Knows no framework: what Keras or TensorFlow make comes as a `BatchSource` (see `keras.data`).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from secateur.arrays import Array
from secateur.errors import ArgumentTypeError, CalibrationWarning, InvalidArgumentError
from secateur.signature import Batch, InputSignature, describe

ENOUGH_SAMPLES = 32
_TEXT = (
    "holds text or objects, and the model takes numbers; tokenise text first, with the tokenizer "
    "or TextVectorization that the model was trained with, and pass the token ids."
)
# A generator is read once and kept in memory: so many samples, unless told otherwise.
GENERATOR_SAMPLES = 4096


@dataclass(frozen=True)
class BatchSource:
    """Batches that a framework makes.

    Attributes:
        what: What it is, for messages: "a tf.data.Dataset".
        open: Begins a pass over the batches; each is x, (x,), (x, y) or (x, y, sample_weight).
        repeatable: Whether `open` can be called again, for the same samples.
        endless: Whether a pass is known to have no end.
        num_batches: How many batches a pass has, where that is known.
    """

    what: str
    open: Callable[[], Iterable[object]]
    repeatable: bool = True
    endless: bool = False
    num_batches: int | None = None


class CalibrationData:
    """Calibration samples as batches; can be iterated any number of times.

    Labels and sample weights are dropped by Keras's own convention: a tuple is (x,), (x, y) or
    (x, y, sample_weight). For a model of several inputs, a tuple of just as many arrays is x.
    A list is always x, one array for each input; in a batch of a stream it counts as a tuple.

    Args:
        data: An array, a list or tuple or dict (by input name) of arrays, a generator or another
            iterable of batches, or a `BatchSource`.
        batch_size: For arrays; streams keep their own batches.
        signature: What the model takes; every batch is checked against it and handed on in its
            structure and dtypes. Without one, batches are what came, as arrays.
        max_samples: Read no more than so many samples; None for all (of a generator, 4096).

    Attributes:
        num_samples: How many samples a pass has; None until one was made to its end.

    Raises:
        ArgumentTypeError: Data of a kind that cannot be read (text without a tokenizer, ragged or
            sparse tensors, lists of numbers).
        InvalidArgumentError: Data that does not fit the model, no samples at all, or an endless
            source without `max_samples`.

    Warns:
        CalibrationWarning: Fewer than 32 samples; a generator that was not read to its end.

    Example:
        >>> data = CalibrationData(np.zeros((100, 3)), batch_size=40)
        >>> [batch.shape for batch in data]
        [(40, 3), (40, 3), (20, 3)]
    """

    def __init__(
        self,
        data: object,
        batch_size: int = 32,
        *,
        signature: InputSignature | None = None,
        max_samples: int | None = None,
    ) -> None:
        self.signature = signature
        self.batch_size = _positive(batch_size, "batch_size")
        self.max_samples = None if max_samples is None else _positive(max_samples, "max_samples")
        self.num_samples: int | None = None
        self._kept: list[Batch] | None = None
        self._source = self._as_source(data)
        if self._source.endless and max_samples is None:
            raise InvalidArgumentError(
                f"{self._source.what} has no end; say how much of it to read: max_samples=1024."
            )

    @property
    def num_batches(self) -> int | None:
        """How many batches a pass has, where that is known before it."""
        return self._source.num_batches

    def __iter__(self) -> Iterator[Batch]:
        if self._source.repeatable:
            return self._read()
        if self._kept is None:
            self._kept = list(self._read())
        return iter(self._kept)

    def _read(self) -> Iterator[Batch]:
        seen = 0
        limit = self._limit()
        for element in self._source.open():
            if limit is not None and seen >= limit:
                self._warn_of_rest(limit)
                break
            batch = _as_arrays(self._inputs_of(element), self._takes_strings())
            size = _num_samples(batch)
            if limit is not None and seen + size > limit:
                size = limit - seen
                batch = _part(batch, slice(0, size))
            if size:
                seen += size
                yield batch if self.signature is None else self.signature.match(batch)
            if seen == limit and limit == self.max_samples:
                break
        self._finish(seen)

    def _limit(self) -> int | None:
        if self.max_samples is None and not self._source.repeatable:
            return GENERATOR_SAMPLES
        return self.max_samples

    def _warn_of_rest(self, limit: int) -> None:
        warnings.warn(
            f"{self._source.what} had more than {limit} samples; the rest was not read. Pass "
            "max_samples to read more, or fewer without this warning.",
            CalibrationWarning,
            stacklevel=3,
        )

    def _finish(self, seen: int) -> None:
        if not seen:
            raise InvalidArgumentError(
                f"{self._source.what} holds no samples; at least one is needed, and "
                f"{ENOUGH_SAMPLES} or more are advised. A generator can be used once only."
            )
        if seen < ENOUGH_SAMPLES and self.num_samples is None:
            warnings.warn(
                f"Only {seen} calibration sample(s) came: what subnetworks emit on so few says "
                f"little of what they do. Pass {ENOUGH_SAMPLES} or more, better several hundred.",
                CalibrationWarning,
                stacklevel=3,
            )
        self.num_samples = seen

    def _takes_strings(self) -> bool:
        return self.signature is not None and self.signature.takes_strings

    def _inputs_of(self, element: object) -> object:
        # Keras's unpack_x_y_sample_weight does the same with the lists that streams yield.
        if isinstance(element, list) and not _is_text(element):
            element = tuple(element)
        return _drop_labels(element, self.signature)

    def _as_source(self, data: object) -> BatchSource:
        if isinstance(data, BatchSource):
            return data
        if isinstance(data, Iterator):
            once = iter([data])
            # The second pass over a generator finds nothing and must not look like a shorter one.
            return BatchSource("The generator", lambda: next(once, ()), repeatable=False)
        is_stream = isinstance(data, Iterable) and not isinstance(data, (str, bytes))
        if is_stream and not isinstance(data, (list, tuple, Mapping)) and not _is_array(data):
            return BatchSource(f"The {type(data).__name__}", lambda: data)  # type: ignore[arg-type, return-value]
        return self._array_source(data)

    def _array_source(self, data: object) -> BatchSource:
        inputs = _as_arrays(_drop_labels(data, self.signature), self._takes_strings())
        total = _num_samples(inputs)
        size = self.batch_size
        if self.signature is not None and self.signature.batch_size is not None:
            size = self.signature.batch_size
            total = self._whole_batches(total, size)
        if self.max_samples is not None:
            total = min(total, self.max_samples)
        starts = range(0, total, size)
        return BatchSource(
            "The data",
            # Packed in a tuple of one, so that a batch of several arrays is not read as (x, y).
            lambda: ((_part(inputs, slice(start, min(start + size, total))),) for start in starts),
            num_batches=len(starts),
        )

    def _whole_batches(self, total: int, size: int) -> int:
        left_out = total % size
        if total < size:
            raise InvalidArgumentError(
                f"The model is built for batches of {size} samples, but only {total} came."
            )
        if left_out:
            warnings.warn(
                f"The model is built for batches of {size} samples; the last {left_out} of {total} "
                "were left out.",
                CalibrationWarning,
                stacklevel=5,
            )
        return total - left_out


def iterate_batches(
    data: object,
    batch_size: int = 32,
    *,
    signature: InputSignature | None = None,
    max_samples: int | None = None,
) -> Iterator[Batch]:
    """Read data once, as checked batches; see `CalibrationData`, which can be read again.

    Yields:
        One array, a list or a dict of arrays, as the model takes them; axis 0 is samples.
    """
    yield from CalibrationData(data, batch_size, signature=signature, max_samples=max_samples)


def _positive(value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentTypeError(f"{name} must be an integer, got {value!r}.") from None
    if number < 1:
        raise InvalidArgumentError(f"{name} must be at least 1, got {number}.")
    return number


def _drop_labels(data: object, signature: InputSignature | None) -> object:
    if not isinstance(data, tuple) or not data or _is_text(data):
        return data
    wanted = 1 if signature is None else len(signature.inputs)
    nested = isinstance(data[0], (list, tuple, Mapping))
    if len(data) <= 3 and (nested or wanted == 1 or len(data) == 1):
        return data[0]
    if len(data) == wanted:
        return list(data)
    expected = "" if signature is None else f" The model takes {signature}."
    mend = "([x1, x2], y)" if wanted > 1 else "(x, y)"
    raise InvalidArgumentError(
        f"A tuple is (x,), (x, y) or (x, y, sample_weight), got {len(data)} entries: "
        f"{describe(list(data))}.{expected} Pass {mend}, or only x."
    )


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "__array__")


def _is_text(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and isinstance(value[0], (str, bytes))
    return isinstance(value, (str, bytes))


def _as_arrays(data: object, takes_strings: bool) -> Batch:
    """Turn data into arrays, and check that all hold the same number of samples."""
    if isinstance(data, Mapping):
        named = {
            str(key): _as_array(value, f"Input {key!r}", takes_strings)
            for key, value in data.items()
        }
        _check_lengths(named)
        return named
    if isinstance(data, (list, tuple)) and not _is_text(data):
        listed = [
            _as_array(value, f"Input {index}", takes_strings) for index, value in enumerate(data)
        ]
        _check_lengths({f"input {index}": array for index, array in enumerate(listed)})
        return listed
    return _as_array(data, "The data", takes_strings)


def _as_array(value: object, what: str, takes_strings: bool) -> Array:
    if _is_text(value):
        if not takes_strings:
            raise ArgumentTypeError(f"{what} {_TEXT}")
        return np.asarray([value] if isinstance(value, (str, bytes)) else value, dtype=object)
    if isinstance(value, (list, tuple, int, float)):
        raise ArgumentTypeError(
            f"{what} holds Python numbers or lists ({type(value).__name__}), not arrays; pass "
            "numpy.asarray(x, dtype='float32'), and pad sequences of unequal length first "
            "(keras.utils.pad_sequences)."
        )
    if not _is_array(value):
        raise ArgumentTypeError(
            f"{what} is a {type(value).__name__}, which is no array; ragged and sparse tensors are "
            "made dense first (.to_tensor(), tf.sparse.to_dense)."
        )
    array: Array = np.asarray(value)
    if array.dtype.kind in "OSU" and not takes_strings:
        raise ArgumentTypeError(f"{what} ({array.dtype} {array.shape}) {_TEXT}")
    if not array.ndim:
        raise InvalidArgumentError(f"{what} is a single number; axis 0 must be the samples.")
    return array


def _leaves(batch: Batch) -> list[Array]:
    if isinstance(batch, np.ndarray):
        return [batch]
    return list(batch.values()) if isinstance(batch, dict) else batch


def _check_lengths(named: Mapping[str, Array]) -> None:
    if len({len(array) for array in named.values()}) > 1:
        lengths = ", ".join(f"{name}: {len(array)}" for name, array in named.items())
        raise InvalidArgumentError(f"The inputs hold unequal numbers of samples: {lengths}.")


def _num_samples(batch: Batch) -> int:
    leaves = _leaves(batch)
    return len(leaves[0]) if leaves else 0


def _part(batch: Batch, rows: slice) -> Batch:
    if isinstance(batch, np.ndarray):
        return batch[rows]
    if isinstance(batch, dict):
        return {name: array[rows] for name, array in batch.items()}
    return [array[rows] for array in batch]
