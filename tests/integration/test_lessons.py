"""Teaching of hidden states, attention and by a judge."""

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.errors import InvalidArgumentError
from secateur.keras.features import Features, default_hidden
from secateur.keras.lessons import Inside, Lessons
from secateur.keras.teaching import Distillation, taught

X = np.random.default_rng(0).normal(size=(48, 6, 8)).astype("float32")
Y = np.zeros((48, 3), "float32")


def net(seed=0, heads=2):
    keras.utils.set_random_seed(seed)
    i = keras.Input((6, 8))
    h = layers.Dense(8, activation="relu", name="first")(i)
    h = h + layers.MultiHeadAttention(heads, 4, name="att")(h, h)
    h = layers.LayerNormalization(name="norm")(h)
    h = layers.GlobalAveragePooling1D()(layers.Dense(16, activation="relu", name="wide")(h))
    return keras.Model(i, layers.Dense(3, name="out")(h))


def test_the_inside_is_what_the_layers_put_out():
    model = net()
    hidden, maps = Features(model, ["wide", "out"], ["att"])(X)
    np.testing.assert_allclose(hidden[1], model(X), rtol=1e-5)
    assert hidden[0].shape == (48, 6, 16)
    assert maps[0].shape == (48, 2, 6, 6)
    np.testing.assert_allclose(np.sum(maps[0], -1), 1, rtol=1e-5)
    assert len(model.get_layer("att")._inbound_nodes) == 1  # nothing is left behind
    assert default_hidden(model, model) == ["first", "norm", "wide", "out"]


def gap(student, teacher, names=("wide",)):
    one, two = (Features(m, names)(X)[0] for m in (student, teacher))
    return float(np.mean(np.square(np.asarray(one[0]) - np.asarray(two[0]))))


def taught_for(student, teacher, inside, epochs=30):
    student.compile(keras.optimizers.Adam(0.01), "mse")
    how = Distillation(weight=0.5, inside=inside)
    with taught(student, teacher, how):
        return student.fit(X, Y, epochs=epochs, batch_size=16, verbose=0).history["loss"]


def test_hidden_states_come_nearer():
    teacher, student = net(1), net(2)
    before = gap(student, teacher)
    taught_for(student, teacher, Inside(hidden=["wide"], hidden_weight=5.0))
    assert gap(student, teacher) < 0.3 * before


def test_a_learned_map_leads_from_a_cut_student_to_its_teacher():
    teacher = net(1)
    student = sc.cut(teacher, X, ratio=0.5, include=["wide", "att"], align=1).model
    assert student.get_layer("wide").units == 8
    lessons = Lessons(student, teacher, Inside(hidden=["wide"], hidden_weight=1.0))
    lessons.build()
    first = float(lessons.loss(X))
    for _ in range(200):
        last = float(lessons.loss(X))
    assert last < 0.5 * first  # the map learns while the student stays as it is
    weights = len(student.trainable_variables)
    taught_for(student, teacher, Inside(hidden=["wide"]), epochs=1)
    assert len(student.trainable_variables) == weights


def test_attention_maps_come_nearer():
    teacher, student = net(1), net(2, heads=4)
    names = ([], ["att"])

    def distance():
        maps = [np.mean(Features(m, *names)(X)[1][0], axis=1) for m in (student, teacher)]
        return float(np.mean((maps[0] - maps[1]) ** 2))

    before = distance()
    inside = Inside(hidden=[], attention=["att"], hidden_weight=0, attention_weight=1000.0)
    taught_for(student, teacher, inside, epochs=60)
    assert distance() < 0.5 * before


def test_a_judge_pulls_the_student_towards_the_teacher():
    teacher, student = net(1), net(2)
    student.get_layer("wide").kernel.assign(student.get_layer("wide").kernel * 10.0)
    before = abs(float(np.mean(Features(student, ["wide"])(X)[0][0])) - mean_of(teacher))
    inside = Inside(hidden=["wide"], hidden_weight=0, adversarial_weight=1.0, learning_rate=0.01)
    taught_for(student, teacher, inside, epochs=80)
    after = abs(float(np.mean(Features(student, ["wide"])(X)[0][0])) - mean_of(teacher))
    assert after < before


def mean_of(model):
    return float(np.mean(Features(model, ["wide"])(X)[0][0]))


def test_what_does_not_fit_is_told():
    with pytest.raises(InvalidArgumentError, match="called 0 times"):
        Features(net(), ["nowhere"])
    with pytest.raises(InvalidArgumentError, match="no MultiHeadAttention"):
        Features(net(), [], ["wide"])
    with pytest.raises(InvalidArgumentError, match="names no layers"):
        Inside(attention_weight=1.0)
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        Inside(hidden_weight=-1)
