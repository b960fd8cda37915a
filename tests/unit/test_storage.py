from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import scipy.sparse
from numpy.typing import NDArray

from secateur.errors import ArgumentTypeError, FileFormatError, InvalidArgumentError
from secateur.storage import (
    Profile,
    Rounding,
    ShortFloat,
    load_arrays,
    read_header,
    save_arrays,
)
from secateur.storage.container import DTYPES
from secateur.storage.encodings import FAST_ENCODINGS, encoded_bytes, smallest_encoding

SHAPES = [(), (0,), (1,), (7,), (3, 0, 2), (64, 65), (300, 251), (2, 3, 5, 7), (1,) * 32]


def make(shape: tuple[int, ...], dtype: Any, density: float) -> NDArray[Any]:
    rng = np.random.default_rng([len(shape), int(density * 100)])
    array = (rng.standard_normal(shape) * 20).astype(dtype)
    return np.asarray(np.where(rng.random(shape) < density, array, np.zeros((), dtype)), dtype)


def assert_same(actual: Any, expected: NDArray[Any]) -> None:
    dense = actual.toarray() if scipy.sparse.issparse(actual) else actual
    assert isinstance(dense, np.ndarray)
    assert (dense.dtype, dense.shape) == (expected.dtype, expected.shape)
    assert dense.tobytes() == expected.tobytes()
    assert dense.flags.writeable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "arrays.safetensors"


@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("profile", ["fast", "small"])
def test_every_dtype_and_shape_comes_back_bit_for_bit(
    path: Path, dtype: Any, profile: Profile
) -> None:
    arrays = {
        f"{shape} {density}": make(shape, dtype, density)
        for shape in SHAPES
        for density in (0.0, 0.03, 0.4, 1.0)
    }
    header = save_arrays(path, arrays, profile=profile)
    assert header == read_header(path)
    assert header.version == (1 if profile == "fast" else 2)
    for dense in (True, False):
        loaded = load_arrays(path, dense=dense)
        assert list(loaded) == list(arrays)
        for name, array in arrays.items():
            assert_same(loaded[name], array)
    infos = read_header(path).tensors
    expected = FAST_ENCODINGS if profile == "fast" else ("dense", "coded")
    assert {info.encoding for info in infos} == set(expected)
    for info, array in zip(infos, arrays.values(), strict=True):
        assert (info.shape, info.dtype) == (array.shape, array.dtype)
        raw = array.reshape(-1).view(f"u{array.dtype.itemsize}")
        assert info.nonzeros == np.count_nonzero(raw)
        assert info.dense_bytes == array.nbytes
        assert info.stored_bytes <= array.nbytes


@pytest.mark.parametrize("profile", ["fast", "small"])
def test_negative_zeros_and_nan_payloads_survive(path: Path, profile: Profile) -> None:
    bits = np.zeros((100, 100), np.uint32)
    bits[3, :4] = [0x80000000, 0x7FC12345, 0xFF800001, 0x00000001]
    array = bits.view(np.float32)
    save_arrays(path, {"w": array}, profile=profile)
    assert read_header(path).tensors[0].encoding == ("csr16" if profile == "fast" else "coded")
    assert_same(load_arrays(path, dense=True)["w"], array)
    sparse = load_arrays(path)["w"]
    assert sparse.nnz == 4
    assert sparse.data.tobytes() == array[3, :4].tobytes()


@pytest.mark.parametrize("profile", ["fast", "small"])
@pytest.mark.parametrize("density", [0.02, 0.3])
def test_sparse_matrices_come_as_csr_arrays(path: Path, density: float, profile: Profile) -> None:
    arrays = {dtype: make((200, 333), dtype, density) for dtype in DTYPES if dtype[0] == "f"}
    arrays["bfloat16"] = make((200, 333), ml_dtypes.bfloat16, density)
    arrays["tensor"] = make((20, 30, 40), np.float32, density)
    arrays["full"] = make((60, 50), np.float32, 1)
    save_arrays(path, arrays, profile=profile)
    for name, array in load_arrays(path).items():
        if name in ("float32", "float64"):
            assert isinstance(array, scipy.sparse.csr_array)
            assert array.has_canonical_format
            array.check_format(full_check=True)
            expected = scipy.sparse.csr_array(arrays[name])
            assert np.array_equal(array.indices, expected.indices)
            assert np.array_equal(array.indptr, expected.indptr)
            assert array.indices.dtype == np.int32
        else:
            assert isinstance(array, np.ndarray)
        assert_same(array, arrays[name])


