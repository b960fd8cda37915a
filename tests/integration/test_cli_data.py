"""secateur prune --data: files, options, output."""

import json
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from secateur.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::secateur.errors.CalibrationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dense(20, activation="relu", name="hidden"), layers.Dense(6)]
    )
    model.compile("sgd", "mse")
    model.save(folder / "model.keras")
    x, mask = keras.Input((None, 6), name="x"), keras.Input((None,), dtype="bool", name="mask")
    weight = ops.expand_dims(ops.cast(mask, "float32"), -1)
    hidden = layers.Dense(8, activation="relu", name="hidden")(x)
    pooled = layers.Dense(3, name="out")(layers.Flatten()(ops.max(hidden * weight, axis=1)))
    keras.Model([x, mask], pooled).save(folder / "two.keras")
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(80, 30)).astype("float32")
    np.save(folder / "x.npy", samples)
    np.savez(folder / "labelled.npz", x=samples, y=rng.normal(size=(80, 6)))
    real = np.arange(5) < rng.integers(2, 6, 80)[:, None]
    np.savez(folder / "two.npz", mask=real, x=rng.normal(size=(80, 5, 6)).astype("float32"))
    return folder


def prune(folder, model, *words, capsys):
    code = main(["prune", str(folder / model), "-o", str(folder / "out.keras"), *map(str, words)])
    return code, capsys.readouterr()


def test_report_of_the_error_per_layer(folder, capsys):
    words = ("-s", 0.7, "--data", folder / "x.npy")
    code, out = prune(folder, "model.keras", *words, "--json", capsys=capsys)
    assert code == 0, out.err
    rows = json.loads(out.out)["report"]["tensors"]
    assert sum(row["num_zeros"] for row in rows) == 504
    assert all(0 < row["relative_error"] < 1 and row["bias_refitted"] for row in rows)
    kernel = np.asarray(keras.models.load_model(folder / "out.keras").layers[0].kernel.value)
    assert np.count_nonzero(kernel == 0) == rows[0]["num_zeros"]
    code, out = prune(folder, "model.keras", *words, capsys=capsys)
    assert code == 0
    assert "error" in out.out.splitlines()[0]


def test_a_bar_with_the_time_left(folder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    words = ("-s", 0.7, "--data", folder / "x.npy")
    code, out = prune(folder, "model.keras", *words, capsys=capsys)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.err)
    assert re.search(r"writing .*2/2 +(0:00:0\d|-:--:--)", plain), plain


@pytest.mark.parametrize(
    "words",
    [
        ("--criterion", "wanda", "--scope", "row", "-s", "0.5"),
        ("--criterion", "sparsegpt", "--pattern", "2:4"),
        ("--criterion", "magnitude", "--reconstruction", "refit", "-s", "0.5", "--damping", "0.1"),
        ("--allocation", "erk", "-s", "0.5", "--max-samples", "40", "--batch-size", "8"),
    ],
)
@pytest.mark.filterwarnings("ignore::secateur.errors.TargetNotReachedWarning")
def test_methods(folder, capsys, words):
    code, out = prune(folder, "model.keras", *words, "--data", folder / "x.npy", capsys=capsys)
    assert code in (0, 3), out.err
    assert "of 720 weights are zero" in out.out


def test_labels_come_as_y(folder, capsys):
    words = ("-s", 0.5, "--criterion", "taylor", "--data")
    code, out = prune(folder, "model.keras", *words, folder / "labelled.npz", capsys=capsys)
    assert code == 0, out.err
    code, out = prune(folder, "model.keras", *words, folder / "x.npy", capsys=capsys)
    assert code == 1
    assert "labels" in out.err
    assert out.err.count("\n") == 1


def test_inputs_by_name_and_a_mask(folder, capsys):
    words = ("-s", 0.5, "--data", folder / "two.npz", "--mask", "mask", "--json")
    code, out = prune(folder, "two.keras", *words, capsys=capsys)
    assert code == 0, out.err
    assert json.loads(out.out)["report"]["num_zeros"] == 24 + 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "none.npy"), "There is no file"),
        (("--data", "model.keras"), "takes a .npy or .npz"),
        (("--data", "two.npz"), "does not fit the model"),
        (("--mask", "mask"), "only be used with data"),
        (("--reconstruction", "refit"), "only be used with data"),
        (("--criterion", "wanda"), "pass data"),
    ],
)
def test_errors_are_one_line(folder, capsys, words, message):
    words = [folder / word if "." in word else word for word in words]
    code, out = prune(folder, "model.keras", "-s", 0.5, *words, capsys=capsys)
    assert code == 1
    assert message in out.err
    assert out.err.count("\n") == 1
