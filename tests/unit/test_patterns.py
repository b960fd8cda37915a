import pytest

from secateur.errors import ArgumentTypeError, InvalidArgumentError
from secateur.patterns import NM, Block, Unstructured, parse_pattern


@pytest.mark.parametrize("pattern", [Unstructured(), NM(2, 4), NM(0, 1), NM(32, 32), Block(4, 1)])
def test_string_form_parses_back(pattern):
    assert parse_pattern(str(pattern)) == pattern
    assert parse_pattern(pattern) is pattern


@pytest.mark.parametrize(
    "text", ["", "2", "2:", "2/4", "block", "block:4", "block:4x", "2:4 ", "N:M"]
)
def test_unknown_forms_are_refused(text):
    with pytest.raises(InvalidArgumentError, match="expected 'unstructured', 'n:m'"):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["5:4", "1:33", "1:0"])
def test_nm_out_of_range(text):
    with pytest.raises(InvalidArgumentError, match="0 <= n <= m <= 32"):
        parse_pattern(text)


@pytest.mark.parametrize("text", ["block:0x1", "block:1x0"])
def test_empty_blocks_are_refused(text):
    with pytest.raises(InvalidArgumentError, match="at least 1 row and 1 column"):
        parse_pattern(text)


def test_wrong_type():
    with pytest.raises(ArgumentTypeError, match="got int"):
        parse_pattern(24)


def test_nm_sparsity():
    assert NM(1, 4).sparsity == 0.75