@pytest.mark.parametrize("profile", ["fast", "small"])
def test_what_was_loaded_can_be_saved_again(path: Path, profile: Profile) -> None:
    arrays = {"sparse": make((200, 333), np.float32, 0.1), "dense": make((9, 9), np.float32, 1)}
    save_arrays(path, arrays, metadata={"a": "b"}, profile=profile)
    first = path.read_bytes()
    save_arrays(path, load_arrays(path), metadata={"a": "b"}, profile=profile)
    assert path.read_bytes() == first


@pytest.mark.parametrize("form", ["coo", "csc", "bsr"])
def test_any_sparse_array_is_saved_as_what_it_stands_for(path: Path, form: str) -> None:
    dense = make((40, 40), np.float64, 0.1)
    save_arrays(path, {"w": scipy.sparse.csr_array(dense).asformat(form)})
    assert_same(load_arrays(path, dense=True)["w"], dense)


def test_strided_and_byte_swapped_arrays_come_back_in_plain_order(path: Path) -> None:
    base = make((60, 80), np.float32, 0.7)
    arrays = {"t": base.T, "s": base[::3, ::-2], "b": base.astype(">f4"), "o": base[:, 0]}
    save_arrays(path, arrays)
    for name, array in load_arrays(path, dense=True).items():
        assert array.dtype == np.float32
        assert array.dtype.isnative
        assert np.array_equal(array, arrays[name])


def test_the_bytes_are_the_same_each_time(path: Path, tmp_path: Path) -> None:
    arrays = {f"layer{i}": make((40, 50), np.float32, 0.1 * i) for i in range(8)}
    metadata = {f"key{i}": "text" for i in range(20)}
    save_arrays(path, arrays, metadata=metadata)
    other = tmp_path / "other"
    save_arrays(other, arrays, metadata=dict(reversed(metadata.items())))
    assert path.read_bytes() == other.read_bytes()


def test_metadata_come_back(path: Path) -> None:
    metadata = {"": "", "config": '{"a": "\\u00e9"}\n\x00', "é\U0001f333": "中文", "half": "\ud800"}
    save_arrays(path, {}, metadata=metadata)
    header = read_header(path)
    assert header.metadata == metadata
    assert header.version == 1
    assert header.tensors == ()
    assert load_arrays(path) == {}


def test_names_that_look_like_parts_do_not_clash(path: Path) -> None:
    sparse, dense = make((90, 90), np.float32, 0.2), np.ones(3)
    arrays = {"w": sparse, "w:bits": dense, "w:values": sparse, "w:bits_": dense, "": sparse}
    arrays |= {"é/中 文\\\"'": sparse, "secateur": dense}
    save_arrays(path, arrays)
    loaded = load_arrays(path, dense=True)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert_same(loaded[name], array)


def test_only_the_named_tensors_are_read(path: Path) -> None:
    arrays = {"a": make((90, 90), np.float32, 0.2), "b": np.arange(100.0), "c": np.ones(3)}
    save_arrays(path, arrays)
    raw = path.read_bytes()
    damaged = raw.replace(arrays["b"].tobytes(), arrays["b"][::-1].tobytes())
    assert damaged != raw
    path.write_bytes(damaged)
    assert list(load_arrays(path, names=["c", "a"])) == ["a", "c"]
    assert load_arrays(path, names=[]) == {}
    with pytest.raises(FileFormatError, match=r"'b' is damaged.*checksum"):
        load_arrays(path, names=["b"])
    with pytest.raises(InvalidArgumentError, match="'nope'"):
        load_arrays(path, names=["nope"])
    with pytest.raises(ArgumentTypeError, match="several names"):
        load_arrays(path, names="a")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ([np.ones(3)], ArgumentTypeError, "map names to arrays"),
        ({1: np.ones(3)}, ArgumentTypeError, "named by strings"),
        ({"a": [1.0]}, ArgumentTypeError, "numpy.asarray"),
        ({"a": np.float32(1)}, ArgumentTypeError, "numpy.asarray"),
        ({"a": np.ma.masked_array([1.0])}, ArgumentTypeError, "NumPy array"),
        ({"a": np.array(["x"])}, InvalidArgumentError, "astype"),
        ({"a": np.array([None])}, InvalidArgumentError, "astype"),
        ({"a": np.ones(2, np.complex128)}, InvalidArgumentError, "astype"),
        ({"a": np.ones(2, np.longdouble)}, InvalidArgumentError, "astype"),
        ({"a": np.array([2], np.uint8).view(bool)}, InvalidArgumentError, "neither 0 nor 1"),
        ({"a\n": np.ones(2)}, InvalidArgumentError, "control characters"),
        ({"__metadata__": np.ones(2)}, InvalidArgumentError, "__metadata__"),
        ({"\ud800": np.ones(2)}, InvalidArgumentError, "surrogate"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(
    path: Path, arrays: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        save_arrays(path, arrays)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, {"a": b"x"}])
