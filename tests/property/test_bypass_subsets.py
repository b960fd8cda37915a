"""Any set of parts that can be bypassed together, with any cut of units, gives a proven model."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import secateur as sc
from secateur.errors import InvalidArgumentError

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning",
    "ignore:Nothing was cut",
    "ignore:Of .* units that were to go",
    "ignore:Model .* has no",
)

KINDS = ("branch", "layer", "block", "neuron", "head", "unit", "channel")


def grown(steps):
    """A model grown step by step from a stream of (time, 8)."""
    i = keras.Input((4, 8))
    x = i
    for step in steps:
        x = STEPS[step](x)
    return keras.Model(i, layers.Dense(2)(layers.Flatten()(x)))


def attention(x):
    h = layers.LayerNormalization()(x)
    return x + layers.MultiHeadAttention(2, 4)(h, h)


STEPS = {
    "dense": lambda x: layers.Dense(8, "relu")(x),
    "residual": lambda x: x + layers.Dense(8)(layers.Dense(16, "relu")(x)),
    "post_norm": lambda x: layers.LayerNormalization()(layers.Add()([x, layers.Dense(8)(x)])),
    "attention": attention,
    "gate": lambda x: x * layers.Dense(8, "sigmoid")(x),
    "average": lambda x: layers.Average()(
        [x, layers.Dense(8)(x), layers.LSTM(8, return_sequences=True)(x)]
    ),
    "two_arms": lambda x: layers.Dense(8)(x) + layers.Conv1D(8, 3, padding="same")(x),
    "minus": lambda x: layers.Dense(8)(x) - layers.Dense(8, "tanh")(x),
    "nested": lambda x: x + STEPS["residual"](layers.Dense(8)(x)),
}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=4), st.data())
def test_any_subset_is_proven(steps, data):
    keras.utils.set_random_seed(0)
    model = grown(steps)
    plan = sc.plan_cut(model, ratio=0.0, granularity=KINDS, align=1)
    free = [bypass.name for bypass in plan.bypasses if not bypass.why]
    chosen = data.draw(st.sets(st.sampled_from(free))) if free else set()
    for name in sorted(chosen):
        try:
            plan = plan.edit(name, True)
        except InvalidArgumentError as error:
            assert "one must stay" in str(error)  # noqa: PT017
    for group in plan.groups:
        if not group.why and group.width > 1:
            plan = plan.edit(group.name, range(group.width // 2))
    result = plan.apply()
    assert result.proof.difference <= 1e-4
    assert result.model.count_params() <= model.count_params()
    x = np.random.default_rng(0).normal(size=(3, 4, 8)).astype("float32")
    assert result.model(x).shape == (3, 2)
    again = sc.bind_plan(sc.CutPlan.from_json(plan.to_json()), model).apply()
    np.testing.assert_array_equal(again.model(x), result.model(x))
