"""Scores of weights on data, through prune: against NumPy by hand."""

import keras
import numpy as np
import pytest
from keras import layers
from tests.integration.keras_models import floats

import secateur as sc
from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.keras.gradients import gradient_statistics
from secateur.keras.tensors import find_tensors

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.CalibrationWarning")


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(6, activation="relu", name="a"), layers.Dense(3, name="b")]
    )
    model.compile("sgd", "mse")
    return model


X, Y = floats(50, 8) * np.arange(1, 9, dtype="float32"), floats(50, 3)


def kernels(model):
    return [np.asarray(layer.kernel.value) for layer in model.layers]


def lowest_go(scores, sparsity):
    order = np.argsort(scores, axis=None, kind="stable")
    keep = np.ones(scores.size, bool)
    keep[order[: round(sparsity * scores.size)]] = False
    return keep.reshape(scores.shape)


def gradients_by_hand(model):
    """Mean |g| and mean g^2 per weight of `b`, over samples: g = x^T 2 (y' - y) / 3."""
    first, second = kernels(model)
    hidden = np.maximum(X @ first, 0)
    slopes = 2 * (hidden @ second - Y) / 3
    each = hidden[:, :, None] * slopes[:, None, :]
    return np.abs(each).mean(0), (each**2).mean(0)


