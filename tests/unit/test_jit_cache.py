"""Numba is loaded late, in any order, and caches where it can."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import secateur

PACKAGE = Path(secateur.__file__).parent
COUNT = """
import numpy as np
from secateur.outputs import OutputStatistics
s = OutputStatistics(2)
s.update(np.array([[1.0, -3.0]], np.float32), activation="tanh")
assert abs(s.measure()[1] - np.tanh(3.0)) < 1e-6
"""


def run(code, source=PACKAGE.parent, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    kept |= {"PYTHONPATH": str(source), "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "default"}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=kept | environment,
        check=False,
        timeout=120,
    )


def copy_of_package(folder):
    wanted = ["__init__", "errors", "arrays", "activations", "outputs"]
    target = folder / "secateur"
    (target / "_kernels").mkdir(parents=True)
    for name in wanted:
        shutil.copy(PACKAGE / f"{name}.py", target)
    shutil.copy(PACKAGE / "_kernels" / "__init__.py", target / "_kernels")
    shutil.copy(PACKAGE / "_kernels" / "jit.py", target / "_kernels")
    # A file of that name stands in for a directory that cannot be written: root can write anywhere.
    (target / "_kernels" / "__pycache__").write_text("")
    return folder


def test_importing_loads_neither_numba_nor_keras():
    code = (
        "import sys, secateur, secateur.outputs, secateur.calibration\n"
        "assert not {'numba', 'keras', 'tensorflow'} & set(sys.modules)"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code", ["import tensorflow\n" + COUNT, COUNT + "import tensorflow\ntensorflow.abs(-1.0)\n"]
)
def test_tensorflow_and_numba_in_one_process(code):
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_the_cache_of_the_user_serves_a_package_that_cannot_be_written(tmp_path):
    source = copy_of_package(tmp_path / "source")
    cache = tmp_path / "cache"
    done = run(COUNT, source, XDG_CACHE_HOME=str(cache))
    assert (done.returncode, done.stderr) == (0, "")
    assert list(cache.rglob("*.nbi"))


def test_without_any_place_for_a_cache_it_still_works(tmp_path):
    source = copy_of_package(tmp_path / "source")
    (tmp_path / "file").write_text("")
    done = run(COUNT, source, XDG_CACHE_HOME=str(tmp_path / "file" / "cache"))
    assert (done.returncode, done.stderr) == (0, "")


def test_callers_cannot_set_off_more_compilations():
    code = COUNT + (
        "from secateur._kernels import jit\n"
        "a = np.ones((8, 2), np.float32, order='F'); s.update(a)\n"
        "b = np.ones((8, 2), np.float32); b.flags.writeable = False; s.update(b)\n"
        "s.update(np.ones((8, 2), np.float16))\n"
        "assert len(jit.accumulate_kernel('float32').signatures) == 1\n"
        "assert jit.accumulate_kernel.cache_info().currsize == 1\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
