import numpy as np
import pytest

from secateur.activations import Activation
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError
from secateur.outputs import OutputStatistics, subnetwork_outputs


def counted(batch, units, **keywords):
    statistics = OutputStatistics(units, name="dense")
    statistics.update(batch, **keywords)
    return statistics


def test_measures_by_hand():
    statistics = counted(np.array([[3.0, -1.0], [-4.0, -1.0]]), 2)
    assert statistics.measure("mean").tolist() == [3.5, 1.0]
    assert statistics.measure("max").tolist() == [4.0, 1.0]
    assert statistics.measure("std").tolist() == [3.5, 0.0]
    np.testing.assert_allclose(statistics.measure("rms"), [np.sqrt(12.5), 1.0])
    assert statistics.mean.tolist() == [-0.5, -1.0]


def test_heads_are_measured_by_their_norms():
    batch = np.array([[[3.0, 4.0], [1.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]])
    statistics = OutputStatistics(2, dim=2)
    statistics.update(batch)
    assert statistics.measure("mean").tolist() == [2.5, 1.0]
    assert statistics.measure("max").tolist() == [5.0, 1.0]
    assert statistics.measure("std").tolist() == [2.5, 0.0]
    assert statistics.mean.tolist() == [[1.5, 2.0], [1.0, 0.0]]


def test_channels_first():
    batch = np.random.default_rng(0).standard_normal((4, 3, 5, 6)).astype(np.float32)
    first = counted(batch, 3, axis=1)
    last = counted(np.moveaxis(batch, 1, -1), 3)
    assert first.count == 4 * 5 * 6
    np.testing.assert_array_equal(first.measure(), last.measure())


def test_read_only_and_strided_arrays_count_too():
    batch = np.arange(24, dtype=np.float32).reshape(4, 6)
    frozen = batch.copy()
    frozen.flags.writeable = False
    wide = np.repeat(batch, 2, axis=1)[:, ::2]
    for other in (frozen, np.asfortranarray(batch), wide):
        np.testing.assert_array_equal(counted(other, 6).measure(), counted(batch, 6).measure())


def test_a_bad_batch_changes_nothing():
    statistics = counted(np.ones((8, 2)), 2)
    with pytest.raises(NonFiniteError, match="'dense'"):
        statistics.update(np.full((8, 2), np.nan))
    assert statistics.count == 8
    assert statistics.measure().tolist() == [1.0, 1.0]


def test_bent_shift_survives_an_infinite_first_row():
    batch = np.ones((5, 2))
    batch[0] = np.inf
    with pytest.raises(NonFiniteError, match="2 of 2 units"):
        OutputStatistics(2).update(batch, activation="relu6")


def test_values_too_large_to_square_are_an_error():
    with pytest.raises(NonFiniteError, match="too large to be squared"):
        OutputStatistics(1).update(np.array([[1e200], [-1e200]]))


def test_empty_batches_count_nothing():
    statistics = counted(np.ones((0, 2)), 2)
    assert statistics.count == 0
    with pytest.raises(InvalidArgumentError, match="'dense' has been counted"):
        statistics.measure()
    statistics.update(np.ones((3, 2)), mask=np.zeros(3, bool))
    with pytest.raises(InvalidArgumentError, match="position was masked"):
        _ = statistics.mean


@pytest.mark.parametrize(
    ("batch", "keywords", "error", "message"),
    [
        (np.ones((3, 4), np.int32), {}, ArgumentTypeError, "int32"),
        (np.ones((3, 5)), {}, InvalidArgumentError, r"expected \(..., 4\)"),
        (np.float32(1), {}, InvalidArgumentError, r"shape \(\)"),
        (np.ones((3, 4)), {"mask": np.ones(3)}, ArgumentTypeError, "boolean"),
        (np.ones((3, 4)), {"mask": np.ones(4, bool)}, InvalidArgumentError, r"\(3,\)"),
        (np.ones((3, 4)), {"activation": "softmax"}, InvalidArgumentError, "post-activation"),
        (np.ones((3, 4)), {"activation": np.tanh}, ArgumentTypeError, "post-activation"),
    ],
)
def test_what_does_not_fit_is_refused(batch, keywords, error, message):
    with pytest.raises(error, match=message):
        OutputStatistics(4).update(batch, **keywords)


def test_vectors_must_have_the_given_shape():
    with pytest.raises(InvalidArgumentError, match=r"expected \(..., 4, 8\)"):
        OutputStatistics(4, dim=8).update(np.ones((3, 4)))
    with pytest.raises(InvalidArgumentError, match="axis 1"):
        OutputStatistics(4, dim=8).update(np.ones((3, 4, 8)), axis=1)


def test_unlike_statistics_do_not_merge():
    with pytest.raises(InvalidArgumentError, match="different layers"):
        OutputStatistics(2).merge(OutputStatistics(3))
    with pytest.raises(InvalidArgumentError, match="dim"):
        OutputStatistics(2, dim=1).merge(OutputStatistics(2))


def test_arguments_are_checked():
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        OutputStatistics(0)
    with pytest.raises(InvalidArgumentError, match="mean, rms, max, std"):
        counted(np.ones((3, 2)), 2).measure("median")


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"alpha": 1.0}, InvalidArgumentError),
        ({"negative_slope": float("nan")}, InvalidArgumentError),
        ({"negative_slope": -0.5}, InvalidArgumentError),
        ({"max_value": -1.0}, InvalidArgumentError),
        ({"threshold": 1.0}, InvalidArgumentError),
    ],
)
def test_parameters_of_activations_are_checked(parameters, error):
    with pytest.raises(error, match="relu"):
        Activation("relu", parameters)


def test_approximate_must_be_a_truth_value():
    with pytest.raises(ArgumentTypeError, match="approximate"):
        Activation("gelu", {"approximate": 1.0})


def test_activations_are_values():
    assert Activation("hard_swish") == Activation("hard_silu")
    assert Activation("relu6").ceiling == 6.0


def test_layer_outputs_are_checked():
    weights = np.ones((2, 3), np.float32)
    with pytest.raises(InvalidArgumentError, match=r"kernel\.T"):
        subnetwork_outputs(weights, None, np.ones((4, 2), np.float32))
    with pytest.raises(InvalidArgumentError, match="bias"):
        subnetwork_outputs(weights, np.ones(3, np.float32), np.ones((4, 3), np.float32))
    with pytest.raises(NonFiniteError, match="'head'"):
        subnetwork_outputs(weights, None, np.full((1, 3), 3e38, np.float32), name="head")
    assert subnetwork_outputs(weights, None, np.ones((2, 5, 3), np.float32)).shape == (2, 5, 2)