def test_metadata_of_other_types_are_refused(path: Path, metadata: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="strings to strings"):
        save_arrays(path, {}, metadata=metadata)


def test_metadata_larger_than_a_header_are_refused(path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="header of a safetensors file"):
        save_arrays(path, {}, metadata={"a": "x" * 51_000_000})
    assert not path.exists()


# ---- Size ----


@pytest.mark.parametrize(
    ("sparsity", "limit"), [(0.5, 17.1), (0.8, 7.5), (0.9, 4.3), (0.95, 2.6), (0.99, 0.6)]
)
def test_bits_per_weight(path: Path, sparsity: float, limit: float) -> None:
    rng = np.random.default_rng(5)
    array = rng.standard_normal((1024, 1024)).astype(np.float32)
    array.reshape(-1)[rng.permutation(array.size)[: round(sparsity * array.size)]] = 0
    save_arrays(path, {"kernel": array})
    assert 8 * path.stat().st_size / array.size <= limit


# Random positions and normal values, so H(p) + density x 26.46 is the limit, and within 2 % of it.
@pytest.mark.parametrize(
    ("sparsity", "limit"), [(0.0, 27), (0.5, 14.5), (0.8, 6.15), (0.9, 3.19), (0.95, 1.65)]
)
def test_bits_per_weight_of_the_small_profile(path: Path, sparsity: float, limit: float) -> None:
    rng = np.random.default_rng(5)
    array = rng.standard_normal((1024, 1024)).astype(np.float32)
    array.reshape(-1)[rng.permutation(array.size)[: round(sparsity * array.size)]] = 0
    (info,) = save_arrays(path, {"kernel": array}, profile="small").tensors
    assert info.bits_per_weight <= 8 * path.stat().st_size / array.size <= limit
    assert_same(load_arrays(path, dense=True)["kernel"], array)


def test_the_encoding_taken_is_the_smallest(path: Path) -> None:
    for nonzeros in range(0, 5001, 100):
        array = np.zeros(5000, np.float16)
        array[:nonzeros] = 1
        sizes = {}
        for encoding in FAST_ENCODINGS:
            sizes[encoding] = encoded_bytes(encoding, array.shape, array.dtype, nonzeros)
        chosen = smallest_encoding(array.shape, array.dtype, nonzeros)
        # A margin for the header's entries, of which packed tensors have two or three.
        assert sizes[chosen] <= min(sizes.values()) + 512
        save_arrays(path, {"a": array})
        info = read_header(path).tensors[0]
        assert (info.encoding, info.stored_bytes) == (chosen, sizes[chosen])


