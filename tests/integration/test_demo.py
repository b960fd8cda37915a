"""The demonstration on the real lemmatiser."""

import gzip

import keras
import numpy as np
import pytest

from secateur.demo import cut_demo, prune_demo
from secateur.demo.lemmatiser import load_lemmatiser, load_rows


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


@pytest.fixture(scope="module")
def cut_rows(tmp_path_factory):
    return list(cut_demo.run(tmp_path_factory.mktemp("demo")))


def test_the_cut_model_is_smaller_and_fine_tuning_mends_it(cut_rows):
    assert [row.units for row in cut_rows] == [64, 48, 32, 16, 8]
    assert [row.parameters for row in cut_rows] == [18402, 13810, 9218, 4626, 2330]
    sizes = [row.keras_bytes for row in cut_rows]
    assert sizes == sorted(sizes, reverse=True)
    whole, *cut = cut_rows
    assert whole.before == whole.after == whole.tuned == pytest.approx(0.9513, abs=2e-3)
    for row in cut:
        assert row.after < row.before
        assert row.tuned > max(row.after, 0.75)
    assert cut[0].tuned > 0.94


def test_cut_models_load_with_plain_keras(cut_rows):
    for row in cut_rows:
        model = keras.models.load_model(row.path)
        assert model.count_params() == row.parameters
        assert not model.compiled


def test_rules_that_give_an_accepted_lemma():
    lemmatiser, rows = load_lemmatiser(), load_rows().part(np.arange(300))
    right = lemmatiser.right_rules(rows)
    assert right.shape == (300, 34)
    classes = lemmatiser.model.predict(rows.features, verbose=0).argmax(axis=1)
    assert right[np.arange(300), classes].mean() == lemmatiser.accuracy(lemmatiser.model, rows)
