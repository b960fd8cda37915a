from typing import Any

from numpy.typing import NDArray

PACKING_CHUNK: int

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def simd() -> str: ...
def detected_simd() -> str: ...
def set_simd(name: str) -> None: ...
def nonzero_offsets(array: NDArray[Any], by_value: bool, offsets: NDArray[Any]) -> int: ...
def bitmask_pack(
    array: NDArray[Any], offsets: NDArray[Any], bits: NDArray[Any], values: NDArray[Any]
) -> None: ...
def bitmask_offsets(bits: NDArray[Any], size: int, offsets: NDArray[Any]) -> bool: ...
def bitmask_unpack(
    bits: NDArray[Any], offsets: NDArray[Any], values: NDArray[Any], out: NDArray[Any]
) -> None: ...
def csr16_pack(
    array: NDArray[Any], offsets: NDArray[Any], positions: NDArray[Any], values: NDArray[Any]
) -> None: ...
def csr16_unpack(
    offsets: NDArray[Any], positions: NDArray[Any], values: NDArray[Any], out: NDArray[Any]
) -> bool: ...
def bitmask_to_csr32(
    bits: NDArray[Any],
    offsets: NDArray[Any],
    cols: int,
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> None: ...
def bitmask_to_csr64(
    bits: NDArray[Any],
    offsets: NDArray[Any],
    cols: int,
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> None: ...
def csr16_to_csr32(
    offsets: NDArray[Any],
    positions: NDArray[Any],
    cols: int,
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> bool: ...
def csr16_to_csr64(
    offsets: NDArray[Any],
    positions: NDArray[Any],
    cols: int,
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> bool: ...
def dense_to_csr32(
    matrix: NDArray[Any],
    offsets: NDArray[Any],
    values: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> None: ...
def dense_to_csr64(
    matrix: NDArray[Any],
    offsets: NDArray[Any],
    values: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> None: ...
def csr_to_dense32(
    values: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    out: NDArray[Any],
    zeros: bool,
) -> int: ...
def csr_to_dense64(
    values: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    out: NDArray[Any],
    zeros: bool,
) -> int: ...
