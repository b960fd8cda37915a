"""A crash at any point leaves the old file or the new one; errors leave nothing behind."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secateur.storage import load_arrays, save_arrays

OLD, NEW = np.arange(50.0), np.arange(100.0) * 2

# Runs save_arrays and kills itself instead of (or right after) the k-th call of the functions that
# touch the file system. Writing itself is one call into the library: "half" stops in its middle.
CRASH = """
import os, signal, sys
import numpy as np
import safetensors
from secateur.storage import save_arrays

path, when, step = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def watched(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == step and when == "before":
            die()
        result = function(*args, **kwargs)
        if calls == step and when == "after":
            die()
        return result
    return call

def half(specs, path, metadata):
    data = safetensors.serialize(specs, metadata)
    with open(path, "wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        die()

for name in ("open", "close", "chmod", "fsync", "replace"):
    setattr(os, name, watched(getattr(os, name)))
safetensors.serialize_file = half if when == "half" else watched(safetensors.serialize_file)
calls = 0
save_arrays(path, {"a": np.arange(100.0) * 2}, metadata={"which": "new"})
print(calls)
"""


def run_and_crash(path: Path, when: str, step: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CRASH, str(path), when, str(step)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_arrays(path, {"a": OLD})
    return path


def num_steps(tmp_path: Path) -> int:
    done = run_and_crash(tmp_path / "count", "never", 0)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_kill_at_any_step_leaves_the_old_file_or_the_new_one(path: Path, tmp_path: Path) -> None:
    seen = []
    for step in range(1, num_steps(tmp_path) + 1):
        save_arrays(path, {"a": OLD})
        done = run_and_crash(path, "before", step)
        assert done.returncode == -signal.SIGKILL, done.stderr
        array = load_arrays(path)["a"]
        seen.append("new" if array.tobytes() == NEW.tobytes() else "old")
        assert array.tobytes() in (OLD.tobytes(), NEW.tobytes())
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == "old"
    assert seen[-1] == "new"


def test_a_kill_in_the_middle_of_writing_leaves_the_old_file(path: Path) -> None:
    done = run_and_crash(path, "half", 0)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load_arrays(path)["a"].tobytes() == OLD.tobytes()


def test_data_are_synced_before_the_rename_and_the_folder_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("sync folder" if folder else "sync file")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        assert Path(source).parent == Path(target).parent
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    save_arrays(path, {"a": NEW})
    assert events == ["sync file", "rename", "sync folder"]


@pytest.mark.parametrize("name", ["open", "chmod", "fsync", "replace"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), PermissionError(errno.EACCES, "denied")]
)
def test_errors_of_the_system_name_the_path_and_leave_no_temporary_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: OSError
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(type(error)) as caught:
            save_arrays(path, {"a": NEW})
    assert caught.value.filename == str(path)
    assert caught.value.errno == error.errno
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert load_arrays(path)["a"].tobytes() == OLD.tobytes()


def test_an_interrupt_leaves_no_temporary_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_arrays(path, {"a": NEW})
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_is_an_os_error_with_the_path(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_arrays(path, {"a": np.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert load_arrays(path)["a"].tobytes() == OLD.tobytes()


def test_a_missing_folder_is_an_error_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "no" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        save_arrays(path, {"a": NEW})
    assert caught.value.filename == str(path)


def test_a_folder_or_a_device_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        save_arrays(folder, {"a": NEW})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="Not a regular file"):
        save_arrays(pipe, {"a": NEW})
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_symbolic_link_stays_and_its_target_is_replaced(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    for link, target in ((folder / "l", path), (folder / "new", tmp_path / "fresh")):
        link.symlink_to(target)
        save_arrays(link, {"a": NEW})
        assert link.is_symlink()
        assert not target.is_symlink()
        assert load_arrays(target)["a"].tobytes() == NEW.tobytes()
    assert sorted(file.name for file in folder.iterdir()) == ["l", "new"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_umask_gives(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        save_arrays(tmp_path / "file", {"a": NEW})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444])
def test_a_replaced_file_keeps_its_mode(path: Path, mode: int) -> None:
    path.chmod(mode)
    save_arrays(path, {"a": NEW})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert load_arrays(path)["a"].tobytes() == NEW.tobytes()


def test_long_file_names_have_room_for_the_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    save_arrays(path, {"a": NEW})
    assert load_arrays(path)["a"].tobytes() == NEW.tobytes()
