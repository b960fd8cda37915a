"""A Keras layer that multiplies by a sparse matrix with the runtime's kernels."""

from __future__ import annotations

import threading
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native.spmm import Epilogue
from secateur.activations import ACTIVATION_NAMES, Activation
from secateur.errors import InvalidArgumentError, UnsupportedModelError
from secateur.runtime.choosing import Call, Chooser, Matrix


@keras.saving.register_keras_serializable("secateur")
class SparseDense(keras.layers.Layer):  # type: ignore[misc]
    """`Dense` for a kernel that is mostly zeros, inside a TensorFlow model that is only used.

    Where it pays: matrices of some 768 x 3072 and more with at least 80 % zeros, all the more the larger
    the matrix and the batch (`python -m bench.runtime layer`: 1.3 to 3.2 times there at 32 and 128 rows,
    2 to 3.9 times at 2048 x 8192). TensorFlow hands the rows over to Python and takes them back, which
    holds Python's lock: at 256 x 256, or at 768 x 3072 with one row, it does not pay.
    `secateur.runtime.compile` runs the whole model without any of that and is what to use where the
    whole model is known to the runtime; this layer is for single large layers in a model that is not.

    It cannot be trained and cannot be compiled by XLA. The kernel is packed at the first call; after
    assigning to its variables otherwise than by `set_weights` or loading, call `repack`.

    Args:
        units: Number of outputs.
        activation: The name of an activation that the kernels fuse, or None.
        use_bias: Whether there is a bias.
        **kwargs: As for every Keras layer.

    Raises:
        InvalidArgumentError: An unknown activation.
        UnsupportedModelError: Keras runs on another backend than TensorFlow, or the layer is called
            for training.
    """

    def __init__(
        self, units: int, activation: str | None = None, use_bias: bool = True, **kwargs: Any
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UnsupportedModelError(
                "SparseDense works inside TensorFlow models, but Keras runs on "
                f"{keras.backend.backend()!r}. Use secateur.runtime.compile(model)."
            )
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        name = activation or "linear"
        if name not in ACTIVATION_NAMES:
            raise InvalidArgumentError(
                f"activation must be one of {sorted(ACTIVATION_NAMES)} or None, got {name!r}."
            )
        self.units = int(units)
        self.activation = name
        self.use_bias = use_bias
        self.supports_jit = False
        self._matrix: Matrix | None = None
        self._chooser = Chooser()
        self._packing = threading.Lock()

    @classmethod
    def from_dense(cls, dense: Any) -> SparseDense:
        """A layer that computes what a built `keras.layers.Dense` does.

        Args:
            dense: The layer. Its weights are copied.
        """
        if not isinstance(dense, keras.layers.Dense) or not dense.built:
            raise InvalidArgumentError(
                f"from_dense takes a keras.layers.Dense that is built, got {dense!r}."
            )
        name = keras.activations.serialize(dense.activation)
        if not isinstance(name, str):
            raise InvalidArgumentError(f"The activation of {dense.name!r} has no name: {name!r}.")
        made = cls(dense.units, name, dense.use_bias, name=dense.name)
        made.build((None, dense.kernel.shape[0]))
        made.set_weights(dense.get_weights())
        return made

    def build(self, input_shape: Any) -> None:
        """Make the variables."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), name="kernel", trainable=False
        )
        self.bias = (
            self.add_weight(shape=(self.units,), initializer="zeros", name="bias", trainable=False)
            if self.use_bias
            else None
        )
        self.built = True

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """As `Dense`."""
        return (*input_shape[:-1], self.units)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """activation(inputs kernel + bias), over the last axis."""
        if training:
            raise UnsupportedModelError(
                f"{self.name!r} is a SparseDense, which cannot be trained: train the model with its "
                "Dense layers, and put SparseDense.from_dense(layer) in their place afterwards."
            )
        import tensorflow as tf

        if isinstance(inputs, keras.KerasTensor):
            return keras.KerasTensor(self.compute_output_shape(inputs.shape), "float32")
        if tf.executing_eagerly():
            return tf.convert_to_tensor(self._multiply(np.asarray(inputs)))
        made = tf.numpy_function(self._multiply, [inputs], tf.float32, stateful=False)
        made.set_shape(self.compute_output_shape(inputs.shape))
        return made

    def repack(self) -> None:
        """Pack the kernel anew at the next call, as its variables have changed."""
        self._matrix = None

    def set_weights(self, weights: Any) -> None:
        """As in Keras."""
        super().set_weights(weights)
        self.repack()

    def load_own_variables(self, store: Any) -> None:
        """As in Keras."""
        super().load_own_variables(store)
        self.repack()

    def get_config(self) -> dict[str, Any]:
        """As in Keras."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": self.activation,
            "use_bias": self.use_bias,
        }

    def _multiply(self, x: NDArray[Any]) -> NDArray[np.float32]:
        if self._matrix is None:
            bias = None if self.bias is None else np.asarray(self.bias, np.float32)
            self._matrix = Matrix(self.name, np.array(self.kernel, np.float32), bias)
        matrix = self._matrix
        flat = np.ascontiguousarray(x, np.float32).reshape(-1, matrix.inputs)
        rows = len(flat)
        y = np.empty((rows, matrix.outputs), np.float32)
        with self._packing:
            kernel = self._chooser.kernel(matrix, rows)
        scratch = np.empty(kernel.scratch(rows), np.float32)
        epilogue = Epilogue.of(Activation(self.activation))
        kernel.bind(Call(y, flat, rows, scratch, None, epilogue))()
        return y.reshape(*x.shape[:-1], matrix.outputs)
