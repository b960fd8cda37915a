from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secateur._kernels.native import codec, runtime
from secateur._kernels.reference import codec as reference
from secateur._kernels.reference import packing as plain
from secateur.errors import InvalidArgumentError

CHUNK = reference.CHUNK
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int8, np.int32, np.uint16]
FLOATS = DTYPES[:4]
SIZES = [0, 1, 7, 8, 15, 16, 17, 31, 33, 64, 65, 300, 4095, 4096, 4131]
DENSITIES = [0.0, 0.02, 0.3, 1.0]

pytestmark = pytest.mark.usefixtures("every_setting")


def assert_same(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes()


def make(size: int, dtype: Any, density: float, seed: int = 0) -> NDArray[Any]:
    """Weights as training leaves them, with the bits that are easily lost among them."""
    rng = np.random.default_rng([seed, size])
    array = (rng.standard_normal(size) * 40).astype(dtype)
    array[rng.random(size) >= density] = 0
    if size > 16 and density == 0.3 and np.dtype(dtype) in map(np.dtype, FLOATS):
        raw = array.view(f"u{array.itemsize}")
        top = 8 * array.itemsize - 1
        # -0.0, the smallest subnormal, NaNs with payloads, infinity
        raw[:3] = [1 << top, 1, (1 << top) - 1]
        array[3] = np.inf
        raw[4] = raw[3] + 5
    return array


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_array_comes_back_and_the_oracle_reads_it(dtype: Any) -> None:
    for size in SIZES:
        for density in DENSITIES:
            array = make(size, dtype, density)
            coded = codec.encode(array)
            assert codec.least_bytes(size) <= coded.size <= codec.least_bytes(size) + array.nbytes
            assert_same(codec.decode(coded, size, dtype), array)
            if runtime.simd() == "scalar" and runtime.num_threads() == 1:
                assert_same(reference.decode(coded, size, dtype), array)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("density", [0.01, 0.5])
def test_shared_tables_are_as_the_oracle_reads_them(dtype: Any, density: float) -> None:
    array = make(2 * CHUNK + 77, dtype, density)
    array[CHUNK : CHUNK + 3000] = 0
    coded = codec.encode(array)
    assert coded[0] != 0
    assert_same(codec.decode(coded, array.size, dtype), array)
    if runtime.simd() == "scalar" and runtime.num_threads() == 1:
        assert_same(reference.decode(coded, array.size, dtype), array)


FORMS = {
    reference.EMPTY: 0.0,
    reference.FULL: 1.0,
    reference.MASK: 0.3,
    reference.MASK_ANS: 0.02,
    reference.GAPS: 0.02,
    reference.RAW: 0.3,
}


@pytest.mark.parametrize("values", [reference.UNCODED, reference.PLANES, reference.PALETTE])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: int, values: int) -> None:
    for dtype in (np.float32, np.int16, np.uint8):
        for size in (40, 1000, CHUNK + 40):
            if size > CHUNK and form in (reference.FULL, reference.RAW):
                continue  # the oracle takes its time
            array = make(size, dtype, FORMS[form])
            if form == reference.FULL:
                array[array == 0] = 1
            if form == reference.GAPS:  # which are of something
                array[[3, -1]] = 1
            if values == reference.PALETTE:  # at most 256 of them
                small = np.clip(np.abs(np.nan_to_num(array)), 1, 99).astype(np.uint8)
                array = np.where(array == 0, 0, small).astype(dtype)
            coded = reference.encode(array, form, values)
            assert_same(codec.decode(coded, size, dtype), array)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("cols", [1, 5, 17, 4096, CHUNK + 3])
def test_matrices_turn_into_csr(cols: int, index: Any) -> None:
    rows = max(1, (CHUNK + 500) // cols)
    for density in (0.0, 0.02, 0.6):
        matrix = make(rows * cols, np.float32, density, seed=cols).reshape(rows, cols)
        coded = codec.encode(matrix)
        places = np.flatnonzero(plain.nonzero_bits(matrix))
        expected = plain.places_to_csr(places, (rows, cols))
        data, *indices = codec.decode_csr(coded, (rows, cols), np.float32, index)
        assert_same(data, matrix.reshape(-1)[places])
        for actual, wanted in zip(indices, expected, strict=True):
            assert_same(actual, wanted.astype(index))


def test_a_csr_array_of_it_is_canonical() -> None:
    matrix = make(300 * 40, np.float64, 0.3)[1:].copy()
    matrix = np.nan_to_num(matrix[: 299 * 40].reshape(299, 40), posinf=3)
    parts = codec.decode_csr(codec.encode(matrix), matrix.shape, np.float64)
    csr = scipy.sparse.csr_array(parts, shape=matrix.shape)
    csr.check_format(full_check=True)
    np.testing.assert_array_equal(csr.toarray(), matrix)


@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint32, np.int64, np.float32]), st.integers(0, 300)
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_array_comes_back(array: NDArray[Any]) -> None:
    assert_same(codec.decode(codec.encode(array), array.size, array.dtype), array)