def test_gradients_are_those_of_single_samples(model):
    tensors = [t for t in find_tensors(model).tensors if t.name == "b/kernel"]
    wanted = gradients_by_hand(model)
    for batch_size in (7, 50):
        found = gradient_statistics(model, tensors, (X, Y), batch_size=batch_size)["b/kernel"]
        assert found.count == 50
        np.testing.assert_allclose(found.mean_absolute.T, wanted[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.mean_square.T, wanted[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("criterion", "index"), [("taylor", 0), ("fisher", 1)])
def test_taylor_and_fisher(model, criterion, index):
    size = gradients_by_hand(model)[index] ** (1, 0.5)[index]
    result = sc.prune(model, sparsity=0.5, data=(X, Y), criterion=criterion, include="b")
    scores = np.abs(kernels(model)[1]) * size
    np.testing.assert_array_equal(result.masks["b/kernel"].T, lowest_go(scores.T, 0.5))


def test_a_stream_of_labelled_batches(model):
    import tensorflow as tf

    stream = tf.data.Dataset.from_tensor_slices((X, Y)).batch(20)
    one = sc.prune(model, sparsity=0.5, data=stream, criterion="taylor")
    two = sc.prune(model, sparsity=0.5, data=(X, Y), criterion="taylor")
    for name, mask in one.masks.items():
        np.testing.assert_array_equal(mask, two.masks[name])


def test_gradients_need_labels_and_a_loss(model):
    with pytest.raises(InvalidArgumentError, match="without labels"):
        sc.prune(model, sparsity=0.5, data=X, criterion="fisher")
    with pytest.raises(InvalidArgumentError, match="49 labels"):
        sc.prune(model, sparsity=0.5, data=(X, Y[:49]), criterion="fisher", batch_size=64)
    plain = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    with pytest.raises(InvalidArgumentError, match="has no loss"):
        sc.prune(plain, sparsity=0.5, data=(X, Y), criterion="taylor")


def test_wanda_by_row_in_the_network_as_it_is_by_then(model):
    result = sc.prune(model, sparsity=0.5, data=X, criterion="wanda", scope="row")
    first, second = kernels(model)
    pruned = kernels(result.model)
    hidden = np.maximum(X @ pruned[0], 0)  # what the second layer is fed after the first was pruned
    for kernel, inputs, name in ((first, X, "a/kernel"), (second, hidden, "b/kernel")):
        scores = np.abs(kernel) * np.sqrt((inputs**2).mean(0))[:, None]
        half = kernel.shape[0] // 2
        keep = np.argsort(np.argsort(scores, axis=0), axis=0) >= half
        np.testing.assert_array_equal(result.masks[name], keep)
    np.testing.assert_array_equal(pruned[0], np.where(result.masks["a/kernel"], first, 0))


@pytest.mark.parametrize("reconstruction", [None, "refit"])
def test_wanda_ranked_over_all_layers(model, reconstruction):
    result = sc.prune(
        model,
        sparsity=0.5,
        data=X,
        criterion="wanda",
        scope="global",
        reconstruction=reconstruction,
    )
    first, second = kernels(model)
    scores = np.concatenate(
        [
            (np.abs(first) * np.sqrt((X**2).mean(0))[:, None]).reshape(-1),
            (np.abs(second) * np.sqrt((np.maximum(X @ first, 0) ** 2).mean(0))[:, None]).reshape(
                -1
            ),
        ]
    )
    masks = np.concatenate([mask.reshape(-1) for mask in result.masks.values()])
    np.testing.assert_array_equal(masks, lowest_go(scores, 0.5))
    assert result.report.num_zeros == 33


@pytest.mark.parametrize("allocation", ["erk", "lamp", "owl", "global"])
def test_allocations_meet_the_total(model, allocation):
    result = sc.prune(model, sparsity=0.5, data=X, allocation=allocation)
    assert result.report.num_zeros == 33
    assert result.plan.settings["allocation"] == allocation


def test_allocations_that_make_no_sense(model):
    for how in ({"pattern": "2:4"}, {"sparsity": 0.5, "scope": "global"}, {"count": 3}):
        with pytest.raises(InvalidArgumentError, match="shares one sparsity out"):
            sc.prune(model, data=X, allocation="erk", **how)
    with pytest.raises(InvalidArgumentError, match="Unknown allocation"):
        sc.prune(model, data=X, allocation="fair", sparsity=0.5)


def test_path_scores_see_data_over_the_chain(model):
    result = sc.prune(model, sparsity=0.5, data=X, criterion="path", include="a")
    first, second = kernels(model)
    scores = np.abs(first) * np.sqrt((X**2).mean(0))[:, None] * np.linalg.norm(second, axis=1)
    np.testing.assert_array_equal(result.masks["a/kernel"].T, lowest_go(scores.T, 0.5))


def test_a_generator_of_labelled_batches_is_read_once_for_scores_and_inputs(model):
    parts = [(X[k : k + 20], Y[k : k + 20]) for k in range(0, 50, 20)]
    one = sc.prune(model, sparsity=0.5, data=iter(parts), criterion="fisher")
    two = sc.prune(model, sparsity=0.5, data=(X, Y), criterion="fisher")
    for name, mask in one.masks.items():
        np.testing.assert_array_equal(mask, two.masks[name])


def test_a_plan_made_on_a_generator_can_be_applied(model):
    parts = [X[:20], X[20:40], X[40:]]
    one = sc.plan_prune(model, sparsity=0.5, data=iter(parts)).apply()
    two = sc.prune(model, sparsity=0.5, data=X)
    for name, mask in one.masks.items():
        np.testing.assert_array_equal(mask, two.masks[name])


@pytest.mark.filterwarnings("error::secateur.errors.CalibrationWarning")
def test_batches_of_a_stream_are_no_samples_by_themselves(model):
    parts = [(X[k : k + 10], Y[k : k + 10]) for k in range(0, 50, 10)]
    sc.prune(model, sparsity=0.5, data=iter(parts), criterion="taylor")


@pytest.mark.parametrize(
    ("labels", "error", "match"),
    [
        (Y[:, :2], InvalidArgumentError, r"labels float32 \(1, 2\)"),
        (["a"] * 50, ArgumentTypeError, "arrays of numbers"),
        (list(range(50)), ArgumentTypeError, "arrays of numbers"),
        (np.array(["a"] * 50), ArgumentTypeError, "arrays of numbers"),
    ],
)
def test_labels_that_do_not_fit_the_loss(model, labels, error, match):
    with pytest.raises(error, match=match):
        sc.prune(model, sparsity=0.5, data=(X, labels), criterion="fisher")


def test_a_class_that_there_is_not_is_said_without_a_call_stack(model):
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(InvalidArgumentError, match="label value of 7") as caught:
        sc.prune(model, sparsity=0.5, data=(X, np.full(50, 7)), criterion="taylor")
    assert len(str(caught.value)) < 300
