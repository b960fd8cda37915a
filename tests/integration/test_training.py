"""Pruning during plain fit."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.errors import ArgumentTypeError, InvalidArgumentError, TargetNotReachedError
from secateur.keras.gradient_scores import GradientScores
from secateur.keras.tensors import find_tensors
from secateur.schedules import Constant, Cubic, Linear

X = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
Y = (X @ np.arange(-3, 3, dtype="float32")[:, None]).astype("float32")


def compiled(optimizer="adam", **options):
    keras.utils.set_random_seed(3)
    hidden = layers.Dense(16, activation="tanh", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, layers.Dense(1, name="out")])
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, *callbacks, epochs=4):
    return model.fit(X, Y, batch_size=8, epochs=epochs, callbacks=list(callbacks), verbose=0)


def zeros(model):
    return sum(int((w == 0).sum()) for w in model.get_weights() if w.ndim == 2)


@pytest.mark.parametrize("criterion", ["magnitude", "random", "movement", "taylor"])
@pytest.mark.parametrize("fitted", [False, True])
def test_the_schedule_is_followed_to_its_end(criterion, fitted):
    model = compiled()
    if fitted:  # a training step was traced before
        fit(model, epochs=1)
    pruning = sc.Pruning(Cubic(0.75, end=30), criterion, frequency=10)
    fit(model, pruning)
    assert [step for step, _ in pruning.history] == [10, 20, 30]
    for step, reached in pruning.history:
        assert reached == pytest.approx(round(Cubic(0.75, end=30).at(step) * 112) / 112)
    assert zeros(model) == 84
    fit(model)  # and they stay
    assert zeros(model) == 84


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "lion", "muon"])
def test_removed_weights_never_come_back(optimizer):
    model = compiled(optimizer)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(np.concatenate([w.ravel() for w in self.model.get_weights()]) == 0)

    fit(model, sc.Pruning(Linear(0.8, end=40), frequency=4), Watch())
    for before, after in pairwise(seen):
        assert (after | ~before)[: 6 * 16].all()
    assert zeros(model) == round(0.8 * 112)


def test_n_of_m_and_scopes():
    model = compiled()
    pruning = sc.Pruning(Constant(0.5, begin=5), frequency=5, pattern="1:2", include=["hidden"])
    fit(model, pruning, epochs=1)
    kernel = model.get_layer("hidden").kernel.numpy()
    assert ((kernel.reshape(3, 2, 16) != 0).sum(axis=1) <= 1).all()
    assert pruning.report is not None
    assert [tensor.name for tensor in pruning.report] == ["hidden/kernel"]


def test_movement_adds_up_weight_times_gradient():
    import tensorflow as tf

    model = compiled(keras.optimizers.SGD(0.01))
    tensors = [t for t in find_tensors(model).tensors if t.default]
    scores = GradientScores("movement", tensors)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(X) - Y) ** 2)
    variables = [t.variable.value for t in tensors]
    grads = tape.gradient(loss, variables)
    expected = [-(v * g).numpy() for v, g in zip(variables, grads, strict=True)]
    scores.listen(model.optimizer)
    model.fit(X, Y, batch_size=80, epochs=1, shuffle=False, verbose=0)
    scores.stop(model.optimizer)
    for total, own in zip(scores._sums, expected, strict=True):
        np.testing.assert_allclose(total.numpy(), own, rtol=1e-3, atol=1e-5)
    found = scores.saliencies([t.to_matrix(np.ones(t.shape)) for t in tensors])
    order = np.argsort(np.concatenate([f.T.ravel() for f in found]))
    np.testing.assert_array_equal(order, np.argsort(np.concatenate([e.ravel() for e in expected])))


def test_scaled_losses_do_not_change_the_order_of_taylor_scores():
    plain, scaled = (
        compiled(keras.optimizers.SGD(0.01)),
        compiled(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))),
    )
    for model in (plain, scaled):
        fit(model, sc.Pruning(Constant(0.5, begin=20), "taylor"), epochs=2)
    for one, two in zip(plain.get_weights(), scaled.get_weights(), strict=True):
        np.testing.assert_array_equal(one == 0, two == 0)


def test_too_short_a_training_is_refused_before_it_begins():
    model = compiled()
    before = model.get_weights()
    with pytest.raises(TargetNotReachedError, match="40 steps"):
        fit(model, sc.Pruning(Cubic(0.9, end=100)))
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_training_that_stops_early_is_a_loud_error():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    model = compiled()
    pruning = sc.Pruning(Cubic(0.9, end=40), frequency=5)
    with pytest.raises(TargetNotReachedError, match="step 10"):
        fit(model, pruning, Stop())
    assert 0 < zeros(model) < round(0.9 * 112)
    fit(model, pruning)  # going on with the same callback reaches the end
    assert zeros(model) == round(0.9 * 112)


def test_arguments_are_checked():
    with pytest.raises(ArgumentTypeError, match="schedule"):
        sc.Pruning(0.5)
    with pytest.raises(InvalidArgumentError, match="frequency"):
        sc.Pruning(Constant(0.5), frequency=0)
    with pytest.raises(InvalidArgumentError, match="criterion"):
        sc.Pruning(Constant(0.5), "nonsense")
    with pytest.raises(InvalidArgumentError, match="takes no"):
        sc.Pruning(Constant(0.5), sparsity=0.3)
