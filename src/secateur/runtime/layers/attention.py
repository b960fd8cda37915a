"""Attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.runtime.layers.elementwise import mask_logits, softmax, with_mask
from secateur.runtime.layers.linear import einsum_product
from secateur.runtime.layers.merging import matmul
from secateur.runtime.lowering import Site, layer
from secateur.runtime.planning import Value


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
    for option in ("use_gate", "sliding_window"):
        if site.config.get(option):
            raise site.refuse(f"{option}={site.config[option]!r} is not supported")
    scale = float(site.config["key_dim"]) ** -0.5
    masks = (query_mask or query.mask, value_mask or value.mask)
    keys_mask = key_mask or (key.mask if key is not None else None)
    heads = [
        einsum_product(site, x, "abc,cde->abde", site.weights.child(name), scale=factor)
        for x, name, factor in (
            (query, "query", scale),
            (value if key is None else key, "key", 1.0),
            (value, "value", 1.0),
        )
    ]
    mask = _combined(site, query, value, (*masks, keys_mask), attention_mask, use_causal_mask)
    mixed, scores = _attend(site, heads[0], heads[1], heads[2], mask)
    result = einsum_product(site, mixed, "abcd,cde->abe", site.weights.child("attention_output"))
    result = with_mask(result, query.mask)
    return [result, scores] if return_attention_scores else result


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
    for option in ("use_gate", "sliding_window"):
        if site.config.get(option):
            raise site.refuse(f"{option}={site.config[option]!r} is not supported")
    scale = float(site.config["head_dim"]) ** -0.5
    repeats = site.config["num_query_heads"] // site.config["num_key_value_heads"]
    queries = einsum_product(site, query, "bqm,muh->bquh", site.weights.child("query"), scale=scale)
    keys = einsum_product(
        site, value if key is None else key, "bkm,mvh->bkvh", site.weights.child("key")
    )
    values = einsum_product(site, value, "bkm,mvh->bkvh", site.weights.child("value"))
    masks = (
        query_mask or query.mask,
        value_mask or value.mask,
        key_mask or (key.mask if key is not None else None),
    )
    mask = _combined(site, query, value, masks, attention_mask, use_causal_mask)
    mixed, scores = _attend(
        site, queries, _repeated(site, keys, repeats), _repeated(site, values, repeats), mask
    )
    result = einsum_product(site, mixed, "bquh,uhm->bqm", site.weights.child("attention_output"))
    result = with_mask(result, query.mask)
    return [result, scores] if return_attention_scores else result


def _repeated(site: Site, x: Value, times: int) -> Value:
    batch, steps, heads, width = x.shape
    wide = site.builder.view(
        x, lambda array: np.broadcast_to(array[:, :, :, None], (batch, steps, heads, times, width))
    )
    return site.builder.reshape(wide, (batch, steps, heads * times, width))


def _attend(
    site: Site, query: Value, key: Value, value: Value, mask: Value | None
) -> tuple[Value, Value]:
    """softmax(Q K^T) V per head; all (batch, time, heads, width), the query scaled already."""
    batch, steps, heads, _ = query.shape
    moved = site.builder.view(query, lambda a: a.transpose(0, 2, 1, 3))
    keys = site.builder.view(key, lambda a: a.transpose(0, 2, 3, 1))
    values = site.builder.view(value, lambda a: a.transpose(0, 2, 1, 3))
    scores = matmul(site, moved, keys)
    if mask is not None:
        shape = mask.shape if mask.ndim == 4 else (mask.shape[0], 1, *mask.shape[-2:])
        scores = mask_logits(site, scores, site.builder.reshape(mask, shape))
    weights = softmax(site, scores)
    out = site.builder.empty((batch, steps, heads, value.shape[-1]))
    target = site.builder.view(out, lambda a: a.transpose(0, 2, 1, 3))
    site.builder.emit(lambda y, a, b: lambda: np.matmul(a, b, out=y), [target], [weights, values])
    return out, weights


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
    mixed, scores = _attend(site, heads[0], heads[1], heads[2], allowed)
    result = site.builder.view(mixed, lambda a: a[:, :, 0])
    query_mask = given[0]
    if query_mask is not None:
        wide = site.builder.view(query_mask, lambda a: a[:, :, None])
        result = site.builder.ufunc(np.multiply, [result, wide], np.float32)
    result = with_mask(result, query_mask)
    weights = site.builder.view(scores, lambda a: a[:, 0])
    return [result, weights] if return_attention_scores else result
