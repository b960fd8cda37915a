"""Attention."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from secateur._kernels.native import neural
from secateur.runtime.layers.elementwise import MASKED, with_mask
from secateur.runtime.layers.linear import einsum_product
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Array, Run, Value


@layer("MultiHeadAttention")
def multi_head_attention(
    site: Site,
    query: Value,
    value: Value,
    key: Value | None = None,
    query_mask: Value | None = None,
    value_mask: Value | None = None,
    key_mask: Value | None = None,
    attention_mask: Value | None = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Any:
    """`MultiHeadAttention` over one axis: (batch, time, features)."""
    if query.ndim != 3 or site.config.get("attention_axes") not in (None, [1], 1):
        raise site.refuse("attention over other axes than time is not supported")
    _refuse_options(site)
    scale = float(site.config["key_dim"]) ** -0.5
    heads = [
        einsum_product(site, x, "abc,cde->abde", site.weights.child(name), scale=factor)
        for x, name, factor in (
            (query, "query", scale),
            (value if key is None else key, "key", 1.0),
            (value, "value", 1.0),
        )
    ]
    masks = _masks((query, value, key), (query_mask, value_mask, key_mask))
    mask = _combined(site, query, value, masks, attention_mask, use_causal_mask)
    mixed, scores = _attend(site, (heads[0], heads[1], heads[2]), mask, return_attention_scores)
    result = einsum_product(site, mixed, "abcd,cde->abe", site.weights.child("attention_output"))
    return _with_scores(with_mask(result, query.mask), scores)


@layer("GroupQueryAttention", "GroupedQueryAttention")
def grouped_query_attention(
    site: Site,
    query: Value,
    value: Value,
    key: Value | None = None,
    query_mask: Value | None = None,
    value_mask: Value | None = None,
    key_mask: Value | None = None,
    attention_mask: Value | None = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Any:
    """`GroupQueryAttention`: several query heads share one key and value head."""
    _refuse_options(site)
    scale = float(site.config["head_dim"]) ** -0.5
    repeats = site.config["num_query_heads"] // site.config["num_key_value_heads"]
    queries = einsum_product(site, query, "bqm,muh->bquh", site.weights.child("query"), scale=scale)
    keys = einsum_product(
        site, value if key is None else key, "bkm,mvh->bkvh", site.weights.child("key")
    )
    values = einsum_product(site, value, "bkm,mvh->bkvh", site.weights.child("value"))
    masks = _masks((query, value, key), (query_mask, value_mask, key_mask))
    mask = _combined(site, query, value, masks, attention_mask, use_causal_mask)
    heads = (queries, _repeated(site, keys, repeats), _repeated(site, values, repeats))
    mixed, scores = _attend(site, heads, mask, return_attention_scores)
    result = einsum_product(site, mixed, "bquh,uhm->bqm", site.weights.child("attention_output"))
    return _with_scores(with_mask(result, query.mask), scores)


def _refuse_options(site: Site) -> None:
    for option in ("use_gate", "sliding_window"):
        if site.config.get(option):
            raise site.refuse(f"{option}={site.config[option]!r} is not supported")


def _masks(
    values: tuple[Value, Value, Value | None], given: tuple[Value | None, ...]
) -> tuple[Value | None, Value | None, Value | None]:
    """The masks of query, value and key: those given, else those the values carry."""
    query, value, key = values
    query_mask, value_mask, key_mask = given
    return (
        query_mask or query.mask,
        value_mask or value.mask,
        key_mask or (None if key is None else key.mask),
    )


def _with_scores(result: Value, scores: Value | None) -> Any:
    return result if scores is None else [result, scores]


def _repeated(site: Site, x: Value, times: int) -> Value:
    batch, steps, heads, width = x.shape
    wide = site.builder.view(
        x, lambda array: np.broadcast_to(array[:, :, :, None], (batch, steps, heads, times, width))
    )
    return site.builder.reshape(wide, (batch, steps, heads * times, width))


def _attend(
    site: Site,
    heads: tuple[Value, Value, Value],
    mask: Value | None,
    wants_scores: bool,
) -> tuple[Value, Value | None]:
    """softmax(Q K^T) V per head.

    Args:
        site: Where.
        heads: Query (scaled already), key and value, each (batch, time, heads, width).
        mask: As `_combined` makes it.
        wants_scores: Whether somebody reads the attention weights.

    Returns:
        (batch, queries, heads, value width), and (batch, heads, queries, keys) if wanted.
    """
    builder = site.builder
    query, key, value = (_rows(site, x) for x in heads)
    batch, queries, num_heads, _ = query.shape
    shape = (batch, num_heads, queries, key.shape[1])
    out = builder.empty((*query.shape[:3], value.shape[-1]))
    scores = builder.empty(shape) if wants_scores else None
    seen = None if mask is None else _seen(site, mask, shape)

    def make(y: Array, *arrays: Array) -> Run:
        weights = arrays[0] if wants_scores else None
        q, k, v, *keep = arrays[1:] if wants_scores else arrays
        return partial(neural.attend, q, k, v, y, keep[0] if keep else None, MASKED, weights)

    outputs = [out] if scores is None else [out, scores]
    builder.emit(make, outputs, [query, key, value, *([] if seen is None else [seen])])
    return out, scores


def _rows(site: Site, x: Value) -> Value:
    """X itself if it is float32 and its last axis contiguous, else a copy that is."""
    if x.dtype == np.float32 and (x.shape[-1] <= 1 or x.phantom.strides[-1] == x.dtype.itemsize):
        return x
    return site.builder.contiguous(x, np.float32)


def _seen(site: Site, mask: Value, shape: tuple[int, ...]) -> Value:
    """The mask as booleans of the scores' shape, without a copy where it is the same for many."""
    if mask.dtype != np.bool_:
        mask = site.builder.ufunc(np.not_equal, [mask, site.builder.constant(0)], bool)
    if mask.ndim == 3:
        mask = site.builder.view(mask, lambda a: a[:, None])
    return site.builder.view(mask, lambda a: np.broadcast_to(a, shape))


