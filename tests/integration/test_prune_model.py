"""sc.prune on real Keras models of many kinds."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.errors import (
    InvalidArgumentError,
    NonFiniteError,
    TargetNotReachedWarning,
    UnsupportedModelError,
)
from secateur.plan import PrunePlan


class SimpleNN(keras.Model):
    """The sample of the source that this library goes back to."""

    def __init__(self):
        super().__init__()
        self.hidden1 = layers.Dense(10, activation="relu")
        self.hidden2 = layers.Dense(5, activation="relu")
        self.out = layers.Dense(1, activation="sigmoid")

    def call(self, x):
        return self.out(self.hidden2(self.hidden1(x)))


def text_model():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(30, 16, name="embedding")(tokens)
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True), name="bi")(x)
    x = x + layers.MultiHeadAttention(2, 8, name="attention")(x, x)
    x = layers.LayerNormalization()(x)
    x = layers.Conv1D(8, 3, padding="same", name="conv")(x)
    x = layers.GlobalMaxPooling1D()(x)
    return keras.Model(tokens, layers.Dense(3, activation="softmax", name="out")(x))


def image_model():
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, name="conv")(image)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.SeparableConv2D(8, 3, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, name="transposed")(x)
    return keras.Model(image, layers.Dense(2, name="out")(layers.Flatten()(x)))


def zeros_of(model):
    return {w.path: int(np.count_nonzero(w.numpy() == 0)) for w in model.weights}


@pytest.fixture
def simple():
    keras.utils.set_random_seed(0)
    model = SimpleNN()
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    model.fit(rng.random((64, 10)), rng.integers(0, 2, 64), epochs=1, verbose=0)
    return model


class TestWholeModels:
    def test_the_sample_of_the_source(self, simple):
        before = [w.numpy().copy() for w in simple.weights]
        result = sc.prune(simple, threshold=0.5)
        for weight, value in zip(simple.weights, before, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value)
        for row in result.report:
            mask = result.masks[row.name]
            assert row.num_removed == mask.size - mask.sum()
        x = np.random.default_rng(1).random((32, 10))
        y = np.zeros(32)
        loss, accuracy = result.model.evaluate(x, y, verbose=0)
        assert np.isfinite(loss)
        assert 0 <= accuracy <= 1
        kernels = [w.numpy() for w in result.model.weights if w.name == "kernel"]
        for kernel, original in zip(kernels, before[::2], strict=True):
            np.testing.assert_array_equal(kernel, np.where(np.abs(original) >= 0.5, original, 0))

    @pytest.mark.parametrize("make", [text_model, image_model])
    @pytest.mark.parametrize(
        "how", [{"sparsity": 0.7}, {"sparsity": 0.5, "scope": "layer"}, {"threshold": 0.05}]
    )
    def test_exact_and_only_where_it_should(self, make, how):
        keras.utils.set_random_seed(0)
        model = make()
        result = sc.prune(model, **how)
        report = result.report
        if "sparsity" in how and "scope" not in how:
            assert report.num_zeros == round(how["sparsity"] * report.size)
        for weight, twin in zip(result.model.weights, model.weights, strict=True):
            if weight.name in ("gamma", "bias", "beta", "embeddings", "moving_variance"):
                np.testing.assert_array_equal(weight.numpy(), twin.numpy())
        assert set(result.masks) == {row.name for row in report}

    @pytest.mark.parametrize(("pattern", "target"), [("2:4", {}), ("block:4x1", {"sparsity": 0.5})])
    @pytest.mark.parametrize("make", [text_model, image_model])
    @pytest.mark.filterwarnings("ignore::secateur.errors.TargetNotReachedWarning")
    def test_patterns_run_along_inputs(self, make, pattern, target):
        result = sc.prune(make(), pattern=pattern, **target)
        kernel = result.masks["out/kernel"]  # (in, out) in Keras
        if pattern == "2:4":
            whole = kernel[: kernel.shape[0] // 4 * 4]
            groups = whole.T.reshape(kernel.shape[1], -1, 4)
            np.testing.assert_array_equal(groups.sum(-1), 2)
        else:
            np.testing.assert_array_equal(kernel.T, np.repeat(kernel.T[:1], kernel.shape[1], 0))

    def test_inplace(self, simple):
        result = sc.prune(simple, sparsity=0.5, inplace=True)
        assert result.model is simple
        zeros = sum(count for path, count in zeros_of(simple).items() if "kernel" in path)
        assert zeros == result.report.num_zeros

    def test_compiled_stays_compiled(self, simple):
        x, y = np.random.default_rng(2).random((32, 10)), np.zeros(32)
        result = sc.prune(simple, sparsity=0.0)
        assert result.model.evaluate(x, y, verbose=0) == simple.evaluate(x, y, verbose=0)
        assert int(result.model.optimizer.iterations) == int(simple.optimizer.iterations)
        result.model.fit(x, y, verbose=0)

    def test_mixed_precision(self):
        policy = keras.mixed_precision.DTypePolicy("mixed_bfloat16")
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4, dtype=policy, name="d")])
        result = sc.prune(model, sparsity=0.5)
        assert result.report["d/kernel"].num_zeros == 16
        assert result.model.get_layer("d").dtype_policy.name == "mixed_bfloat16"

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_other_dtypes(self, dtype):
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4, dtype=dtype, name="d")])
        result = sc.prune(model, sparsity=0.5)
        assert result.report["d/kernel"].num_zeros == 16
        assert result.report["d/kernel"].dtype == dtype


class TestChoice:
    def test_mapping_of_sparsities(self):
        report = sc.prune(text_model(), sparsity={"out": 0.5, "conv*": 0.25}).report
        assert {row.name: row.reached_sparsity for row in report} == {
            "conv/kernel": 0.25,
            "out/kernel": 0.5,
        }

    def test_include_embedding_and_exclude(self):
        report = sc.prune(text_model(), sparsity=0.5, include=["embedding", "out"]).report
        assert [row.name for row in report] == ["embedding/embeddings", "out/kernel"]
        report = sc.prune(text_model(), sparsity=0.5, exclude="attention").report
        assert not any("attention" in row.name for row in report)
        assert any(left.name == "embedding/embeddings" for left in report.left)

    def test_biases_only_by_name(self):
        model = text_model()
        model.get_layer("out").bias.assign([1.0, 2.0, 3.0])
        report = sc.prune(model, count=1, include="out/bias").report
        assert [(row.name, row.num_zeros) for row in report] == [("out/bias", 1)]

    def test_path_criterion_on_a_chain(self, simple):
        result = sc.prune(simple, sparsity=0.5, criterion="path")
        kernels = [w.numpy().T for w in simple.weights if w.name == "kernel"]
        saliencies = sc.saliency(kernels, "path")
        expected = sc.select(saliencies, sparsity=0.5)
        # Ties aside, ranking does not depend on the order in memory.
        for mask, want in zip(result.masks.values(), expected, strict=True):
            np.testing.assert_array_equal(mask.T, want)

    def test_path_criterion_elsewhere_says_why(self):
        with pytest.raises(UnsupportedModelError, match="magnitude"):
            sc.prune(text_model(), sparsity=0.5, criterion="path")


class TestErrors:
    def test_unbuilt(self):
        with pytest.raises(UnsupportedModelError, match="not built"):
            sc.prune(SimpleNN(), sparsity=0.5)

    def test_nothing_matches(self):
        with pytest.raises(InvalidArgumentError, match="ouch"):
            sc.prune(text_model(), sparsity=0.5, include="ouch")

    def test_nothing_to_prune(self):
        model = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(5, 3)])
        with pytest.raises(InvalidArgumentError, match="nothing to prune"):
            sc.prune(model, sparsity=0.5)

    def test_nan_is_named_and_nothing_changes(self, simple):
        simple.hidden2.kernel.assign(simple.hidden2.kernel.numpy() * np.nan)
        before = zeros_of(simple)
        with pytest.raises(NonFiniteError, match="kernel"):
            sc.prune(simple, sparsity=0.5, inplace=True)
        assert zeros_of(simple) == before

    def test_less_than_asked_is_a_warning(self):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
        with pytest.warns(TargetNotReachedWarning, match="shorter"):
            sc.prune(model, pattern="2:4")


class TestPlan:
    def test_a_plan_changes_nothing_until_applied(self):
        model = text_model()
        before = zeros_of(model)
        plan = sc.plan_prune(model, sparsity=0.5)
        assert zeros_of(model) == before
        assert "sparsity 50.00%" in str(plan)
        expected = sc.prune(model, sparsity=0.5)
        applied = plan.apply()
        for name, mask in expected.masks.items():
            np.testing.assert_array_equal(applied.masks[name], mask)
        assert zeros_of(model) == before
        assert plan.apply(inplace=True).model is model

    @pytest.mark.parametrize("criterion", ["magnitude", "random"])
    @pytest.mark.parametrize(
        ("pattern", "target"),
        [("unstructured", {"sparsity": 0.5}), ("2:4", {}), ("block:2x2", {"count": 9})],
    )
    def test_json_round_trip(self, criterion, pattern, target):
        plan = sc.plan_prune(image_model(), criterion=criterion, pattern=pattern, **target).plan
        text = plan.to_json()
        json.loads(text)
        assert PrunePlan.from_json(text) == plan

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', "null"])
    def test_bad_json(self, text):
        with pytest.raises(InvalidArgumentError, match=r"Not a pruning plan|has format 99"):
            PrunePlan.from_json(text)
