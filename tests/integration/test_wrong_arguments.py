"""Arguments of prune and cut that cannot be meant: one clear sentence, before any work is done."""

import keras
import numpy as np
import pytest
from keras import layers
from tests.integration.on_data import values_of

import secateur as sc
from secateur.errors import ArgumentTypeError, InvalidArgumentError

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(16, activation="relu", name="a"), layers.Dense(12, name="b")]
    return keras.Sequential([keras.Input((8,)), *hidden, layers.Dense(3, name="c")])


def refuses(function, model, error, match, **options):
    before = values_of(model)
    with pytest.raises(error, match=match):
        function(model, data=X, **options)
    for old, new in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"damping": "a"}, ArgumentTypeError, "damping must be a positive number, got 'a'"),
        ({"damping": True}, ArgumentTypeError, "damping must be a positive number, got True"),
        ({"damping": 0}, InvalidArgumentError, "damping must be a positive number, got 0"),
        ({"memory": None}, ArgumentTypeError, "memory is a number of bytes"),
        ({"memory": "1GB"}, ArgumentTypeError, "memory is a number of bytes"),
        ({"memory": 1.5}, ArgumentTypeError, "memory is a number of bytes"),
        ({"memory": -1}, InvalidArgumentError, "memory is a number of bytes"),
        ({"progress": 3}, ArgumentTypeError, r"progress must be a function.*progress\(name\)"),
        ({"inplace": "no"}, ArgumentTypeError, "inplace must be True or False, got 'no'"),
        ({"asymmetric": "no"}, ArgumentTypeError, "asymmetric must be True or False"),
        ({"refit_bias": "no"}, ArgumentTypeError, "refit_bias must be True or False"),
        ({"refit_norms": 1}, ArgumentTypeError, "refit_norms must be True or False"),
        ({"norm": "l3"}, InvalidArgumentError, "norm must be 'l1' or 'l2', got 'l3'"),
        ({"include": []}, InvalidArgumentError, "include, exclude and sparsity leave none"),
        ({"exclude": ["a", "b", "c"]}, InvalidArgumentError, "include, exclude and sparsity"),
    ],
)
def test_prune_says_what_it_wants(model, options, error, match):
    refuses(sc.prune, model, error, match, sparsity=0.5, **options)


def test_prune_without_data_checks_what_it_does_not_need(model):
    with pytest.raises(InvalidArgumentError, match="norm must be"):
        sc.prune(model, sparsity=0.5, norm="l3")
    with pytest.raises(ArgumentTypeError, match="inplace must be"):
        sc.prune(model, sparsity=0.5, inplace="no")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"damping": "a"}, "damping must be a positive number, got 'a'"),
        ({"granularity": 3}, "granularity must be a name or a list of names.*got 3"),
        ({"include": 3}, "include must be a name or a list of names"),
        ({"exclude": [3]}, r"exclude must be a name or a list of names.*got \[3\]"),
        ({"relative": "no"}, "relative must be True or False"),
        ({"proof": "no"}, "proof must be True or False"),
        ({"progress": 3}, r"progress must be a function.*progress\(step, total\)"),
    ],
)
def test_cut_says_what_it_wants(model, options, match):
    refuses(sc.cut, model, ArgumentTypeError, match, ratio=0.5, repair=True, **options)


def test_cut_leaves_nothing_out_where_nothing_is_excluded(model):
    assert sc.plan_cut(model, ratio=0.5, exclude=None)["a"].kept == 8
