"""Products with weight matrices, the steps that the runtime is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

from secateur._kernels.native import spmm
from secateur._kernels.native.spmm import Epilogue
from secateur.activations import Activation
from secateur.runtime.choosing import Call, Kernel, Matrix
from secateur.runtime.planning import Array, Builder, Make, Run, Step, Value


@dataclass(eq=False)
class Product:
    """A step that can still take in a sum, y = activation(x W + bias) + residual, or write panels.

    Attributes:
        number: Which step of the plan it is.
        rows: How many samples it multiplies.
        takes_panels: Whether its kernel can write panels.
        epilogue: What it does to its sums; `make` of the step looks here.
        has_residual: Whether the sum is taken.
        step: In the plan; its inputs are x and perhaps the residual.
    """

    number: int
    rows: int
    takes_panels: bool
    epilogue: Epilogue
    has_residual: bool = False
    step: Step = field(init=False)

    def activate(self, epilogue: Epilogue) -> bool:
        """Do this to the result as well, if nothing is done to it yet."""
        if self.epilogue != Epilogue() or self.has_residual:
            return False
        self.epilogue = epilogue
        return True

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

    def into_panels(self, builder: Builder, features: int) -> Value | None:
        """Have the result written in panels instead, for a product that alone reads it.

        Returns:
            The panels, or None if the kernel cannot, or a residual, which comes in rows, is taken in.
        """
        y = self.step.outputs[0]
        if not self.takes_panels or self.has_residual or y.shape != (self.rows, features):
            return None
        panels = builder.empty((spmm.panel_floats(self.rows, features),))
        assert panels.root is not None
        panels.root.first = self.number
        self.step.outputs[0] = panels
        return panels


def multiply(
    builder: Builder,
    matrix: Matrix,
    x: Value,
    choose: Callable[[int], Kernel],
    activation: Activation | None,
    is_only_reader: bool = False,
) -> Value:
    """Emit one product over the last axis of x; the result has the other axes of x.

    Args:
        builder: Takes the step.
        matrix: By what.
        x: (..., inputs).
        choose: Number of rows -> kernel.
        activation: Fused, or None.
        is_only_reader: Nothing else reads x, so that it need not be there in rows.
    """
    lead = x.shape[:-1]
    rows = prod(lead)
    kernel = choose(rows)
    given = _panels(builder, x, kernel, rows) if is_only_reader else None
    needed = 0 if given is not None else kernel.scratch(rows)
    if given is None:
        given = builder.reshape(builder.contiguous(x, "float32"), (rows, matrix.inputs))
    y, scratch = builder.empty((rows, matrix.outputs)), builder.empty((needed,))
    epilogue = Epilogue() if activation is None else Epilogue.of(activation)
    product = Product(len(builder.steps), rows, kernel.takes_panels, epilogue)
    product.step = builder.emit(_maker(kernel, product), [y, scratch], [given])
    result = builder.view(y, lambda array: array.reshape(*lead, matrix.outputs))
    result.producer = product
    return result


def _panels(builder: Builder, x: Value, kernel: Kernel, rows: int) -> Value | None:
    """What x's product writes in panels, if this kernel reads such and x is just its result."""
    product = x.producer
    if not kernel.takes_panels or not isinstance(product, Product) or product.rows != rows:
        return None
    return product.into_panels(builder, x.shape[-1])


def _maker(kernel: Kernel, product: Product) -> Make:
    def make(y: Array, scratch: Array, x: Array, residual: Array | None = None) -> Run:
        return kernel.bind(Call(y, x, product.rows, scratch, residual, product.epilogue))

    return make