def test_the_small_profile_is_never_much_larger_than_the_arrays(path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {str(n): rng.integers(1, 2**32, n, np.uint32) for n in (1, 7, 100, 70_000)}
    infos = save_arrays(path, arrays, profile="small").tensors
    for info in infos:
        assert info.stored_bytes <= info.dense_bytes
    for name, array in load_arrays(path).items():
        assert_same(array, arrays[name])


def test_many_small_arrays_are_no_larger_than_the_dense_ones_by_much(path: Path) -> None:
    arrays = {f"layer_{i}/bias": make((32,), np.float32, 0.5) for i in range(100)}
    save_arrays(path, arrays)
    assert {info.encoding for info in read_header(path).tensors} == {"dense"}


# ---- Rounding ----


@pytest.mark.parametrize("values", ["float16", "bfloat16"])
def test_rounded_values_load_with_their_dtype_and_say_what_it_cost(
    path: Path, values: ShortFloat
) -> None:
    arrays = {
        "kernel": make((300, 200), np.float32, 0.3) / np.float32(500),
        "wide": make((60, 50), np.float64, 1),
        "half": make((60, 50), np.float16, 1),
        "bias": make((200,), np.float32, 1),
        "count": np.array(7),
    }
    exact = save_arrays(path, arrays, profile="small").tensors
    header = save_arrays(path, arrays, profile="small", values=values)
    assert read_header(path) == header
    loaded = load_arrays(path, dense=True)
    short = np.float16 if values == "float16" else ml_dtypes.bfloat16
    for before, after in zip(exact, header.tensors, strict=True):
        array = arrays[after.name]
        if after.name not in ("kernel", "wide"):
            assert after.rounding is None
            assert_same(loaded[after.name], array)
            continue
        assert_same(loaded[after.name], array.astype(short).astype(array.dtype))
        assert after.stored_bytes < 0.75 * before.stored_bytes
        assert after.rounding is not None
        given, got = array[array != 0].astype(float), loaded[after.name][array != 0]
        assert after.rounding.values == values
        assert after.rounding.num_zeroed == np.count_nonzero(got == 0)
        assert after.rounding.max_relative_error == pytest.approx(
            np.abs((got - given) / given).max()
        )
        assert after.rounding.rms_relative_error == pytest.approx(
            np.sqrt(((got - given) ** 2).sum() / (given**2).sum())
        )
        assert f"rounded to {values}" in str(after.rounding)


def test_weights_that_become_zero_are_counted(path: Path) -> None:
    array = np.array([[1, 1e-20, 0, np.nan, np.inf, -0.0]], np.float32)
    (info,) = save_arrays(path, {"w": array}, profile="small", values="float16").tensors
    assert info.rounding == Rounding("float16", 1.0, pytest.approx(1e-20), 1)
    back = load_arrays(path, dense=True)["w"]
    np.testing.assert_array_equal(back, [[1, 0, 0, np.nan, np.inf, 0]])
    assert np.signbit(back[0, 5])


def test_weights_that_a_half_cannot_reach_are_refused_with_the_mend(path: Path) -> None:
    array = np.array([[1, 70_000]], np.float32)
    with pytest.raises(InvalidArgumentError, match=r"'w' has values up to 7e\+04.*bfloat16"):
        save_arrays(path, {"w": array}, profile="small", values="float16")
    assert not path.exists()
    save_arrays(path, {"w": array}, profile="small", values="bfloat16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"profile": "tiny"}, "'fast' or 'small', got 'tiny'"),
        ({"profile": "small", "values": "float8"}, "'float16', 'bfloat16', or None"),
        ({"values": "float16"}, "needs profile='small'"),
    ],
)
def test_profiles_and_values_that_are_none_are_refused(
    path: Path, arguments: Any, message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        save_arrays(path, {"w": np.eye(3)}, **arguments)


# ---- Other people's files ----


def test_plain_safetensors_files_are_read(path: Path) -> None:
    arrays = {
        "w": make((50, 60), np.float32, 0.1),
        "b": make((5,), ml_dtypes.bfloat16, 1),
        "n": np.arange(4),
        "e": np.zeros((0, 3), np.float16),
    }
    safetensors.numpy.save_file(arrays, path, metadata={"format": "np", "x": "y"})
    loaded = load_arrays(path)
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert isinstance(loaded[name], np.ndarray)
        assert_same(loaded[name], array)
    header = read_header(path)
    assert header.version is None
    assert header.metadata == {"format": "np", "x": "y"}
    by_name = {info.name: info for info in header.tensors}
    assert by_name["w"].encoding == "dense"
    assert by_name["w"].stored_bytes == 50 * 60 * 4
    assert by_name["w"].nonzeros is None


def test_dense_tensors_of_ours_are_read_by_others(path: Path) -> None:
    array = make((50, 60), np.float32, 1)
    save_arrays(path, {"w": array})
    assert_same(safetensors.numpy.load_file(path)["w"], array)


def test_a_plain_file_of_a_dtype_that_numpy_lacks_is_refused_by_name(path: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones(3, ml_dtypes.float8_e4m3fn)}, path)
    with pytest.raises(FileFormatError, match=r"'w' has dtype F8_E4M3.*F32"):
        load_arrays(path)


def test_a_missing_file_is_a_missing_file(path: Path) -> None:
    for read in (load_arrays, read_header):
        with pytest.raises(FileNotFoundError) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        load_arrays(tmp_path)


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileFormatError, match="not a regular file"):
        load_arrays(pipe)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" * 10, b"\xff" * 100, b"{}" * 50])
def test_files_of_other_formats_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="not a whole safetensors file"):
        load_arrays(path)


def test_strings_and_path_objects_name_files_alike(path: Path) -> None:
    save_arrays(str(path), {"a": np.ones(3)})
    assert_same(load_arrays(str(path))["a"], np.ones(3))
    assert read_header(str(path)) == read_header(path)
