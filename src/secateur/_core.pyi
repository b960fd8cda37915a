from typing import Any, type_check_only

import numpy as np
from numpy.typing import NDArray

PACKING_CHUNK: int

def num_threads() -> int: ...
def set_num_threads(count: int) -> None: ...
def simd() -> str: ...
def detected_simd() -> str: ...
def set_simd(name: str) -> None: ...
def peak_flops(rounds: int) -> float: ...
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

# select: arrays hold the bits as unsigned integers. dtype: 0 float16, 1 bfloat16, 2 float32,
# 3 float64; order: 0 magnitude, 1 value.
def find_cut(
    arrays: list[NDArray[Any]], dtype: int, order: int, k: int
) -> tuple[int, int, int, int | None]: ...
def cut_at(threshold: float, dtype: int, order: int) -> int: ...
def cut_value(key: int, dtype: int, order: int) -> float: ...
def find_non_finite(arrays: list[NDArray[Any]], dtype: int) -> int | None: ...
def apply_cut(
    arrays: list[NDArray[Any]],
    dtype: int,
    order: int,
    key: int,
    segment: int,
    position: int,
    out: list[NDArray[Any]] | None,
    masks: list[NDArray[np.uint8]] | None,
) -> list[tuple[int, float | None, float | None]]: ...
def apply_mask(
    values: NDArray[Any], mask: NDArray[np.uint8], out: NDArray[Any], dtype: int
) -> None: ...
def mask_statistics(
    values: NDArray[Any], mask: NDArray[np.uint8], dtype: int, order: int
) -> tuple[int, float | None, float | None]: ...
def read_pass(array: NDArray[Any]) -> int: ...
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

# codec: numbers: 0 unsigned integers, 1 signed integers, 2 floats. Results are CodecFault: 0 is none.
def codec_encode(array: NDArray[Any], numbers: int) -> NDArray[np.uint8]: ...
def codec_least_bytes(size: int) -> int: ...
def codec_offsets(
    coded: NDArray[Any], size: int, item_size: int, numbers: int, offsets: NDArray[Any]
) -> int: ...
def codec_decode(
    coded: NDArray[Any], numbers: int, offsets: NDArray[Any], out: NDArray[Any]
) -> int: ...
def codec_to_csr32(
    coded: NDArray[Any],
    numbers: int,
    offsets: NDArray[Any],
    cols: int,
    values: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> int: ...
def codec_to_csr64(
    coded: NDArray[Any],
    numbers: int,
    offsets: NDArray[Any],
    cols: int,
    values: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> int: ...
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
def dense_to_csr_once32(
    matrix: NDArray[Any],
    offsets: NDArray[Any],
    values: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
) -> int: ...
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
def gemm_multiply(
    a: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float32], update: int
) -> None: ...
def gemm_add_product(
    a: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float64]
) -> None: ...
def gemm_add_gram(rows: NDArray[np.float32], out: NDArray[np.float64]) -> None: ...
def gemm_mirror_upper(out: NDArray[np.float64]) -> None: ...
def obs_sweep(
    weight: NDArray[Any],
    factor: NDArray[Any],
    mask: NDArray[Any],
    errors: NDArray[Any],
    kept: int,
    group: int,
) -> None: ...

# spmm: weights are (outputs, inputs), x (rows, inputs), y (rows, outputs), all float32.
# What the matrices below have in common. The module itself has no such classes.
@type_check_only
class _Matrix:
    def entries(self) -> int: ...
    def num_bytes(self) -> int: ...

@type_check_only
class _RowsMatrix(_Matrix):
    def multiply(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        residual: NDArray[np.float32] | None,
        activation: int,
        slope: float,
        ceiling: float,
    ) -> None: ...

class BlockedMatrix(_Matrix):
    def __init__(self, weights: NDArray[np.float32], height: int, block: int) -> None: ...
    def multiply(
        self,
        x: NDArray[np.float32],
        y: NDArray[np.float32],
        rows: int,
        bias: NDArray[np.float32] | None,
        residual: NDArray[np.float32] | None,
        activation: int,
        slope: float,
        ceiling: float,
        scratch: NDArray[np.float32],
    ) -> None: ...
    def scratch_floats(self, rows: int) -> int: ...

class BitmaskMatrix(_RowsMatrix):
    def __init__(self, weights: NDArray[np.float32], even: bool) -> None: ...

class LookupMatrix(_RowsMatrix):
    def __init__(self, weights: NDArray[np.float32]) -> None: ...

class ShortCsrMatrix(_RowsMatrix):
    def __init__(self, weights: NDArray[np.float32]) -> None: ...

def finish_rows(
    y: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    residual: NDArray[np.float32] | None,
    activation: int,
    slope: float,
    ceiling: float,
) -> None: ...
def panel_floats(rows: int, features: int) -> int: ...
def count_blocks(weights: NDArray[np.float32], height: int) -> int: ...
def widest_word(weights: NDArray[np.float32]) -> int: ...

# neural: along the rows of (rows, width) matrices, and attention.
def attend(
    query: NDArray[np.float32],
    key: NDArray[np.float32],
    value: NDArray[np.float32],
    out: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    masked: float,
    weights: NDArray[np.float32] | None,
) -> None: ...
def softmax_rows(x: NDArray[np.float32], y: NDArray[np.float32]) -> None: ...
def normalize_rows(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    rms: bool,
    scale: NDArray[np.float32] | None,
    offset: NDArray[np.float32] | None,
    epsilon: float,
) -> None: ...
