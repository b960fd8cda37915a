"""After a cut, training goes on as if the removed units had never been there."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import secateur as sc
from secateur.keras.variables import read_array

DEAD = [1, 4, 5, 11]
ALIVE = np.setdiff1d(np.arange(16), DEAD)


def schedule():
    return optimizers.schedules.ExponentialDecay(0.02, 3, 0.5)


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.01),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "lion": lambda: optimizers.Lion(0.002),
    "adagrad": lambda: optimizers.Adagrad(0.05),
    "adadelta": lambda: optimizers.Adadelta(0.5),
    "adamax": lambda: optimizers.Adamax(0.01),
    "nadam": lambda: optimizers.Nadam(0.01),
    "ftrl": lambda: optimizers.Ftrl(0.05),
    "schedule": lambda: optimizers.Adam(schedule()),
    "ema": lambda: optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=4),
    "accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "loss_scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(schedule()), initial_scale=8.0, dynamic_growth_steps=5
    ),
    "loss_scale_ema": lambda: optimizers.LossScaleOptimizer(
        optimizers.SGD(0.05, momentum=0.9, use_ema=True, gradient_accumulation_steps=2),
        initial_scale=8.0,
    ),
}


def trained(optimizer):
    """A model with four units that emit nothing, so that no gradient reaches their weights."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(16, "relu", name="wide"), layers.Dense(2, name="out")]
    )
    kernel, bias = model.get_layer("wide").get_weights()
    kernel[:, DEAD], bias[DEAD] = 0, -100
    model.get_layer("wide").set_weights([kernel, bias])
    model.compile(optimizer, "mse", metrics=["mae"])
    fit(model, 5)
    return model


def fit(model, steps, seed=0):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(steps * 8, 6)), generator.normal(size=(steps * 8, 2))
    model.fit(x.astype("float32"), y.astype("float32"), batch_size=8, shuffle=False, verbose=0)


def samples():
    return np.random.default_rng(5).normal(size=(64, 6)).astype("float32")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_been_cut(name):
    model = trained(OPTIMIZERS[name]())
    result = sc.cut(model, samples(), keep={"wide": ALIVE.size})
    assert result.plan["wide"].removed == tuple(DEAD)
    check_slots(model.optimizer, result.model.optimizer)
    fit(model, 7, seed=1)
    fit(result.model, 7, seed=1)
    assert int(result.model.optimizer.iterations) == int(model.optimizer.iterations)
    expected = [read_array(variable) for variable in model.trainable_variables]
    expected = [expected[0][:, ALIVE], expected[1][ALIVE], expected[2][ALIVE], expected[3]]
    for variable, want in zip(result.model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(read_array(variable), want, rtol=2e-4, atol=2e-6)


def check_slots(old, new):
    assert len(new.variables) == len(old.variables)
    for before, after in zip(old.variables, new.variables, strict=True):
        value = read_array(before)
        for axis, size in enumerate(value.shape):
            if size == 16:
                value = np.take(value, ALIVE, axis=axis)
        np.testing.assert_array_equal(read_array(after), value, err_msg=before.path)


def test_adafactor_keeps_its_factors():
    model = trained(optimizers.Adafactor(0.01))
    new = sc.cut(model, samples(), keep={"wide": ALIVE.size}).model.optimizer
    old = model.optimizer
    rows, columns = read_array(old._r[0]), read_array(old._c[0])
    assert rows.shape == (6,)
    np.testing.assert_array_equal(read_array(new._r[0]), rows)
    np.testing.assert_array_equal(read_array(new._c[0]), columns[ALIVE])
    np.testing.assert_array_equal(read_array(new._v[1]), read_array(old._v[1])[ALIVE])
    np.testing.assert_array_equal(read_array(new._r[2]), read_array(old._r[2])[ALIVE])


def test_the_factors_of_a_square_weight_are_not_mixed_up():
    model = keras.Sequential(
        [keras.Input((6,))]
        + [layers.Dense(16, "relu", name=name) for name in ("one", "two")]
        + [layers.Dense(2)]
    )
    model.compile(optimizers.Adafactor(0.01), "mse")
    fit(model, 4)
    result = sc.cut(model, keep={"one": 12, "two": 11})
    stay = [np.setdiff1d(np.arange(16), result.plan[name].removed) for name in ("one", "two")]
    old, new = model.optimizer, result.model.optimizer
    np.testing.assert_array_equal(read_array(new._r[2]), read_array(old._r[2])[stay[0]])
    np.testing.assert_array_equal(read_array(new._c[2]), read_array(old._c[2])[stay[1]])
    fit(result.model, 2)


def test_a_learning_rate_set_by_hand_carries_over():
    model = trained(optimizers.Adam(0.01))
    model.optimizer.learning_rate = 1e-4
    result = sc.cut(model, samples(), keep={"wide": ALIVE.size})
    assert float(result.model.optimizer.learning_rate) == pytest.approx(1e-4)


def test_frozen_layers_and_weights_outside_of_the_optimizer():
    model = trained(optimizers.Adam(0.01))
    model.get_layer("out").trainable = False
    model.compile(optimizers.Adam(0.01), "mse")
    fit(model, 3)
    result = sc.cut(model, samples(), keep={"wide": ALIVE.size})
    assert [v.name for v in result.model.trainable_variables] == ["kernel", "bias"]
    fit(result.model, 2)
    assert int(result.model.optimizer.iterations) == 5
