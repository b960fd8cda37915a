import itertools
import math

import ml_dtypes
import numpy as np
import pytest

from secateur.errors import InvalidArgumentError, NonFiniteError
from secateur.paths import (
    depth_saliencies,
    neuron_path_saliency,
    pair_saliencies,
    path_strength,
)

RNG = np.random.default_rng(0)
WIDTHS = [3, 4, 2, 5]


def chain(widths=WIDTHS, dtype=np.float64, order="C"):
    rng = np.random.default_rng(1)
    shapes = itertools.pairwise(widths)
    return [np.array(rng.normal(size=(o, i)).astype(dtype), order=order) for i, o in shapes]


def paths(weights):
    """Every path of a network, as (nodes, product of its weights)."""
    widths = [weights[0].shape[1], *(w.shape[0] for w in weights)]
    for nodes in itertools.product(*map(range, widths)):
        steps = zip(weights, itertools.pairwise(nodes), strict=True)
        yield nodes, math.prod(float(w[o, i]) for w, (i, o) in steps)


def squared_through(weights, layer, o, i):
    """Squared strength of all paths through one weight, by enumerating them."""
    return sum(
        product**2
        for nodes, product in paths(weights)
        if nodes[layer] == i and nodes[layer + 1] == o
    )


def test_path_strength_sums_over_the_paths():
    first, second = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))
    strength = path_strength(first, second)
    for i, j in np.ndindex(3, 2):
        expected = math.sqrt(sum((first[i, k] * second[k, j]) ** 2 for k in range(4)))
        assert strength[i, j] == pytest.approx(expected, rel=1e-12)


def test_neuron_saliencies_are_norms_of_the_strength():
    first, second = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))
    strength = path_strength(first, second)
    neurons = neuron_path_saliency(first, second)
    np.testing.assert_allclose(neurons.input, np.linalg.norm(strength, axis=1), rtol=1e-12)
    np.testing.assert_allclose(neurons.output, np.linalg.norm(strength, axis=0), rtol=1e-12)
    hidden = np.linalg.norm(first, axis=0) * np.linalg.norm(second, axis=1)
    np.testing.assert_allclose(neurons.hidden, hidden, rtol=1e-12)


