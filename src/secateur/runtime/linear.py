"""Products with weight matrices, the steps that the runtime is about."""

from __future__ import annotations

from dataclasses import dataclass

from secateur._kernels.native.spmm import Epilogue
from secateur.activations import Activation
from secateur.runtime.choosing import Kernel, Matrix, Timer
from secateur.runtime.planning import Array, Builder, Run, Step, Value


@dataclass(eq=False)
class Product:
    """A step that can still take in a sum: y = activation(x W + bias) + residual.

    Attributes:
        step: In the plan; its inputs are x, scratch and perhaps the residual.
        number: Which step it is.
        has_residual: Whether the sum is taken.
    """

    step: Step
    number: int
    has_residual: bool = False

    def take_in(self, other: Value) -> bool:
        """Add `other` to the result, if it is there in time and of its shape and layout."""
        y = self.step.outputs[0]
        is_early = other.root is None or other.root.first < self.number
        fits = other.phantom.size == y.phantom.size and other.dtype == y.dtype
        if self.has_residual or not is_early or not fits or not other.phantom.flags.c_contiguous:
            return False
        if other.root is not None:
            other.root.last = max(other.root.last, self.number)
        self.step.inputs.append(other)
        self.has_residual = True
        return True


def multiply(
    builder: Builder, matrix: Matrix, x: Value, timer: Timer, activation: Activation | None
) -> Value:
    """Emit one product over the last axis of x; the result has the other axes of x."""
    lead = x.shape[:-1]
    flat = builder.reshape(builder.contiguous(x, "float32"), (-1, matrix.inputs))
    rows = flat.shape[0]
    kernel = matrix.kernel(rows, timer)
    y = builder.empty((rows, matrix.outputs))
    scratch = builder.empty((kernel.scratch(rows),))
    epilogue = Epilogue() if activation is None else Epilogue.of(activation)
    step = builder.emit(_maker(kernel, epilogue), [y, scratch], [flat])
    result = builder.view(y, lambda array: array.reshape(*lead, matrix.outputs))
    result.producer = Product(step, len(builder.steps) - 1)
    return result


def _maker(kernel: Kernel, epilogue: Epilogue):  # type: ignore[no-untyped-def]
    def make(y: Array, scratch: Array, x: Array, residual: Array | None = None) -> Run:
        return kernel.bind(y, x, residual, scratch, epilogue)

    return make
