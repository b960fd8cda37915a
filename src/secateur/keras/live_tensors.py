"""Values of a graph's tensors while a walk goes over it: of the dense network and the compressed one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import numpy as np
from keras import ops
from keras.src import backend

from secateur.activation_store import ActivationStore
from secateur.keras.flatten import Tensor

Stream: TypeAlias = Literal["dense", "compressed"]


class LiveTensors:
    """Values of a graph's tensors by stream and batch, with the masks that Keras hangs on them."""

    def __init__(self, store: ActivationStore) -> None:
        self.store = store
        self._keys: dict[int, list[Any]] = {}

    def put(self, stream: Stream, batch: int, tensor: Tensor, value: Any) -> None:
        """Keep a value, and its mask; neither may be changed afterwards."""
        key = (stream, batch, id(tensor))
        self._keep(key, value)
        mask = backend.get_keras_mask(value)
        if mask is not None:
            self._keep((*key, "mask"), mask)

    def get(self, stream: Stream, batch: int, tensor: Tensor) -> Any:
        """The value as a backend tensor, with its mask hung on it."""
        key = (stream, batch, id(tensor))
        value = ops.convert_to_tensor(self.store.get(key), dtype=tensor.dtype)
        if (*key, "mask") in self.store:
            backend.set_keras_mask(value, ops.convert_to_tensor(self.store.get((*key, "mask"))))
        return value

    def has(self, stream: Stream, batch: int, tensor: Tensor) -> bool:
        """Whether a value is kept."""
        return (stream, batch, id(tensor)) in self.store

    def drop(self, identities: Iterable[int]) -> None:
        """Let go of tensors, by their identities, in all streams and batches."""
        for identity in list(identities):
            for key in self._keys.pop(identity, ()):
                self.store.drop(key)

    def _keep(self, key: Any, value: Any) -> None:
        self.store.put(key, np.asarray(value))
        self._keys.setdefault(key[2], []).append(key)
