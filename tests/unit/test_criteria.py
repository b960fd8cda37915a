import ml_dtypes
import numpy as np
import pytest

from secateur.criteria import (
    CRITERIA,
    Magnitude,
    Path,
    Random,
    get_criterion,
    register_criterion,
    saliency,
)
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError
from secateur.paths import depth_saliencies, pair_saliencies


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 4), (2, 3, 4)])
def test_magnitude_is_the_absolute_value(dtype, shape):
    weights = np.random.default_rng(0).normal(size=shape).astype(dtype)
    scores = saliency(weights)
    assert scores.shape == shape
    np.testing.assert_array_equal(scores, np.abs(weights.astype(scores.dtype)))


@pytest.mark.parametrize(
    "view",
    [lambda a: a.T, lambda a: a[:, ::2], lambda a: a.transpose(1, 0, 2), np.asfortranarray],
)
def test_magnitude_of_any_memory_layout(view):
    weights = view(np.random.default_rng(0).normal(size=(4, 6, 5)))
    np.testing.assert_array_equal(saliency(weights), np.abs(weights))


def test_contiguous_weights_keep_their_memory_order():
    weights = np.asfortranarray(np.ones((3, 4, 5), np.float32))
    for criterion in (Magnitude(), Random()):
        assert saliency(weights, criterion).flags.f_contiguous


def test_path_windows():
    weights = [np.array([[1.0], [-2.0]]), np.array([[3.0, 2.0]]), np.array([[1.0], [4.0]])]
    for window, function in (("pair", pair_saliencies), ("depth", depth_saliencies)):
        for scores, expected in zip(
            Path(window).saliencies(weights), function(weights), strict=True
        ):
            np.testing.assert_array_equal(scores, expected)


def test_path_takes_slices():
    wide = np.random.default_rng(0).normal(size=(3, 8))
    after = np.ones((2, 3))
    expected = saliency([np.ascontiguousarray(wide[:, ::2]), after], "path")
    for scores, answer in zip(saliency([wide[:, ::2], after], "path"), expected, strict=True):
        np.testing.assert_array_equal(scores, answer)


def test_path_refuses_a_chain_that_does_not_fit_and_names_both():
    weights = {"embed": np.ones((4, 2)), "dense": np.ones((3, 5))}
    with pytest.raises(InvalidArgumentError, match=r"weights\['embed'\].*4 out.*'dense'.*5 in"):
        saliency(weights, "path")
    with pytest.raises(InvalidArgumentError, match=r"weights\[0\].*weights\[1\]"):
        saliency(list(weights.values()), Path("depth"))


def test_path_refuses_what_is_no_matrix():
    with pytest.raises(InvalidArgumentError, match=r"weights\[1\] has shape \(3, 3, 1, 1\)"):
        saliency([np.ones((3, 2)), np.ones((3, 3, 1, 1))], "path")


def test_path_refuses_one_matrix_alone_in_a_pair_window():
    with pytest.raises(InvalidArgumentError, match=r"^A window of two.*but weights stands alone"):
        saliency(np.ones((2, 2)), "path")
    np.testing.assert_array_equal(saliency(-np.ones((2, 2)), Path("depth")), np.ones((2, 2)))


def test_random_depends_on_seed_array_and_position_only():
    weights = [np.ones((3, 4), np.float32), np.ones((3, 4), np.float32, order="F")]
    first, second = saliency(weights, Random(5))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(saliency([-7 * weights[1]], Random(5))[0], first)
    assert not np.array_equal(saliency(weights[0], Random(6)), first)
    assert len(np.unique(first)) == first.size


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Path("all"), "'pair', 'depth'"),
        (lambda: Random(-1), "-1"),
        (lambda: Random(1.5), "1.5"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_containers_come_back_as_they_came():
    one, two = np.array([[1.0, -2.0]]), np.array([[3.0]])
    assert isinstance(saliency(one), np.ndarray)
    assert isinstance(saliency([one, two]), list)
    assert isinstance(saliency((one, two)), tuple)
    scores = saliency({"b": one, "a": two})
    assert list(scores) == ["b", "a"]
    np.testing.assert_array_equal(scores["b"], [[1.0, 2.0]])
    assert saliency([]) == []
    assert saliency({}, "path") == {}


@pytest.mark.parametrize("weights", ["abc", 1.0, None])
def test_other_containers_are_refused(weights):
    with pytest.raises(ArgumentTypeError, match=type(weights).__name__):
        saliency(weights)


@pytest.mark.parametrize("weights", [np.ones(3, np.int64), [1.0], np.ones(3, complex)])
@pytest.mark.parametrize("criterion", ["magnitude", "path", "random"])
def test_other_arrays_are_refused_by_name(weights, criterion):
    with pytest.raises(ArgumentTypeError, match=r"weights\['w'\] must be a NumPy array"):
        saliency({"w": weights}, criterion)


def test_non_finite_weights_are_named_as_the_caller_does():
    bad = np.array([[np.nan, np.inf]])
    with pytest.raises(NonFiniteError, match=r"^weights of shape \(1, 2\) holds 2 NaN"):
        saliency(bad)
    with pytest.raises(NonFiniteError, match=r"^weights\[1\] of shape"):
        saliency([np.ones((1, 1)), bad.T])
    with pytest.raises(NonFiniteError, match=r"^weights\['q/kernel'\] of shape"):
        saliency({"e": np.ones((1, 1)), "q/kernel": bad.T}, Path())


def test_an_unknown_criterion_lists_the_known():
    with pytest.raises(InvalidArgumentError, match="'magnitude', 'path', 'random'"):
        get_criterion("magnitud")
    for wrong in (Magnitude, 3, object()):
        with pytest.raises(ArgumentTypeError, match="saliencies"):
            get_criterion(wrong)


def test_a_registered_criterion_is_found_by_name(monkeypatch):
    monkeypatch.setattr("secateur.criteria.CRITERIA", dict(CRITERIA))
    register_criterion("noise", lambda: Random(3))
    assert get_criterion("noise") == Random(3)
    with pytest.raises(InvalidArgumentError, match="another name"):
        register_criterion("noise", Random)
    with pytest.raises(ArgumentTypeError, match="callable"):
        register_criterion("other", 3)
