"""How long `import secateur` takes, and what it leaves alone."""

import subprocess
import sys
from statistics import median

import pytest

from table import Figure

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


@pytest.mark.parametrize(
    "code",
    [
        "import secateur",
        "import secateur; secateur.prune_arrays",
        "import secateur; secateur.to_sparse",
    ],
)
def test_import(figures, pytestconfig, code):
    rounds = pytestconfig.getoption("--rounds")
    ours, modules = import_seconds(code, rounds)
    numpys, _ = import_seconds("import numpy", rounds)
    assert "secateur" in modules
    assert not modules & {"keras", "tensorflow", "numba", "torch"}
    figures.append(Figure(code, ours, "s", 0.25, f"import numpy {numpys:.3f} s"))
