"""Rules for what works value by value: activations, dropout, sums and products of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import tree

from secateur.keras.cut_rules.linear import activation_mixes
from secateur.keras.cut_rules.site import Site, given_axes, is_array
from secateur.keras.cut_rules.table import layer, op
from secateur.keras.flatten import Tensor
from secateur.network import MaybeLabels


@layer(
    "ReLU", "LeakyReLU", "ELU", "Dropout", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D", "GaussianDropout", "GaussianNoise", "AlphaDropout",
    "ActivityRegularization", "Identity", "Masking",
)  # fmt: skip
@op(
    "Absolute", "Fabs", "Cast", "SaturateCast", "Cbrt", "Ceil", "Clip", "Conjugate", "Copy",
    "Cos", "Cosh", "Exp", "Exp2", "Expm1", "Floor", "Log", "Log10", "Log1p", "Log2", "Negative",
    "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Rsqrt", "Square", "Tan", "Tanh",
    "Trunc", "NanToNum", "Isfinite", "Isinf", "Isnan", "LogicalNot", "Relu", "Relu6", "Sigmoid",
    "SparseSigmoid", "Softplus", "Softsign", "SoftShrink", "SparsePlus", "Silu", "Squareplus",
    "LogSigmoid", "LeakyRelu", "HardSigmoid", "HardSilu", "Elu", "Selu", "Gelu", "Celu",
    "TanhShrink", "HardTanh", "HardShrink", "Threshold", "StopGradient", "ZerosLike", "OnesLike",
    "Erf", "Erfinv", "ConvertToTensor", "Identity", "Arctan", "Arctanh", "Sinc", "View", "Array",
)  # fmt: skip
def value_by_value(site: Site) -> None:
    """Every axis keeps its labels."""
    site.same()


@layer("Activation")
def activation(site: Site) -> None:
    """Value by value, unless the function runs over the last axis."""
    why = activation_mixes(site.operation.activation)
    if why:
        site.freeze(site.axes()[-1], f"{site.name}: {why}")
    site.same()


@layer("Softmax")
@op(
    "Softmax",
    "LogSoftmax",
    "Sparsemax",
    "Cumsum",
    "Cumprod",
    "Flip",
    "Sort",
    "Argsort",
    "Normalize",
    "Glu",
    "Roll",
)
def over_axis(site: Site) -> None:
    """Runs over axes, which therefore stay whole; the others keep their labels."""
    axes = site.axes()
    given = getattr(site.operation, "axis", -1)
    over = range(site.rank) if given is None else tree.flatten(given)
    for axis in over:
        site.freeze(axes[axis])
    if type(site.operation).__name__ == "Glu" or given is None:
        site.freeze_all(f"{site.name} mixes its axes")
        axes = [None] * len(site.call.outputs[0].shape)
    site.output(*axes)


def broadcast(site: Site, operands: Sequence[Any]) -> list[MaybeLabels]:
    """Labels of operands that are broadcast together: what meets is tied.

    A constant gives way: it is cut along, by slots of its own where it meets no axis of a tensor. A
    tensor axis without labels does not.
    """
    shape = site.call.outputs[0].shape
    result: list[MaybeLabels] = [None] * len(shape)
    for axis, size in enumerate(shape):
        if size is None or size == 1:
            continue
        meeting = [
            site.axes(operand)[axis - len(shape)]
            for operand in operands
            if isinstance(operand, Tensor)
            and len(operand.shape) >= len(shape) - axis
            and operand.shape[axis - len(shape)] == size
        ]
        if not meeting and _constant_along(operands, axis - len(shape), size):
            (result[axis],) = given_axes(site.network, site.name, (size,))
            continue
        result[axis] = meeting[0] if meeting else None
        for other in meeting[1:]:
            result[axis] = site.tie(result[axis], other)
    return result


def _constant_along(operands: Sequence[Any], axis: int, size: int) -> bool:
    return any(
        is_array(operand) and len(operand.shape) >= -axis and operand.shape[axis] == size
        for operand in operands
    )


@layer("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
@op(
    "Add", "Subtract", "Multiply", "Divide", "DivideNoNan", "TrueDivide", "FloorDivide", "Power",
    "Maximum", "Minimum", "Fmax", "Fmin", "Mod", "Fmod", "Equal", "NotEqual", "Greater",
    "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalOr", "LogicalXor", "Where",
    "Arctan2", "Hypot", "Logaddexp", "BitwiseAnd", "BitwiseOr", "BitwiseXor",
)  # fmt: skip
def together(site: Site) -> None:
    """Operands of one shape, or broadcast: their axes are tied."""
    operands = [
        leaf
        for leaf in tree.flatten((site.call.args, site.call.kwargs))
        if isinstance(leaf, Tensor) or is_array(leaf)
    ]
    site.passes = len([leaf for leaf in operands if isinstance(leaf, Tensor)]) == 1
    site.output(*broadcast(site, operands))
    site.rearrange(site.with_constants_cut)
