"""Widths by given times, and times by a given clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.alignment import TOLERANCE, candidates, pick, settle
from secateur.timing import median_times


@given(st.data(), st.integers(1, 600), st.sampled_from([1, 2, 3, 4, 16]))
def test_candidates_never_go_below_what_was_asked_nor_above_the_whole(data, width, span):
    asked = data.draw(st.integers(1, width))
    found = candidates(asked, width, span)
    assert found[0] == asked
    assert found == sorted(set(found))
    assert found[-1] <= width
    assert len(found) <= 5
    for multiple in (4, 8, 16, 32):
        reached = [w for w in range(asked, width) if w * span % multiple == 0]
        assert not reached or reached[0] in found


@given(st.dictionaries(st.integers(1, 100), st.floats(0.1, 10), min_size=1))
def test_what_is_picked_is_as_fast_as_any(times):
    picked = pick(times)
    assert times[picked] <= min(times.values()) * (1 + TOLERANCE)
    if picked % 4 == 0:
        smaller = [w for w in times if w < picked and w % 4 == 0]
        assert all(times[w] > min(times.values()) * (1 + TOLERANCE) for w in smaller)


def test_no_wider_than_needed():
    assert pick({40: 1.0, 48: 1.0, 64: 0.99}) == 40
    assert pick({41: 2.0, 44: 1.0, 48: 1.01, 64: 1.0}) == 44
    assert pick({41: 1.0, 44: 1.02, 48: 1.2}) == 44
    assert pick({41: 1.0, 44: 1.2, 48: 1.2}) == 41


def test_a_cut_that_is_not_faster_is_slow():
    fast = settle({5: 1.0, 8: 1.0, 10: 2.0}, 5, 10)
    assert (fast.kept, fast.slow) == (8, False)
    slow = settle({5: 1.0, 8: 1.0, 10: 1.0}, 5, 10)
    assert slow.slow
    assert slow.note.startswith("not faster here")
    assert settle({5: 9.0, 8: 1.0, 10: 2.0}, 5, 10, fixed=True).kept == 5
    # Where all widths are slower than the whole, what was asked for is cut all the same, and told.
    assert settle({5: 3.0, 8: 3.0, 10: 2.0}, 5, 10).kept == 8


@pytest.mark.parametrize(("seconds", "rounds"), [(float("inf"), 9), (0.0, 3), (14.5, 5)])
def test_rounds_end_with_the_time_but_three_are_made(seconds, rounds):
    now = [0.0]
    made = []

    def one():
        made.append(1)
        now[0] += 1

    def two():
        made.append(2)
        now[0] += 2

    times = median_times([one, two], rounds=9, warmup=0, seconds=seconds, clock=lambda: now[0])
    assert times == [1, 2]
    assert made == [1, 2] * rounds


def test_the_median_forgets_an_interruption():
    now = [0.0]
    steps = iter([1, 50, 1, 1, 1])

    def work():
        now[0] += next(steps)

    assert median_times([work], rounds=5, warmup=0, clock=lambda: now[0]) == [1]
