"""Distillation: what the student's loss becomes, and that it helps."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy.special import rel_entr, softmax

from secateur.errors import InvalidArgumentError
from secateur.keras.teaching import Distillation, distance, output_kinds, taught

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(32, 5)).astype("float32")


def net(activation, units=3, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((5,)), layers.Dense(units, activation=activation)])


def test_distance_of_distributions_is_hintons():
    one, two = GENERATOR.normal(size=(2, 7, 4)).astype("float32")
    expected = 4.0 * rel_entr(softmax(one / 2, -1), softmax(two / 2, -1)).sum(-1).mean()
    assert float(distance(one, two, "logits", 2.0)) == pytest.approx(expected, rel=1e-4)
    as_given = distance(softmax(one, -1), softmax(two, -1), "probabilities", 2.0)
    assert float(as_given) == pytest.approx(expected, rel=1e-3)


def test_distance_of_yes_and_no():
    one, two = GENERATOR.uniform(0.05, 0.95, size=(2, 7, 1)).astype("float32")
    expected = (rel_entr(one, two) + rel_entr(1 - one, 1 - two)).mean()
    assert float(distance(one, two, "sigmoid")) == pytest.approx(expected, rel=1e-4)
    assert float(distance(one, two, "values")) == pytest.approx(((one - two) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [("softmax", "probabilities"), ("sigmoid", "sigmoid"), (None, "values"), ("relu", "values")],
)
def test_kinds_of_outputs(activation, kind):
    assert output_kinds(net(activation)) == [kind]


def test_the_teachers_part_of_the_loss_counts_in_training_only():
    student, teacher = net("softmax", seed=1), net("softmax", seed=2)
    student.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    y = np.zeros(32, "int32")
    own = student.evaluate(X, y, batch_size=32, verbose=0)
    with taught(student, teacher, Distillation(weight=0.25, temperature=3.0)):
        mixed = student.fit(X, y, batch_size=32, verbose=0).history["loss"][0]
        assert student.evaluate(X, y, batch_size=32, verbose=0) == pytest.approx(own)
    far = float(distance(teacher(X), student(X), "probabilities", 3.0))
    assert mixed == pytest.approx(0.75 * own + 0.25 * far, rel=1e-4)
    after = student.fit(X, y, batch_size=32, verbose=0).history["loss"][0]
    assert after == pytest.approx(own, rel=1e-5)


def test_a_student_learns_what_only_the_teacher_knows():
    teacher, student = net(None, seed=1), net(None, seed=2)
    student.compile(keras.optimizers.Adam(0.05), "mse")
    targets = np.zeros((32, 3), "float32")
    with taught(student, teacher, Distillation(weight=1.0)):
        student.fit(X, targets, epochs=120, batch_size=32, verbose=0)
    np.testing.assert_allclose(
        student.predict(X, verbose=0), teacher.predict(X, verbose=0), atol=0.1
    )


def test_what_does_not_fit_is_told():
    with (
        pytest.raises(InvalidArgumentError, match="not compiled"),
        taught(net(None), net(None), Distillation()),
    ):
        pass
    student = net(None)
    student.compile("sgd", "mse")
    with (
        pytest.raises(InvalidArgumentError, match="must be the same"),
        taught(student, net(None, units=4), Distillation()),
    ):
        pass
    for options in ({"weight": 1.1}, {"temperature": 0}, {"outputs": "odd"}):
        with pytest.raises(InvalidArgumentError, match=next(iter(options))):
            Distillation(**options)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = net("softmax", seed=3)

    def call(self, x):
        return self.inner(x)


def test_a_subclassed_teacher_teaches_and_a_subclassed_student_is_refused():
    student, teacher = net("softmax", seed=1), Subclassed()
    x = np.ones((8, 5), "float32")
    teacher(x)
    student.compile("sgd", "sparse_categorical_crossentropy")
    with taught(student, teacher, Distillation(weight=1.0)):
        student.fit(x, np.zeros(8), epochs=2, verbose=0)
    teacher.compile("sgd", "sparse_categorical_crossentropy")
    with (
        pytest.raises(InvalidArgumentError, match="is subclassed"),
        taught(teacher, student, Distillation()),
    ):
        pass
