from typing import Any

import numpy.typing as npt

# runtime
def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def simd() -> str: ...
def detected_simd() -> str: ...
def set_simd(name: str) -> None: ...

# packing and sparse: arrays hold raw bits as unsigned integers, C-contiguous
PACKING_CHUNK: int

def nonzero_offsets(array: npt.NDArray[Any], by_value: bool, offsets: npt.NDArray[Any]) -> int: ...
def bitmask_pack(
    array: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    bits: npt.NDArray[Any],
    values: npt.NDArray[Any],
) -> None: ...
def bitmask_offsets(bits: npt.NDArray[Any], size: int, offsets: npt.NDArray[Any]) -> bool: ...
def bitmask_unpack(
    bits: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    values: npt.NDArray[Any],
    out: npt.NDArray[Any],
) -> None: ...
def csr16_pack(
    array: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    values: npt.NDArray[Any],
) -> None: ...
def csr16_unpack(
    offsets: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    values: npt.NDArray[Any],
    out: npt.NDArray[Any],
) -> bool: ...
def bitmask_to_csr32(
    bits: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    cols: int,
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
) -> None: ...
def bitmask_to_csr64(
    bits: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    cols: int,
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
) -> None: ...
def csr16_to_csr32(
    offsets: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    cols: int,
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
) -> bool: ...
def csr16_to_csr64(
    offsets: npt.NDArray[Any],
    positions: npt.NDArray[Any],
    cols: int,
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
) -> bool: ...
def dense_to_csr32(
    matrix: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    values: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
) -> None: ...
def dense_to_csr64(
    matrix: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    values: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
) -> None: ...
def dense_to_csr_once32(
    matrix: npt.NDArray[Any],
    offsets: npt.NDArray[Any],
    values: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
) -> int: ...
def csr_to_dense32(
    values: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
    out: npt.NDArray[Any],
    zeros: bool,
) -> int: ...
def csr_to_dense64(
    values: npt.NDArray[Any],
    indices: npt.NDArray[Any],
    indptr: npt.NDArray[Any],
    out: npt.NDArray[Any],
    zeros: bool,
) -> int: ...
