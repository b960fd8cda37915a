"""`compress(method="auto")` on small models."""

import keras
import numpy as np
import pytest
from keras import layers
from tests.compression.task import data, trained

import secateur as sc
from secateur.compression.sensitivity import calibration_slice, measure_cutting, measure_pruning
from secateur.errors import TargetNotReachedWarning

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
GOAL = sc.Parameters(ratio=5)


@pytest.fixture(scope="module")
def model():
    return eager(trained())


def eager(model):
    """Compiled not to be traced: that takes longer than all training here."""
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model


def run(model, **options):
    train, validation = data()
    options = {"target": GOAL, "max_drop": 0.5, "tuning": sc.FineTuning(epochs=1), **options}
    return sc.compress(model, train, validation, method="auto", **options)


@pytest.fixture(scope="module")
def whole(model):
    return run(model)


def weights(result):
    return result.model.get_weights()


def test_the_goal_is_reached_and_explained(model, whole):
    assert whole.reached
    nonzero = sum(int((w != 0).sum()) for w in weights(whole))
    assert nonzero == whole.comparison.after <= whole.comparison.before / 5
    assert {step.method for step in whole.history} == {"original", "auto"}
    explanation = whole.explanation
    plans = {trial.plan.name for trial in explanation.trials}
    assert len(plans) == 5
    assert len(explanation.trials) == 7  # and the two best again
    # Every trial is of the same size, else its quality would say nothing of the plan.
    assert all(0.6 < t.figure / whole.comparison.limit <= 1 for t in explanation.trials)
    finals = explanation.trials[5:]
    assert explanation.chosen == max(finals, key=lambda trial: trial.quality).plan
    kept = {layer.name: layer.kept for layer in explanation.layers}
    assert sum(kept.values()) <= nonzero
    assert set(kept) == {"one/kernel", "two/kernel", "out/kernel"}
    assert explanation.measured.cut.keys() == {"one", "two"}
    assert explanation.chosen.name in str(whole)
    assert "what became of the layers" in str(whole)


def test_stopped_at_any_point_and_resumed_it_ends_with_the_same(model, whole, tmp_path):
    def stopping(at):
        def progress(what, fraction):
            if what.startswith(at):
                raise KeyboardInterrupt

        return progress

    for stop in ("measured cutting one", "try: prune by measured", "step 1: auto"):
        with pytest.warns(TargetNotReachedWarning, match="interrupted"):
            part = run(model, checkpoint=tmp_path, resume=True, progress=stopping(stop))
        assert part.interrupted
        assert len(part.history) == 1
    again = run(model, checkpoint=tmp_path, resume=True)
    assert [(t.plan, t.quality) for t in again.explanation.trials] == [
        (t.plan, t.quality) for t in whole.explanation.trials
    ]
    for one, two in zip(weights(whole), weights(again), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("goal", [sc.Size(ratio=1.5), sc.Macs(ratio=4), sc.Sparsity(0.8)], ids=repr)
def test_every_goal_that_zeros_serve(model, goal):
    result = run(model, target=goal)
    assert result.reached
    assert result.explanation.chosen is not None
    if isinstance(goal, sc.Sparsity):
        assert not result.explanation.measured.cut


def test_a_latency_is_brought_down_by_cutting_alone(model):
    # How fast it becomes is the machine's affair: a goal that nothing reaches ends with the best.
    with pytest.warns(TargetNotReachedWarning):
        result = run(model, target=sc.Latency(value=1e-9))
    assert not result.explanation.measured.pruned
    assert {trial.plan.ranking for trial in result.explanation.trials} == {"none"}
    assert all(layer.technique in ("cut", "keep") for layer in result.explanation.layers)


def test_a_goal_out_of_reach_ends_with_the_best_and_says_so(model):
    with pytest.warns(TargetNotReachedWarning, match="best model is returned"):
        result = run(model, target=sc.Parameters(value=1), max_drop=0.1)
    assert not result.reached
    assert result.comparison.ratio > 1.5
    assert result.quality[1] >= result.quality[0] - 0.1 - 1e-6


@pytest.fixture(scope="module")
def lopsided():
    """Two arms; what comes out depends on one of them alone."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    useless = layers.Dense(64, activation="relu", name="useless")(inputs)
    critical = layers.Dense(64, activation="relu", name="critical")(inputs)
    out = layers.Dense(3, activation="softmax", name="out")(
        layers.Concatenate()([useless, critical])
    )
    model = keras.Model(inputs, out)
    kernel, bias = model.get_layer("out").get_weights()
    kernel[:64] = 0
    model.get_layer("out").set_weights([kernel, bias])
    mask = np.ones(kernel.shape, bool)
    mask[:64] = False
    sc.keep_zeros(model, {"out/kernel": mask})
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(*data()[0], epochs=30, verbose=0)
    # Large, so that by size alone this is the layer that would stay.
    kernel, bias = model.get_layer("useless").get_weights()
    model.get_layer("useless").set_weights([kernel * 10, bias])
    return eager(model)


def test_sensitivities_tell_the_useless_layer_from_the_critical(lopsided):
    samples = calibration_slice(data()[0])
    names = ["useless/kernel", "critical/kernel"]
    before = lopsided.get_weights()
    found = dict(measure_pruning(lopsided, names, samples))
    assert all(loss < 1e-6 for curve in found["useless/kernel"].values() for loss in curve.values())
    assert found["critical/kernel"]["magnitude"][0.1] > 0.1
    curves = found["critical/kernel"].values()
    assert all(curve[0.0] >= curve[0.3] for curve in curves)
    cuts = dict(measure_cutting(lopsided, names, samples))
    assert cuts["useless"].losses[16] < 1e-3 < cuts["critical"].losses[16]
    assert cuts["critical"].shares[16] == {"critical/kernel": 0.25}
    for one, two in zip(before, lopsided.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_critical_layer_is_spared(lopsided):
    result = run(lopsided, target=sc.Parameters(ratio=2.5), max_drop=0.1)
    assert result.reached
    kept = {layer.name: layer.kept for layer in result.explanation.layers}
    assert kept["critical/kernel"] > 4 * kept["useless/kernel"]


def test_samples_of_a_dataset_are_its_first():
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20)
    spread = calibration_slice((x, y), 5)
    assert spread[1].tolist() == [0, 4, 9, 14, 19]
    batches = [(x[:8], y[:8]), (x[8:16], y[8:16]), (x[16:], y[16:])]
    first = calibration_slice(batches, 10)
    assert first[1].tolist() == list(range(16))
