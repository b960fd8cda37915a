"""Naming the weights that are meant."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.selecting import resolve_targets, select_tensors
from secateur.keras.tensors import FoundTensors, find_tensors


@pytest.fixture(scope="module")
def model() -> Any:
    block = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="dense_a"), layers.Dense(3, name="dense_b")],
        name="block",
    )
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            layers.Embedding(9, 3, name="table"),
            layers.GlobalAveragePooling1D(),
            block,
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="head"),
        ]
    )


@pytest.fixture(scope="module")
def found(model: Any) -> FoundTensors:
    return find_tensors(model)


def names(found: FoundTensors, include: Any = None, exclude: Any = None) -> list[str]:
    return [tensor.name for tensor in select_tensors(found, include, exclude)]


KERNELS = ["block/dense_a/kernel", "block/dense_b/kernel", "head/kernel"]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (None, KERNELS),
        ("*", KERNELS),
        (["*", "table"], ["table/embeddings", *KERNELS]),
        ("table", ["table/embeddings"]),
        (layers.Embedding, ["table/embeddings"]),
        ("tab*", ["table/embeddings"]),
        ("block", KERNELS[:2]),
        ("dense_a", KERNELS[:1]),
        ("block/dense_a", KERNELS[:1]),
        ("dense_?", KERNELS[:2]),
        ("*/kernel", KERNELS),
        ("block/*", KERNELS[:2]),
        ("head/bias", ["head/bias"]),
        ("*/bias", ["block/dense_a/bias", "block/dense_b/bias", "head/bias"]),
        ("norm/gamma", ["norm/gamma"]),
        (["head/kernel", "head/kernel"], ["head/kernel"]),
    ],
)
def test_include(found: FoundTensors, include: Any, expected: list[str]) -> None:
    assert names(found, include) == expected


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ("head", KERNELS[:2]),
        ("block/*", KERNELS[2:]),
        (layers.Dense, []),
        (["dense_a", "head/kernel"], KERNELS[1:2]),
        ("norm", KERNELS),
        ("*/bias", KERNELS),
    ],
)
def test_exclude(found: FoundTensors, exclude: Any, expected: list[str]) -> None:
    assert names(found, exclude=exclude) == expected


def test_layers_stand_for_themselves(model: Any, found: FoundTensors) -> None:
    assert names(found, model.get_layer("head")) == ["head/kernel"]
    assert names(found, exclude=[model.get_layer("block")]) == ["head/kernel"]


def test_a_name_that_matches_nothing_lists_close_ones(found: FoundTensors) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Did you mean .*'dense_a'") as caught:
        names(found, "dense_x")
    assert "Layers with weights: table, block, block/dense_a" in str(caught.value)
    with pytest.raises(InvalidArgumentError, match="matches no layer or weight"):
        names(found, exclude="HEAD*")
    with pytest.raises(InvalidArgumentError, match="no layer, or type of layer"):
        names(found, layers.Conv2D)


def test_a_layer_of_normalisation_has_to_be_named_by_weight(found: FoundTensors) -> None:
    with pytest.raises(InvalidArgumentError, match="norm/gamma, norm/beta"):
        names(found, "norm")


def test_what_cannot_be_pruned_says_why() -> None:
    quantised = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="out")])
    quantised.layers[0].quantize("int8")
    with pytest.raises(InvalidArgumentError, match=r"'out/kernel' cannot be pruned: .*quantised"):
        names(find_tensors(quantised), "out/kernel")


@pytest.mark.parametrize("selector", [3, [3], 2.5, [None]])
def test_other_things_are_no_selectors(found: FoundTensors, selector: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"Expected (a )?layer name"):
        names(found, selector)


def test_own_name_beats_layer_beats_outer_layer_beats_pattern(found: FoundTensors) -> None:
    targets = {
        "*": 0.1,
        "block": 0.2,
        "dense_a": 0.3,
        "block/dense_b/kernel": 0.4,
    }
    expected = dict(zip(KERNELS, [0.3, 0.4, 0.1], strict=True))
    assert resolve_targets(found, targets) == expected
    assert resolve_targets(found, dict(reversed(targets.items()))) == expected


def test_patterns_that_contradict_each_other_are_refused(found: FoundTensors) -> None:
    with pytest.raises(InvalidArgumentError, match=r"0\.5 by 'dense_\*' and 0\.6 by '\*_a'"):
        resolve_targets(found, {"dense_*": 0.5, "*_a": 0.6})
    assert resolve_targets(found, {"dense_*": 0.5, "*_a": 0.5}) == dict.fromkeys(KERNELS[:2], 0.5)


def test_what_nothing_names_is_left_out(found: FoundTensors) -> None:
    assert resolve_targets(found, {"head": 0.9}) == {"head/kernel": 0.9}
    with pytest.raises(InvalidArgumentError, match="matches no layer"):
        resolve_targets(found, {"haed": 0.9})