def _combined(
    site: Site,
    query: Value,
    value: Value,
    masks: tuple[Value | None, Value | None, Value | None],
    attention_mask: Value | None,
    causal: bool,
) -> Value | None:
    """(batch or 1, queries, keys) or with heads: true where a query may look."""
    parts = [] if attention_mask is None else [attention_mask]
    query_mask, value_mask, key_mask = masks
    if query_mask is not None:
        parts.append(site.builder.view(query_mask, lambda a: a[:, :, None]))
    for mask in (value_mask, key_mask):
        if mask is not None:
            parts.append(site.builder.view(mask, lambda a: a[:, None, :]))
    if causal:
        lower = np.tri(query.shape[1], value.shape[1], dtype=bool)[None]
        parts.append(site.builder.constant(lower))
    if not parts:
        return None
    deepest = max(part.ndim for part in parts)
    result = None
    for part in parts:
        wide = part
        if part.ndim < deepest:
            wide = site.builder.view(part, lambda a: a[:, None])
        result = (
            wide if result is None else site.builder.ufunc(np.logical_and, [result, wide], bool)
        )
    return result


@layer("Attention")
def dot_attention(
    site: Site,
    inputs: list[Value],
    mask: list[Value | None] | None = None,
    return_attention_scores: bool = False,
    use_causal_mask: bool = False,
) -> Any:
    """`Attention` (Luong): no weights but an optional scale."""
    if site.config.get("score_mode", "dot") != "dot":
        raise site.refuse("only score_mode='dot' is supported")
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    given = list(mask or [x.mask for x in inputs])
    if site.config.get("use_scale"):
        factor = site.builder.constant(site.weights.need("scale"))
        query = site.builder.ufunc(np.multiply, [query, factor], np.float32)
    value_mask = given[1] if len(given) > 1 else None
    allowed = _combined(site, query, value, (None, value_mask, None), None, use_causal_mask)
    heads = [site.builder.view(x, lambda a: a[:, :, None]) for x in (query, key, value)]
    mixed, scores = _attend(site, (heads[0], heads[1], heads[2]), allowed, return_attention_scores)
    result = site.builder.view(mixed, lambda a: a[:, :, 0])
    query_mask = given[0]
    if query_mask is not None:
        wide = site.builder.view(query_mask, lambda a: a[:, :, None])
        result = site.builder.ufunc(np.multiply, [result, wide], np.float32)
    result = with_mask(result, query_mask)
    if scores is None:
        return result
    return [result, site.builder.view(scores, lambda a: a[:, 0])]
