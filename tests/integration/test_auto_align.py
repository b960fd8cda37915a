"""`align="auto"` with a timer that computes times from what it is given to time."""

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.errors import CutNotFasterWarning, InvalidArgumentError
from secateur.keras.alignment import AutoAlign, time_works

WIDTH = 100


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(WIDTH, "relu", name="one"),
            layers.Dense(WIDTH, "relu", name="two"),
            layers.Dense(3, name="out"),
        ]
    )


def data():
    return np.random.default_rng(0).normal(size=(64, 12)).astype("float32")


class Timer:
    """Seconds by a formula of (inputs, units) of a dense layer; counts what it is asked."""

    def __init__(self, formula):
        self.formula = formula
        self.asked = []

    def __call__(self, works):
        self.asked += [work.key for work in works]
        return [self.formula(*self.sizes(work)) for work in works]

    @staticmethod
    def sizes(work):
        _, config, ((batch, inputs),) = work.key
        assert batch == 32
        return inputs, int(config.split("'units': ")[1].split(",")[0])


def in_registers_of_16(inputs, units):
    return -(-inputs // 16) * -(-units // 16) * 1e-6


def test_a_width_that_costs_nothing_more_is_kept():
    timer = Timer(in_registers_of_16)
    plan = sc.plan_cut(model(), data(), ratio=0.45, align=AutoAlign(timer=timer))
    # 55 of 100 are to stay; 55, 56 and 64 take as long, and 56 is the simplest of the smallest.
    assert plan["one"].kept == plan["two"].kept == 56
    assert "55 would take" in plan["one"].why
    assert "all 100 take" in plan["one"].why
    exact = sc.plan_cut(model(), data(), ratio=0.45, align=1)
    assert set(plan["one"].removed) < set(exact["one"].removed)
    assert plan.apply().model.get_layer("one").units == 56


def test_odd_widths_that_are_slow_are_left():
    timer = Timer(lambda inputs, units: (1 + (inputs % 32 > 0) + (units % 32 > 0)) * 1e-6)
    with pytest.warns(CutNotFasterWarning, match=r"one \(100 -> 64\)|two"):
        plan = sc.plan_cut(
            model(), data(), ratio=0.45, align=AutoAlign(timer=lambda works: [1e-3] * len(works))
        )
    assert "not faster here" in plan["one"].why
    plan = sc.plan_cut(model(), data(), ratio=0.45, align=AutoAlign(timer=timer))
    assert plan["one"].kept == plan["two"].kept == 64


def test_equal_layers_are_timed_once():
    timer = Timer(in_registers_of_16)
    sc.plan_cut(model(), data(), ratio=0.45, align=AutoAlign(timer=timer))
    assert len(timer.asked) == len(set(timer.asked))


def test_time_that_is_spent_is_told_and_widths_are_rounded():
    now = iter(range(0, 1000, 15))
    settings = AutoAlign(seconds=20, timer=Timer(in_registers_of_16), clock=lambda: next(now))
    plan = sc.plan_cut(model(), data(), ratio=0.45, align=settings)
    assert plan["two"].kept == 56
    assert plan["two"].why == (
        "align=auto: not timed, the 20 s for timing were spent; a multiple of 8 stays"
    )


def test_widths_that_were_named_are_kept_as_they_are():
    timer = Timer(in_registers_of_16)
    plan = sc.plan_cut(model(), data(), keep={"one": 55}, align=AutoAlign(timer=timer))
    assert plan["one"].kept == 55


def test_heads_are_timed_and_not_rounded():
    i = keras.Input((None, 16))
    x = layers.MultiHeadAttention(8, 4, name="attention")(i, i)
    both = keras.Model(i, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    asked = []

    def timer(works):
        asked.extend(work.key for work in works)
        return [1e-3 * int(key[1].split("'num_heads': ")[1].split(",")[0]) for key in asked[-2:]]

    x = np.random.default_rng(0).normal(size=(40, 7, 16)).astype("float32")
    settings = AutoAlign(timer=timer)
    plan = sc.plan_cut(both, x, ratio=0.4, granularity=["head"], align=settings)
    assert plan["attention"].kept == 5
    assert plan["attention"].why == "align=auto: 5 take 5 ms, all 8 take 8 ms"
    # Times are those of the batch's own sizes, for query and value.
    assert [key[2] for key in asked] == [((32, 7, 16), (32, 7, 16))] * 2


@pytest.mark.filterwarnings("ignore::secateur.errors.CutNotFasterWarning")
@pytest.mark.parametrize("with_data", [True, False])
def test_layers_of_all_kinds_are_really_made_and_called(with_data):
    tokens = keras.Input((9,), dtype="int32")
    x = layers.Embedding(30, 20)(tokens)
    x = layers.Conv1D(21, 3, padding="same")(x)
    x = layers.Bidirectional(layers.LSTM(10, return_sequences=True))(x)
    x = x + layers.MultiHeadAttention(2, 5)(x, x)
    x = layers.TimeDistributed(layers.Dense(12))(x)
    made = keras.Model(tokens, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    calls = []

    def timer(works):
        calls.extend(work.make() for work in works)
        return [1e-3 * (index + 1) for index in range(len(works))]

    rows = np.random.default_rng(0).integers(0, 30, (32, 9)) if with_data else None
    sc.plan_cut(made, rows, ratio=0.5, align=AutoAlign(timer=timer, seconds=1e9))
    assert len(calls) > 8
    for call in calls:
        assert np.all(np.isfinite(call()))


# What the machine answers is not asserted, so neither is whether it is worth a warning.
@pytest.mark.filterwarnings("ignore::secateur.errors.CutNotFasterWarning")
def test_the_real_timer_tells_seconds():
    found = []

    def timer(works):
        found.extend(time_works(works))
        return found[-len(works) :]

    sc.plan_cut(model(), data(), ratio=0.5, align=AutoAlign(timer=timer, seconds=1e9))
    assert all(0 < seconds < 60 for seconds in found)


@pytest.mark.parametrize("align", ["fast", 0, 2.5])
def test_other_words_are_refused(align):
    with pytest.raises(
        InvalidArgumentError, match="align must be an integer of at least 1 or 'auto'"
    ):
        sc.plan_cut(model(), data(), ratio=0.5, align=align)


@pytest.mark.parametrize("align", [1, 16, 32])
def test_numbers_round_as_they_say(align):
    plan = sc.plan_cut(model(), data(), ratio=0.45, align=align)
    assert plan["one"].kept == -(-55 // align) * align
