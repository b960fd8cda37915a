"""What the outputs of the model make of errors: in the choice of units, and in the last layer's refit."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import softmax

import secateur as sc
from secateur.groups import Group
from secateur.keras import unit_scoring
from secateur.keras.curvature import output_curvature
from secateur.keras.data import Batches
from secateur.keras.taps import open_graph
from secateur.keras.trying import OutputLoss, best_scores, fit_and_judge

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.CalibrationWarning")


def classifier(width=40, classes=5, seed=0, scale=3.0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(width, "relu", name="wide"),
            layers.Dense(classes, "softmax", name="said"),
        ]
    )
    kernel = np.array(model.layers[1].kernel.value)
    bias = np.zeros(classes, np.float32)
    kernel[:, 0] *= 6
    bias[0] = -30 * scale  # a class that is never said, and whose logit varies most
    model.layers[1].kernel.assign(scale * kernel)
    model.layers[1].bias.assign(bias)
    return model


def data(count=500, seed=0):
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(count, 12)) @ np.random.default_rng(99).normal(size=(12, 12))
    return mixed.astype(np.float32) / 3


def divergence(model, other, x):
    p, q = (np.asarray(m(x), np.float64) for m in (model, other))
    return float((p * np.log((p + 1e-12) / (q + 1e-12))).sum(axis=1).mean())


def curvature(model, x):
    graph = open_graph(model)
    kernel = model.get_layer("said").kernel
    (found,) = output_curvature(graph, {id(kernel): kernel.shape[1]}, [x]).values()
    return found


def test_curvature_is_half_fisher_information_and_half_all_classes_alike():
    model, x = classifier(), data(1024)
    p = np.asarray(model(x), np.float64)
    fisher = np.diag(p.mean(axis=0)) - p.T @ p / len(p)
    alike = np.eye(5) - 1 / 5
    expected = fisher / np.trace(fisher) + alike / np.trace(alike)
    np.testing.assert_allclose(curvature(model, x), expected / np.trace(expected) * 5, atol=0.12)


def test_curvature_leaves_the_model_as_it_is():
    model, x = classifier(), data(64)
    before = [np.array(v.value) for v in model.weights], model.layers[1].activation
    curvature(model, x)
    for variable, value in zip(model.weights, before[0], strict=True):
        np.testing.assert_array_equal(variable.value, value)
    assert model.layers[1].activation is before[1]


def test_units_that_only_a_class_reads_that_is_never_said_go_first(monkeypatch):
    model, x = classifier(), data()
    kernel = np.array(model.layers[1].kernel.value)
    kernel[:20, 1:], kernel[20:, 0] = 0, 0
    kernel[:20, 0] *= 2.6 / 6  # makes as much of the logits' variance as the others do of theirs
    model.layers[1].kernel.assign(kernel)

    def gone():
        plan = sc.plan_cut(model, x, ratio=0.5, align=1, measure="obs", repair=True)
        return len(set(plan["wide"].removed) & set(range(20)))

    told = gone()
    monkeypatch.setattr(unit_scoring, "watch_curvature", lambda *_: {})
    assert told > gone()


@pytest.mark.parametrize("bare", [False, True])
def test_the_last_layer_is_refit_to_what_the_model_says(bare):
    """Least squares of the logits, solved here, loses twice as much on samples that are new."""
    model, x = classifier(scale=15.0), data(2000)
    if bare:
        last = layers.Dense(5, name="said")
        new = keras.Sequential([*model.layers[:1], last, layers.Softmax()])
        new.build((None, 12))
        last.set_weights(model.layers[1].get_weights())
        model = new
    result = sc.cut(model, x, ratio=0.7, align=1, measure="std", repair=True)
    inner = keras.Model(result.model.inputs[0], result.model.layers[-3 if bare else -2].output)
    hidden = np.asarray(inner(x))
    wide = np.maximum(x @ model.layers[0].kernel + model.layers[0].bias, 0)
    logits = wide @ model.layers[1].kernel + model.layers[1].bias
    fit = np.linalg.lstsq(np.c_[hidden, np.ones(len(x))], logits, rcond=None)[0]
    fresh = data(2000, 1)
    squares = softmax(np.c_[np.asarray(inner(fresh)), np.ones(2000)] @ fit, axis=1)
    p = np.asarray(model(fresh), np.float64)
    lost = float((p * np.log((p + 1e-12) / (squares + 1e-12))).sum(axis=1).mean())
    assert divergence(model, result.model, fresh) < 0.7 * lost


def test_a_softmax_over_another_axis_is_left_to_least_squares():
    i = keras.Input((6, 12))
    y = layers.Dense(4, name="said")(layers.Dense(16, "relu", name="wide")(i))
    model = keras.Model(i, layers.Softmax(axis=1)(y))
    x = data(6 * 50).reshape(50, 6, 12)
    result = sc.cut(model, x, ratio=0.5, align=1, repair=True)
    assert np.isfinite(np.asarray(result.model(x))).all()


def test_the_default_loses_no_more_than_either_measure():
    """Judged as it judges, so this holds on its own samples to the last digit."""
    i = keras.Input((10, 12))
    keras.utils.set_random_seed(0)
    y = layers.MultiHeadAttention(4, 6, name="look")(i, i)
    y = layers.Dense(24, "relu", name="wide")(y)
    model = keras.Model(i, layers.Dense(3, name="out")(layers.GlobalAveragePooling1D()(y)))
    x = data(10 * 200).reshape(200, 10, 12)
    fitted, judged = fit_and_judge(open_graph(model), Batches([x]))
    loss = OutputLoss(model, judged)
    options = {"ratio": 0.5, "align": 1, "granularity": ("head", "neuron"), "repair": True}
    removed = sc.plan_cut(model, x, **options)
    keep = {cut.name: cut.kept for cut in removed.groups if cut.removed}

    def lost(plan):
        (train,) = [np.concatenate(list(fitted))]
        return loss(sc.bind_plan(plan, model, train).apply().model)

    assert keep
    others = [lost(sc.plan_cut(model, x, measure=m, **options)) for m in ("obs", "std")]
    assert lost(removed) <= min(others) * 1.0001
    assert set(removed.measure.split("+")) <= {"obs", "std"}


def test_a_named_measure_is_not_questioned():
    plan = sc.plan_cut(classifier(), data(64), ratio=0.5, align=1, measure="obs", repair=True)
    assert plan.measure == "obs"


def test_measures_are_mixed_by_kind_of_unit_where_that_is_better():
    names, kinds = ["a", "b"], ["head", "neuron"]
    groups = [Group(n, (n,), k, np.arange(4), 1) for n, k in zip(names, kinds, strict=True)]
    scores = {"obs": dict.fromkeys(names, "obs"), "std": dict.fromkeys(names, "std")}
    costs = {("obs", "obs"): 3.0, ("std", "std"): 2.0, ("obs", "std"): 4.0, ("std", "obs"): 1.0}
    tried = []

    class Cut:
        def __init__(self, measure):
            self.removed = (measure,)

    def choose(own):
        return tuple(Cut(own[name]) for name in names)

    def loss(cuts):
        tried.append(tuple(cut.removed[0] for cut in cuts))
        return costs[tried[-1]]

    told, best = best_scores(scores, groups, names, choose, loss, by_kind=True)
    assert (told, best) == ("obs+std", {"a": "std", "b": "obs"})
    assert len(tried) == len(set(tried)) == 4
    told, best = best_scores(scores, groups, names, choose, loss, by_kind=False)
    assert (told, best) == ("std", {"a": "std", "b": "std"})


def test_halves_are_apart_whatever_the_order_and_what_is_padded_and_masks_go_along():
    i = keras.Input((2,))
    graph = open_graph(keras.Model(i, layers.Dense(1)(i)))
    x = np.arange(180, dtype=np.float32).reshape(90, 2)
    mask = (
        np.arange(180).reshape(90, 2) % 6 != 1
    )  # of every third sample the second position is not
    order = np.random.default_rng(0).permutation(90)
    garbled = np.where(mask, x, -1)
    fitted, judged = fit_and_judge(graph, Batches([x[:50], x[50:]], mask=mask))
    parts = Batches(np.split(garbled[order], 9), mask=mask[order])
    again, other = fit_and_judge(graph, parts)
    one, two = (np.concatenate(list(part)) for part in (fitted, [own for own, _ in judged]))
    assert not set(one.ravel()) & set(two.ravel())
    assert len(one) + len(two) == 90
    np.testing.assert_array_equal(fitted.mask, one % 6 != 1)
    np.testing.assert_array_equal(np.concatenate([real for _, real in judged]), two % 6 != 1)
    np.testing.assert_array_equal(one[:, 0], np.concatenate(list(again))[:, 0])
    np.testing.assert_array_equal(two[:, 0], np.concatenate([own for own, _ in other])[:, 0])
    single, ((same, real),) = fit_and_judge(graph, Batches([x[:1]]))
    np.testing.assert_array_equal(next(iter(single)), same)
    assert real is None


def test_padded_positions_of_outputs_do_not_count_when_cuts_are_judged():
    i = keras.Input((3, 2))
    model, other = (keras.Model(i, layers.Dense(2)(i)) for _ in range(2))
    x = data(3 * 8)[:, :2].reshape(8, 3, 2)
    real = np.arange(3) < np.arange(8)[:, None] % 3 + 1
    garbled = np.where(real[..., None], x, 100 * x + 7)
    losses = [OutputLoss(model, [(own, real)])(other) for own in (x, garbled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert OutputLoss(model, [(garbled, None)])(other) != pytest.approx(losses[0], rel=1e-2)