def test_floats_that_came_from_half_as_many_bits_take_no_more_than_those() -> None:
    half = make(CHUNK, ml_dtypes.bfloat16, 0.5)
    wide = half.astype(np.float32)
    assert codec.encode(wide).size <= codec.encode(half).size * 1.01


def test_values_that_repeat_cost_what_tells_them_apart() -> None:
    """Eight bits of quantisation leave eight bits, whatever the scale is."""
    rng = np.random.default_rng(0)
    levels = rng.integers(-120, 121, 2 * CHUNK)
    weights = (levels * 0.0123 / 120).astype(np.float32)
    coded = codec.encode(weights)
    assert_same(codec.decode(coded, weights.size, np.float32), weights)
    assert coded.size * 8 / weights.size < np.log2(241) * 1.03


@pytest.mark.parametrize("palette", [[5, 5, 9], [9, 5, 1], [1, 2]], ids=["same", "falls", "short"])
def test_a_palette_rises_and_has_what_is_asked_of_it(palette: list[int]) -> None:
    array = np.tile(np.array([1, 2, 3], np.uint32), 50)
    good = reference.encode(array, reference.FULL, reference.PALETTE)
    assert good[13] == 2
    front = good[:14].copy()
    front[13] = len(palette) - 1
    items = np.array(palette, np.uint32).view(np.uint8)
    bad = np.concatenate([front, items, good[26:]])
    bad[1:5] = np.array([bad.size - 5], np.uint32).view(np.uint8)
    assert "values" in refused(bad, array.size, np.uint32)


def test_repeating_masks_cost_next_to_nothing() -> None:
    """2 of 4 has one bit of freedom in three that a mask of ones and zeros would take."""
    rng = np.random.default_rng(0)
    order = np.argsort(rng.random((CHUNK // 4, 4)), axis=1)
    array = np.where(order < 2, 1, 0).astype(np.float32).reshape(-1)
    # log2(6) / 4 bits for each place, and nothing for values that are all the same.
    assert codec.encode(array).size * 8 / CHUNK < np.log2(6) / 4 * 1.05


# ---- Bytes that no encoder made ----


def refused(coded: NDArray[np.uint8], size: int, dtype: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        codec.decode(coded, size, dtype)
    return str(caught.value)


def test_each_fault_is_named() -> None:
    array = make(3000, np.float32, 0.3)
    array[:5] = 0
    good = reference.encode(array, reference.MASK)

    def changed(place: int, value: int) -> NDArray[np.uint8]:
        coded = good.copy()
        coded[place] = value
        return coded

    assert "take at least 13 coded bytes, got 3" in refused(good[:3], 3000, np.float32)
    assert "lengths" in refused(good[:-1], 3000, np.float32)
    assert "lengths" in refused(np.append(good, np.uint8(0)), 3000, np.float32)
    assert "frequency table" in refused(changed(0, 1), 3000, np.float32)
    assert "header" in refused(changed(0, 8), 3000, np.float32)
    assert "header" in refused(changed(5, 7), 3000, np.float32)
    assert "header" in refused(good, 100, np.float32)
    assert "positions" in refused(changed(13, 0xFF), 3000, np.float32)
    assert "checksum" in refused(changed(9, good[9] ^ 1), 3000, np.float32)
    assert "checksum" in refused(changed(-1, good[-1] ^ 1), 3000, np.float32)
    raw = reference.encode(array, reference.MASK, reference.UNCODED)
    zero = raw.copy()
    zero[-4:] = 0
    assert "values" in refused(zero, 3000, np.float32)


@pytest.mark.parametrize("place", range(14, 24))
def test_plans_with_bits_that_no_code_has_are_refused(place: int) -> None:
    """Of values that are all the same every bit of the plan counts."""
    coded = reference.encode(np.full(50, 1.5, np.float32), reference.FULL)
    assert coded[13:15].tolist() == [22, 0]
    coded = coded.copy()
    coded[place] ^= 0x80
    refused(coded, 50, np.float32)


def test_a_size_that_could_never_be_costs_no_memory() -> None:
    coded = codec.encode(np.zeros(100, np.float32))
    assert "take at least" in refused(coded, 2**50, np.float32)


def test_arrays_that_do_not_fit_never_reach_a_kernel() -> None:
    from secateur import _core

    coded = codec.encode(np.arange(10, dtype=np.uint32))
    offsets, out = np.array([0, 9], np.uint64), np.empty(10, np.uint32)
    frozen = out.copy()
    frozen.flags.writeable = False
    for call in [
        (coded.view(np.int8), 0, offsets, out),
        (coded[::2], 0, offsets, out),
        (coded, 3, offsets, out),
        (coded, -1, offsets, out),
        (coded, 0, offsets[:1], out),
        (coded, 0, offsets[::-1].copy(), out),
        (coded, 0, offsets, frozen),
        (coded, 0, offsets, out.view(np.float32)),
    ]:
        with pytest.raises(ValueError, match=r"must|wrong dtype"):
            _core.codec_decode(*call)


def test_strided_arrays_are_refused_with_the_mend() -> None:
    with pytest.raises(InvalidArgumentError, match="ascontiguousarray"):
        codec.encode(np.ones((4, 4), np.float32)[:, ::2])
