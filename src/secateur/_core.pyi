from typing import Any

from numpy.typing import NDArray

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def simd() -> str: ...
def detected_simd() -> str: ...
def set_simd(name: str) -> None: ...
def all_finite(matrix: NDArray[Any], dtype: int) -> bool: ...
def squared_sums(
    matrix: NDArray[Any],
    dtype: int,
    reduce_inner: bool,
    weights: NDArray[Any] | None,
    sums: NDArray[Any],
) -> bool: ...
def scaled_magnitude(
    matrix: NDArray[Any],
    dtype: int,
    transposed: bool,
    row_scale: NDArray[Any] | None,
    col_scale: NDArray[Any] | None,
    root_sum: bool,
    out: NDArray[Any],
) -> bool: ...
def block_scores(
    matrix: NDArray[Any],
    dtype: int,
    transposed: bool,
    rows: int,
    cols: int,
    l1: bool,
    scores: NDArray[Any],
) -> bool: ...
def nm_mask(
    matrix: NDArray[Any],
    dtype: int,
    transposed: bool,
    n: int,
    m: int,
    by_value: bool,
    mask: NDArray[Any],
) -> bool: ...
def expand_blocks(
    blocks: NDArray[Any], transposed: bool, rows: int, cols: int, mask: NDArray[Any]
) -> None: ...
