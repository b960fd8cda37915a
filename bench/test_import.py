"""How long `import secateur` takes, and what it leaves alone."""

import subprocess
import sys
from statistics import median

import pytest

from table import Figure

ROUNDS = 5
# The bound is for the import; what is then asked for loads NumPy, and SciPy where it is needed.
BOUNDS = {"import secateur": 0.25}
MEASURE = """
import time
start = time.perf_counter()
{code}
print(time.perf_counter() - start)
import sys
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def import_seconds(code, rounds):
    """Median time in fresh interpreters, and the modules loaded after it."""
    times = []
    for _ in range(rounds + 1):  # the first one fills the file cache
        ran = subprocess.run(
            [sys.executable, "-c", MEASURE.format(code=code)],
            capture_output=True,
            text=True,
            check=True,
        )
        line, modules = ran.stdout.splitlines()
        times.append(float(line))
    return median(times[1:]), set(modules.split())


@pytest.fixture(scope="module")
def numpy_seconds():
    return import_seconds("import numpy", ROUNDS)[0]


@pytest.mark.parametrize(
    "code",
    [
        "import secateur",
        "import secateur; secateur.prune_arrays",
        "import secateur; secateur.to_sparse",
    ],
)
def test_import(figures, numpy_seconds, code):
    ours, modules = import_seconds(code, ROUNDS)
    assert "secateur" in modules
    assert not modules & {"keras", "tensorflow", "numba", "torch"}
    figures.append(Figure(code, ours, "s", BOUNDS.get(code), f"import numpy {numpy_seconds:.3f} s"))
