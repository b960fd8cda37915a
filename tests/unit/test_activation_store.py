"""The store of activations: budget, file, reuse of space."""

import errno
import os

import ml_dtypes
import numpy as np
import pytest

from secateur.activation_store import ActivationStore, FreeSpace
from secateur.errors import InvalidArgumentError


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.arange(12.0).reshape(3, 4).T,
        np.array([[True, False]]),
        np.arange(6).astype(ml_dtypes.bfloat16),
        np.array(3.5),
        np.zeros((0, 4), np.float32),
        np.array(["a", "bc"], dtype=object),
    ],
    ids=["floats", "transposed", "bools", "bfloat16", "scalar", "empty", "strings"],
)
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_gives_back_what_it_took(array, budget):
    with ActivationStore(budget) as store:
        store.put("a", array)
        found = store.get("a")
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        np.testing.assert_array_equal(found, array)
        spills = budget == 0 and array.nbytes > 0 and array.dtype != object
        assert store.num_spilled == spills


def test_keeps_to_its_budget_and_gives_it_back():
    with ActivationStore(budget=100) as store:
        for number in range(5):
            store.put(number, np.full(10, number, np.float32))  # 40 bytes each
        assert store.in_memory == 80
        assert store.num_spilled == 3
        assert store.file_size == 120
        store.drop(0)
        store.put("new", np.zeros(15, np.float32))
        assert store.in_memory == 100
        for number in range(1, 5):
            np.testing.assert_array_equal(store.get(number), np.full(10, number))


def test_space_of_dropped_arrays_is_used_again():
    with ActivationStore(budget=0) as store:
        for turn in range(20):
            for number in range(4):
                store.put((turn, number), np.full(8, turn * 4 + number, np.float64))
            if turn:
                for number in range(4):
                    assert store.get((turn - 1, number))[0] == (turn - 1) * 4 + number
                    store.drop((turn - 1, number))
        assert store.file_size == 8 * 64
        assert len(store) == 4


def test_the_file_has_no_name_and_goes_with_the_store(tmp_path):
    with ActivationStore(budget=0, folder=tmp_path) as store:
        store.put("a", np.ones(1000))
        if os.name == "posix":
            assert not list(tmp_path.iterdir())
        file = store._file
        assert not file.closed
    assert file.closed
    assert not list(tmp_path.iterdir())
    assert len(store) == 0
    assert "a" not in store


def test_the_file_goes_when_an_error_comes(tmp_path):
    store = ActivationStore(budget=0, folder=tmp_path)
    store.put("a", np.ones(10))
    with pytest.raises(KeyError), store:
        store.get("b")
    assert store._file is None


def test_a_key_is_taken_once():
    store = ActivationStore()
    store.put("a", np.ones(3))
    with pytest.raises(InvalidArgumentError, match="drop it first"):
        store.put("a", np.ones(3))
    with pytest.raises(InvalidArgumentError, match="at least 0"):
        ActivationStore(budget=-1)


def test_a_full_disk_says_what_to_do(monkeypatch):
    store = ActivationStore(budget=0)

    def no_room(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("secateur.activation_store._write_all", no_room)
    with store, pytest.raises(OSError, match="max_samples") as caught:
        store.put("a", np.ones(10))
    assert caught.value.errno == errno.ENOSPC


def test_gaps_are_joined():
    space = FreeSpace()
    parts = [space.take(10) for _ in range(4)]
    for part in (parts[0], parts[2], parts[1]):
        space.release(part, 10)
    assert space.take(30) == 0
    assert space.end == 40
