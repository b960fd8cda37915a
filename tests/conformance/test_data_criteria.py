"""What every criterion that sees data has to keep to, whatever it computes."""

import ml_dtypes
import numpy as np
import pytest

from secateur.criteria import Criterion
from secateur.data_criteria import (
    DATA_CRITERIA,
    OBS,
    RIA,
    DataCriterion,
    Informed,
    get_data_criterion,
)
from secateur.errors import ArgumentTypeError, InvalidArgumentError, NonFiniteError
from secateur.pruning import prune_arrays
from secateur.selection import select

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
WIDTHS = [9, 12, 7]
EVERY = pytest.mark.parametrize("name", sorted(DATA_CRITERIA))


def chain(dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = zip(WIDTHS[1:], WIDTHS[:-1], strict=True)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def batches(criterion, weight, seed=1):
    """Three batches of what the criterion is told about one matrix."""
    rng = np.random.default_rng(seed)
    if criterion.needs == "gradients":
        return [rng.normal(size=weight.shape).astype(np.float32) for _ in range(3)]
    mixing = rng.normal(size=(weight.shape[1], weight.shape[1]))
    return [(rng.normal(size=(2, 8, len(mixing))) @ mixing).astype(np.float32) for _ in range(3)]


def informed(criterion, weights, change=lambda batch, index: batch):
    statistics = []
    for index, weight in enumerate(weights):
        known = criterion.init(weight.shape, name=f"layer {index}")
        for batch in batches(criterion, weight, seed=index):
            criterion.accumulate(known, change(batch, index))
        statistics.append(known)
    return Informed(criterion, statistics)


@EVERY
def test_keeps_to_the_protocol(name):
    criterion = get_data_criterion(name)
    assert isinstance(criterion, DataCriterion)
    assert criterion.name == name
    assert criterion.needs in ("norms", "gram", "gradients")
    assert criterion.decide([], []) == []
    assert hash(criterion) == hash(DATA_CRITERIA[name]())
    assert isinstance(informed(criterion, chain()), Criterion)


@EVERY
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_saliencies(name, dtype):
    criterion = get_data_criterion(name)
    weights = chain(dtype)
    before = [weight.copy() for weight in weights]
    scorer = informed(criterion, weights)
    for score, weight, copy in zip(scorer.saliencies(weights), weights, before, strict=True):
        assert score.shape == weight.shape
        assert score.dtype == (np.float64 if dtype == np.float64 else np.float32)
        assert np.isfinite(score).all()
        assert (score >= 0).all()
        np.testing.assert_array_equal(weight, copy)
    again = informed(criterion, weights).saliencies([np.asfortranarray(w) for w in weights])
    for first, second in zip(scorer.saliencies(weights), again, strict=True):
        np.testing.assert_array_equal(first, second)


@EVERY
def test_the_order_of_batches_does_not_matter(name):
    criterion = get_data_criterion(name)
    weight = chain()[0]
    forward, backward = (criterion.init(weight.shape) for _ in range(2))
    for batch in batches(criterion, weight):
        criterion.accumulate(forward, batch)
    for batch in reversed(batches(criterion, weight)):
        criterion.accumulate(backward, batch)
    pair = (criterion.decide([weight], [known])[0] for known in (forward, backward))
    np.testing.assert_allclose(*pair, rtol=1e-5)


@EVERY
def test_outputs_may_be_permuted(name):
    """Rows of the last matrix change places: so do their saliencies."""
    criterion = get_data_criterion(name)
    weights = chain()
    order = np.random.default_rng(3).permutation(WIDTHS[-1])
    plain = informed(criterion, weights).saliencies(weights)[-1]
    swapped = [*weights[:-1], weights[-1][order]]

    def permute(batch, index):
        return batch[order] if criterion.needs == "gradients" and index == 1 else batch

    scores = informed(criterion, swapped, permute).saliencies(swapped)[-1]
    np.testing.assert_allclose(scores, plain[order], rtol=1e-5)


@EVERY
def test_twice_the_weight_never_matters_less(name):
    criterion = get_data_criterion(name)
    weights = chain()
    louder = [weights[0].copy(), weights[1]]
    louder[0][2, 3] *= 2
    pair = [informed(criterion, weights).saliencies(w)[0][2, 3] for w in (weights, louder)]
    assert pair[1] > pair[0] > 0


@EVERY
def test_what_sees_nothing_goes_first(name):
    """An input that is always zero (or whose gradients are) scores zero."""
    criterion = get_data_criterion(name)
    weights = chain()

    def silence(batch, index):
        batch = batch.copy()
        batch[..., 4] = 0
        return batch

    for score in informed(criterion, weights, silence).saliencies(weights):
        assert (score[:, 4] == 0).all()
        assert (np.delete(score, 4, axis=1) > 0).all()


@EVERY
@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_exactly_k_go(name, scope):
    weights = dict(zip("ab", chain(), strict=True))
    scorer = informed(get_data_criterion(name), list(weights.values()))
    pruned = prune_arrays(weights, sparsity=0.37, criterion=scorer, scope=scope)
    removed = {key: int((~mask).sum()) for key, mask in pruned.masks.items()}
    if scope == "global":
        assert sum(removed.values()) == round(0.37 * sum(w.size for w in weights.values()))
    elif scope == "layer":
        assert removed == {key: round(0.37 * w.size) for key, w in weights.items()}
    else:
        for key, mask in pruned.masks.items():
            assert ((~mask).sum(axis=1) == round(0.37 * weights[key].shape[1])).all()
    chosen = select(scorer.saliencies(list(weights.values())), sparsity=0.37, scope=scope)
    for mask, expected in zip(pruned.masks.values(), chosen, strict=True):
        np.testing.assert_array_equal(mask, expected)


def units(mask, rows, cols):
    """How many of each block of a mask stay, and how many there are."""
    counts = []
    for array in (mask, np.ones_like(mask)):
        by_rows = np.add.reduceat(array.astype(int), np.arange(0, len(array), rows), axis=0)
        counts.append(np.add.reduceat(by_rows, np.arange(0, array.shape[1], cols), axis=1))
    return counts


# The last group of nine inputs has one member, which stays.
@pytest.mark.filterwarnings("ignore:Asked for sparsity")
@EVERY
@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_two_of_four_stay(name, scope):
    weights = chain()
    scorer = informed(get_data_criterion(name), weights)
    for mask in prune_arrays(weights, pattern="2:4", criterion=scorer, scope=scope).masks:
        kept, size = units(mask, 1, 4)
        np.testing.assert_array_equal(kept, np.minimum(size, 2))


@EVERY
@pytest.mark.parametrize("scope", ["global", "layer", "row"])
def test_exactly_two_blocks_go(name, scope):
    weights = chain()
    scorer = informed(get_data_criterion(name), weights)
    masks = prune_arrays(weights, pattern="block:2x3", criterion=scorer, scope=scope, count=2).masks
    gone = []
    for mask in masks:
        kept, size = units(mask, 2, 3)
        assert ((kept == 0) | (kept == size)).all()
        gone.append((kept == 0).sum(axis=1))
    if scope == "row":
        assert all((rows == 2).all() for rows in gone)
    else:
        counts = [int(rows.sum()) for rows in gone]
        assert sum(counts) == 2 if scope == "global" else counts == [2, 2]


@EVERY
def test_bad_input(name):
    criterion = get_data_criterion(name)
    weights = chain()
    scorer = informed(criterion, weights)
    with pytest.raises(InvalidArgumentError, match="statistics for each of 1"):
        scorer.saliencies(weights[:1])
    with pytest.raises(InvalidArgumentError, match=r"weights\[0\] has shape"):
        criterion.decide([weights[0][:, :5]], [scorer.statistics[0]])
    with pytest.raises(ArgumentTypeError, match="needs"):
        criterion.decide(weights, [None, None])
    with pytest.raises(InvalidArgumentError, match="counted"):
        criterion.decide(weights[:1], [criterion.init(weights[0].shape)])
    bad = [weights[0], weights[1].copy()]
    bad[1][0, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"weights\[1\]"):
        scorer.saliencies(bad)
    batch = batches(criterion, weights[0])[0]
    batch[..., 0] = np.inf
    known = criterion.init(weights[0].shape, name="first")
    with pytest.raises(NonFiniteError, match="'first'"):
        criterion.accumulate(known, batch)
    assert known.count == 0


@pytest.mark.parametrize("make", [lambda: OBS(0), lambda: RIA(2.0)])
def test_settings_out_of_range(make):
    with pytest.raises(InvalidArgumentError):
        make()


def test_lookup():
    with pytest.raises(InvalidArgumentError, match="wanda"):
        get_data_criterion("wandaa")
    with pytest.raises(ArgumentTypeError):
        get_data_criterion(OBS)
    assert get_data_criterion(OBS(0.1)).damping == 0.1
