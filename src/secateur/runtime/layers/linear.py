"""Dense, EinsumDense and Embedding."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from secateur.activations import Activation
from secateur.runtime.layers.elementwise import apply_activation, parse_activation, with_mask
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Value


def dense_product(
    site: Site,
    x: Value,
    key: str,
    weights: np.ndarray[Any, Any],
    bias: np.ndarray[Any, Any] | None,
    activation: Any,
    is_only_reader: bool = False,
) -> Value:
    """One product with the activation fused if it is elementwise; see `Site.linear`."""
    found = parse_activation(site, activation)
    fused = found if isinstance(found, Activation) else None
    y = site.linear(x, key, weights, bias, fused, is_only_reader)
    return y if fused is not None else apply_activation(site, y, found)


@layer("Dense", "SparseDense")
def dense(site: Site, x: Value) -> Value:
    """`Dense` and our `SparseDense`, over the last axis."""
    y = dense_product(
        site,
        x,
        "kernel",
        site.weights.need("kernel"),
        site.weights.get("bias"),
        site.config.get("activation"),
        is_only_reader=True,
    )
    return with_mask(y, x.mask)


@layer("EinsumDense")
def einsum_dense(site: Site, x: Value) -> Value:
    """`EinsumDense` whose kernel sums over some axes of x: one product after reordering them."""
    return einsum_product(
        site, x, site.config["equation"], site.weights, site.config.get("activation")
    )


def einsum_product(
    site: Site, x: Value, equation: str, weights: Any, activation: Any = None, scale: float = 1.0
) -> Value:
    """X and a kernel by an einsum equation, bias and activation.

    Args:
        site: Where.
        x: The first operand.
        equation: As `EinsumDense` takes it, such as "abc,cde->abde"; "..." leads in both or none.
        weights: Where "kernel" and "bias" are.
        activation: As in a Keras configuration.
        scale: Multiplies kernel and bias.
    """
    kernel = weights.need("kernel")
    left, rest = equation.replace("...", "0").split(",")
    right, out = rest.split("->")
    if left.startswith("0"):
        lead = "".join(chr(0x100 + i) for i in range(x.ndim - len(left) + 1))
        left, out = lead + left[1:], lead + out[1:]
    summed = [axis for axis in left if axis in right and axis not in out]
    batch = [axis for axis in left if axis in out and axis not in right]
    free = [axis for axis in right if axis in out and axis not in left]
    if len(summed) + len(batch) != len(left) or len(summed) + len(free) != len(right):
        raise site.refuse(f"the equation {equation!r} is no plain product with the kernel")
    matrix = kernel.transpose([right.index(axis) for axis in (*summed, *free)])
    free_shape = matrix.shape[len(summed) :]
    matrix = matrix.reshape(prod(matrix.shape[: len(summed)]), prod(free_shape))
    order = [left.index(axis) for axis in (*batch, *summed)]
    moved = site.builder.view(x, lambda array: array.transpose(order))
    batch_shape = moved.shape[: len(batch)]
    flat = site.builder.reshape(moved, (*batch_shape, matrix.shape[0]))
    bias = weights.get("bias")
    made = [*batch, *free]
    to_out = [made.index(axis) for axis in out]
    fused_bias = None
    if bias is not None:
        # The bias has the last axes of the output, with extent 1 where it does not vary.
        extents = dict(zip(made, (*batch_shape, *free_shape), strict=True))
        tail = out[len(out) - bias.ndim :]
        if any(axis in batch and bias.shape[i] != 1 for i, axis in enumerate(tail)):
            raise site.refuse("a bias along the axes of the input is not supported")
        squeezed = np.ones([1 if axis in batch else extents[axis] for axis in tail], np.float32)
        squeezed = squeezed * bias
        kept = [axis for axis in tail if axis in free]
        squeezed = squeezed.reshape([extents[axis] for axis in kept])
        full = np.broadcast_to(
            squeezed.transpose([kept.index(axis) for axis in free if axis in kept]).reshape(
                [extents[axis] if axis in kept else 1 for axis in free]
            ),
            free_shape,
        )
        fused_bias = full.reshape(-1) * np.float32(scale)
    y = dense_product(
        site, flat, f"{weights.path}#kernel", matrix * np.float32(scale), fused_bias, activation
    )
    shaped = site.builder.view(y, lambda array: array.reshape(*batch_shape, *free_shape))
    if to_out == list(range(len(out))):
        shaped.producer = y.producer
        return shaped
    return site.builder.view(shaped, lambda array: array.transpose(to_out))


@layer("Embedding")
def embedding(site: Site, x: Value) -> Value:
    """`Embedding`; with mask_zero, token 0 is masked. Indices out of range are an error."""
    return _looked_up(site, x)


def _looked_up(site: Site, x: Value) -> Value:
    table = site.builder.constant(site.weights.need("embeddings"))
    ids = site.builder.contiguous(x, np.intp)
    shape = (*x.shape, table.shape[-1])

    def look_up(out: Array, rows: Array, indices: Array) -> None:
        np.take(rows, indices, axis=0, out=out, mode="raise" if indices.size else "clip")

    result = site.builder.apply(look_up, [table, ids], shape)
    if site.config.get("mask_zero"):
        result.mask = site.builder.ufunc(np.not_equal, [x, site.builder.constant(0)], bool)
    return result


@layer("ReversibleEmbedding")
def reversible_embedding(site: Site, x: Value, reverse: bool = False) -> Value:
    """`ReversibleEmbedding`: a table that is looked up, and multiplied with to come back to tokens."""
    if not reverse:
        return _looked_up(site, x)
    if site.config.get("tie_weights", True):
        logits = site.linear(x, "embeddings turned", site.weights.need("embeddings").T)
    else:
        logits = site.linear(x, "reverse_embeddings", site.weights.need("reverse_embeddings"))
    cap = site.config.get("logit_soft_cap")
    if cap is None:
        return logits

    def run(out: Array, array: Array) -> None:
        np.divide(array, np.float32(cap), out=out)
        np.tanh(out, out=out)
        np.multiply(out, np.float32(cap), out=out)

    return site.builder.apply(run, [logits], logits.shape)
