"""Pieces of the loop, alone."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.compression.finetuning import Cooling, FineTuning, KeepBest, steps_per_epoch
from secateur.compression.history import History, Step
from secateur.compression.overlap import warn_of_overlap
from secateur.compression.proposals import Densities, Ratios, density_for, density_needed
from secateur.compression.quality import Quality, mode_of
from secateur.errors import DataOverlapWarning, InvalidArgumentError


def step(number, quality, figure, accepted=True):
    return Step(number, "prune", 0.5, quality, figure, accepted)


def test_the_front_holds_what_nothing_beats():
    steps = (step(0, 0.9, 100), step(1, 0.85, 50), step(2, 0.95, 60), step(3, 0.85, 55))
    front = History("accuracy", "max", "bytes", steps).front()
    assert [s.number for s in front] == [1, 2]
    worse = History("loss", "min", "bytes", steps).front()
    assert [s.number for s in worse] == [1]


def test_a_history_survives_json():
    history = History("accuracy", "max", "bytes", (step(0, 0.9, 100.0),))
    assert History.from_dict(history.to_dict()) == history
    with pytest.raises(InvalidArgumentError, match="history"):
        History.from_dict({"steps": [{}]})


@given(st.floats(0.001, 0.999))
def test_densities_close_in_on_what_can_be_borne(bearable):
    state, tried = Densities(patience=30), []
    while (density := state.next()) is not None:
        tried.append(density)
        state = state.after(density, density >= bearable)
    assert state.held >= bearable
    assert state.held <= bearable / 0.95 + 1e-3
    assert len(tried) < 40


def test_densities_aim_at_the_goal_when_it_is_near():
    assert Densities(held=0.5).next(needed=0.4) == 0.4
    assert Densities().next(needed=0.1) == 0.1
    assert Densities().next() == 0.5


def test_a_density_that_failed_is_tried_again_from_a_better_model():
    state = Densities().after(0.1, held=False)
    assert state.next() == pytest.approx(0.1**0.5)
    state = state.after(0.316, held=True).after(0.178, held=True).after(0.133, held=True)
    assert state.next() == 0.1
    failing = state.after(0.1, held=False)
    assert failing.next() == pytest.approx(0.0133**0.5)
    done = state.after(0.1, held=True)
    assert (done.held, done.failed) == (0.1, None)
    assert done.next(needed=0.09) == 0.09


@given(st.floats(0, 50), st.floats(1.01, 200), st.floats(0.3, 1.5))
def test_the_density_for_a_goal_is_found_in_few_trials(offset, ratio, power):
    tried = []

    def figure(density):
        tried.append(density)
        return offset + 1000 * density**power

    limit = (offset + 1000) / ratio
    found = density_for(figure, limit)
    assert len(tried) <= 12
    if found is None:
        assert figure(1e-4) > limit
    else:
        assert figure(found) <= limit
        assert figure(min(1.0, found * 1.1)) >= limit * 0.98 or len(tried) >= 12


def test_cooling_ends_at_zero_and_gives_the_rate_back():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    rates = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: rates.append(float(model.optimizer.learning_rate))
    )
    x = np.ones((8, 1))
    model.fit(x, x, batch_size=1, callbacks=[Cooling(2, 7), watch], verbose=0)
    assert rates[:3] == [0.5] * 3
    np.testing.assert_allclose(
        rates[3:], [0.25 * (1 + math.cos(math.pi * k / 5)) for k in range(1, 6)]
    )
    assert float(model.optimizer.learning_rate) == 0.5


def test_cooling_leaves_a_schedule_alone():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    x = np.ones((8, 1))
    model.fit(x, x, batch_size=1, callbacks=[Cooling(0, 8)], verbose=0)
    assert model.optimizer._learning_rate is schedule


def test_ratios_are_halved_until_patience_ends():
    state = Ratios(0.4, patience=1)
    state = state.after(0.4, held=False)
    assert state.next() == 0.2
    assert state.after(0.2, held=True).failures == 0
    assert state.after(0.2, held=False).next() is None


@given(st.floats(1, 10), st.floats(0, 10), st.floats(0.02, 0.4))
def test_the_density_needed_lies_on_the_line(slope, offset, needed):
    points = [(1.0, slope + offset), (0.5, slope * 0.5 + offset)]
    found = density_needed(points, slope * needed + offset)
    assert found == pytest.approx(0.98 * needed, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "mode"), [("accuracy", "max"), ("val_loss", "min"), ("auc", "max"), ("mse", "min")]
)
def test_modes_by_name(name, mode):
    assert mode_of(name) == mode


def test_a_name_that_does_not_tell_is_an_error():
    with pytest.raises(InvalidArgumentError, match="mode="):
        mode_of("goodness")


def test_drops():
    rising, falling = Quality(None, "accuracy", "max"), Quality(None, "loss", "min")
    assert rising.drop(0.9, 0.8) == pytest.approx(0.1)
    assert falling.drop(0.9, 0.8) == pytest.approx(-0.1)
    assert rising.drop(0.9, math.nan) == math.inf


def test_overlap_is_counted():
    x = np.arange(12.0).reshape(6, 2)
    with pytest.warns(DataOverlapWarning, match="2 of 3"):
        warn_of_overlap((x, x), (np.concatenate([x[:2], x[:1] + 100]), None))
    warn_of_overlap((x, x), (x + 100, x))


def test_steps_of_an_epoch():
    assert steps_per_epoch((np.ones((33, 2)), np.ones(33)), 16) == 3
    with pytest.raises(InvalidArgumentError, match="how many batches"):
        steps_per_epoch((i for i in range(3)), 16)


def test_the_best_epoch_is_kept():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    best = KeepBest(Quality((np.ones((4, 1)), np.ones((4, 1))), "loss", "min"), first_step=2)
    best.set_model(model)
    for value in (1.0, 5.0, 2.0, 3.0):  # loss is (value - 1)^2; the first epoch does not count
        best.on_train_batch_end(0)
        model.set_weights([np.full((1, 1), value), np.zeros(1)])
        best.on_epoch_end(0)
    best.restore()
    assert model.get_weights()[0][0, 0] == 2.0


@pytest.mark.parametrize(
    "options", [{"epochs": 0}, {"batch_size": -1}, {"ramp": 1.0}, {"learning_rate": 0}]
)
def test_senseless_settings_are_refused(options):
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        FineTuning(**options)
