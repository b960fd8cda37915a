"""`import secateur` is light, and every public name is there."""

import subprocess
import sys

import pytest

import secateur as sc


def modules_after(code):
    script = f"import sys; {code}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_is_light():
    loaded = modules_after("import secateur")
    assert not loaded & {"keras", "tensorflow", "numba", "scipy", "rich", "safetensors"}


def test_array_level_needs_no_framework():
    code = (
        "import numpy as np; import secateur as sc; w = [np.eye(8, dtype='f4')]; "
        "sc.prune_arrays(w, sparsity=0.9); sc.select(w, count=3); sc.saliency(w); "
        "sc.to_dense(sc.to_sparse(w[0])); sc.path_strength(w[0], w[0]); sc.save; sc.load"
    )
    assert not modules_after(code) & {"keras", "tensorflow", "numba"}


@pytest.mark.parametrize("name", sc.__all__)
def test_public_names(name):
    assert getattr(sc, name) is not None
    assert name in dir(sc)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'secater'"):
        _ = sc.secater


def test_without_keras_the_error_says_what_to_install():
    code = (
        "sys.modules['keras'] = None; import secateur as sc\n"
        "try: sc.prune\n"
        "except sc.errors.MissingDependencyError as error: "
        "assert 'secateur[tensorflow]' in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    script = f"import sys; {code}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
