import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import InvalidArgumentError
from secateur.schedules import SCHEDULES, Constant, Cubic, Linear


@given(
    kind=st.sampled_from(sorted(SCHEDULES)),
    final=st.floats(0, 1),
    begin=st.integers(0, 50),
    length=st.integers(0, 50),
)
def test_schedules_grow_from_initial_to_final(kind, final, begin, length):
    schedule = SCHEDULES[kind](final, begin + length, begin, final / 2)
    values = [schedule.at(step) for step in range(begin, begin + length + 2)]
    assert values == sorted(values)
    assert values[-1] == final
    assert values[0] == pytest.approx(final if length == 0 else final / 2)
    assert schedule.at(begin - 1) == (0.0 if begin else schedule.at(-1))


def test_cubic_is_zhu_and_guptas_formula():
    schedule = Cubic(0.9, end=110, begin=10, initial=0.2)
    for step in (10, 35, 60, 109):
        expected = 0.9 + (0.2 - 0.9) * (1 - (step - 10) / 100) ** 3
        assert schedule.at(step) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Linear(1.5, 10), "final is a fraction"),
        (lambda: Linear(0.5, 10, initial=0.6), "initial=0.6 must not"),
        (lambda: Linear(0.5, 10, begin=11), "lies before begin=11"),
        (lambda: Constant(-0.1), "final is a fraction"),
        (lambda: Constant(0.1, begin=-1), "begin must be"),
    ],
)
def test_senseless_schedules_are_refused(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()
