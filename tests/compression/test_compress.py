"""The loop on a real task."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from tests.compression.task import data, trained

import secateur as sc
from secateur.errors import (
    ArgumentTypeError,
    DataOverlapWarning,
    InvalidArgumentError,
    TargetNotReachedWarning,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def model():
    return trained()


def run(model, **options):
    train, validation = data()
    options = {
        "target": sc.Parameters(ratio=4), "max_drop": 0.05, "tuning": sc.FineTuning(epochs=2), **options
    }  # fmt: skip
    return sc.compress(model, train, validation, **options)


def accuracy(model):
    return model.evaluate(*data()[1], verbose=0, return_dict=True)["accuracy"]


def test_the_goal_is_reached_and_quality_holds(model):
    before = model.get_weights()
    result = run(model)
    assert result.reached
    assert result.comparison.ratio >= 4
    nonzero = sum(int((w != 0).sum()) for w in result.model.get_weights())
    assert nonzero == result.comparison.after
    assert accuracy(result.model) == pytest.approx(result.quality[1])
    assert result.quality[1] >= accuracy(model) - 0.05 - 1e-6
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    result.model.fit(*data()[0], epochs=1, verbose=0)  # still compiled, zeros stay
    assert sum(int((w != 0).sum()) for w in result.model.get_weights()) <= nonzero


def test_what_costs_too_much_is_undone(model):
    with pytest.warns(TargetNotReachedWarning, match=r"best model is returned"):
        result = run(model, target=sc.Parameters(ratio=500), max_drop=0.02)
    assert not result.reached
    assert any(not step.accepted for step in result.history)
    assert accuracy(result.model) >= accuracy(model) - 0.02 - 1e-6
    kept = [step for step in result.history if step.accepted]
    assert result.comparison.after == kept[-1].figure


def test_cutting_makes_layers_smaller(model):
    result = run(model, target=sc.Macs(ratio=2), method="cut")
    assert result.reached
    assert result.model.get_layer("one").units < 48
    assert {step.method for step in result.history} == {"original", "cut"}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(24, activation="relu")
        self.out = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.out(self.hidden(x))


def test_a_subclassed_model_is_compressed_and_taught():
    model = Subclassed()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*data()[0], epochs=2, verbose=0)
    result = run(model, max_drop=1)
    assert result.reached
    assert result.comparison.before == sum(int((w != 0).sum()) for w in model.get_weights())


def test_both_methods_one_after_the_other(model):
    result = run(model, target=sc.Parameters(ratio=12), method="both", max_drop=0.08)
    assert result.reached
    methods = [step.method for step in result.history if step.accepted]
    assert methods[1] == "cut"
    assert methods[-1] == "prune"


def test_the_same_seed_gives_the_same_model(model):
    one, two = run(model), run(model)
    assert [s.quality for s in one.history] == [s.quality for s in two.history]
    for first, second in zip(one.model.get_weights(), two.model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def in_process(folder, resume, die_after):
    source = Path(sc.__file__).parents[1]
    environment = {
        **os.environ, "PYTHONPATH": f"{source}{os.pathsep}{Path(__file__).parents[2]}",
        "PYTHONHASHSEED": "0",
    }  # fmt: skip
    script = Path(__file__).with_name("killed.py")
    words = [sys.executable, str(script), str(folder), resume, str(die_after)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return done.returncode, lines


def test_killed_and_resumed_it_ends_with_the_same_result(tmp_path):
    code, whole = in_process(tmp_path / "a", "anew", 99)
    assert code == 0
    code, lines = in_process(tmp_path / "b", "anew", 1)
    assert code == -9
    assert not lines
    assert (tmp_path / "b" / "compression.json").exists()
    code, again = in_process(tmp_path / "b", "resume", 99)
    assert code == 0
    assert again == whole


def test_a_checkpoint_of_something_else_is_refused(model, tmp_path):
    run(model, checkpoint=tmp_path)
    with pytest.raises(InvalidArgumentError, match="another model"):
        run(model, checkpoint=tmp_path, resume=True, seed=5)
    done = run(model, checkpoint=tmp_path, resume=True)  # nothing is left to do
    assert done.reached


def test_ctrl_c_returns_the_best_so_far(model):
    told = set()

    def progress(what, fraction):
        told.add(what)
        if len(told) == 2:  # in the middle of the second step
            raise KeyboardInterrupt

    with pytest.warns(TargetNotReachedWarning, match="interrupted"):
        result = run(model, target=sc.Macs(ratio=8), method="cut", progress=progress)
    assert result.interrupted
    assert len(result.history) == 2
    assert 1 < result.comparison.ratio < 8


def test_pruning_goes_to_a_goal_that_it_can_reach_in_one_step(model):
    told = []
    result = run(model, max_drop=0.3, progress=lambda what, fraction: told.append((what, fraction)))
    assert len(result.history) == 2
    assert 0.95 * result.comparison.limit <= result.comparison.after <= result.comparison.limit
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert len(set(fractions)) > 10  # batch by batch


def test_the_learning_rate_is_given_back(model):
    result = run(model, max_drop=1)
    assert float(result.model.optimizer.learning_rate) == pytest.approx(0.01)


def test_a_loss_that_becomes_nan_is_undone_and_said(model):
    tuning = sc.FineTuning(epochs=1, learning_rate=1e30)
    with pytest.warns(TargetNotReachedWarning, match="NaN"):
        result = run(model, tuning=tuning)
    assert accuracy(result.model) == accuracy(model)


def test_bad_input_is_told(model):
    train, validation = data()
    with pytest.raises(InvalidArgumentError, match=r"not there.*accuracy"):
        run(model, metric="auc")
    with pytest.raises(InvalidArgumentError, match="does not fit"):
        sc.compress(model, train, (validation[0][:, :5], validation[1]), target=sc.Size(ratio=2))
    with pytest.raises(InvalidArgumentError, match="unequal"):
        sc.compress(model, (train[0], train[1][:-1]), validation, target=sc.Size(ratio=2))
    with pytest.raises(InvalidArgumentError, match="validation data: labels of shape"):
        sc.compress(model, train, (validation[0], np.ones((100, 3, 7))), target=sc.Size(ratio=2))
    with pytest.raises(ArgumentTypeError, match="target"):
        run(model, target=10)
    with pytest.raises(InvalidArgumentError, match="method"):
        run(model, method="magic")
    with pytest.raises(InvalidArgumentError, match="cut"):
        run(model, target=sc.Latency(ratio=2), method="prune")
    with pytest.raises(InvalidArgumentError, match="not compiled"):
        run(keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]))
    with pytest.warns(DataOverlapWarning):
        sc.compress(
            model, train, train, target=sc.Sparsity(0.1), tuning=sc.FineTuning(epochs=1), max_drop=1
        )
