"""Openers: what is traced in place of layers whose own `call` cannot be.

It does not run on symbolic tensors, or would bring in classes of another package. Matched by
package and class name, so that no other package is imported.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from secateur.keras.cut_rules.table import opens
from secateur.keras.flatten import Twins, twin


@opens("*")
def foreign_activation(layer: Any, twins: Twins, x: Any, *args: Any, **kwargs: Any) -> Any:
    """A stock layer with an activation of the user's: the layer without it, then what it calls."""
    function = layer.activation
    if type(layer).__name__ == "Activation":
        return function(x)
    plain = twins.of(layer, lambda own: twin(own, activation=keras.activations.linear))
    return function(plain(x, *args, **kwargs))


def as_stock(layer: Any, stock: Any) -> Any:
    """A layer of a subclass as its stock base class, with the same variables."""
    new = twin(layer)
    new.__class__ = stock
    blank = stock.from_config(layer.get_config())
    new.__dict__.update({k: v for k, v in vars(blank).items() if k.startswith("_call")})
    return new


@opens("keras_hub>CachedMultiHeadAttention")
def cached_attention(layer: Any, twins: Twins, *args: Any, **kwargs: Any) -> Any:
    """Without a cache it is what the stock layer does."""
    if kwargs.pop("cache", None) is not None or kwargs.pop("cache_update_index", None) is not None:
        raise ValueError("it is called with a cache")
    stock = twins.of(layer, lambda own: as_stock(own, keras.layers.MultiHeadAttention))
    return stock(*args, **kwargs)


@opens("keras_hub>ReversibleEmbedding")
def reversible_embedding(layer: Any, twins: Twins, *args: Any, **kwargs: Any) -> Any:
    """What the stock layer of that name does."""
    stock = twins.of(layer, lambda own: as_stock(own, keras.layers.ReversibleEmbedding))
    return stock(*args, **kwargs)


def positions(x: Any) -> Any:
    """0, 1, 2, ... along the second axis of (batch, time, features), whatever the data's length."""
    one = ops.sum(ops.zeros_like(x, dtype="int32"), axis=-1) + 1
    return ops.cumsum(one, axis=1) - 1


def table(name: str, variable: Any, layer: Any) -> Any:
    """An `Embedding` over a variable of another layer."""
    rows, width = variable.shape
    new = keras.layers.Embedding(rows, width, name=name, dtype=layer.dtype_policy)
    new._embeddings = variable
    new.built = True
    new.trainable = layer.trainable
    return new


@opens("keras_hub>PositionEmbedding")
def position_embedding(
    layer: Any, twins: Twins, inputs: Any, start_index: Any = 0, positions: Any = None
) -> Any:
    """A table indexed by position."""
    if not isinstance(start_index, int) or start_index != 0:
        raise ValueError("it starts at a computed position")
    embedding = twins.of(layer, lambda own: table(own.name, own.position_embeddings, own))
    return embedding(_positions(inputs) if positions is None else positions)


_positions = positions


@opens("keras_hub>TransformerDecoder")
def transformer_decoder(
    layer: Any,
    twins: Twins,
    decoder_sequence: Any,
    encoder_sequence: Any = None,
    decoder_padding_mask: Any = None,
    decoder_attention_mask: Any = None,
    encoder_padding_mask: Any = None,
    encoder_attention_mask: Any = None,
    self_attention_cache: Any = None,
    use_causal_mask: bool = True,
    **kwargs: Any,
) -> Any:
    """Self-attention with the stock causal mask, attention to an encoder, a feed-forward block."""
    if self_attention_cache is not None or kwargs.get("cross_attention_cache") is not None:
        raise ValueError("it is called with a cache")

    def attend(attention: Any, query: Any, value: Any, mask: Any, causal: bool) -> Any:
        stock = twins.of(attention, lambda own: as_stock(own, keras.layers.MultiHeadAttention))
        return stock(query, value, attention_mask=mask, use_causal_mask=causal)

    def block(x: Any, norm: Any, dropout: Any, run: Any) -> Any:
        inside = norm(x) if layer.normalize_first else x
        x = x + dropout(run(inside))
        return x if layer.normalize_first else norm(x)

    own_mask = _merged_mask(decoder_sequence, decoder_padding_mask, decoder_attention_mask)
    x = block(
        decoder_sequence,
        layer._self_attention_layer_norm,
        layer._self_attention_dropout,
        lambda y: attend(layer._self_attention_layer, y, y, own_mask, use_causal_mask),
    )
    if encoder_sequence is not None:
        cross_mask = _merged_mask(encoder_sequence, encoder_padding_mask, encoder_attention_mask)
        x = block(
            x,
            layer._cross_attention_layer_norm,
            layer._cross_attention_dropout,
            lambda y: attend(layer._cross_attention_layer, y, encoder_sequence, cross_mask, False),
        )
    return block(
        x,
        layer._feedforward_layer_norm,
        layer._feedforward_dropout,
        lambda y: layer._feedforward_output_dense(layer._feedforward_intermediate_dense(y)),
    )


