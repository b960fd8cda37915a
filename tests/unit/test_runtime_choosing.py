"""Which kernels are tried for a matrix, and which is taken."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from secateur.runtime.choosing import Chooser, Matrix, candidates, time_best


def matrix(density: float, height: int = 1, size: tuple[int, int] = (128, 256)) -> Matrix:
    rng = np.random.default_rng(0)
    keep = rng.random((size[0], size[1] // height)) < density
    kernel = rng.standard_normal(size).astype(np.float32) * np.repeat(keep, height, axis=1)
    return Matrix("m", kernel, None)


def two_of_four() -> Matrix:
    kernel = np.ones((128, 256), np.float32)
    kernel[::2] = 0
    return Matrix("m", kernel, None)


@pytest.mark.parametrize(
    ("made", "rows", "expected"),
    [
        (matrix(0.1), 1, ["lookup", "bitmask"]),
        (matrix(0.1), 4, ["blocked 1x1", "lookup", "bitmask"]),
        (matrix(0.1), 100, ["blocked 1x1"]),
        (matrix(0.02), 1, ["lookup", "csr"]),
        (matrix(0.5), 1, ["lookup", "bitmask"]),
        (matrix(0.5), 12, ["blocked 1x1", "bitmask"]),
        (two_of_four(), 1, ["lookup", "n:m"]),
        (matrix(0.1, 4), 100, ["blocked 4x1"]),
        (matrix(0.1, 8), 100, ["blocked 8x1"]),
        (matrix(0.8), 100, []),
        (matrix(0.8), 4, ["bitmask"]),
        (matrix(0.95), 4, []),
        (matrix(0.1, size=(16, 16)), 100, []),
        (matrix(0.1), 0, []),
    ],
)
def test_few_kernels_are_tried(made: Matrix, rows: int, expected: list[str]) -> None:
    if expected == ["blocked 1x1"]:
        assert made.height == 1
    assert candidates(made, rows) == expected


class Clock:
    """A timer that says what it is told, and counts."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.calls = 0

    def __call__(self, run: Callable[[], object], before: Callable[[], object]) -> float:
        before()
        run()
        self.calls += 1
        return self.seconds.pop(0)


def test_the_fastest_is_taken_and_dense_has_the_benefit_of_the_doubt() -> None:
    assert Chooser(Clock(1.0, 0.5)).kernel(matrix(0.1), 100).name == "blocked 1x1"
    assert Chooser(Clock(1.0, 0.97)).kernel(matrix(0.1), 100).name == "dense"
    assert Chooser(Clock(1.0, 0.5, 0.4, 0.6)).kernel(matrix(0.1), 4).name == "lookup"


def test_alike_matrices_are_decided_on_once_and_others_anew() -> None:
    clock = Clock(*[1.0, 0.5] * 3)
    chooser = Chooser(clock)
    one, two = matrix(0.1), matrix(0.1)
    assert chooser.kernel(one, 100) is chooser.kernel(one, 100)
    assert chooser.kernel(two, 100).name == "blocked 1x1"
    assert clock.calls == 2
    assert chooser.kernel(matrix(0.4), 100).name == "blocked 1x1"
    assert chooser.kernel(two, 50).name == "blocked 1x1"
    assert clock.calls == 6


def test_what_is_not_chosen_is_freed() -> None:
    made = matrix(0.1)
    Chooser(Clock(1.0, 0.5, 0.4, 0.6)).kernel(made, 4)
    assert set(made.packed) == {"lookup"}


def test_with_few_rows_the_other_weights_pass_by_before_each_run() -> None:
    passed = []

    def timer(run: Callable[[], object], before: Callable[[], object]) -> float:
        run()
        passed.append(before() is not None)
        return 1.0

    chooser = Chooser(timer, model_bytes=1 << 20)
    chooser.kernel(matrix(0.1), 1)
    assert passed == [True, True, True]
    chooser.kernel(matrix(0.1), 100)
    assert passed == [True, True, True, False, False]
    chooser.release()


def test_runs_are_timed_a_few_times() -> None:
    calls = []
    seconds = time_best(lambda: calls.append("run"), lambda: calls.append("before"))
    assert 0 <= seconds < 1
    assert calls[0] == "run"
    assert calls.count("before") == calls.count("run") - 1 >= 2
