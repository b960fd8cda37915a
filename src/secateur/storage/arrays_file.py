"""Save and load named arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from secateur._kernels.native import packing
from secateur.errors import ArgumentTypeError, FileFormatError, InvalidArgumentError
from secateur.sparse import csr_from_parts, is_sparse, to_dense
from secateur.storage import encodings
from secateur.storage.atomic import replacing
from secateur.storage.container import (
    DTYPES,
    MAX_DIMS,
    MAX_HEADER_BYTES,
    RESERVED_NAME,
    Container,
    booleans_are_sound,
    open_container,
    write_container,
)
from secateur.storage.manifest import (
    KEY,
    Header,
    Manifest,
    Part,
    TensorInfo,
    checksum,
    read_manifest,
    to_text,
    version_for,
)
from secateur.storage.rounding import ShortFloat, check_short_float, is_rounded, round_values

StrPath: TypeAlias = str | os.PathLike[str]
_T = TypeVar("_T")


# ---- Saving ----


def _check_name(name: object) -> str:
    if not isinstance(name, str):
        raise ArgumentTypeError(f"Arrays are named by strings, got {name!r}.")
    # The container's header would write control characters as \u001f, where another case of the
    # hexadecimal digits means the same: a flipped bit that no one could see.
    if name == RESERVED_NAME or any(char < " " for char in name):
        raise InvalidArgumentError(
            f"An array cannot be named {name!r}; control characters and {RESERVED_NAME!r} are "
            "refused."
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"The name {name!r} is not valid Unicode: it holds half of a surrogate pair."
        ) from error
    return name


def _check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    checked = dict(metadata or {})
    for key, text in checked.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise ArgumentTypeError(
                f"metadata maps strings to strings, got {key!r}: {type(text).__name__}; "
                "json.dumps makes a string of most things."
            )
    return checked


def storable(name: str, given: object) -> NDArray[Any]:
    """The array as the container wants it: itself, or a copy if it is strided or byte-swapped."""
    dense = to_dense(given) if is_sparse(given) else given
    if not isinstance(dense, np.ndarray) or isinstance(dense, np.ma.MaskedArray):
        raise ArgumentTypeError(
            f"Array {name!r} must be a NumPy array or a SciPy sparse array, got "
            f"{type(given).__name__}; numpy.asarray makes one of most things."
        )
    if dense.dtype.name not in DTYPES:
        raise InvalidArgumentError(
            f"Array {name!r} has dtype {dense.dtype}, which cannot be stored; convert it with "
            f".astype to one of {', '.join(DTYPES)}."
        )
    if dense.ndim > MAX_DIMS:
        raise InvalidArgumentError(
            f"Array {name!r} has {dense.ndim} dimensions, at most {MAX_DIMS} can be stored."
        )
    array = np.asarray(dense, DTYPES[dense.dtype.name], order="C")
    if not booleans_are_sound(array):
        raise InvalidArgumentError(
            f"Array {name!r} is boolean, but some of its bytes are neither 0 nor 1; "
            ".view('uint8').astype(bool) mends it."
        )
    return array


def _free_name(wanted: str, taken: set[str]) -> str:
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def _part_names(name: str, encoding: encodings.Encoding, taken: set[str]) -> list[str]:
    """Dense arrays keep their name, so that any reader of safetensors files finds them."""
    if encoding == "dense":
        return [name]
    return [_free_name(f"{name}:{role}", taken) for role in encodings.ROLES[encoding]]


def check_profile(profile: object, values: object) -> None:
    """Raise unless a profile and what values are rounded to exist and go together.

    Raises:
        InvalidArgumentError: They do not.
    """
    if profile not in ("fast", "small"):
        raise InvalidArgumentError(f"profile must be 'fast' or 'small', got {profile!r}.")
    if values is None:
        return
    check_short_float(values)
    if profile != "small":
        raise InvalidArgumentError(
            f"values={values!r} needs profile='small': the profile 'fast' would lose the bits and "
            "keep the size."
        )


def _encode_all(
    arrays: Mapping[str, NDArray[Any]], profile: encodings.Profile, values: ShortFloat | None
) -> tuple[list[TensorInfo], list[tuple[Part, ...]], dict[str, NDArray[Any]]]:
    taken = {_check_name(name) for name in arrays}
    infos: list[TensorInfo] = []
    groups: list[tuple[Part, ...]] = []
    stored: dict[str, NDArray[Any]] = {}
    for name, given in arrays.items():
        array, rounding = storable(name, given), None
        if values is not None and is_rounded(array):
            array, rounding = round_values(name, array, values)
        encoding, parts, nonzeros = encodings.encode(array, profile)
        names = _part_names(name, encoding, taken)
        stored.update(zip(names, parts, strict=True))
        num_bytes = sum(part.nbytes for part in parts)
        infos.append(
            TensorInfo(name, array.shape, array.dtype, encoding, num_bytes, nonzeros, rounding)
        )
        groups.append(tuple(map(Part, names, map(checksum, parts))))
    return infos, groups, stored


def save_arrays(
    path: StrPath,
    arrays: Mapping[str, NDArray[Any]],
    *,
    metadata: Mapping[str, str] | None = None,
    profile: encodings.Profile = "fast",
    values: ShortFloat | None = None,
) -> Header:
    """Save named arrays to one safetensors file, each in the encoding that takes least room.

    The profile "fast" stores each array dense, as one bit per element and the non-zeros, or as
    16-bit positions and the non-zeros: parts that other readers of safetensors files can map. The
    profile "small" entropy-codes positions and values, chunk by chunk. All are lossless by bits:
    -0.0 and NaNs come back as they were. The same arrays give the same bytes. The file is written
    under a temporary name, synced and renamed: a crash leaves the old file or the new one.

    Extra memory: the packed form of what is not stored dense, and a copy of what is strided,
    byte-swapped, rounded or a SciPy array. Contiguous arrays that are stored dense are written from
    their own memory.

    Args:
        path: The file to write, commonly named `*.safetensors`. A symbolic link is followed; an
            existing file's permissions are kept.
        arrays: Name to array, of any shape. Booleans, integers, float16, bfloat16, float32, float64
            or complex64. SciPy sparse arrays are stored as the dense ones they stand for.
        metadata: Strings to keep with them, given back by `read_header`.
        profile: "fast", or "small" for files near the entropy of what is in them.
        values: Round float32 and float64 arrays of two axes or more to "float16" or "bfloat16"
            first. They keep their dtype, and lose bits: what it cost is in `rounding` of the
            result's tensors and in the file. Needs profile="small". None keeps every bit.

    Returns:
        What is in the file now, as `read_header` gives it.

    Raises:
        ArgumentTypeError: A name, an array or a metadata entry is of a type that cannot be stored.
        InvalidArgumentError: A dtype or name that cannot be stored, an unknown profile, or weights
            too large for `values`.
        OSError: The system refuses to write; the old file is left as it was.

    Example:
        >>> path = getfixture("tmp_path") / "w.safetensors"
        >>> save_arrays(path, {"w": np.eye(300)}, profile="small").tensors[0].encoding
        'coded'
    """
    if not isinstance(arrays, Mapping):
        raise ArgumentTypeError(
            f"arrays must map names to arrays, got {type(arrays).__name__}; "
            "dict(enumerate(...)) with names of your own makes one of a list."
        )
    checked = _check_metadata(metadata)
    check_profile(profile, values)
    infos, groups, stored = _encode_all(arrays, profile, values)
    header = Header(version_for(infos), checked, tuple(infos))
    text = to_text(Manifest(header, tuple(groups)))
    if 2 * len(text) > MAX_HEADER_BYTES:
        raise InvalidArgumentError(
            f"Names and metadata take {len(text):,} bytes, more than the header of a safetensors "
            f"file can hold ({MAX_HEADER_BYTES // 2:,}); store them in a file of their own."
        )
    with replacing(Path(path)) as temporary:
        write_container(temporary, stored, {KEY: text})
    return header


# ---- Loading ----


def _read_parts(
    container: Container, info: TensorInfo, parts: tuple[Part, ...]
) -> dict[str, NDArray[Any]]:
    arrays = {}
    for role, part in zip(encodings.ROLES[info.encoding], parts, strict=True):
        array = container.read(part.name)
        if part.checksum is not None and part.checksum != checksum(array):
            raise FileFormatError(f"the bytes of {part.name!r} do not fit their checksum")
        arrays[role] = array
    nonzeros = encodings.count_nonzeros(info.encoding, info.shape, info.dtype, arrays)
    if info.nonzeros is not None and nonzeros != info.nonzeros:
        raise FileFormatError("the number of non-zeros is not what the manifest says")
    return arrays


def _comes_as_csr(info: TensorInfo) -> bool:
    # SciPy's sparse arrays have no half types.
    return (
        len(info.shape) == 2
        and info.dtype.name in _CSR_DTYPES
        and encodings.is_stored_sparse(info.encoding, info.shape, info.dtype, info.nonzeros or 0)
    )


_CSR_DTYPES = ("float32", "float64")


def _decoded_bytes(info: TensorInfo, dense: bool) -> int:
    if dense or not _comes_as_csr(info):
        return info.dense_bytes
    rows, cols = info.shape
    nonzeros = info.nonzeros or 0
    index = packing.index_dtype(rows, cols, nonzeros).itemsize
    return nonzeros * (info.dtype.itemsize + index) + (rows + 1) * index


def _decode(container: Container, info: TensorInfo, parts: tuple[Part, ...], dense: bool) -> Any:
    def work() -> Any:
        arrays = _read_parts(container, info, parts)
        if dense or not _comes_as_csr(info):
            array = encodings.decode(info.encoding, info.shape, info.dtype, arrays)
            if not booleans_are_sound(array):
                raise FileFormatError("it has booleans that are neither 0 nor 1")
            return array
        rows, cols = info.shape
        return csr_from_parts(
            *encodings.decode_csr(info.encoding, (rows, cols), info.dtype, arrays), (rows, cols)
        )

    where = f"{container.path}: tensor {info.name!r}"
    try:
        return work()
    except (FileFormatError, InvalidArgumentError) as error:
        raise FileFormatError(f"{where} is damaged: {error}") from error
    except MemoryError as error:
        raise FileFormatError(
            f"{where} declares {info.dense_bytes:,} bytes, more than there is memory for."
        ) from error


def _chosen(manifest: Manifest, names: Iterable[str] | None) -> Manifest:
    if names is None:
        return manifest
    if isinstance(names, str):
        raise ArgumentTypeError(f"names must be several names, got the string {names!r}.")
    wanted = set(names)
    known = {info.name for info in manifest.header.tensors}
    if unknown := wanted - known:
        raise InvalidArgumentError(
            f"No tensors named {sorted(unknown)} in the file; it has {sorted(known)}."
        )
    pairs = [
        (info, parts)
        for info, parts in zip(manifest.header.tensors, manifest.parts, strict=True)
        if info.name in wanted
    ]
    header = Header(
        manifest.header.version, manifest.header.metadata, tuple(info for info, _ in pairs)
    )
    return Manifest(header, tuple(parts for _, parts in pairs))


def _check_bytes(path: Path, declared: int, max_bytes: int | None) -> None:
    if max_bytes is not None and declared > max_bytes:
        raise FileFormatError(
            f"{path} declares {declared:,} bytes of arrays, more than max_bytes={max_bytes:,}; "
            "raise max_bytes if you trust the file, or name the tensors you need."
        )


def _with_manifest(path: StrPath, use: Callable[[Container, Manifest], _T]) -> _T:
    where = Path(path)
    with open_container(where) as container:
        try:
            manifest = read_manifest(container.metadata, container.entries)
        except FileFormatError as error:
            raise FileFormatError(f"{where}: {error}") from error
        return use(container, manifest)


def load_arrays(
    path: StrPath,
    *,
    dense: bool = False,
    names: Iterable[str] | None = None,
    max_bytes: int | None = None,
) -> dict[str, Any]:
    """Load the arrays of a file written by `save_arrays`, or of any safetensors file.

    Files of ours are checked to the last bit of what is loaded; other safetensors files have no
    checksums, so of them only the structure is.

    Args:
        path: The file.
        dense: Give NumPy arrays only. Otherwise matrices of float32 or float64 that are stored
            sparse come as `scipy.sparse.csr_array`, without ever being dense; -0.0 is an explicit
            entry of it.
        names: Load these only, and touch only their part of the file; all by default.
        max_bytes: Refuse files that declare more than this many bytes of arrays. A hostile file of
            a few kilobytes can declare gigabytes of zeros; without this limit they are given to it.

    Returns:
        Name to array, in the order they were saved in. The arrays are the caller's own, writeable.

    Raises:
        FileNotFoundError: No such file.
        FileFormatError: The file is truncated, damaged, hostile, of a newer format or too large.
        InvalidArgumentError: The file has no tensor of a name asked for.

    Example:
        >>> path = getfixture("tmp_path") / "w.safetensors"
        >>> _ = save_arrays(path, {"w": np.eye(100, dtype=np.float32)})
        >>> load_arrays(path)["w"].nnz
        100
    """

    def work(container: Container, manifest: Manifest) -> dict[str, Any]:
        chosen = _chosen(manifest, names)
        infos = chosen.header.tensors
        _check_bytes(container.path, sum(_decoded_bytes(i, dense) for i in infos), max_bytes)
        return {
            info.name: _decode(container, info, parts, dense)
            for info, parts in zip(infos, chosen.parts, strict=True)
        }

    return _with_manifest(path, work)


def read_header(path: StrPath) -> Header:
    """What is in a file, without decoding it: names, shapes, dtypes, encodings, sizes and metadata.

    Args:
        path: A file written by `save_arrays`, or any safetensors file.

    Raises:
        FileNotFoundError: No such file.
        FileFormatError: The header is truncated, damaged, hostile or of a newer format.

    Example:
        >>> path = getfixture("tmp_path") / "w.safetensors"
        >>> _ = save_arrays(path, {"w": np.eye(100, dtype=np.float32)}, metadata={"by": "me"})
        >>> header = read_header(path)
        >>> header.metadata["by"], header.tensors[0].encoding, header.tensors[0].nonzeros
        ('me', 'csr16', 100)
    """
    return _with_manifest(path, lambda _, manifest: manifest.header)