def _merged_mask(x: Any, padding_mask: Any, attention_mask: Any) -> Any:
    mask = getattr(x, "_keras_mask", None) if padding_mask is None else padding_mask
    if mask is None:
        return attention_mask
    mask = ops.cast(ops.expand_dims(mask, 1), "bool")
    return (
        mask if attention_mask is None else ops.logical_and(mask, ops.cast(attention_mask, "bool"))
    )


@opens("keras_hub>RelativeEmbedding")
def relative_embedding(layer: Any, twins: Twins, inputs: Any) -> Any:
    """A normalised table of relative positions, one for the whole batch: (1, positions, width)."""
    embedding = twins.of(layer, lambda own: table(own.name, own.rel_embeddings, own))
    one = ops.sum(ops.zeros_like(inputs, dtype="int32"), axis=(0, 1, 2)) + 1
    rows = ops.cumsum(ops.repeat(ops.reshape(one, (1,)), layer.bucket_size * 2)) - 1
    return layer.layer_norm(ops.expand_dims(embedding(rows), 0))


def _log_buckets(distance: Any, middle: int, limit: int) -> Any:
    """Distances as they are up to `middle`, then by their logarithm (DeBERTa, arXiv 2006.03654)."""
    near = ops.logical_and(ops.less(distance, middle), ops.greater(distance, -middle))
    size = ops.where(near, ops.ones_like(distance) * (middle - 1), ops.absolute(distance))
    steps = ops.log(ops.cast(size, "float32") / float(middle)) * float(middle - 1)
    far = ops.ceil(steps / math.log((limit - 1) / middle)) + float(middle)
    signed = ops.cast(far, distance.dtype) * ops.sign(distance)
    return ops.where(ops.less_equal(size, middle), distance, signed)


@opens("keras_hub>DisentangledSelfAttention")
def disentangled_attention(
    layer: Any,
    _twins: Twins,
    inputs: Any,
    rel_embeddings: Any,
    attention_mask: Any = None,
    return_attention_scores: bool = False,
    **_options: Any,
) -> Any:
    """Content to content, content to position and position to content, summed before the softmax."""
    query, key, value = (
        dense(inputs) for dense in (layer._query_dense, layer._key_dense, layer._value_dense)
    )
    ids = _positions(inputs)[0]
    distance = _log_buckets(
        ops.expand_dims(ids, 1) - ops.expand_dims(ids, 0),
        layer.bucket_size // 2,
        layer.max_position_embeddings,
    )
    table_rows = layer._position_dropout_layer(rel_embeddings)
    place_query = ops.squeeze(layer._query_dense(table_rows), 0)
    place_key = ops.squeeze(layer._key_dense(table_rows), 0)
    span = layer.bucket_size

    def by_distance(one: Any, place: Any, sign: int) -> Any:
        every = ops.einsum("ecd,abcd->acbe", place, one)
        chosen = ops.clip(distance * sign + span, 0, span * 2 - 1)
        return ops.take_along_axis(every, ops.expand_dims(ops.expand_dims(chosen, 0), 0), axis=3)

    scores = ops.einsum("aecd,abcd->acbe", key, query)
    scores = scores + by_distance(query, place_key, 1)
    scores = scores + ops.transpose(by_distance(key, place_query, -1), (0, 1, 3, 2))
    scores = layer._masked_softmax(scores * layer.scale_factor, attention_mask)
    scores = layer._attn_dropout_layer(scores)
    mixed = ops.einsum("acbe,aecd->abcd", scores, value)
    result = layer._output_dense(keras.layers.Reshape((-1, layer.hidden_dim))(mixed))
    return (result, scores) if return_attention_scores else result
