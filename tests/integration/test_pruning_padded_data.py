"""Padded positions say nothing, whoever says that they are padding."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tests.integration.keras_models import floats
from tests.integration.on_data import assert_same

import secateur as sc
from secateur.errors import InvalidArgumentError

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.CalibrationWarning")


def padded(num_samples=60, length=7, width=6):
    """Sequences, and which positions of them are real."""
    x = floats(num_samples, length, width)
    lengths = np.random.default_rng(5).integers(2, length + 1, num_samples)
    return x, np.arange(length)[None] < lengths[:, None]


def explicit_model(width=6):
    keras.utils.set_random_seed(2)
    x, mask = keras.Input((None, width)), keras.Input((None,), dtype="bool", name="mask")
    hidden = layers.Dense(8, activation="relu", name="hidden")(x)
    hidden = hidden + layers.MultiHeadAttention(2, 4, name="attention")(
        hidden, hidden, attention_mask=ops.expand_dims(mask, 1)
    )
    pooled = layers.GlobalAveragePooling1D()(hidden, mask=mask)
    return keras.Model([x, mask], layers.Dense(3, name="out")(pooled))


def product_model(width=6):
    """The mask is used, but nothing says that it is one."""
    keras.utils.set_random_seed(2)
    x, mask = keras.Input((None, width)), keras.Input((None,), dtype="bool", name="mask")
    hidden = layers.Dense(8, activation="relu", name="hidden")(x)
    weight = ops.expand_dims(ops.cast(mask, "float32"), -1)
    return keras.Model([x, mask], layers.Dense(3, name="out")(ops.sum(hidden * weight, axis=1)))


# Which samples stand for all is told by all they hold, padding too; what is computed of them is not.
ALIKE = {"criterion": "magnitude", "reconstruction": "refit", "allocation": "uniform"}


class TestPadding:
    def garbage(self, x, mask, seed):
        noise = np.random.default_rng(seed).normal(size=x.shape) * 50
        return np.where(mask[..., None], x, noise).astype("float32")

    @pytest.mark.parametrize("how", [ALIKE, {"criterion": "sparsegpt"}], ids=str)
    def test_a_mask_that_the_graph_passes_on(self, how):
        x, mask = padded()
        first = [self.garbage(x, mask, 1), mask]
        second = [self.garbage(x, mask, 2), mask]
        model = explicit_model()
        assert_same(
            sc.prune(model, sparsity=0.5, data=first, **how),
            sc.prune(model, sparsity=0.5, data=second, **how),
        )

    @pytest.mark.parametrize("given", ["mask", "array"])
    def test_a_mask_that_the_user_gives(self, given):
        x, mask = padded()
        model = product_model()
        asked = {"sparsity": 0.5, "criterion": "sparsegpt"}
        how = {**asked, "mask": mask if given == "array" else "mask", "batch_size": 16}
        first = sc.prune(model, data=[self.garbage(x, mask, 1), mask], **how)
        second = sc.prune(model, data=[self.garbage(x, mask, 2), mask], **how)
        assert_same(first, second)
        unmasked = sc.prune(model, data=[self.garbage(x, mask, 1), mask], **asked)
        with pytest.raises(AssertionError):
            assert_same(first, unmasked)

    @pytest.mark.parametrize("recurrent", [layers.LSTM, layers.GRU])
    def test_a_mask_that_keras_hands_on(self, recurrent):
        keras.utils.set_random_seed(4)
        model = keras.Sequential(
            [
                keras.Input((7, 6)),
                layers.Masking(),
                layers.Dense(5, name="hidden"),
                recurrent(4, name="recurrent"),
                layers.Dense(2, name="out"),
            ]
        )
        x, mask = padded()
        x[~mask] = 0
        longer = np.concatenate([x, np.zeros((60, 9, 6), "float32")], axis=1)
        tall = keras.Sequential(
            [
                keras.Input((16, 6)),
                *(type(own).from_config(own.get_config()) for own in model.layers),
            ]
        )
        tall.set_weights(model.get_weights())
        how = {"sparsity": 0.5, **ALIKE}
        assert_same(sc.prune(model, data=x, **how), sc.prune(tall, data=longer, **how))

    def test_masks_that_do_not_fit(self):
        x, mask = padded()
        model = product_model()
        with pytest.raises(InvalidArgumentError, match="names no input"):
            sc.prune(model, sparsity=0.5, data=[x, mask], mask="maks")
        with pytest.raises(InvalidArgumentError, match="59 samples"):
            sc.prune(model, sparsity=0.5, data=[x, mask], mask=mask[:59])
        with pytest.raises(InvalidArgumentError, match="one of time"):
            sc.prune(model, sparsity=0.5, data=[x, mask], mask=mask[:, 0])


def test_keras_is_not_heard_where_attention_is_opened():
    """Inside of the layer masks go another way: Keras's word of a lost mask would only mislead."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((7,), dtype="int32")
    hidden = layers.Embedding(20, 8, mask_zero=True)(inputs)
    hidden = hidden + layers.MultiHeadAttention(2, 4, name="attention")(hidden, hidden)
    pooled = layers.GlobalAveragePooling1D()(hidden)
    model = keras.Model(inputs, layers.Dense(3, name="out")(pooled))
    x = np.random.default_rng(0).integers(1, 20, (64, 7))
    x[:, 5:] = 0
    result = sc.prune(model, sparsity=0.5, data=x)  # warnings are errors
    assert result.report.num_zeros == round(0.5 * result.report.size)
