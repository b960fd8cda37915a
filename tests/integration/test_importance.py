"""How much the model depends on every output of a layer."""

import keras
import numpy as np
import pytest
from keras import layers
from tests.integration.keras_models import MODELS
from tests.integration.on_data import correlated, importance, values_of

import secateur as sc

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.CalibrationWarning")


def jacobian_squares(model, layer, x, step=1e-3):
    """E |df / dz_j|^2 by central differences of the bias, which is added where z is."""
    bias = model.get_layer(layer).bias
    before, found = np.array(bias.value), []
    for output in range(before.size):
        ends = []
        for sign in (1, -1):
            moved = before.copy()
            moved[output] += sign * step
            bias.assign(moved)
            ends.append(np.asarray(model(x), np.float64))
        found.append(np.square((ends[0] - ends[1]) / (2 * step)).sum())
    bias.assign(before)
    return np.array(found) / np.mean(found)


@pytest.mark.parametrize("activation", [None, "tanh"])
def test_it_is_the_mean_square_of_the_jacobian(activation):
    """One output of the model: then signs cancel, and it is exact."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    z = layers.Dense(7, activation=activation, name="z")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(5, activation="tanh")(z)))
    x = correlated(64)
    expected = jacobian_squares(model, "z", x)
    np.testing.assert_allclose(importance(model, x)["z/kernel"], expected, rtol=0.02)


def test_many_outputs_in_expectation():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(7, activation="relu", name="z"), layers.Dense(40)]
    )
    x = correlated(64)
    found = importance(model, x)["z/kernel"]
    squares = np.square(np.array(model.layers[-1].kernel.value)).sum(axis=1)
    alive = (np.asarray(model.layers[0](x)) > 0).mean(axis=0)
    np.testing.assert_allclose(found, squares * alive / np.mean(squares * alive), rtol=0.3)


@pytest.mark.parametrize("kind", MODELS)
def test_on_models_of_every_kind(kind):
    model, x = MODELS[kind]()
    before = values_of(model)
    activations = [getattr(layer, "activation", None) for layer in model._flatten_layers()]
    found = importance(model, x)
    assert found
    shapes = {t.name: t.shape for t in sc.keras.find_tensors(model).tensors}
    for name, own in found.items():
        assert own.ndim == 1
        assert np.prod(shapes[name]) % own.size == 0
        assert (own > 0).all()
        assert own.mean() == pytest.approx(1, rel=1e-3)
    assert activations == [getattr(layer, "activation", None) for layer in model._flatten_layers()]
    for value, now in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(value, now)


def test_no_gradient_no_importance():
    inputs = keras.Input((12,))
    model = keras.Model(inputs, keras.ops.argmax(layers.Dense(4)(inputs), axis=-1))
    assert importance(model, correlated(40)) == {}
    assert sc.prune(model, sparsity=0.5, data=correlated(40)).report.num_zeros == 24


def test_the_order_of_samples_does_not_matter():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(7, activation="relu", name="z"), layers.Dense(5)]
    )
    x = correlated(200)
    one, two = importance(model, x), importance(model, x[::-1].copy())
    for name, own in one.items():
        np.testing.assert_allclose(own, two[name], rtol=1e-5)


def test_rows_that_matter_keep_more():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    z = layers.Dense(10, activation="relu", name="z")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(z))
    kernel = np.array(model.get_layer("out").kernel.value)
    kernel[:5] *= 0.05
    model.get_layer("out").kernel.assign(kernel)
    x = correlated(300)
    kept = sc.prune(model, sparsity=0.5, data=x, include="z").masks["z/kernel"].sum(axis=0)
    assert kept[:5].sum() < 0.4 * kept[5:].sum()


@pytest.mark.parametrize("how", ["in the layer", "Softmax", "Activation", "ops"])
def test_what_a_softmax_squashes_counts_in_full(how):
    """A class that is never near decided has no gradient behind the softmax, yet it must not go."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    hidden = layers.Dense(6, activation="relu")(inputs)
    own = "softmax" if how == "in the layer" else None
    outputs = layers.Dense(5, activation=own, name="out")(hidden)
    behind = {
        "Softmax": layers.Softmax(),
        "Activation": layers.Activation("softmax"),
        "ops": keras.ops.softmax,
    }
    if own is None:
        outputs = behind[how](outputs)
    model = keras.Model(inputs, outputs)
    model.get_layer("out").bias.assign([0, 0, 0, 0, -40])
    np.testing.assert_allclose(importance(model, correlated(64))["out/kernel"], 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["recurrent", "separable"])
def test_a_sigmoid_within_a_layer_of_several_matrices_is_looked_at_from_behind(kind):
    """What goes into the layer is not what goes into its sigmoid."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 12))
    hidden = layers.Dense(8, name="hidden")(inputs)
    if kind == "recurrent":
        last = layers.SimpleRNN(2, activation="sigmoid", return_sequences=True)
    else:
        last = layers.SeparableConv1D(2, 1, activation="sigmoid")
    model = keras.Model(inputs, last(hidden))
    # The model looks at the first half of what the hidden layer puts out only.
    kernels = [w for w in last.weights if w.shape[-1] == 2 and 8 in w.shape]
    kernel = np.array(kernels[0].value)
    kernel[..., 4:, :] = 0
    kernels[0].assign(kernel)
    found = importance(model, correlated(64 * 6).reshape(64, 6, 12))["hidden/kernel"]
    assert found[4:].max() < 0.01 * found[:4].min()
