"""Zeros stay zeros through training, with every optimizer that Keras has."""

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.keeping import KeepZeros, keep_zeros, kept_masks, release_zeros

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BASES = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer)
OPTIMIZERS = sorted(
    name
    for name, value in vars(keras.optimizers).items()
    if isinstance(value, type)
    and issubclass(value, keras.optimizers.Optimizer)
    and value not in BASES
    and name != "MultiOptimizer"
)


def data(rows=64):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 6)).astype("float32")
    return x, (x[:, :1] * x[:, 1:2] + x[:, 2:3]).astype("float32")


def small():
    keras.utils.set_random_seed(3)
    hidden = layers.Dense(16, activation="tanh", name="hidden")
    return keras.Sequential([keras.Input((6,)), hidden, layers.Dense(1, name="out")])


def pruned(optimizer, **options):
    model = small()
    model.compile(optimizer, "mse")
    model.fit(*data(), epochs=1, verbose=0)  # slots are filled before anything goes
    return sc.prune(model, sparsity=0.7, **options)


def assert_kept(result):
    for name, mask in result.masks.items():
        weight = next(t for t in sc.keras.find_tensors(result.model).tensors if t.name == name)
        array = keras.ops.convert_to_numpy(weight.variable)
        assert not array[~mask].any(), name
        assert array[mask].any(), name


def changed(before, model):
    return any((b != a).any() for b, a in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_keeps_zeros_and_trains_the_rest(name):
    result = pruned(getattr(keras.optimizers, name)(learning_rate=0.01))
    before = result.model.get_weights()
    result.model.fit(*data(), epochs=2, verbose=0)
    assert_kept(result)
    assert changed(before, result.model)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(0.01, amsgrad=True, weight_decay=0.01),
        lambda: keras.optimizers.RMSprop(0.01, momentum=0.9, centered=True),
        lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
        lambda: keras.optimizers.Adam(0.01, use_ema=True),
        lambda: keras.optimizers.SGD(0.01, use_ema=True, ema_overwrite_frequency=3),
        lambda: keras.optimizers.Adam(0.01, clipnorm=0.5),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
    ],
)
def test_every_mode_of_optimizers(optimizer):
    result = pruned(optimizer())
    before = result.model.get_weights()
    result.model.fit(*data(), epochs=3, batch_size=16, verbose=0)
    assert_kept(result)
    assert changed(before, result.model)


def test_in_place_and_eager():
    model = small()
    model.compile("adam", "mse", run_eagerly=True)
    result = sc.prune(model, sparsity=0.7, inplace=True)
    result.model.fit(*data(), verbose=0)
    assert_kept(result)


def test_a_custom_loop_through_an_optimizer():
    import tensorflow as tf

    model = small()
    result = sc.prune(model, sparsity=0.7)
    optimizer = keras.optimizers.Adam(0.01, use_ema=False)
    x, y = data()
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((result.model(x, training=True) - y) ** 2)
        trained = result.model.trainable_variables
        optimizer.apply(tape.gradient(loss, trained), trained)
    assert_kept(result)


def test_the_hook_for_loops_that_assign_by_themselves():
    result = sc.prune(small(), sparsity=0.7)
    for variable in result.model.trainable_variables:
        variable.assign(variable + 1.0)
    sc.enforce_zeros(result.model)
    assert_kept(result)


def test_saving_and_loading_with_plain_keras(tmp_path):
    result = pruned("adam")
    result.model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    zeros = sum(int((~mask).sum()) for mask in result.masks.values())
    assert sum(sc.keep_zeros(again).values()) == zeros
    again.fit(*data(), verbose=0)
    assert sum(int((w == 0).sum()) for w in again.get_weights() if w.ndim == 2) == zeros


def test_our_file_brings_the_masks_back(tmp_path):
    result = pruned("adam")
    sc.save(tmp_path / "m.safetensors", result)
    again = sc.load(tmp_path / "m.safetensors")
    assert {n: m.tolist() for n, m in kept_masks(again).items()} == {
        n: m.tolist() for n, m in result.masks.items()
    }
    again.fit(*data(), verbose=0)
    assert sorted(kept_masks(again)) == ["hidden/kernel", "out/kernel"]


def test_checkpoints_and_resuming(tmp_path):
    result = pruned("adam")
    weights = tmp_path / "w.weights.h5"
    backup = [
        keras.callbacks.ModelCheckpoint(weights, save_weights_only=True),
        keras.callbacks.BackupAndRestore(tmp_path / "backup"),
    ]
    result.model.fit(*data(), epochs=2, callbacks=backup, verbose=0)
    assert_kept(result)
    result.model.load_weights(weights)
    result.model.fit(*data(), epochs=3, callbacks=backup, verbose=0)
    assert_kept(result)


def test_a_constraint_that_was_there_stays():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, kernel_constraint="non_neg", name="d")]
    )
    model.compile("sgd", "mse")
    result = sc.prune(model, sparsity=0.5)
    x, _ = data()
    result.model.fit(x, -np.ones((64, 4), "float32"), epochs=3, verbose=0)
    assert_kept_or_zero(result)
    assert (result.model.get_weights()[0] >= 0).all()
    assert release_zeros(result.model) == ["d/kernel"]
    assert isinstance(result.model.layers[0].kernel.constraint, keras.constraints.NonNeg)


def assert_kept_or_zero(result):
    (mask,) = result.masks.values()
    assert not result.model.get_weights()[0][~mask].any()


def test_pruning_twice_replaces_the_mask():
    once = pruned("adam")
    twice = sc.prune(once.model, sparsity=0.9)
    (first, *_) = (v for v in twice.model.variables if isinstance(v.constraint, KeepZeros))
    assert not isinstance(first.constraint.inner, KeepZeros)
    twice.model.fit(*data(), verbose=0)
    assert_kept(twice)
    once.model.fit(*data(), verbose=0)
    assert_kept(once)


def test_masks_are_checked():
    model = small()
    with pytest.raises(InvalidArgumentError, match="does not have"):
        keep_zeros(model, {"nowhere": np.ones(3, bool)})
    with pytest.raises(InvalidArgumentError, match="shape"):
        keep_zeros(model, {"out/kernel": np.ones(3, bool)})
    with pytest.raises(ArgumentTypeError, match="boolean"):
        keep_zeros(model, {"out/kernel": np.ones((16, 1))})
