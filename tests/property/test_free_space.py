"""Space of a file is never given out twice, and never lost."""

from hypothesis import given
from hypothesis import strategies as st

from secateur.activation_store import FreeSpace


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=60))
def test_parts_never_overlap(steps):
    space, taken = FreeSpace(), []
    for takes, number in steps:
        if takes or not taken:
            offset = space.take(number)
            for start, size in taken:
                assert offset + number <= start or start + size <= offset
            assert offset + number <= space.end
            taken.append((offset, number))
        else:
            space.release(*taken.pop(number % len(taken)))
    for part in taken:
        space.release(*part)
    end = space.end
    if end:
        assert space.take(end) == 0
