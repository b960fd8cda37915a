"""Rules for attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from secateur.keras.cut_rules.site import Kept, Site
from secateur.keras.cut_rules.table import layer, op
from secateur.keras.flatten import Tensor
from secateur.network import Labels, MaybeLabels


def _arguments(site: Site) -> tuple[Tensor, Tensor, Tensor]:
    query = site.argument("query", 0)
    value = site.argument("value", 1)
    key = site.argument("key", 2)
    return query, value, value if key is None else key


def _project(site: Site, dense: Any, tensor: Tensor, lead: int, labels: Labels) -> None:
    """Weights of a projection (features..., heads, width), bias (heads, width)."""
    features = site.axes(tensor)
    taken = features[len(features) - lead :]
    site.weight(dense._kernel, *taken, labels, None)
    site.weight(dense.bias, labels, None)


def _masks_do_not_name_heads(site: Site, heads: MaybeLabels, count: int) -> None:
    mask = site.argument("attention_mask")
    if isinstance(mask, Tensor) and len(mask.shape) == 4 and mask.shape[1] == count and count > 1:
        site.freeze(heads, f"{site.name}: its attention mask names single heads")


@layer("MultiHeadAttention")
def multi_head_attention(site: Site) -> None:
    """Heads are slots on axis `heads` of every projection; the output projection makes its own."""
    attention = site.operation
    query, value, key = _arguments(site)
    heads = site.fresh(attention.num_heads, "head")
    for dense, tensor in (
        (attention._query_dense, query),
        (attention._key_dense, key),
        (attention._value_dense, value),
        (
            getattr(attention, "_gate_dense", None)
            if getattr(attention, "_use_gate", False)
            else None,
            query,
        ),
    ):
        if dense is not None:
            _project(site, dense, tensor, len(dense._kernel.shape) - 2, heads)
    _masks_do_not_name_heads(site, heads, attention.num_heads)
    output = attention._output_dense
    site.emit(output, -2, heads, output._kernel.shape[1])
    _attention_output(site, output, heads, query)
    out = site.results[0]
    size = attention._output_dense._kernel.shape[2:]

    def change(kept: Kept) -> dict[str, Any]:
        shape = tuple(
            kept.count(own, full) for own, full in zip(out[-len(size) :], size, strict=True)
        )
        changed: dict[str, Any] = {"num_heads": kept.count(heads)}
        if attention._output_shape is not None or shape != tuple(size):
            changed["output_shape"] = shape
        return changed

    site.resize(change)


def _attention_output(site: Site, dense: Any, heads: Labels, query: Tensor) -> None:
    sizes = dense._kernel.shape[2:]
    if len(sizes) == 1:
        out: list[MaybeLabels] = [site.fresh(sizes[0], "neuron")]
    else:
        out = [None] * len(sizes)
    site.weight(dense._kernel, heads, None, *out)
    site.weight(dense.bias, *out)
    site.hold(dense._kernel, 0, heads)
    lead = site.axes(query)[: len(site.call.outputs[0].shape) - len(out)]
    for tensor in {id(t): t for t in site.inputs[:3]}.values():
        for labels in site.axes(tensor)[1 : len(lead)]:
            site.freeze(labels)
    site.output(*[None] * len(lead), *out)
    for scores in site.call.outputs[1:]:
        own: list[MaybeLabels] = [None] * len(scores.shape)
        own[1] = heads
        site.output(*own)


@layer("GroupedQueryAttention", "GroupQueryAttention")
def grouped_query_attention(site: Site) -> None:
    """A key and value head goes with all query heads that it serves."""
    attention = site.operation
    query, value, key = _arguments(site)
    groups = site.fresh(attention.num_key_value_heads, "head")
    repeats = attention.num_query_heads // attention.num_key_value_heads
    heads = np.repeat(groups, repeats)
    site.made.append(heads)
    _project(site, attention._query_dense, query, 1, heads)
    _project(site, attention._key_dense, key, 1, groups)
    _project(site, attention._value_dense, value, 1, groups)
    if getattr(attention, "use_gate", False):
        _project(site, attention._gate_dense, query, 1, heads)
    _masks_do_not_name_heads(site, heads, attention.num_query_heads)
    width = site.axes(query)[-1]
    dense = attention._output_dense
    out = site.fresh(dense._kernel.shape[-1], "neuron")
    site.weight(dense._kernel, heads, None, out)
    site.weight(dense.bias, out)
    site.hold(dense._kernel, 0, heads)
    site.emit(dense, -2, heads, dense._kernel.shape[1])
    site.tie(width, out)
    site.output(None, None, width)
    for scores in site.call.outputs[1:]:
        own: list[MaybeLabels] = [None] * len(scores.shape)
        own[1] = heads
        site.output(*own)
    site.resize(
        lambda kept: {
            "num_query_heads": kept.count(heads),
            "num_key_value_heads": kept.count(groups),
        }
    )


@layer("Attention", "AdditiveAttention")
def attention_without_heads(site: Site) -> None:
    """Scores sum over the features of query and key; what comes out are values."""
    attention = site.operation
    inputs = site.argument("inputs", 0)
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 else value
    features = site.tie(site.axes(query)[-1], site.axes(key)[-1])
    if type(attention).__name__ == "AdditiveAttention" and attention.use_scale:
        site.weight(attention.scale, features)
    for tensor in (query, value, key):
        for labels in site.axes(tensor)[1:-1]:
            site.freeze(labels)
    site.output(None, None, site.axes(value)[-1])
    for scores in site.call.outputs[1:]:
        site.output(*[None] * len(scores.shape))


@op("DotProductAttention")
def dot_product_attention(site: Site) -> None:
    """Query (batch, time, heads, width), key and value with as many heads or a divisor of them."""
    query, key, value = (
        site.argument(name, at) for at, name in enumerate(("query", "key", "value"))
    )
    for tensor in (query, key, value):
        site.freeze(site.axes(tensor)[1])
    heads, own = site.axes(query)[2], site.axes(key)[2]
    site.tie(own, site.axes(value)[2])
    repeats = query.shape[2] // key.shape[2]
    site.tie(heads, None if own is None else np.repeat(own, repeats))
    width = site.tie(site.axes(query)[3], site.axes(key)[3])
    if site.argument("scale") is None:
        site.freeze(width, f"{site.name} divides by the root of this width")
    site.network.mix(width)
    for name in ("bias", "mask"):
        extra = site.argument(name)
        if isinstance(extra, Tensor) and len(extra.shape) == 4 and extra.shape[1] not in (1, None):
            site.tie(site.axes(extra)[1], heads)
    site.output(None, None, heads, site.axes(value)[3])
