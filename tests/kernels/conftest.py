"""Fixtures that run a test at every instruction set and at several thread counts.

Of module scope, so that hypothesis may use them: all examples of a test run at one setting.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from secateur._kernels.native import runtime


@pytest.fixture(scope="module", params=runtime.simd_levels())
def simd_level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = runtime.simd()
    runtime.set_simd(request.param)
    yield request.param
    runtime.set_simd(before)


@pytest.fixture(scope="module", params=[1, 2, 3])
def num_threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = runtime.num_threads()
    runtime.set_num_threads(request.param)
    yield request.param
    runtime.set_num_threads(before)


@pytest.fixture(scope="module")
def every_setting(simd_level: str, num_threads: int) -> tuple[str, int]:
    """Every instruction set with every thread count."""
    return simd_level, num_threads
