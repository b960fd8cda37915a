"""Every kernel test runs at every instruction-set level and thread count of this machine."""

from collections.abc import Iterator

import pytest

from secateur import _core

_LEVELS = ["scalar", "avx2", "avx512"]
_HERE = _LEVELS[: _LEVELS.index(_core.detected_simd()) + 1]


@pytest.fixture(params=_HERE)
def simd(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _core.simd()
    _core.set_simd(request.param)
    yield request.param
    _core.set_simd(before)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = _core.num_threads()
    _core.set_num_threads(request.param)
    yield request.param
    _core.set_num_threads(before)
