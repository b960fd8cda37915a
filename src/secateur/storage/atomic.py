"""Replace a file as a whole: a crash at any point leaves the old file or the new one.

A process that is killed while it writes may leave a file named `.NAME.*.tmp` beside the target; it
is never read and can be deleted.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME_BYTES = 200
"""Of a file name's 255 bytes, what is left when the temporary name's own parts are taken off."""


def _target(path: Path) -> Path:
    """The file that a path leads to: a symbolic link stays, what it points to is replaced."""
    target = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file, and not to be replaced", str(path))
    return target


def _temporary_name(target: Path) -> Path:
    stem = os.fsdecode(os.fsencode(target.name)[:_NAME_BYTES])
    return target.with_name(f".{stem}.{secrets.token_hex(8)}.tmp")


def _mode_of_new_file(temporary: Path) -> int:
    """What the system gives to a new file here, by umask or the folder's defaults."""
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _commit(temporary: Path, target: Path, mode: int) -> None:
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(target.stat().st_mode)
    os.chmod(temporary, mode)  # noqa: PTH101
    _sync(temporary, os.O_RDONLY)
    os.replace(temporary, target)  # noqa: PTH105
    # The new name is safe only once the folder is.
    _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; put what was written there in the place of `path`.

    The new file has the old one's permissions, or those of any new file in that folder. If the
    block fails, the temporary file is removed and `path` stays as it was.

    Args:
        path: The file to write. A symbolic link is followed.

    Raises:
        OSError: Anything that the system refuses, with `path` as its file name.
    """
    try:
        target = _target(path)
        temporary = _temporary_name(target)
        mode = _mode_of_new_file(temporary)
        try:
            yield temporary
            _commit(temporary, target, mode)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        # Users know the file they asked for, not the temporary one.
        code = error.errno if error.errno is not None else errno.EIO
        raise OSError(code, error.strerror or str(error), str(path)) from error
