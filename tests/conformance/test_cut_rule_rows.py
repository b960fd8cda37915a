"""Every row of the rule table has a case: those of `test_cut_rules.py` and the shorter ones here."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops
from tests.conformance.test_cut_rules import CASES, OPS, in_setting, randomise

from secateur.errors import TargetNotReachedWarning
from secateur.keras import cutting
from secateur.keras.cut_rules import is_leaf, opener_of, table
from secateur.keras.flatten import flatten

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    # Keras compares unknown sizes so in the shape of a tensordot.
    pytest.mark.filterwarnings("ignore:NotImplemented should not be used:DeprecationWarning"),
    # What stays whole on purpose is told in a warning, and no matter here.
    pytest.mark.filterwarnings("ignore::secateur.errors.TargetNotReachedWarning"),
]

TIME, SPACE, VOLUME = (6, 8), (6, 6, 8), (4, 4, 4, 8)


def two(layer):
    """A layer of two inputs, on a tensor and its tanh."""
    return lambda x: layer([x, layers.Activation("tanh")(x)])


LAYERS = {
    "ActivityRegularization": (TIME, lambda x: layers.ActivityRegularization(0.1)(x)),
    "AdaptiveAveragePooling1D": (TIME, lambda x: layers.AdaptiveAveragePooling1D(2)(x)),
    "AdaptiveAveragePooling2D": (SPACE, lambda x: layers.AdaptiveAveragePooling2D(2)(x)),
    "AdaptiveAveragePooling3D": (VOLUME, lambda x: layers.AdaptiveAveragePooling3D(2)(x)),
    "AdaptiveMaxPooling1D": (TIME, lambda x: layers.AdaptiveMaxPooling1D(2)(x)),
    "AdaptiveMaxPooling2D": (SPACE, lambda x: layers.AdaptiveMaxPooling2D(2)(x)),
    "AdaptiveMaxPooling3D": (VOLUME, lambda x: layers.AdaptiveMaxPooling3D(2)(x)),
    "AdditiveAttention": (TIME, two(layers.AdditiveAttention())),
    "AlphaDropout": (TIME, lambda x: layers.AlphaDropout(0.2)(x)),
    "Attention": (TIME, two(layers.Attention())),
    "Average": (TIME, two(layers.Average())),
    "AveragePooling1D": (TIME, lambda x: layers.AveragePooling1D(2)(x)),
    "AveragePooling3D": (VOLUME, lambda x: layers.AveragePooling3D(2)(x)),
    "CenterCrop": (SPACE, lambda x: layers.CenterCrop(4, 4)(x)),
    "ConvLSTM3D": ((2, 3, 3, 3, 8), lambda x: layers.ConvLSTM3D(8, 2, padding="same")(x)),
    "Cropping1D": (TIME, lambda x: layers.Cropping1D(1)(x)),
    "Cropping3D": (VOLUME, lambda x: layers.Cropping3D(1)(x)),
    "Dot": (TIME, two(layers.Dot(axes=2))),
    "ELU": (TIME, lambda x: layers.ELU()(x)),
    "Embedding": (TIME, lambda x: layers.Embedding(8, 8)(ops.argmax(x, axis=-1))),
    "GaussianDropout": (TIME, lambda x: layers.GaussianDropout(0.2)(x)),
    "GaussianNoise": (TIME, lambda x: layers.GaussianNoise(0.2)(x)),
    "GlobalAveragePooling1D": (TIME, lambda x: layers.GlobalAveragePooling1D()(x)),
    "GlobalAveragePooling3D": (VOLUME, lambda x: layers.GlobalAveragePooling3D()(x)),
    "GlobalMaxPooling2D": (SPACE, lambda x: layers.GlobalMaxPooling2D()(x)),
    "GlobalMaxPooling3D": (VOLUME, lambda x: layers.GlobalMaxPooling3D(keepdims=True)(x)),
    "GroupedQueryAttention": (TIME, lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x)),
    "Identity": (TIME, lambda x: layers.Identity()(x)),
    "Masking": (TIME, lambda x: layers.Masking()(x)),
    "MaxPooling2D": (SPACE, lambda x: layers.MaxPooling2D(2)(x)),
    "MaxPooling3D": (VOLUME, lambda x: layers.MaxPooling3D(2)(x)),
    "Maximum": (TIME, two(layers.Maximum())),
    "Minimum": (TIME, two(layers.Minimum())),
    "MultiHeadAttention": (TIME, lambda x: layers.MultiHeadAttention(4, 4)(x, x)),
    "Normalization": (TIME, lambda x: layers.Normalization(mean=1.0, variance=2.0)(x)),
    "RandomBrightness": (SPACE, lambda x: layers.RandomBrightness(0.1)(x)),
    "RandomContrast": (SPACE, lambda x: layers.RandomContrast(0.1)(x)),
    "RandomCrop": (SPACE, lambda x: layers.RandomCrop(4, 4)(x)),
    "RandomFlip": (SPACE, lambda x: layers.RandomFlip()(x)),
    "RandomRotation": (SPACE, lambda x: layers.RandomRotation(0.1)(x)),
    "RandomTranslation": (SPACE, lambda x: layers.RandomTranslation(0.1, 0.1)(x)),
    "RandomZoom": (SPACE, lambda x: layers.RandomZoom(0.1)(x)),
    "Rescaling": (TIME, lambda x: layers.Rescaling(0.5, 0.1)(x)),
    "Resizing": (SPACE, lambda x: layers.Resizing(4, 4)(x)),
    "ReversibleEmbedding": (
        TIME,
        lambda x: layers.ReversibleEmbedding(8, 8)(ops.argmax(x, axis=-1)),
    ),
    "SpatialDropout1D": (TIME, lambda x: layers.SpatialDropout1D(0.2)(x)),
    "SpatialDropout2D": (SPACE, lambda x: layers.SpatialDropout2D(0.2)(x)),
    "SpatialDropout3D": (VOLUME, lambda x: layers.SpatialDropout3D(0.2)(x)),
    "UpSampling3D": (VOLUME, lambda x: layers.UpSampling3D()(x)),
    "ZeroPadding1D": (TIME, lambda x: layers.ZeroPadding1D(1)(x)),
    "ZeroPadding3D": (VOLUME, lambda x: layers.ZeroPadding3D(1)(x)),
}
# The class has one name, its export another.
ALIASES = {"GroupQueryAttention": "GroupedQueryAttention"}


def heads(x):
    return ops.reshape(x, (-1, 6, 2, 4))


def some(x):
    """Positive, below one, and not near any edge of a function."""
    return ops.sigmoid(x) * 0.8 + 0.1


UNARY = [
    "Absolute", "Fabs", "Cast", "SaturateCast", "Cbrt", "Ceil", "Conjugate", "Copy", "Cos",
    "Cosh", "Exp", "Exp2", "Expm1", "Floor", "Log", "Log10", "Log1p", "Log2", "Negative",
    "Reciprocal", "Round", "Sign", "Sin", "Sinh", "Sqrt", "Rsqrt", "Square", "Tan", "Trunc",
    "NanToNum", "Isfinite", "Isinf", "Isnan", "LogicalNot", "Relu6", "SparseSigmoid",
    "Softplus", "Softsign", "SoftShrink", "SparsePlus", "Silu", "Squareplus", "LogSigmoid",
    "LeakyRelu", "HardSigmoid", "HardSilu", "Elu", "Selu", "Celu", "TanhShrink", "HardTanh",
    "HardShrink", "Threshold", "StopGradient", "ZerosLike", "OnesLike", "Erf", "Erfinv",
    "ConvertToTensor", "Identity", "Arctan", "Arctanh", "Sinc", "View", "Array",
]  # fmt: skip
BINARY = [
    "Divide", "DivideNoNan", "TrueDivide", "FloorDivide", "Power", "Maximum", "Minimum", "Fmax",
    "Fmin", "Mod", "Fmod", "Equal", "NotEqual", "GreaterEqual", "Less", "LessEqual",
    "LogicalAnd", "LogicalOr", "LogicalXor", "Arctan2", "Hypot", "Logaddexp",
]  # fmt: skip
REDUCED = [
    "Amax", "Amin", "Min", "Median", "Logsumexp", "Prod", "Std", "Var", "Any", "All",
    "CountNonzero", "Argmax", "Argmin", "Norm",
]  # fmt: skip
EXTRA = {"Cast": ("float16",), "SaturateCast": ("float16",), "Threshold": (0.2, 0.1), "View": ()}
TRUTH = {"LogicalNot", "LogicalAnd", "LogicalOr", "LogicalXor"}


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def unary(name):
    def apply(x):
        x = some(x) > 0.5 if name in TRUTH else some(x)
        if name == "Identity":
            return ops.identity(8) + ops.zeros_like(x)[:, :1]
        extra = ("float32",) if name == "View" else EXTRA.get(name, ())
        return getattr(ops, snake(name))(x, *extra)

    return apply


def binary(name):
    def apply(x):
        one, two = some(x), some(x * 2.0)
        if name in TRUTH:
            one, two = one > 0.5, two > 0.5
        return getattr(ops, snake(name))(one, two)

    return apply


def reduced(name):
    return lambda x: getattr(ops, snake(name))(some(x), axis=1)


def bits(name):
    return lambda x: getattr(ops, snake(name))(ops.cast(x * 9, "int32"), ops.cast(x * 5, "int32"))


OPS_HERE = {
    "convert": lambda x: ops.cast(ops.convert_to_tensor(x, dtype="float64"), "float32"),
    **{name: unary(name) for name in UNARY},
    **{name: binary(name) for name in BINARY},
    **{name: reduced(name) for name in REDUCED},
    **{name: bits(name) for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")},
    "AveragePool": lambda x: ops.average_pool(x, 2),
    "MaxPool": lambda x: ops.max_pool(x, 2),
    "Resize": lambda x: ops.image.resize(ops.expand_dims(x, 1), (2, 3)),
    "Argsort": lambda x: ops.argsort(x, axis=1),
    "Sort": lambda x: ops.sort(x, axis=1),
    "Cumprod": lambda x: ops.cumprod(x, axis=1),
    "Roll": lambda x: ops.roll(x, 1, axis=1),
    "LogSoftmax": lambda x: ops.log_softmax(x, axis=1),
    "Sparsemax": lambda x: ops.sparsemax(x, axis=1),
    "Normalize": lambda x: ops.normalize(x, axis=1),
    "Glu": lambda x: ops.glu(x, axis=-1),
    "ArraySplit": lambda x: ops.array_split(x, 3, axis=-1)[1],
    "Slice": lambda x: ops.slice(x, (0, 1, 0), (1, 4, 8)),
    "Ravel": lambda x: ops.reshape(ops.ravel(x), (-1, 48)),
    "TakeAlongAxis": lambda x: ops.take_along_axis(x, np.zeros((1, 1, 1), "int32"), axis=1),
    "Tensordot": lambda x: ops.tensordot(x, ops.ones_like(x[0]), axes=[[2], [1]]),
    "Dot": lambda x: ops.dot(x, ops.transpose(x[0])),
    "Outer": lambda x: ops.expand_dims(ops.outer(x[0, 0], x[0, 1]), 0),
    "Tril": lambda x: ops.tril(x),
    "Triu": lambda x: ops.triu(x),
    "TopK": lambda x: ops.top_k(ops.transpose(x, (0, 2, 1)), 3)[0],
    "OneHot": lambda x: ops.one_hot(ops.cast(some(x) * 4, "int32"), 4),
    "MultiHot": lambda x: ops.multi_hot(ops.cast(some(x) * 4, "int32"), 4),
    "DotProductAttention": lambda x: ops.dot_product_attention(heads(x), heads(x), heads(x)),
    "FFT": lambda x: ops.fft((ops.transpose(x, (0, 2, 1)),) * 2)[0],
    "FFT2": lambda x: ops.fft2((x, x * 0.5))[1],
    "IFFT2": lambda x: ops.ifft2((x, x * 0.5))[0],
}


def built(shape, make):
    i = keras.Input(shape)
    x = make(layers.Dense(shape[-1], name="before")(i))
    if "float32" not in str(x.dtype):
        x = ops.cast(x, "float32")
    model = keras.Model(i, layers.Dense(3, name="after")(layers.Dense(8, name="middle")(x)))
    randomise(model)
    return model


def prove(model):
    result = cutting.cut(model, ratio=0.5, align=1)
    assert result.proof.difference <= result.proof.tolerance
    assert np.isfinite(result.proof.difference)
    assert result.model.count_params() < model.count_params()
    return result


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    shape, make = LAYERS[name]
    model = built(shape, make)
    result = prove(model)
    widened = {"Embedding", "ReversibleEmbedding", "Dot", "Normalization", "RandomBrightness"}
    frozen = {"RandomContrast", "Rescaling"}
    if name not in widened | frozen:
        assert result.plan["before"].kept == 4, str(result.plan)


@pytest.mark.parametrize("name", OPS_HERE)
def test_op(name):
    prove(built(TIME, OPS_HERE[name]))


def operations(model):
    return {type(call.operation).__name__ for call in flatten(model, is_leaf, opener_of).calls}


def test_every_row_has_a_case():
    seen = set()
    for shape, make in CASES.values():
        seen |= operations(in_setting("after", shape, make))
    for make in OPS.values():
        i = keras.Input((6, 12))
        seen |= operations(keras.Model(i, make(layers.Dense(12)(i))))
    for shape, make in LAYERS.values():
        seen |= operations(built(shape, make))
    for make in OPS_HERE.values():
        seen |= operations(built(TIME, make))
    seen |= {alias for alias, name in ALIASES.items() if name in seen}
    assert sorted({*table._LAYERS, *table._OPS} - seen) == []


def test_what_needs_every_position_is_left_whole():
    i = keras.Input((8,))
    model = keras.Model(i, layers.Softmax()(layers.Dense(8)(i)))
    with pytest.warns(TargetNotReachedWarning, match="Nothing was cut"):
        cutting.cut(model, ratio=0.5)
