"""How one target is shared out over layers."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.allocation import by_loss, erk, lamp, owl, ranked, uniform
from secateur.errors import InvalidArgumentError

SHAPES = {"a": (30, 20), "b": (5, 7), "c": (1, 100), "d": (64, 3)}


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: np.abs(rng.standard_t(3, size=shape)) * scale
        for scale, (name, shape) in enumerate(SHAPES.items(), 1)
    }


def sizes():
    return {name: int(np.prod(shape)) for name, shape in SHAPES.items()}


def losses():
    return {name: {0.5: rate, 0.9: 6 * rate, 1.0: 20 * rate} for rate, name in enumerate(SHAPES, 1)}


RULES = {
    "uniform": lambda s: uniform(sizes(), s),
    "erk": lambda s: erk(SHAPES, s),
    "lamp": lambda s: lamp(arrays(), s),
    "owl": lambda s: owl(arrays(), s),
    "ranked": lambda s: ranked(arrays(), s),
    "normalised": lambda s: ranked(arrays(), s, normalise=True),
    "by_loss": lambda s: by_loss(sizes(), losses(), s),
}


@pytest.mark.parametrize("rule", RULES)
@given(sparsity=st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_total_is_exact(rule, sparsity):
    counts = RULES[rule](sparsity)
    assert list(counts) == list(SHAPES)
    assert sum(counts.values()) == round(sparsity * sum(sizes().values()))
    for name, count in counts.items():
        assert isinstance(count, int)
        assert 0 <= count <= sizes()[name]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9), st.floats(0, 1))
@settings(deadline=None)
def test_uniform_is_within_one_weight(counts, sparsity):
    layers = {str(index): size for index, size in enumerate(counts)}
    for name, count in uniform(layers, sparsity).items():
        assert abs(count - sparsity * layers[name]) <= 1


def test_erk_is_proportional_to_the_sum_over_the_product():
    counts = erk({"a": (100, 300), "b": (50, 60)}, 0.9)
    density = {"a": 1 - counts["a"] / 30000, "b": 1 - counts["b"] / 3000}
    assert density["b"] / density["a"] == pytest.approx((110 / 3000) / (400 / 30000), rel=0.01)


def test_lamp_is_its_formula():
    weights = {"a": np.array([1.0, 3.0, 2.0]), "b": np.array([5.0, 4.0])}
    scores = {"a": [1 / 14, 1.0, 4 / 13], "b": [1.0, 16 / 41]}
    flat = sorted((score, name) for name, values in scores.items() for score in values)
    for gone in range(6):
        expected = [name for _, name in flat[:gone]]
        assert lamp(weights, gone / 5) == {n: expected.count(n) for n in "ab"}


def test_lamp_never_empties_a_layer_before_the_last_weights():
    assert all(lamp(arrays(), 0.95)[name] < size for name, size in sizes().items())


def test_owl_stays_within_its_spread():
    counts = owl(arrays(), 0.7, spread=0.05)
    for name, count in counts.items():
        assert abs(count / sizes()[name] - 0.7) <= 0.1 + 1 / sizes()[name]
    assert owl(arrays(), 0.7, spread=0) == uniform(sizes(), 0.7)


def test_by_loss_is_the_best_of_all_choices():
    rng = np.random.default_rng(0)
    for _ in range(10):
        layers = dict.fromkeys("abcd", 8)
        curves = {
            name: dict(zip(np.arange(1, 9) / 8, np.cumsum(rng.random(8) ** 3), strict=True))
            for name in layers
        }
        for total in (1, 9, 16, 30):
            counts = by_loss(layers, curves, total / 32)

            def cost(choice, curves=curves):
                pairs = zip(curves.values(), choice, strict=True)
                return sum(curve[count / 8] if count else 0.0 for curve, count in pairs)

            every = (c for c in itertools.product(range(9), repeat=4) if sum(c) == total)
            assert cost(counts.values()) == pytest.approx(min(map(cost, every)), abs=1e-9)


def test_by_loss_of_large_layers_is_near_the_best():
    """Losses r s^2: the best sparsities are in proportion to size / r."""
    layers = {"a": 1_000_000, "b": 3_000_000, "c": 777_777}
    rates = {"a": 1.0, "b": 2.0, "c": 4.0}
    at = np.linspace(0.01, 1, 100)
    counts = by_loss(layers, {n: {s: r * s * s for s in at} for n, r in rates.items()}, 0.3)
    total = round(0.3 * sum(layers.values()))
    weight = {name: layers[name] ** 2 / rates[name] for name in layers}
    for name, count in counts.items():
        assert count == pytest.approx(total * weight[name] / sum(weight.values()), rel=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform({}, 0.5), "no layers"),
        (lambda: uniform({"a": 3}, 1.5), "got 1.5"),
        (lambda: uniform({"a": 3}, float("nan")), "got nan"),
        (lambda: owl(arrays(), 0.5, spread=-1), "spread >= 0"),
        (lambda: by_loss({"a": 10}, {}, 0.5), "no losses for layer 'a'"),
        (lambda: by_loss({"a": 10}, {"a": {0.4: 1.0}}, 0.5), "at most 4 zeros, but 5"),
        (lambda: by_loss({"a": 10}, {"a": {0.9: np.nan}}, 0.5), "must be finite"),
        (lambda: by_loss({"a": 10}, {"a": {1.9: 1.0}}, 0.5), "from 0 to 1"),
    ],
)
def test_what_cannot_be(call, message):
    with pytest.raises(InvalidArgumentError, match=message):
        call()
