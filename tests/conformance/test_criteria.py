"""What every registered criterion has to keep to, whatever it computes."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from secateur.criteria import CRITERIA, Criterion, Path, Random, get_criterion, saliency
from secateur.errors import NonFiniteError

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
CHAINS = {
    "deep": [7, 5, 33, 4],
    "one element": [1, 1, 1],
    "no input": [0, 3, 2],
    "no hidden unit": [3, 0, 2],
    "no output": [3, 2, 0],
    "odd tails": [17, 65, 1],
}


def chain(widths, dtype, order="C"):
    rng = np.random.default_rng(0)
    shapes = zip(widths[1:], widths[:-1], strict=True)
    return [np.array(rng.normal(size=shape).astype(dtype), order=order) for shape in shapes]


def check_saliencies(scores, weights):
    assert isinstance(scores, list)
    assert len(scores) == len(weights)
    for score, weight in zip(scores, weights, strict=True):
        assert isinstance(score, np.ndarray)
        assert score.shape == weight.shape
        assert score.dtype == (np.float64 if weight.dtype == np.float64 else np.float32)
        assert np.isfinite(score).all()
        assert (score >= 0).all()
        assert score.size == 0 or not np.shares_memory(score, weight)


def check_repeatable(make: Callable[[], Criterion], weights):
    before = [weight.copy() for weight in weights]
    scores = make().saliencies(weights)
    for weight, copy in zip(weights, before, strict=True):
        np.testing.assert_array_equal(weight, copy)
    for again in (make().saliencies(tuple(weights)), list(saliency(weights, make()))):
        for first, second in zip(scores, again, strict=True):
            np.testing.assert_array_equal(first, second)
    fortran = [np.asfortranarray(weight) for weight in weights]
    for first, second in zip(scores, make().saliencies(fortran), strict=True):
        np.testing.assert_array_equal(first, second)


def check_read_only(make, weights):
    for weight in weights:
        weight.flags.writeable = False
    check_saliencies(make().saliencies(weights), weights)


def check_non_finite(make, widths, dtype):
    for bad in (np.nan, np.inf, -np.inf):
        for index in range(len(widths) - 1):
            weights = chain(widths, dtype)
            weights[index][-1, -1] = bad
            with pytest.raises(NonFiniteError, match=rf"weights\[{index}\]"):
                make().saliencies(weights)


def check_criterion(make: Callable[[], Criterion]) -> None:
    """Fail if the criterion that `make` gives breaks the contract of `Criterion`."""
    criterion = make()
    assert isinstance(criterion, Criterion)
    assert isinstance(criterion.name, str)
    assert criterion.name
    assert criterion.saliencies([]) == []
    for dtype in DTYPES:
        for widths in CHAINS.values():
            weights = chain(widths, dtype)
            check_saliencies(criterion.saliencies(weights), weights)
            check_repeatable(make, weights)
        check_read_only(make, chain(CHAINS["deep"], dtype))
        check_non_finite(make, CHAINS["deep"], dtype)


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_registered_criterion(name):
    assert get_criterion(name).name == name
    check_criterion(CRITERIA[name])


@pytest.mark.parametrize("criterion", [Path("depth"), Random(7)], ids=repr)
def test_criterion_with_other_settings(criterion):
    check_criterion(lambda: criterion)
    assert hash(criterion) == hash(type(criterion)(*vars(criterion).values()))


class _Signed:
    name = "signed"

    def saliencies(self, weights):
        return [weight.astype(np.float32) for weight in weights]


def test_the_check_catches_a_criterion_that_breaks_the_contract():
    with pytest.raises(AssertionError):
        check_criterion(_Signed)
