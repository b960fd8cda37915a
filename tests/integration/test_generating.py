"""Batches made from models alone: every kind of input and output, determinism, errors."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import secateur as sc
from secateur.errors import (
    ArgumentTypeError,
    InvalidArgumentError,
    NonFiniteError,
    UnsupportedModelError,
)
from secateur.keras.soft_inputs import FloatInput, Lengths, TokenInput, nearest, smoothed

FEW = sc.Generation(steps=4, batch_size=16)
NONE = sc.Generation(steps=0, batch_size=16)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def classes(x, count=3):
    return layers.Dense(count, activation="softmax", name="classes")(x)


def text_model(length=10, *, mask_zero=False, dtype="int32"):
    tokens = keras.Input((length,), dtype=dtype, name="tokens")
    x = layers.Embedding(40, 8, mask_zero=mask_zero, name="words")(tokens)
    return keras.Model(tokens, classes(layers.GlobalAveragePooling1D()(x)))


def three_inputs():
    ids, mask, segments = (keras.Input((8,), dtype="int32", name=n) for n in ("ids", "mask", "seg"))
    x = layers.Embedding(30, 8)(ids) + layers.Embedding(2, 8)(segments)
    x = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=ops.cast(mask, "bool")[:, None, :])
    x = layers.GlobalAveragePooling1D()(x, mask=ops.cast(mask, "bool"))
    return keras.Model({"ids": ids, "mask": mask, "seg": segments}, layers.Dense(6)(x))


def image_model(*, norm=False):
    pixels = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(6, 3, activation=None if norm else "relu")(pixels)
    x = layers.ReLU()(layers.BatchNormalization()(x)) if norm else x
    return keras.Model(pixels, classes(layers.GlobalMaxPooling2D()(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.words = layers.Embedding(25, 6)
        self.out = layers.Dense(1, activation="sigmoid")

    def call(self, x):
        return self.out(ops.max(self.words(x), axis=1))


def mean_confidence(model, x):
    return float(np.max(model.predict(x, verbose=0), axis=-1).mean())


def test_same_seed_same_samples_and_the_model_is_as_it_was():
    model = text_model()
    before = [w.copy() for w in model.get_weights()]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    one, two = (sc.generate(model, 20, seed=3, how=FEW) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (one != sc.generate(model, 20, seed=4, how=FEW)).any()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]


def test_states_of_recurrent_layers_stay():
    model = keras.Sequential([keras.Input((5, 3), batch_size=4)])
    model.add(layers.GRU(6, stateful=True))
    model.add(layers.Dense(3, activation="softmax"))
    assert sc.generate(model, 6, how=FEW).shape == (6, 5, 3)  # of two batches of 4
    assert not np.any(model.layers[0].states[0])


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_tokens_are_ids_of_the_vocabulary_and_padded_at_the_right(dtype):
    x = sc.generate(text_model(dtype=dtype), 64, how=FEW)
    assert x.shape == (64, 10)
    assert x.dtype == dtype
    assert x.min() == 0
    assert x.max() < 40
    lengths = (x > 0).sum(axis=1)
    assert ((x > 0) == (np.arange(10) < lengths[:, None])).all()
    assert lengths.min() == 1
    assert lengths.max() == 10
    np.testing.assert_array_equal(x, np.round(x))


def test_begin_end_lengths_and_the_left_side():
    tokens = sc.Tokens(padding=5, lengths=(4, 7), side="left", begin=(30, 31), end=(32,))
    x = sc.generate(text_model(), 50, tokens=tokens, how=FEW)
    assert set((x != 5).sum(axis=1)) == {4, 5, 6, 7}
    for row in x:
        real = row[row != 5]
        assert (row[len(row) - len(real) :] == real).all()
        assert list(real[:2]) == [30, 31]
        assert real[-1] == 32
        assert not set(real[2:-1]) & {5, 30, 31, 32}


def test_rows_without_padding_are_full():
    x = sc.generate(text_model(), 30, tokens=sc.Tokens(padding=None), how=FEW)
    assert len(set(x.ravel())) > 30


def test_descent_makes_outputs_more_certain():
    model = text_model(mask_zero=True)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 30)
    rows = [mean_confidence(model, sc.generate(model, 128, how=h)) for h in (NONE, None)]
    assert rows[1] > rows[0] + 0.02


def test_ids_mask_and_segments_go_together():
    given = {"mask": "mask", "fixed": {"seg": 1}}
    x = sc.generate(three_inputs(), 40, how=FEW, **given)
    assert list(x) == ["ids", "mask", "seg"]
    np.testing.assert_array_equal(x["mask"] == 1, x["ids"] != 0)
    assert (x["seg"] == 1).all()
    found = sc.generate(three_inputs(), 20, mask="mask", how=FEW)["seg"]
    assert set(found.ravel()) == {0, 1}
    result = sc.prune(three_inputs(), sparsity=0.5, data=x, mask="mask")
    assert result.report.sparsity == pytest.approx(0.5, abs=0.01)


def test_rows_of_fixed_inputs_are_taken_in_turn():
    rows = np.arange(3)[:, None] * np.ones((3, 8), int)
    x = sc.generate(three_inputs(), 7, mask="mask", fixed={"ids": rows}, how=FEW)
    np.testing.assert_array_equal(x["ids"][:, 0], [0, 1, 2, 0, 1, 2, 0])


def test_subclassed_models_with_a_sigmoid():
    model = Subclassed()
    model(np.zeros((1, 6), "int32"))
    x = sc.generate(model, 40, how=FEW)
    assert x.shape == (40, 6)
    assert x.max() < 25
    assert sc.prune(model, sparsity=0.5, data=x).report.num_zeros == 3


@pytest.mark.parametrize("norm", [False, True])
def test_images(norm):
    model = image_model(norm=norm)
    x = sc.generate(model, 40, how=FEW)
    assert x.shape == (40, 8, 8, 3)
    assert x.dtype == np.float32
    assert sc.prune(model, sparsity=0.5, data=x).report.sparsity == pytest.approx(0.5, abs=0.02)


def test_batch_normalisation_tells_mean_and_scale():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization(), layers.Dense(1)])
    norm = model.layers[0]
    norm.moving_variance.assign(np.full(6, 25.0))
    norm.moving_mean.assign(np.full(6, 2.0))
    x = sc.generate(model, 256, how=sc.Generation(steps=150, number_rate=0.1))
    assert x.std(axis=0).mean() == pytest.approx(5, rel=0.2)
    assert x.mean() == pytest.approx(2, abs=0.5)


def test_preprocessing_tells_the_scale():
    x = np.random.default_rng(0).normal([100, -3], [20, 0.5], (500, 2)).astype("float32")
    norm = layers.Normalization()
    norm.adapt(x)
    model = keras.Sequential([keras.Input((2,)), norm, layers.Dense(4, "relu"), layers.Dense(1)])
    made = sc.generate(model, 500, how=NONE)
    np.testing.assert_allclose(made.mean(axis=0), [100, -3], rtol=0.05)
    np.testing.assert_allclose(made.std(axis=0), [20, 0.5], rtol=0.15)
    pixels = keras.Sequential([keras.Input((4,)), layers.Rescaling(1 / 127.5, -1)])
    pixels.add(layers.Dense(3, "softmax"))
    made = sc.generate(pixels, 500, how=NONE)
    assert made.mean() == pytest.approx(127.5, rel=0.05)
    assert made.std() == pytest.approx(127.5, rel=0.05)


def test_several_outputs_regression_and_logits():
    i = keras.Input((6,))
    h = layers.Dense(8, activation="relu")(i)
    model = keras.Model(i, {"a": classes(h), "b": layers.Dense(1)(h), "c": layers.Dense(4)(h)})
    assert sc.generate(model, 9, how=FEW).shape == (9, 6)
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    x = sc.generate(plain, 64, outputs="logits", how=sc.Generation(steps=60, number_rate=0.2))
    assert np.ptp(np.bincount(plain.predict(x, verbose=0).argmax(1), minlength=4)) < 30
    plain.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    from_loss = sc.generate(plain, 16, how=FEW)
    np.testing.assert_array_equal(from_loss, sc.generate(plain, 16, outputs="logits", how=FEW))


def test_one_hot_and_taken_rows_are_lookups():
    i = keras.Input((5,), dtype="int32")
    model = keras.Model(i, classes(layers.Flatten()(ops.one_hot(i, 7))))
    x = sc.generate(model, 40, tokens=sc.Tokens(padding=None), how=FEW)
    assert set(x.ravel()) == set(range(7))


def test_progress_is_told():
    told = []
    sc.generate(text_model(), 32, how=sc.Generation(steps=20, batch_size=16), progress=told.append)
    assert len(told) == 20
    assert told[0].startswith("generating batch 1 of 2, step 2 of 20: loss ")


def test_what_is_made_trains_a_student_by_its_teachers_outputs():
    teacher = text_model()
    teacher.compile("adam", "categorical_crossentropy")
    x, held = (sc.generate(teacher, 64, seed=seed, how=FEW) for seed in (0, 1))
    held = held[~(held[:, None] == x[None]).all(-1).any(1)]
    y, held_y = (teacher.predict(own, verbose=0) for own in (x, held))
    result = sc.compress(
        teacher,
        train=(x, y),
        validation=(held, held_y),
        metric="loss",
        max_drop=10.0,
        target=sc.Sparsity(0.5),
        tuning=sc.FineTuning(epochs=1, distillation=sc.Distillation(weight=1.0)),
    )
    assert result.model.count_params() == teacher.count_params()


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (lambda: text_model(None), {}, InvalidArgumentError, "shapes={'tokens': "),
        (lambda: text_model(None), {"shapes": {"tokens": (3, 4)}}, InvalidArgumentError, "not fit"),
        (text_model, {"shapes": {"x": (3,)}}, InvalidArgumentError, "No input is called 'x'"),
        (text_model, {"outputs": "words"}, InvalidArgumentError, "outputs is one of"),
        (text_model, {"count": 0}, InvalidArgumentError, "count must be a whole number"),
        (text_model, {"tokens": sc.Tokens(begin=(77,))}, InvalidArgumentError, r"40 ids"),
        (text_model, {"fixed": {"tokens": np.zeros(3)}}, InvalidArgumentError, r"shape \(3,\)"),
        (text_model, {"seed": -1}, InvalidArgumentError, "seed must be a whole number"),
        (text_model, {"tokens": 5}, ArgumentTypeError, "secateur.Tokens, got int"),
        (text_model, {"how": {"steps": 3}}, ArgumentTypeError, "secateur.Generation, got dict"),
        (three_inputs, {}, UnsupportedModelError, "mask='mask'"),
        (lambda: Subclassed(), {}, UnsupportedModelError, "not built|built"),
    ],
)
def test_errors_say_what_to_do(make, options, error, words):
    options = {"count": 8, "how": FEW, **options}
    with pytest.raises(error, match=words):
        sc.generate(make(), **options)


def test_open_sizes_may_be_given():
    assert sc.generate(text_model(None), 8, shapes={"tokens": (4,)}, how=FEW).shape == (8, 4)
    assert sc.generate(text_model(None), 8, shapes=(3,), how=FEW).shape == (8, 3)
    with pytest.raises(InvalidArgumentError, match="give them by name"):
        sc.generate(three_inputs(), 8, shapes=(3,))


def test_strings_are_refused():
    i = keras.Input((1,), dtype="string")
    x = layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)(i)
    model = keras.Model(i, classes(layers.GlobalAveragePooling1D()(layers.Embedding(4, 3)(x))))
    with pytest.raises(UnsupportedModelError, match="strings"):
        sc.generate(model, 4)


def test_a_model_that_says_nothing_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    with pytest.raises(InvalidArgumentError, match="says nothing of the data"):
        sc.generate(model, 4)


def test_a_broken_model_is_named():
    model = image_model()
    model.layers[-1].bias.assign(np.full(3, np.nan))
    with pytest.raises(NonFiniteError, match="batch 1 of 1 became nan"):
        sc.generate(model, 4, how=FEW)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sc.Tokens(side="top"), "side must"),
        (lambda: sc.Tokens(lengths=(3, 2)), "lengths must"),
        (lambda: sc.Tokens(padding=None, lengths=(1, 2)), "padding is None"),
        (lambda: sc.Terms(balance=-1), "balance must"),
        (lambda: sc.Generation(steps=-1), "steps must"),
        (lambda: sc.Generation(token_rate=0), "token_rate must"),
        (lambda: sc.Generation(token_share=0), "token_share must"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_nearest_rows_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    points, rows = (rng.normal(size=(n, 4)).astype("float32") for n in (20, 30))
    gaps = ((points[:, None] - rows[None]) ** 2).sum(-1)
    found, gap = nearest(points, rows)
    np.testing.assert_array_equal(found, gaps.argmin(1))
    np.testing.assert_allclose(gap, gaps.min(1), rtol=1e-4)


def test_tokens_move_to_rows_against_the_gradient():
    rng = np.random.default_rng(0)
    table = np.array([[0.0, 0], [1, 0], [-1, 0], [0, 1]], "float32")
    own = TokenInput((3,), "int32", [table], sc.Tokens())
    own.start(5, rng, Lengths(sc.Tokens(), 5, rng))
    padded = own.values == 0
    for _ in range(40):
        own.step([np.broadcast_to(np.array([1.0, 0]), (5, 3, 2))], 0.2, rng)
    np.testing.assert_array_equal(own.values, np.where(padded, 0, 2))


def test_numbers_move_along_the_gradient_and_keep_their_size():
    rng = np.random.default_rng(0)
    own = FloatInput((6,), "float32", np.float32(2), np.float32(0))
    own.start(10, rng, Lengths(sc.Tokens(), 10, rng))
    direction = np.array([1, 0, 0, 0, 0, 0], "float32")
    for _ in range(60):
        own.step([np.broadcast_to(direction, (10, 6))], 0.05, rng)
    assert (own.values @ direction).max() < 0
    assert np.sqrt((own.values**2).mean()) == pytest.approx(2, rel=1e-5)


def test_the_scale_settles_where_gain_and_cost_are_equal():
    rng = np.random.default_rng(0)
    own = FloatInput((4,), "float32", np.float32(1), np.float32(0), cost=0.5)
    own.start(8, rng, Lengths(sc.Tokens(), 8, rng))
    for _ in range(300):  # the loss is (rms - 2)^2
        x = own.values
        rms = np.sqrt((x**2).mean())
        own.step([2 * (rms - 2) * x / (x.size * rms)], 0.02, rng)
    # Where 2 (rms - 2) rms + cost is 0.
    assert rms == pytest.approx(1 + np.sqrt(1 - 0.5 / 2), rel=0.02)


def test_smooth_noise_is_smooth():
    noise = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype("float32")
    soft = smoothed(noise)
    steps = [np.diff(x, axis=1).std() / x.std() for x in (noise, soft)]
    assert steps[1] < 0.6 * steps[0]
