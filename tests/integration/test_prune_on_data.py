"""sc.prune(model, data=...) on models of every kind."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers, ops, tree
from tests.integration.keras_models import MODELS, SimpleNN, floats, ids
from tests.integration.on_data import (
    assert_same,
    changed_output,
    correlated,
    importance,
    mlp,
    values_of,
)
from tests.integration.test_prune_model import image_model, text_model

import secateur as sc
from secateur.data_plan import DataPrunePlan
from secateur.errors import CalibrationWarning, InvalidArgumentError, NonFiniteError
from secateur.keras.calibrating import CalibrationWalk
from secateur.keras.padding import Padding
from secateur.keras.staging import make_schedule
from secateur.keras.taps import open_graph
from secateur.keras.variables import empty_like
from secateur.layer_pruning import Recipe, prune_matrix
from secateur.reconstruction import ADMM, LayerTarget
from secateur.statistics import InputStatistics

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.CalibrationWarning")

KINDS = {
    **MODELS,
    "text": lambda: (text_model(), ids(40, 12, top=30)),
    "images": lambda: (image_model(), floats(4, 16, 16, 3)),
}


class TestEveryKind:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "how", [{}, {"criterion": "sparsegpt"}, {"criterion": "magnitude"}], ids=str
    )
    def test_exact_and_the_given_model_unchanged(self, kind, how):
        model, inputs = KINDS[kind]()
        before = values_of(model)
        result = sc.prune(model, sparsity=0.5, data=inputs, **how)
        for value, now in zip(before, values_of(model), strict=True):
            np.testing.assert_array_equal(value, now)
        assert len(result.report) > 0
        for row in result.report:
            mask = result.masks[row.name]
            assert mask.shape == row.shape
            assert mask.size - np.count_nonzero(mask) == row.num_removed
            if how:  # published methods share alike
                assert row.num_removed == round(0.5 * row.size)
            assert row.num_zeros >= row.num_removed
            assert row.relative_error is not None
            assert 0 <= row.relative_error < 10
        removed, size = (
            sum(getattr(row, n) for row in result.report) for n in ("num_removed", "size")
        )
        assert abs(removed - 0.5 * size) <= (len(result.report) if how else 0.5)
        outputs = tree.flatten(result.model(inputs))
        assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in outputs)

    @pytest.mark.parametrize("kind", ["text", "images", "shared", "subclassed", "zoo"])
    def test_zeros_are_where_the_masks_are(self, kind):
        model, inputs = KINDS[kind]()
        result = sc.prune(model, sparsity=0.6, data=inputs)
        tensors = {t.name: t for t in sc.keras.find_tensors(result.model).tensors}
        for name, mask in result.masks.items():
            value = np.asarray(tensors[name].variable.value)
            assert not value[~mask].any()

    def test_what_data_says_nothing_of_is_left_with_the_reason(self):
        model, inputs = KINDS["zoo"]()
        result = sc.prune(model, sparsity=0.5, data=inputs)
        left = [own for own in result.report.left if own.name.startswith("spectral_normalization")]
        assert ["cannot be seen" in own.reason for own in left] == [True]
        with pytest.raises(InvalidArgumentError, match="cannot be pruned on data"):
            sc.prune(model, sparsity=0.5, data=inputs, include=layers.SpectralNormalization)

    def test_a_compiled_model_stays_compiled(self):
        model = mlp()
        model.compile("adam", "mse")
        x, y = correlated(64), floats(64, 4)
        model.fit(x, y, verbose=0)
        pruned = sc.prune(model, sparsity=0.5, data=x).model
        assert int(pruned.optimizer.iterations) == int(model.optimizer.iterations)
        pruned.fit(x, y, verbose=0)

    def test_in_place_and_subclassed(self):
        model = SimpleNN()
        x = correlated(64, 10)
        model(x)
        result = sc.prune(model, sparsity=0.5, data=x, inplace=True, allocation="uniform")
        assert result.model is model
        assert np.count_nonzero(np.asarray(model.dense1.kernel.value) == 0) == 50


class TestQuality:
    def test_seeing_data_beats_magnitude(self):
        model, x = mlp(), correlated(512)
        test = correlated(600)[512:]
        lost = {
            name: changed_output(model, sc.prune(model, sparsity=0.6, data=x, **how).model, test)
            for name, how in {
                "magnitude": {"criterion": "magnitude"},
                "sparsegpt": {"criterion": "sparsegpt"},
                "refit": {"criterion": "magnitude", "reconstruction": "refit"},
                "default": {},
            }.items()
        }
        assert lost["default"] < lost["sparsegpt"] < lost["magnitude"]
        assert lost["default"] < lost["refit"] < lost["magnitude"]

    def test_two_layers_against_the_solver_by_hand(self):
        """The walk is nothing but this: dense inputs beside compressed ones, layer by layer."""
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [
                keras.Input((12,)),
                layers.Dense(9, activation="relu", name="dense"),
                layers.Dense(5, name="out"),
            ]
        )
        model.layers[0].bias.assign(floats(9))
        x = correlated(300)
        result = sc.prune(model, sparsity=0.5, data=x, batch_size=64, allocation="uniform")
        first, first_bias, second, second_bias = values_of(model)
        recipe, target = Recipe(solver=ADMM()), LayerTarget(sparsity=0.5)
        statistics = InputStatistics(12)
        statistics.update(x)
        weighed = importance(model, x)
        how = {"has_bias": True, "importance": weighed["dense/kernel"]}
        one = prune_matrix(first.T, [statistics], target, recipe, **how)
        dense = np.maximum(x @ first + first_bias, 0)
        now = np.maximum(x @ one.weight.T + first_bias + one.bias_shift.astype("float32"), 0)
        statistics = InputStatistics(9, cross=True)
        statistics.update(now.astype("float32"), dense.astype("float32"))
        how = {"has_bias": True, "importance": weighed["out/kernel"]}
        two = prune_matrix(second.T, [statistics], target, recipe, **how)
        found = values_of(result.model)
        np.testing.assert_allclose(found[0], one.weight.T, atol=1e-5)
        np.testing.assert_allclose(found[1], first_bias + one.bias_shift, atol=1e-5)
        np.testing.assert_allclose(found[2], two.weight.T, atol=1e-4)
        np.testing.assert_allclose(found[3], second_bias + two.bias_shift, atol=1e-4)
        assert result.report[0].bias_refitted

    def test_magnitude_alone_changes_no_weight_that_stays(self):
        model, x = mlp(), correlated(64)
        result = sc.prune(model, sparsity=0.5, data=x, criterion="magnitude")
        plain = sc.prune(model, sparsity=0.5, scope="layer")
        for one, two in zip(values_of(result.model), values_of(plain.model), strict=True):
            np.testing.assert_array_equal(one, two)
        assert not any(row.bias_refitted for row in result.report)


# Ten inputs are no whole number of groups of four, nor ten outputs of blocks.
@pytest.mark.filterwarnings("ignore::secateur.errors.TargetNotReachedWarning")
class TestTargets:
    @pytest.mark.parametrize("how", [{}, {"criterion": "sparsegpt"}], ids=str)
    def test_n_of_m(self, how):
        result = sc.prune(mlp(), pattern="2:4", data=correlated(64), **how)
        kernel = result.masks["first/kernel"]
        np.testing.assert_array_equal(kernel.T.reshape(16, 3, 4).sum(-1), 2)

    def test_blocks(self):
        how = {"sparsity": 0.5, "allocation": "uniform"}
        result = sc.prune(mlp(), pattern="block:4x1", data=correlated(64), **how)
        mask = result.masks["first/kernel"].T.reshape(4, 4, 12)
        np.testing.assert_array_equal(mask.all(1), mask.any(1))
        assert result.report["first/kernel"].num_removed == 96

    def test_rows_lose_alike(self):
        result = sc.prune(mlp(), sparsity=0.5, scope="row", data=correlated(64))
        assert len(set(result.masks["first/kernel"].sum(0))) == 1
        how = {"scope": "row", "allocation": "uniform"}
        result = sc.prune(mlp(), sparsity=0.5, data=correlated(64), **how)
        np.testing.assert_array_equal(result.masks["first/kernel"].sum(0), 6)

    def test_a_mapping_and_a_count(self):
        result = sc.prune(mlp(), sparsity={"first": 0.75, "out": 0.25}, data=correlated(64))
        assert {row.name: row.num_removed for row in result.report} == {
            "first/kernel": 144,
            "out/kernel": 10,
        }
        result = sc.prune(mlp(), count=30, scope="layer", data=correlated(64))
        assert [row.num_removed for row in result.report] == [30, 30, 30]

    def test_a_threshold_needs_scores(self):
        model, x = mlp(), correlated(64)
        result = sc.prune(
            model, threshold=0.2, criterion="magnitude", data=x, reconstruction="refit"
        )
        kernel = values_of(model)[0]
        np.testing.assert_array_equal(result.masks["first/kernel"], np.abs(kernel) >= 0.2)
        with pytest.raises(InvalidArgumentError, match="needs scores"):
            sc.prune(model, threshold=0.2, data=x)

    def test_a_plan_prints_and_saves_and_does_what_prune_does(self):
        model, x = mlp(), correlated(64)
        plan = sc.plan_prune(model, sparsity=0.5, data=x, criterion="obs")
        assert "first/kernel (192 weights): 50.00% go" in str(plan)
        plan = sc.plan_prune(model, sparsity=0.5, data=x)
        assert DataPrunePlan.from_json(plan.plan.to_json()) == plan.plan
        assert_same(plan.apply(), sc.prune(model, sparsity=0.5, data=x), atol=0)
        with pytest.raises(InvalidArgumentError, match="Not a plan"):
            DataPrunePlan.from_json("{}")


class TestSharedWeights:
    def shared_model(self):
        keras.utils.set_random_seed(1)
        tower = layers.Dense(8, activation="relu", name="tower")
        inputs = keras.Input((8,))
        return keras.Model(inputs, layers.Dense(3, name="out")(tower(tower(inputs))))

    def test_every_use_counts_and_each_weight_goes_once(self):
        model, x = self.shared_model(), correlated(200, 8)
        how = {"sparsity": 0.5, "allocation": "uniform"}
        result = sc.prune(model, data=x, refit_bias=False, **how)
        assert [row.name for row in result.report] == ["tower/kernel", "out/kernel"]
        kernel = values_of(model)[0]
        statistics = InputStatistics(8)
        statistics.update(x)
        statistics.update(np.maximum(x @ kernel, 0))
        recipe = Recipe(solver=ADMM(), intercept=False)
        by_hand = prune_matrix(
            kernel.T,
            [statistics],
            LayerTarget(sparsity=0.5),
            recipe,
            importance=importance(model, x)["tower/kernel"],
        )
        np.testing.assert_allclose(values_of(result.model)[0], by_hand.weight.T, atol=1e-4)

    def test_two_towers_side_by_side(self):
        tower = layers.Dense(6, name="tower")
        left, right = keras.Input((8,)), keras.Input((8,))
        model = keras.Model([left, right], ops.concatenate([tower(left), tower(right)]))
        x = correlated(200, 8)
        both = sc.prune(model, sparsity=0.5, data=[x[:100], x[100:]])
        single = keras.Sequential([keras.Input((8,)), layers.Dense(6)])
        single.set_weights(model.get_weights())
        one = sc.prune(single, sparsity=0.5, data=x)
        np.testing.assert_array_equal(both.masks["tower/kernel"], next(iter(one.masks.values())))


class TestStreaming:
    @pytest.mark.parametrize("kind", ["text", "images", "subclassed"])
    def test_batches_do_not_matter(self, kind):
        model, inputs = KINDS[kind]()
        how = {"sparsity": 0.5, "criterion": "sparsegpt", "asymmetric": True}
        whole = sc.prune(model, data=inputs, batch_size=64, **how)
        parts = sc.prune(model, data=inputs, batch_size=3, **how)
        assert_same(whole, parts, atol=1e-3)

    def test_order_does_not_matter(self):
        model, x = mlp(), correlated(300)
        shuffled = np.random.default_rng(0).permutation(x)
        assert_same(
            sc.prune(model, sparsity=0.5, data=x),
            sc.prune(model, sparsity=0.5, data=shuffled),
            1e-3,
        )

    @pytest.mark.parametrize("kind", ["text", "shared", "images"])
    def test_a_file_in_place_of_memory_changes_nothing(self, kind):
        model, inputs = KINDS[kind]()
        in_memory = sc.prune(model, sparsity=0.5, data=inputs, batch_size=7)
        spilled = sc.prune(model, sparsity=0.5, data=inputs, batch_size=7, memory=0)
        for one, two in zip(values_of(in_memory.model), values_of(spilled.model), strict=True):
            np.testing.assert_array_equal(one, two)

    def test_large_patches_are_cut_in_parts(self, monkeypatch):
        model, inputs = KINDS["images"]()
        whole = sc.prune(model, sparsity=0.5, data=inputs)
        monkeypatch.setattr("secateur.keras.call_parts._ROWS_BYTES", 1 << 14)
        parts = sc.prune(model, sparsity=0.5, data=inputs)
        for one, two in zip(values_of(whole.model), values_of(parts.model), strict=True):
            np.testing.assert_array_equal(one, two)

    def test_a_stream_with_labels(self):
        import tensorflow as tf

        model, x = mlp(), correlated(64)
        stream = tf.data.Dataset.from_tensor_slices((x, np.zeros(64))).batch(16)
        assert_same(
            sc.prune(model, sparsity=0.5, data=stream), sc.prune(model, sparsity=0.5, data=x), 1e-4
        )


class TestErrors:
    def test_activations_that_are_not_finite_name_the_layer(self):
        model = mlp()
        before = values_of(model)
        model.layers[0].bias.assign(np.full(16, np.nan, "float32"))
        with pytest.raises(NonFiniteError, match="second"):
            sc.prune(model, sparsity=0.5, data=correlated(64), inplace=True)
        np.testing.assert_array_equal(values_of(model)[0], before[0])  # what was done is undone

    def test_data_that_does_not_fit(self):
        with pytest.raises(InvalidArgumentError, match="does not fit the model"):
            sc.prune(mlp(), sparsity=0.5, data=floats(40, 11))

    def test_names_and_combinations(self):
        model, x = mlp(), correlated(64)
        with pytest.raises(InvalidArgumentError, match="Unknown criterion"):
            sc.prune(model, sparsity=0.5, data=x, criterion="wandaa")
        with pytest.raises(InvalidArgumentError, match="Unknown reconstruction"):
            sc.prune(model, sparsity=0.5, data=x, reconstruction="magic")
        with pytest.raises(InvalidArgumentError, match="may be 'refit'"):
            sc.prune(model, sparsity=0.5, data=x, criterion="sparsegpt", reconstruction="admm")
        with pytest.raises(InvalidArgumentError, match="only be used with data"):
            sc.prune(model, sparsity=0.5, reconstruction="refit")
        with pytest.raises(InvalidArgumentError, match="pass data"):
            sc.prune(model, sparsity=0.5, criterion="sparsegpt")
        with pytest.raises(InvalidArgumentError, match="damping must be a positive"):
            sc.prune(model, sparsity=0.5, data=x, damping=0)
        with pytest.raises(InvalidArgumentError, match="exactly one of sparsity"):
            sc.prune(model, data=x)

    @pytest.mark.filterwarnings("default::secateur.errors.CalibrationWarning")
    def test_thin_data_warns(self):
        with pytest.warns(CalibrationWarning, match="8"):
            sc.prune(mlp(), sparsity=0.5, data=correlated(8))

    @pytest.mark.parametrize(
        "how",
        [{}, {"criterion": "sparsegpt"}, {"criterion": "wanda"}, {"criterion": "obs"}],
        ids=str,
    )
    def test_weights_of_dead_inputs_go_first(self, how):
        model, x = mlp(), correlated(200)
        dead = [1, 4, 9]
        x[:, dead] = 0
        kernel = np.array(model.layers[0].kernel)
        kernel[dead] *= 100
        model.layers[0].kernel.assign(kernel)
        result = sc.prune(model, sparsity=0.3, data=x, include="first", **how)
        assert not result.masks["first/kernel"][dead].any()
        assert result.masks["first/kernel"].sum() == round(0.7 * kernel.size)
        pair = (model, result.model)
        assert changed_output(*pair, x) < 0.05


class TestMemory:
    def test_a_walk_that_is_over_holds_no_weights(self):
        """Nor while it runs more than one copy of what was changed: the given values are shared."""
        model, x = mlp(), correlated(64)
        graph = open_graph(model)
        padding = Padding(graph)
        kernel = model.layers[0]._kernel
        schedule = make_schedule(graph, {id(kernel)}, padding)
        before = np.array(kernel.value)
        after = empty_like(before)
        after[...] = before + 1
        gone = weakref.ref(after.base)
        with CalibrationWalk(graph, schedule, [x], padding) as walk:
            for _ in walk.groups():
                walk.change(kernel, after)
                del after
            walk.commit()
        np.testing.assert_array_equal(np.array(kernel.value), before + 1)
        kernel.assign(before)
        gc.collect()
        assert gone() is None


class TestNormalisations:
    def model(self):
        keras.utils.set_random_seed(5)
        inputs = keras.Input((12,))
        x = layers.Dense(10, name="first")(inputs)
        x = layers.LayerNormalization(name="norm")(x)
        model = keras.Model(inputs, layers.Dense(4, name="out")(x))
        model.get_layer("norm").gamma.assign(np.linspace(0.5, 2, 10))
        model.get_layer("norm").beta.assign(np.linspace(-1, 1, 10))
        return model

    def until_norm(self, model):
        return keras.Model(model.input, model.get_layer("norm").output)

    def test_scale_and_offset_are_the_least_squares_ones(self):
        model, x = self.model(), correlated(200)
        how = {"sparsity": 0.7, "data": x, "damping": 1e-6}
        plain = sc.prune(model, refit_norms=False, **how)
        result = sc.prune(model, **how)
        norm = plain.model.get_layer("norm")
        wanted = np.asarray(self.until_norm(model)(x))
        z = (np.asarray(self.until_norm(plain.model)(x)) - norm.beta.numpy()) / norm.gamma.numpy()
        for feature in range(10):
            columns = np.stack([z[:, feature], np.ones(200)], axis=1)
            scale, offset = np.linalg.lstsq(columns, wanted[:, feature], rcond=None)[0]
            fitted = result.model.get_layer("norm")
            np.testing.assert_allclose(fitted.gamma.numpy()[feature], scale, atol=1e-3)
            np.testing.assert_allclose(fitted.beta.numpy()[feature], offset, atol=1e-3)
        assert {"norm/gamma", "norm/beta", "first/bias"} <= set(result.report.refitted)
        assert "norm/gamma" not in plain.report.refitted

    def test_it_brings_what_is_normalised_nearer_on_other_data_too(self):
        model, x = self.model(), correlated(600)
        lost = []
        for own in (True, False):
            pruned = sc.prune(model, sparsity=0.7, data=x[:500], refit_norms=own).model
            lost.append(changed_output(self.until_norm(model), self.until_norm(pruned), x[500:]))
        assert lost[0] < lost[1]

    def test_nothing_before_the_pruned_weights_changes(self):
        model, x = self.model(), correlated(200)
        result = sc.prune(model, sparsity=0.5, data=x, include="out")
        for name in ("gamma", "beta"):
            one, two = (getattr(m.get_layer("norm"), name).numpy() for m in (model, result.model))
            np.testing.assert_array_equal(one, two)

    def test_it_needs_the_given_network_beside(self):
        with pytest.raises(InvalidArgumentError, match="needs asymmetric"):
            sc.prune(
                self.model(), sparsity=0.5, data=correlated(64), criterion="wanda", refit_norms=True
            )


def test_what_weights_were_is_let_go_of_behind_the_walk_where_a_copy_is_pruned(monkeypatch):
    model, x = mlp(), correlated(64)
    alive = []
    put = CalibrationWalk.change

    def change(walk, variable, array):
        alive.append(sum(own.before is not None for own in walk._changed.values()))
        put(walk, variable, array)

    monkeypatch.setattr(CalibrationWalk, "change", change)
    given = [weight.copy() for weight in model.get_weights()]
    how = {"sparsity": 0.5, "data": x, "allocation": "uniform", "refit_bias": False}
    sc.prune(model, **how)
    assert alive == [0, 0, 0]
    alive.clear()
    own = model.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(given, own, strict=True))
    sc.prune(model, **how, inplace=True)
    assert alive == [0, 1, 2]
