"""How much memory an exact global threshold takes beside the weights."""

import subprocess
import sys

from table import Figure

MEASURE = """
import sys
import numpy as np
from secateur._kernels.native.select import apply_cut, cut_value, find_cut

def kilobytes(field):
    # Not ru_maxrss: a child inherits its parent's.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

size, step = int(sys.argv[1]), 1 << 20
pattern = np.random.default_rng(0).standard_normal(step, dtype=np.float32)
weights = np.empty(size, np.float32)
for number, start in enumerate(range(0, size, step)):
    part = weights[start : start + step]
    # Every chunk has a scale of its own, so that no sample of chunks is like the whole.
    np.multiply(pattern[: part.size], np.float32(1 + number % 97), out=part)
k = round(0.9 * size)
find_cut([weights[:1000]], 900)  # threads start here
before = kilobytes("VmRSS:")
cut = find_cut([weights], k)
print((kilobytes("VmHWM:") - before) * 1024)
assert apply_cut([weights], cut)[0].num_removed == k
threshold = np.float32(cut_value(cut, np.float32))
below = up_to = 0
for start in range(0, size, step):
    magnitudes = np.abs(weights[start : start + step])
    below += np.count_nonzero(magnitudes < threshold)
    up_to += np.count_nonzero(magnitudes <= threshold)
assert below <= k <= up_to
"""


def test_extra_memory_of_a_threshold(figures, weights):
    size = round(weights.size * 14.9012)  # 4 GB at the full size
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(size)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    extra = int(ran.stdout)
    assert extra >= 0
    figures.append(
        Figure(
            "extra memory of an exact threshold",
            extra / 1e6,
            "MB",
            64,
            f"{size * 4 / 1e9:.2f} GB of weights",
        )
    )
