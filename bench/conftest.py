"""Sizes, the weights that all steps share, and the table after the run."""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest

from secateur._kernels.native import runtime
from table import Entry, Figure, figure_table, time_table
from yardstick import Yardstick

ENTRIES = pytest.StashKey[list[Entry]]()
FIGURES = pytest.StashKey[list[Figure]]()
COLUMNS = 32
SPARSITY = 0.9

# Our own step needs Keras there, so without it there is nothing to measure.
collect_ignore = [] if find_spec("keras") else ["test_keras.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("secateur")
    group.addoption(
        "--num-weights",
        type=int,
        default=8192 * 8192,
        help="float32 weights in the array of every step (default 67,108,864)",
    )
    group.addoption(
        "--rounds", type=int, default=7, help="rounds of every step, each beside its own T"
    )
    group.addoption("--no-rivals", action="store_true", help="do not run the other tools")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ENTRIES] = []
    config.stash[FIGURES] = []
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="session")
def side(pytestconfig: pytest.Config) -> int:
    """Rows and columns of the matrix: a multiple of 32, so that every pattern divides it."""
    wanted = pytestconfig.getoption("--num-weights")
    return max(COLUMNS, int(wanted**0.5) // COLUMNS * COLUMNS)


@pytest.fixture(scope="session")
def weights(side: int) -> np.ndarray:
    """Normal weights, (side, side) float32, read-only."""
    array = np.random.default_rng(0).standard_normal((side, side), dtype=np.float32)
    array.flags.writeable = False
    return array


@pytest.fixture(scope="session")
def num_removed(weights: np.ndarray) -> int:
    return round(SPARSITY * weights.size)


@pytest.fixture(scope="session")
def threshold(weights: np.ndarray, num_removed: int) -> np.float32:
    """The magnitude that NumPy ranks first among those that stay."""
    return np.partition(np.abs(weights).ravel(), num_removed)[num_removed]


@pytest.fixture(scope="session")
def kept(weights: np.ndarray, threshold: np.float32, num_removed: int) -> np.ndarray:
    """The exact mask at 90 % zeros, made by NumPy: of equals the earlier go first."""
    magnitudes = np.abs(weights)
    mask = magnitudes >= threshold
    ties = np.flatnonzero(magnitudes == threshold)
    mask.ravel()[ties[: num_removed - (mask.size - np.count_nonzero(mask))]] = False
    return mask


@pytest.fixture(scope="session")
def pruned(weights: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The weights at 90 % zeros, read-only."""
    array = np.where(kept, weights, np.float32(0))
    array.flags.writeable = False
    return array


@pytest.fixture
def yardstick(benchmark, weights: np.ndarray, pytestconfig: pytest.Config) -> Yardstick:
    rounds = pytestconfig.getoption("--rounds")
    rivals = not pytestconfig.getoption("--no-rivals")
    return Yardstick(benchmark, weights, pytestconfig.stash[ENTRIES], rounds, rivals)


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> list[Figure]:
    return pytestconfig.stash[FIGURES]


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if config.stash[ENTRIES]:
        terminalreporter.section("times beside T, one pass that only reads the weights")
        terminalreporter.write_line(
            f"{config.getoption('--num-weights'):,} float32, {runtime.num_threads()} threads, "
            f"{runtime.simd()}"
        )
        for line in time_table(config.stash[ENTRIES]):
            terminalreporter.write_line(line)
        if not find_spec("keras"):
            terminalreporter.write_line("Keras is not installed: sc.prune(model) was not measured.")
    if config.stash[FIGURES]:
        terminalreporter.section("other figures")
        for line in figure_table(config.stash[FIGURES]):
            terminalreporter.write_line(line)
