"""Activations, softmax, and layers that do nothing when a model is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur._kernels.native import neural, spmm
from secateur.activations import ACTIVATION_NAMES, Activation
from secateur.runtime.linear import Product
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Value

MASKED = float(np.finfo(np.float32).min) * 0.7
"""What Keras puts in place of a masked logit."""


def parse_activation(site: Site, config: Any) -> Activation | str:
    """An elementwise activation that kernels can fuse, or the name of another.

    Args:
        site: Whose activation it is, for the error.
        config: As Keras serialises it: a name, a function or an activation layer.
    """
    if config is None:
        return Activation("linear")
    if isinstance(config, dict):
        name = config.get("config")
        if config.get("class_name") != "function" or not isinstance(name, str):
            return _from_layer(site, config)
        config = name
    if config in ACTIVATION_NAMES:
        return Activation(config)
    if config in _OTHERS:
        return str(config)
    raise site.refuse(f"its activation {config!r} is unknown to the runtime")


def _from_layer(site: Site, config: dict[str, Any]) -> Activation | str:
    kind, inner = config.get("class_name"), config.get("config") or {}
    if kind in ("ReLU", "LeakyReLU", "ELU"):
        return _of_layer(str(kind), inner)
    if kind in ("Softmax", "Activation"):
        return "softmax" if kind == "Softmax" else parse_activation(site, inner["activation"])
    raise site.refuse(f"its activation {kind!r} is unknown to the runtime")


def _of_layer(kind: str, config: dict[str, Any]) -> Activation:
    if kind == "ELU":
        return Activation("elu", {"alpha": config.get("alpha", 1.0)})
    if kind == "LeakyReLU":
        return Activation("leaky_relu", {"negative_slope": config.get("negative_slope", 0.3)})
    return Activation(
        "relu",
        {
            "negative_slope": config.get("negative_slope") or 0.0,
            "max_value": config.get("max_value"),
        },
    )


def apply_activation(site: Site, x: Value, activation: Activation | str) -> Value:
    """The activation of a value, as a step of its own."""
    if isinstance(activation, str):
        return _OTHERS[activation](site, x)
    if activation.name == "linear":
        return x
    epilogue = spmm.Epilogue.of(activation)
    product = x.producer
    if isinstance(product, Product) and not x.is_shared and product.activate(epilogue):
        return x
    width = x.shape[-1] if x.ndim else 1

    def run(out: Array, array: Array) -> None:
        np.copyto(out, array, casting="unsafe")
        spmm.finish_rows(out.reshape(-1, max(1, width)), None, None, epilogue)

    return with_mask(site.builder.apply(run, [x], x.shape), x.mask)


def with_mask(value: Value, mask: Value | None) -> Value:
    """The value, carrying a mask."""
    value.mask = mask
    return value


def softmax(site: Site, x: Value, axis: int = -1) -> Value:
    """Softmax along an axis."""
    if x.ndim == 0:
        raise site.refuse("softmax of a scalar")
    moved = site.builder.view(x, lambda array: np.moveaxis(array, axis, -1))
    shape = moved.shape

    def run(out: Array, array: Array) -> None:
        np.copyto(out, array, casting="unsafe")
        rows = out.reshape(-1, shape[-1])
        neural.softmax_rows(rows, rows)

    result = site.builder.apply(run, [moved], shape)
    return site.builder.view(result, lambda array: np.moveaxis(array, -1, axis))


def mask_logits(site: Site, scores: Value, mask: Value) -> Value:
    """Scores with what the mask excludes out of reach; mask broadcasts to them."""

    def run(out: Array, array: Array, keep: Array) -> None:
        np.copyto(out, MASKED)
        np.copyto(out, array, where=keep)

    boolean = site.builder.ufunc(np.not_equal, [mask, site.builder.constant(0)], bool)
    return site.builder.apply(run, [scores, boolean], scores.shape)


def _log_softmax(site: Site, x: Value) -> Value:
    def run(out: Array, array: Array) -> None:
        np.subtract(array, array.max(-1, keepdims=True), out=out)
        out -= np.log(np.exp(out).sum(-1, keepdims=True))

    return site.builder.apply(run, [x], x.shape)


def _hard_tanh(site: Site, x: Value) -> Value:
    return site.builder.apply(lambda out, array: np.clip(array, -1, 1, out=out), [x], x.shape)


def _softsign(site: Site, x: Value) -> Value:
    return site.builder.apply(
        lambda out, array: np.divide(array, 1 + np.abs(array), out=out), [x], x.shape
    )


def _mish(site: Site, x: Value) -> Value:
    return site.builder.apply(
        lambda out, array: np.multiply(array, np.tanh(np.logaddexp(array, np.float32(0))), out=out),
        [x],
        x.shape,
    )


_OTHERS = {
    "softmax": softmax,
    "log_softmax": _log_softmax,
    "hard_tanh": _hard_tanh,
    "softsign": _softsign,
    "mish": _mish,
}


@layer(
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
)
def nothing(site: Site, x: Value, **kwargs: Any) -> Value:
    """Layers that act in training only."""
    del site, kwargs
    return x


@layer("Activation")
def activation(site: Site, x: Value) -> Value:
    """`Activation`."""
    found = parse_activation(site, site.config["activation"])
    return with_mask(apply_activation(site, x, found), x.mask)


@layer("ReLU", "LeakyReLU", "ELU")
def activation_layer(site: Site, x: Value) -> Value:
    """Activation layers with parameters."""
    if site.config.get("threshold"):
        raise site.refuse("ReLU with a threshold is not supported")
    return apply_activation(site, x, _of_layer(site.kind, site.config))


@layer("PReLU")
def prelu(site: Site, x: Value) -> Value:
    """`PReLU`: a slope below zero for each feature."""
    alpha = site.builder.constant(site.weights.need("alpha"))

    def run(out: Array, array: Array, slope: Array) -> None:
        np.multiply(array, slope, out=out)
        np.copyto(out, array, where=array > 0)

    return with_mask(site.builder.apply(run, [x, alpha], x.shape), x.mask)


@layer("Softmax")
def softmax_layer(site: Site, x: Value, mask: Value | None = None) -> Value:
    """`Softmax`, over one axis, with a mask of the logits."""
    axis = site.config.get("axis", -1)
    if isinstance(axis, list):
        if len(axis) != 1:
            raise site.refuse("softmax over several axes is not supported")
        axis = axis[0]
    if mask is not None:
        x = mask_logits(site, x, mask)
    return softmax(site, x, axis)


@layer("Masking")
def masking(site: Site, x: Value) -> Value:
    """`Masking`: steps in which every feature has a value are masked, and set to zero."""
    value = site.config.get("mask_value", 0.0)
    mask = site.builder.apply(
        lambda out, array: np.any(array != value, axis=-1, out=out), [x], x.shape[:-1], bool
    )
    result = site.builder.apply(
        lambda out, array, keep: np.multiply(array, keep[..., None], out=out), [x, mask], x.shape
    )
    return with_mask(result, mask)


@layer("Rescaling")
def rescaling(site: Site, x: Value) -> Value:
    """`Rescaling`."""
    scale, offset = np.float32(site.config["scale"]), np.float32(site.config["offset"])
    return site.builder.apply(
        lambda out, array: np.add(np.multiply(array, scale), offset, out=out), [x], x.shape
    )
