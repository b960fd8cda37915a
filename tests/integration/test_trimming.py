"""Padding that is cut off: only where nothing changes by it, and then nothing does."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import secateur as sc
from secateur.keras.data import calibration_data, graph_signature
from secateur.keras.padding import Padding
from secateur.keras.taps import open_graph
from secateur.keras.trimming import Trimmed, real_lengths, trims

RNG = np.random.default_rng(3)


def masked_attention(time=None):
    tokens = keras.Input((time,), dtype="int32", name="tokens")
    mask = keras.Input((time,), dtype="int32", name="mask")
    x = keras.layers.Embedding(50, 8)(tokens)
    real = keras.ops.cast(mask, "bool")
    x = x + keras.layers.MultiHeadAttention(2, 4)(x, x, attention_mask=real[:, None, :])
    x = keras.layers.Dense(8, activation="relu")(x)
    weight = keras.ops.cast(mask, "float32")[:, :, None]
    pooled = keras.ops.sum(x * weight, 1) / keras.ops.sum(weight, 1)
    return keras.Model([tokens, mask], keras.layers.Dense(3)(pooled))


def seeing_padding():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.Input((None,), dtype="int32", name="mask")
    x = keras.layers.Embedding(50, 8)(tokens)
    x = keras.layers.Conv1D(8, 3, padding="same")(x)
    x = keras.layers.GlobalAveragePooling1D()(x) + 0 * keras.ops.cast(mask[:, :1], "float32")
    return keras.Model([tokens, mask], keras.layers.Dense(3)(x))


def sentences(count=80, time=32):
    lengths = RNG.integers(3, 20, count)
    mask = (np.arange(time) < lengths[:, None]).astype("int32")
    return [RNG.integers(1, 50, (count, time)).astype("int32") * mask, mask]


def opened(model, data, mask="mask", batch_size=16):
    graph = open_graph(model)
    batches = calibration_data(graph_signature(graph), data, batch_size)
    return graph, batches, Padding(graph, mask)


def test_attention_under_a_mask_is_trimmed_and_its_samples_are_all_there():
    data = sentences()
    graph, batches, padding = opened(masked_attention(), data)
    assert trims(graph, batches, padding)
    found = list(Trimmed(batches, padding))
    assert sum(batch[0].shape[1] for batch in found) < 32 * len(found)
    rows = [tuple(np.trim_zeros(row, "b")) for batch in found for row in batch[0]]
    assert sorted(rows) == sorted(tuple(np.trim_zeros(row, "b")) for row in data[0])
    assert all(batch[1].shape == batch[0].shape for batch in found)


@pytest.mark.parametrize(
    ("make", "mask"),
    [
        (seeing_padding, "mask"),  # its outputs depend on padding
        (masked_attention, None),  # nobody says what is padding
        (lambda: masked_attention(32), "mask"),  # takes 32 positions and no other number
    ],
)
def test_others_are_left_whole(make, mask):
    graph, batches, padding = opened(make(), sentences(), mask)
    assert not trims(graph, batches, padding)


def test_without_padding_there_is_nothing_to_trim():
    data = [RNG.integers(1, 50, (40, 16)).astype("int32"), np.ones((40, 16), "int32")]
    graph, batches, padding = opened(masked_attention(), data)
    assert not trims(graph, batches, padding)


def test_padding_in_front_stays():
    assert real_lengths(np.array([[False] * 19 + [True]])).tolist() == [20]
    assert real_lengths(np.zeros((1, 20), bool)).tolist() == [8]


@pytest.mark.parametrize("asymmetric", [False, True])
def test_pruned_trimmed_and_untrimmed_are_alike(asymmetric):
    # By a method that draws no random numbers, so that order is all that differs.
    model, data = masked_attention(), sentences(200)
    how = {"criterion": "sparsegpt", "sparsity": 0.6, "asymmetric": asymmetric}
    short = sc.prune(model, data=data, mask="mask", **how)
    # With an array for the mask nothing is trimmed.
    whole = sc.prune(model, data=data, mask=data[1], **how)
    errors = [
        (own.relative_error, other.relative_error)
        for own, other in zip(short.report, whole.report, strict=True)
    ]
    np.testing.assert_allclose(*np.transpose(errors), rtol=1e-3)
    for own, other in zip(short.model.weights, whole.model.weights, strict=True):
        np.testing.assert_allclose(np.asarray(own), np.asarray(other), rtol=1e-3, atol=1e-4)
