"""The file: bits per weight, and how fast it is packed, written, read and unpacked."""

from statistics import median

import numpy as np
import pytest

from secateur.storage import encodings, load_arrays, save_arrays
from table import Figure
from yardstick import seconds

BOUNDS = {0.5: 17.1, 0.8: 7.5, 0.9: 4.3, 0.95: 2.6}


def pruned_to(weights, sparsity):
    magnitudes = np.abs(weights).ravel()
    k = round(sparsity * weights.size)
    threshold = np.partition(magnitudes, k)[k]
    return np.where(np.abs(weights) >= threshold, weights, np.float32(0))


@pytest.mark.parametrize("sparsity", BOUNDS)
def test_file(figures, pytestconfig, weights, tmp_path, sparsity):
    array = pruned_to(weights, sparsity)
    path = tmp_path / "weights.safetensors"

    def rate(function):
        """GB/s of dense weights, median, and the last result."""
        results = [seconds(function) for _ in range(pytestconfig.getoption("--rounds"))]
        return array.nbytes / median(time for time, _ in results) / 1e9, results[-1][1]

    encoded, (encoding, parts, _) = rate(lambda: encodings.encode(array))
    named = dict(zip(encodings.ROLES[encoding], parts, strict=True))
    decoded, again = rate(lambda: encodings.decode(encoding, array.shape, array.dtype, named))
    assert again.tobytes() == array.tobytes()
    speeds = {}
    for profile in ("small", "fast"):
        saved, _ = rate(lambda profile=profile: save_arrays(path, {"w": array}, profile=profile))
        loaded, back = rate(lambda: load_arrays(path))
        np.testing.assert_array_equal(back["w"].toarray(), array)
        speeds[profile] = f"save (synced) {saved:.1f}, load as CSR {loaded:.1f}"
    figures.append(
        Figure(
            f"file at {sparsity:.0%} zeros, {encoding}",
            path.stat().st_size * 8 / array.size,
            "bits",
            BOUNDS[sparsity],
            f"GB/s of dense weights: encode {encoded:.1f}, decode {decoded:.1f}, {speeds['fast']}; "
            f"small profile: {speeds['small']}",
        )
    )
