import pytest

from secateur._kernels.native import runtime
from secateur.errors import InvalidArgumentError


def test_settings_are_taken_and_restored(every_setting):
    assert (runtime.simd(), runtime.num_threads()) == every_setting


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_bad_thread_counts_are_refused(count):
    before = runtime.num_threads()
    with pytest.raises(InvalidArgumentError, match="between 1 and 1024"):
        runtime.set_num_threads(count)
    assert runtime.num_threads() == before


def test_unknown_instruction_sets_are_refused():
    before = runtime.simd()
    with pytest.raises(InvalidArgumentError, match="sse9"):
        runtime.set_simd("sse9")
    assert runtime.simd() == before


def test_the_peak_is_measured(every_setting):
    assert 1e8 < runtime.peak_flops(1) < 1e14
    with pytest.raises(InvalidArgumentError, match="at least one round"):
        runtime.peak_flops(0)
