"""The demonstration on the real lemmatiser."""

import gzip

import pytest

from secateur.demo import prune_demo


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return list(prune_demo.run(tmp_path_factory.mktemp("demo")))


def test_accuracy_is_the_known_one(rows):
    assert rows[0].before == pytest.approx(0.9533, abs=5e-4)
    assert rows[0].after == rows[0].before


def test_zeros_make_the_file_smaller(rows):
    sizes = [row.our_bytes for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < rows[-1].keras_bytes / 7
    assert [round(row.reached, 3) for row in rows] == [0.0, 0.5, 0.7, 0.8, 0.9]


def test_files_are_where_it_says(rows):
    from pathlib import Path

    for row in rows:
        path = Path(row.path)
        assert path.stat().st_size == row.our_bytes
        zipped = path.with_suffix(".keras.gz")
        assert len(zipped.read_bytes()) == row.keras_gzip_bytes
        assert len(gzip.decompress(zipped.read_bytes())) == row.keras_bytes
