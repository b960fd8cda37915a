"""The command line. `main` returns the exit code: see `secateur --help`."""

from secateur.cli.main import main

__all__ = ["main"]
