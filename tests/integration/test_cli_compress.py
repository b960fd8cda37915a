"""`secateur compress` from the arguments to the exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from tests.compression.task import data, trained

import secateur as sc
from secateur.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("compress")
    model = trained()
    model.save(path / "model.keras")
    bare = keras.Sequential.from_config(model.get_config())  # not compiled
    bare.set_weights(model.get_weights())
    bare.save(path / "bare.keras")
    (x, y), (xv, yv) = data()
    np.savez(path / "train.npz", x=x, y=y)
    np.savez(path / "validation.npz", x=xv, y=yv)
    np.savez(path / "no_labels.npz", x=xv)
    np.savez(path / "no_inputs.npz", y=yv)
    np.savez(path / "unequal.npz", x=xv, y=yv[:-1])
    np.savez(path / "wrong_shape.npz", x=xv, y=np.ones((len(xv), 3, 7)))
    np.savez(path / "bad_row.npz", x=x, y=np.where(np.arange(len(y)) == 200, 9, y))
    np.save(path / "x.npy", x)
    (path / "broken.npz").write_bytes(b"not an archive")
    return path


def run(folder, *words, model="model.keras", train="train.npz", validation="validation.npz"):
    files = (folder / model, "--train", folder / train, "--validation", folder / validation)
    return main(["compress", *map(str, (*files, *words))])


QUICK = ("--epochs", 2, "--max-drop", 0.05, "--seed", 3)


def test_a_folder_with_both_files_and_the_history(folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(folder, "--parameters", "4x", *QUICK, "-o", output) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert sorted(path.name for path in output.iterdir()) == [
        "history.json",
        "model.keras",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    loaded = keras.models.load_model(output / "model.keras")
    ours = sc.load(output / "model.safetensors")
    expected = sc.compress(
        keras.models.load_model(folder / "model.keras"), *data(), target=sc.Parameters(ratio=4),
        max_drop=0.05, tuning=sc.FineTuning(epochs=2), seed=3,
    )  # fmt: skip
    for one, two, three in zip(
        loaded.get_weights(), ours.get_weights(), expected.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    found = json.loads((output / "history.json").read_text())
    assert found["reached"]
    assert (found["before"], found["after"]) == (2931, expected.comparison.after)
    assert [step["quality"] for step in found["history"]] == [s.quality for s in expected.history]
    assert str(expected) in out
    size = (output / "model.safetensors").stat().st_size
    assert f"model.safetensors: {size:,} bytes" in out
    loaded.fit(*data()[0], epochs=1, verbose=0)  # compiled as it was


def test_the_suffix_says_what_is_written(folder, tmp_path, capsys):
    for name in ("small.keras", "small.safetensors"):
        output = tmp_path / name
        words = ("--sparsity", 0.6, *QUICK, "--no-distillation", "-o", output, "--json")
        assert run(folder, *words) == 0
        summary = json.loads(capsys.readouterr().out)
        assert summary["files"] == {str(output): output.stat().st_size}
        read = keras.models.load_model if name.endswith(".keras") else sc.load
        kernels = [w for w in read(output).get_weights() if w.ndim == 2]
        zeros = sum(int((w == 0).sum()) for w in kernels) / sum(w.size for w in kernels)
        assert zeros == pytest.approx(1 - summary["after"])
        assert summary["after"] <= 0.4


@pytest.mark.parametrize(
    ("words", "goal", "methods"),
    [
        (["--ratio", "2"], "size in bytes", {"original", "prune"}),
        (["--size", "9_000"], "size in bytes", {"original", "prune"}),
        (["--macs", "2x", "--method", "cut"], "macs in multiplications", {"original", "cut"}),
    ],
)
def test_goals_and_methods(words, goal, methods, folder, tmp_path, capsys):
    assert run(folder, *words, *QUICK, "-o", tmp_path / "s.keras", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["goal"] == goal
    assert summary["after"] <= summary["limit"] < summary["before"]
    assert {step["method"] for step in summary["history"]} == methods
    if words[0] == "--size":
        assert summary["limit"] == 9000


def test_a_goal_out_of_reach_ends_with_three_and_writes_the_best(folder, tmp_path, capsys):
    output = tmp_path / "out.safetensors"
    words = ("--parameters", "500x", "--max-drop", 0.0, "--epochs", 1)
    assert run(folder, *words, "-o", output) == 3
    err = capsys.readouterr().err
    assert err.startswith("secateur: warning: The goal was parameters 5.862 weights; reached was")
    assert err.count("\n") == 1
    assert isinstance(sc.load(output), keras.Model)


def test_a_file_that_is_not_compiled_is_compiled_by_options(folder, tmp_path, capsys):
    loss = ("--loss", "sparse_categorical_crossentropy", "--metric", "accuracy")
    words = (*loss, "--optimizer", "sgd", "--parameters", "2x", *QUICK, "-o", tmp_path / "s.keras")
    assert run(folder, *words, model="bare.keras") == 0
    model = keras.models.load_model(tmp_path / "s.keras")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert "accuracy: 0.7600 ->" in capsys.readouterr().out


def test_names_of_inputs_and_outputs_and_weights(tmp_path, capsys):
    keras.utils.set_random_seed(0)
    left, right = keras.Input((6,), name="left"), keras.Input((5,), name="right")
    joined = layers.Concatenate()([layers.Dense(32)(left), layers.Dense(16)(right)])
    outputs = [layers.Dense(2, name="one")(joined), layers.Dense(1, name="two")(joined)]
    model = keras.Model([left, right], outputs)
    model.compile("sgd", ["mse", "mse"])
    random = np.random.default_rng(0)
    for name in ("train", "validation"):
        np.savez(
            tmp_path / f"{name}.npz", left=random.normal(size=(40, 6)), right=random.normal(size=(40, 5)),
            one=np.zeros((40, 2)), two=np.zeros((40, 1)), sample_weight=np.ones(40),
        )  # fmt: skip
    model.fit([np.ones((4, 6)), np.ones((4, 5))], [np.zeros((4, 2)), np.zeros((4, 1))], verbose=0)
    model.save(tmp_path / "model.keras")
    words = ("--sparsity", 0.5, "--max-drop", 10, "--epochs", 1, "-o", tmp_path / "out")
    assert run(tmp_path, *words) == 0
    assert "loss:" in capsys.readouterr().out


def test_an_output_that_exists_is_kept_without_force(folder, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    words = ("--sparsity", 0.3, "--epochs", 1, "--max-drop", 1, "-o", output)
    assert run(folder, *words) == 1
    assert "pass --force to write over it" in capsys.readouterr().err
    assert run(folder, *words, "--force") == 0
    assert (output / "notes.txt").read_text() == "mine"
    assert (output / "model.keras").exists()


@pytest.mark.parametrize(
    ("words", "files", "message"),
    [
        ([], {"train": "none.npz"}, "There is no file"),
        ([], {"train": "x.npy"}, "--train takes a .npz file"),
        ([], {"validation": "broken.npz"}, "NumPy cannot read"),
        ([], {"validation": "no_labels.npz"}, "and no labels: write them as an array named y"),
        ([], {"validation": "no_inputs.npz"}, "it should hold one array, or one named x or"),
        ([], {"validation": "unequal.npz"}, "validation holds unequal numbers of samples"),
        ([], {"validation": "wrong_shape.npz"}, "labels of shape (100, 3, 7) do not fit"),
        ([], {"train": "bad_row.npz"}, "train data: labels of shape (300,) do not fit its loss"),
        ([], {"model": "bare.keras"}, "is not compiled, so it cannot be trained; name its loss"),
        ([], {"model": "x.npy"}, "x.npy"),
        (["--metric", "auc"], {}, "Metric 'auc' is not there; the compiled model has ['accuracy'"),
        (["--loss", "nonsense"], {}, "Keras cannot compile the model with loss 'nonsense'"),
        (["--loss", "mse", "--metric", "nonsense"], {}, "metrics ['nonsense']"),
        (["--loss", "mse", "--optimizer", "nonsense"], {}, "optimizer 'nonsense'"),
        (["--optimizer", "sgd"], {}, "--optimizer goes with --loss"),
        (["--resume"], {}, "name it with --checkpoint"),
        (["--method", "magic"], {}, "method must be one of"),
        (["--epochs", 0], {}, "epochs must be a whole number >= 1"),
        (["--max-drop", -1], {}, "max_drop must be at least 0"),
        (["--learning-rate", -1], {}, "learning_rate must be > 0"),
        (["--ratio", 0.5], {}, "at least 1; got 0.5"),
        (["-o", "deep/er/out"], {}, "does not exist"),
        (["-o", "out.bin"], {}, "Cannot tell what"),
    ],
)
def test_mistakes_are_one_line(words, files, message, folder, tmp_path, capsys):
    goal = () if "--ratio" in words else ("--ratio", 2)
    if words[:1] == ["-o"]:
        words = ["-o", tmp_path / words[1]]
    assert run(folder, *goal, "-o", tmp_path / "out", *words, **files) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("secateur: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", [(), ("--ratio", 2, "--macs", "2x"), ("--size", "tenx"), ("--macs", "")]
)
def test_one_goal_is_wanted(words, folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        run(folder, *words, "-o", tmp_path / "out")
    assert error.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_writes_the_best_so_far(folder, tmp_path):
    source = Path(sc.__file__).parents[1]
    # Shells start what runs in the background with Ctrl-C ignored, and children inherit that.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from secateur.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [
        "compress", folder / "model.keras", "--train", folder / "train.npz", "--validation",
        folder / "validation.npz", "--parameters", "3000x", "--max-drop", 1, "--epochs", 30,
        "--checkpoint", tmp_path / "state", "-o", tmp_path / "out",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", code, *map(str, words)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    state = tmp_path / "state" / "compression.json"
    deadline = time.monotonic() + 300
    while not (
        state.exists() and len(json.loads(state.read_text())["state"]["history"]["steps"]) > 1
    ):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 3, err
    assert "it was interrupted. The best model is returned." in err
    found = json.loads((tmp_path / "out" / "history.json").read_text())
    assert found["interrupted"]
    assert found["after"] < found["before"]
    assert np.count_nonzero(
        keras.models.load_model(tmp_path / "out" / "model.keras").get_weights()[0]
    )
