from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur._kernels.native import packing
from secateur._kernels.reference import packing as reference
from secateur.errors import InvalidArgumentError

CHUNK = packing.CHUNK
TAILS = [0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 1000]
EDGES = [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 77]
DTYPES = [np.uint8, np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
DENSITIES = [0.0, 0.02, 0.5, 0.97, 1.0]

pytestmark = pytest.mark.usefixtures("every_setting")


def assert_same(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


def make(size: int, dtype: Any, density: float, seed: int = 0) -> NDArray[Any]:
    """Random bits, so that -0.0, NaNs with payloads, infinities and subnormals are all in it."""
    rng = np.random.default_rng([seed, size])
    kind = np.dtype(dtype)
    raw = rng.integers(1, 256, (size, kind.itemsize), np.uint8)
    raw[rng.random(size) >= density] = 0
    if size > 2:
        raw[1] = 0
        raw[1, -1] = 0x80
    return raw.view(kind).reshape(size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", TAILS + EDGES)
def test_both_encodings_equal_the_oracle_and_come_back(size: int, dtype: Any) -> None:
    for density in DENSITIES:
        array = make(size, dtype, density)
        assert packing.count_nonzero_bits(array) == reference.count_nonzero_bits(array)
        bits, values = packing.bitmask_pack(array)
        for got, expected in zip((bits, values), reference.bitmask_pack(array), strict=True):
            assert_same(got, expected)
        assert_same(packing.bitmask_unpack(bits, values, size), array)
        packed = packing.csr16_pack(array)
        for got, expected in zip(packed, reference.csr16_pack(array), strict=True):
            assert_same(got, expected)
        assert_same(packing.csr16_unpack(*packed, size), array)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("cols", [1, 2, 5, 8, 15, 16, 17, 64, 65, 4096, CHUNK + 3])
def test_packed_matrices_turn_into_csr(cols: int, index: Any) -> None:
    rows = max(1, (CHUNK + 500) // cols)
    for density in DENSITIES:
        matrix = make(rows * cols, np.float32, density, seed=cols).reshape(rows, cols)
        places = np.flatnonzero(reference.nonzero_bits(matrix))
        expected = reference.places_to_csr(places, (rows, cols))
        bits, values = packing.bitmask_pack(matrix)
        counts, positions, _ = packing.csr16_pack(matrix)
        for got in (
            packing.bitmask_to_csr(bits, values.size, (rows, cols), index),
            packing.csr16_to_csr(counts, positions, (rows, cols), index),
        ):
            for actual, wanted in zip(got, expected, strict=True):
                assert_same(actual, wanted.astype(index))


@given(array=hnp.arrays(st.sampled_from([np.uint16, np.uint32, np.uint64]), st.integers(0, 300)))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_array_comes_back(array: NDArray[Any]) -> None:
    bits, values = packing.bitmask_pack(array)
    assert_same(packing.bitmask_unpack(bits, values, array.size), array)
    assert_same(packing.csr16_unpack(*packing.csr16_pack(array), array.size), array)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_bits_from_outside_are_taken_or_refused_by_their_count(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 140))
    bits = data.draw(hnp.arrays(np.uint8, -(-size // 8)))
    num_values = data.draw(st.integers(0, 140))
    values = np.arange(1, num_values + 1, dtype=np.float32)
    marked = np.unpackbits(bits, bitorder="little")
    if marked[size:].any() or marked.sum() != num_values:
        with pytest.raises(InvalidArgumentError):
            packing.bitmask_unpack(bits, values, size)
    else:
        expected = reference.bitmask_unpack(bits, values, size)
        assert_same(packing.bitmask_unpack(bits, values, size), expected)


@pytest.mark.parametrize("num_bytes", [1, 3])
def test_a_mask_of_another_length_is_refused(num_bytes: int) -> None:
    with pytest.raises(InvalidArgumentError, match="16 elements has 2 bytes"):
        packing.bitmask_unpack(np.zeros(num_bytes, np.uint8), np.zeros(0, np.float32), 16)


BAD_POSITIONS = {
    "repeated": [3, 3],
    "falling": [4, 3],
    "past the end": [3, CHUNK // 2],
    "far past the end": [3, CHUNK - 1],
}


@pytest.mark.parametrize("positions", BAD_POSITIONS.values(), ids=BAD_POSITIONS)
@pytest.mark.parametrize("chunk", [0, 1])
def test_bad_positions_are_refused(positions: list[int], chunk: int) -> None:
    size = CHUNK + CHUNK // 2
    if chunk == 0 and positions[1] >= CHUNK // 2:
        positions = [positions[1], 3]
    counts = np.zeros(2, np.uint32)
    counts[chunk] = 2
    values = np.ones(2, np.float32)
    found = np.array(positions, np.uint16)
    with pytest.raises(InvalidArgumentError, match="strictly increase"):
        packing.csr16_unpack(counts, found, values, size)
    with pytest.raises(InvalidArgumentError, match="strictly increase"):
        packing.csr16_to_csr(counts, found, (size, 1))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([2], "2 chunks"),
        ([1, 2, 0], "2 chunks"),
        ([1, 2], "sum to 3"),
        ([CHUNK + 1, 1], "at most 65536"),
        ([2**32 - 1, 3], "at most 65536"),
    ],
)
def test_bad_counts_are_refused(counts: list[int], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        packing.csr16_unpack(
            np.array(counts, np.uint32),
            np.array([0, 1], np.uint16),
            np.ones(2, np.float32),
            CHUNK + 5,
        )


def test_strided_arrays_are_refused_with_the_mend() -> None:
    with pytest.raises(InvalidArgumentError, match="ascontiguousarray"):
        packing.bitmask_pack(np.ones((4, 4), np.float32)[:, ::2])


def test_arrays_that_do_not_fit_never_reach_a_kernel() -> None:
    from secateur import _core

    array, offsets = np.ones(10, np.uint32), np.array([0, 10], np.uint64)
    bits, values = np.empty(2, np.uint8), np.empty(10, np.uint32)
    frozen = values.copy()
    frozen.flags.writeable = False
    bad_calls = [
        (array, offsets, bits, values[:9]),
        (array, offsets, bits[:1], values),
        (array, offsets, bits, frozen),
        (array, offsets[:1], bits, values),
        (array, np.array([1, 10], np.uint64), bits, values),
        (array, offsets.view(np.int64), bits, values),
        (array.view(np.float32), offsets, bits, values),
        (array, offsets, bits, values.view(np.uint16)),
        (array[::2], offsets, bits, values),
    ]
    for call in bad_calls:
        with pytest.raises(ValueError, match=r"must|wrong dtype"):
            _core.bitmask_pack(*call)
