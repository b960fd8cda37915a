"""Every example in a docstring runs."""

import subprocess
import sys


def test_docstring_examples(tmp_path):
    # A process of its own: pytest collects doctests from the installed package, wherever that is.
    command = [sys.executable, "-m", "pytest", "-q", "--doctest-modules", "--pyargs", "secateur"]
    options = ["-p", "no:cacheprovider", "-c", "/dev/null", f"--rootdir={tmp_path}"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
