"""How the compiled kernels run: threads and instruction set."""

from __future__ import annotations

from typing import Literal, TypeAlias, cast, get_args

from secateur import _core
from secateur.errors import InvalidArgumentError

Simd: TypeAlias = Literal["scalar", "avx2", "avx512"]
_LEVELS: tuple[Simd, ...] = get_args(Simd)
_MAX_THREADS = 1024


def num_threads() -> int:
    """Threads that a kernel may use, the caller's included.

    At import: `SECATEUR_NUM_THREADS`, else the CPUs that this process may run on.
    """
    return _core.num_threads()


def set_num_threads(count: int) -> None:
    """Set how many threads a kernel may use. No result depends on it.

    Args:
        count: 1 to 1024, the caller's thread included.

    Raises:
        InvalidArgumentError: `count` is out of range.

    Example:
        >>> before = num_threads()
        >>> set_num_threads(1)
        >>> num_threads()
        1
        >>> set_num_threads(before)
    """
    if not 1 <= count <= _MAX_THREADS:
        raise InvalidArgumentError(
            f"The number of threads must be between 1 and {_MAX_THREADS}, got {count}."
        )
    _core.set_num_threads(count)


def simd() -> Simd:
    """The instruction set in use: `SECATEUR_SIMD` if set at import, else the CPU's best."""
    return cast(Simd, _core.simd())


def simd_levels() -> tuple[Simd, ...]:
    """All instruction sets that this CPU can run, slowest first.

    Example:
        >>> simd_levels()[0]
        'scalar'
    """
    return _LEVELS[: _LEVELS.index(cast(Simd, _core.detected_simd())) + 1]


def set_simd(level: Simd) -> None:
    """Choose the instruction set, for tests and measurements. No result depends on it.

    Args:
        level: One of `simd_levels()`.

    Raises:
        InvalidArgumentError: `level` is unknown, or this CPU cannot run it.
    """
    if level not in simd_levels():
        raise InvalidArgumentError(
            f"Instruction set {level!r} cannot run here; this CPU has {simd_levels()}."
        )
    _core.set_simd(level)


def peak_flops(rounds: int = 30) -> float:
    """FLOP/s (float32) that all threads reach together with multiply-adds between registers alone.

    The best of some rounds of about a millisecond; what a busy machine lets through is what is seen.

    Args:
        rounds: How many, at least 1.

    Raises:
        InvalidArgumentError: Fewer than one round.

    Example:
        >>> peak_flops(1) > 1e8
        True
    """
    if rounds < 1:
        raise InvalidArgumentError(f"The peak needs at least one round, got {rounds}.")
    return _core.peak_flops(rounds)