def test_a_hidden_neuron_is_worth_the_strength_lost_without_it():
    first, second = RNG.normal(size=(3, 4)), RNG.normal(size=(4, 2))
    whole = np.sum(path_strength(first, second) ** 2)
    for k in range(4):
        without = path_strength(np.delete(first, k, axis=1), np.delete(second, k, axis=0))
        lost = math.sqrt(whole - np.sum(without**2))
        assert neuron_path_saliency(first, second).hidden[k] == pytest.approx(lost, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_results_are_float32_unless_a_matrix_is_float64(dtype):
    first, second = np.ones((2, 3), dtype), np.ones((3, 2), dtype)
    assert path_strength(first, second).dtype == np.float32
    assert neuron_path_saliency(first, second).hidden.dtype == np.float32
    assert path_strength(first, second.astype(np.float64)).dtype == np.float64
    np.testing.assert_array_equal(path_strength(first, second), np.full((2, 2), np.float32(3**0.5)))


def test_pair_window_of_two_matrices_is_the_mission_formula():
    hidden, output = chain([3, 4, 2])
    first, second = pair_saliencies([hidden, output])
    np.testing.assert_allclose(first, np.abs(hidden) * np.linalg.norm(output, axis=0)[:, None])
    np.testing.assert_allclose(second, np.abs(output) * np.linalg.norm(hidden, axis=1)[None, :])


def test_pair_window_is_what_all_windows_lose():
    weights = chain()
    scores = pair_saliencies(weights)
    for layer, matrix in enumerate(weights):
        for o, i in np.ndindex(matrix.shape):
            lost = 0.0
            for start in (layer - 1, layer):
                if 0 <= start < len(weights) - 1:
                    window = weights[start : start + 2]
                    lost += squared_through(window, layer - start, o, i)
            assert scores[layer][o, i] == pytest.approx(math.sqrt(lost), rel=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("widths", [[3, 2], [3, 4, 2], WIDTHS, [1, 1, 1]])
def test_depth_window_enumerates_all_paths(widths, order):
    weights = chain(widths, order=order)
    scores = depth_saliencies(weights)
    for layer, matrix in enumerate(weights):
        for o, i in np.ndindex(matrix.shape):
            expected = math.sqrt(squared_through(weights, layer, o, i))
            assert scores[layer][o, i] == pytest.approx(expected, rel=1e-12)


def test_depth_saliencies_of_each_matrix_have_the_path_norm():
    weights = chain([4, 6, 5, 3])
    path_norm = math.sqrt(sum(product**2 for _, product in paths(weights)))
    for scores in depth_saliencies(weights):
        assert np.linalg.norm(scores) == pytest.approx(path_norm, rel=1e-12)


def test_depth_window_of_one_matrix_is_its_magnitude():
    (matrix,) = chain([3, 2], np.float32)
    np.testing.assert_array_equal(depth_saliencies([matrix])[0], np.abs(matrix))


def test_depth_keeps_the_scale_between_layers_far_outside_float32():
    # Products of 60 layers leave float64's range on the way, yet the path norm is 1.
    shrink, grow = np.full((1, 1), 2.0**-60), np.full((1, 1), 2.0**60)
    scores = depth_saliencies([shrink] * 30 + [grow] * 30)
    np.testing.assert_array_equal(np.ravel(scores), np.ones(60))


@pytest.mark.parametrize("scale", [2.0**60, 2.0**-60])
def test_depth_says_when_the_path_norm_cannot_be_held(scale):
    weights = [np.full((2, 2), scale, np.float32)] * 4
    with pytest.raises(NonFiniteError, match="window='pair'"):
        depth_saliencies(weights)
    assert np.isfinite(depth_saliencies([w.astype(np.float64) for w in weights])).all()


def test_a_dead_layer_leaves_no_paths():
    weights = chain()
    weights[1] = np.zeros_like(weights[1])
    for scores, matrix in zip(depth_saliencies(weights), weights, strict=True):
        np.testing.assert_array_equal(scores, np.zeros(matrix.shape))


def test_one_matrix_has_no_pair():
    with pytest.raises(InvalidArgumentError, match="window='depth'"):
        pair_saliencies([np.ones((2, 2))])


@pytest.mark.parametrize(
    ("first", "second"),
    [(np.ones((2, 3)), np.ones((2, 3))), (np.ones(3), np.ones((3, 1)))],
)
def test_matrices_that_do_not_fit_are_refused(first, second):
    for function in (path_strength, neuron_path_saliency):
        with pytest.raises(InvalidArgumentError, match="Transpose"):
            function(first, second)


def test_non_finite_matrices_are_named():
    good, bad = np.ones((2, 2)), np.array([[1.0, np.nan], [1.0, 1.0]])
    for function in (path_strength, neuron_path_saliency):
        with pytest.raises(NonFiniteError, match=r"^A holds"):
            function(bad, good)
        with pytest.raises(NonFiniteError, match=r"^B holds"):
            function(good, bad)


def test_a_strength_too_large_for_its_type_is_an_error():
    large = np.full((2, 2), 1e30, np.float32)
    with pytest.raises(NonFiniteError, match="float64"):
        path_strength(large, large)
    with pytest.raises(NonFiniteError, match="float64"):
        neuron_path_saliency(large, large)


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 3, 0)])
def test_empty_matrices_have_empty_or_zero_strength(shape):
    first, second = np.ones(shape[:2]), np.ones(shape[1:])
    assert path_strength(first, second).shape == (shape[0], shape[2])
    neurons = neuron_path_saliency(first, second)
    assert [len(vector) for vector in neurons] == list(shape)


def test_slices_are_taken_as_they_are():
    wide = RNG.normal(size=(3, 8))
    second = RNG.normal(size=(4, 2))
    expected = path_strength(np.ascontiguousarray(wide[:, ::2]), second)
    np.testing.assert_array_equal(path_strength(wide[:, ::2], second), expected)
