"""The command line in a process of its own: output, exit codes, one line of error."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc


def run(*arguments):
    command = [sys.executable, "-c", "import sys; from secateur.cli import main; sys.exit(main())"]
    # The user's own log level would be respected; here it is ours to choose.
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False, env=env
    )


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dense(50, name="hidden"), layers.Dense(6, name="out")]
    )
    model.save(path)
    return path


def test_prune_to_ours_and_back(model_file, tmp_path):
    done = run("prune", model_file, "-s", "0.9", "-o", tmp_path / "small.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    assert summary["report"]["num_zeros"] == round(0.9 * 1800)
    assert summary["bytes_after"] < summary["bytes_before"] / 3
    done = run("unpack", tmp_path / "small.safetensors", "-o", tmp_path / "back.keras")
    assert done.returncode == 0, done.stderr
    back = keras.models.load_model(tmp_path / "back.keras")
    ours = sc.load(tmp_path / "small.safetensors")
    for a, b in zip(back.weights, ours.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    done = run("inspect", tmp_path / "small.safetensors")
    assert done.returncode == 0, done.stderr
    assert "hidden/kernel" in done.stdout


def test_missing_file_is_one_line(tmp_path):
    done = run("prune", tmp_path / "none.keras", "-s", "0.5", "-o", tmp_path / "x.keras")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("secateur: error: There is no file")
    assert done.stderr.count("\n") == 1


def test_less_than_asked_has_its_own_code(tmp_path):
    keras.Sequential([keras.Input((6,)), layers.Dense(4)]).save(tmp_path / "m.keras")
    done = run("prune", tmp_path / "m.keras", "--pattern", "2:4", "-o", tmp_path / "x.keras")
    assert done.returncode == 3
    assert "secateur: warning: Asked for sparsity 0.5" in done.stderr
    assert (tmp_path / "x.keras").exists()


def test_wrong_arguments():
    assert run("prune").returncode == 2
    assert run("nonsense").returncode == 2


class TestInThisProcess:
    def test_pack_plain_arrays_and_unpack(self, tmp_path, capsys):
        from secateur.cli import main
        from secateur.storage import save_plain

        array = np.where(np.random.default_rng(0).random((64, 64)) < 0.1, 1.5, 0).astype("float32")
        save_plain(tmp_path / "plain.safetensors", {"w": array})
        assert main(["pack", str(tmp_path / "plain.safetensors"), "-o", str(tmp_path / "p")]) == 0
        assert (tmp_path / "p").stat().st_size < 4000
        out = tmp_path / "again.safetensors"
        assert main(["unpack", str(tmp_path / "p"), "-o", str(out)]) == 0
        assert out.read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
        assert main(["inspect", str(tmp_path / "p"), "--json"]) == 0
        text = capsys.readouterr().out
        data = json.loads(text[text.index("\n{") :])
        assert data["weights"][0]["encoding"] in ("bitmask", "csr16")

    def test_the_small_profile(self, model_file, tmp_path, capsys):
        from secateur.cli import main

        fast, small, short = (tmp_path / name for name in ("fast", "small", "short"))
        assert main(["prune", str(model_file), "-s", "0.5", "-o", str(fast)]) == 0
        assert main(["pack", str(fast), "-o", str(small), "--profile", "small"]) == 0
        assert small.stat().st_size < fast.stat().st_size
        capsys.readouterr()
        arguments = ["--profile", "small", "--values", "bfloat16"]
        assert main(["pack", str(small), "-o", str(short), *arguments]) == 0
        assert short.stat().st_size < small.stat().st_size
        assert "hidden/kernel: rounded to bfloat16: relative error at most" in (
            capsys.readouterr().out
        )
        assert main(["inspect", str(short), "--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["weights"]}
        assert rows["hidden/kernel"]["encoding"] == "coded"
        assert 0 < rows["hidden/kernel"]["bits_per_weight"] < 10
        assert rows["hidden/kernel"]["rounding"]["values"] == "bfloat16"
        assert rows["hidden/bias"]["rounding"] is None
        assert main(["inspect", str(short)]) == 0
        line = next(line for line in capsys.readouterr().out.split("\n") if "hidden/kernel" in line)
        assert f"coded, bfloat16, {rows['hidden/kernel']['bits_per_weight']:.2f}" in line

    def test_pruning_into_a_small_file(self, model_file, tmp_path, capsys):
        from secateur.cli import main

        out = tmp_path / "x"
        arguments = ["-s", "0.9", "--profile", "small", "--values", "float16", "--json"]
        assert main(["prune", str(model_file), "-o", str(out), *arguments]) == 0
        rounding = json.loads(capsys.readouterr().out)["rounding"]
        assert set(rounding) == {"hidden/kernel", "out/kernel"}
        assert sc.load(out).layers[0].kernel.dtype == "float32"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["-o", "x.keras", "--profile", "small"], "name the output .safetensors"),
            (["-o", "x", "--values", "float16"], "needs profile='small'"),
        ],
    )
    def test_what_a_file_cannot_be_is_said_first(
        self, arguments, message, model_file, tmp_path, capsys, monkeypatch
    ):
        from secateur.cli import main

        monkeypatch.chdir(tmp_path)
        assert main(["prune", str(model_file), "-s", "0.5", *arguments]) == 1
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "arguments",
        [["-s", "lots"], ["-s", "=0.5"], ["-s", "1.5"], ["-s", "0.5", "--criterion", "magic"]]
        + [["-s", "0.5", "--pattern", "4/2"], ["-s", "nowhere=0.5"], []],
    )
    def test_bad_values(self, arguments, model_file, tmp_path, capsys):
        from secateur.cli import main

        code = main(["prune", str(model_file), "-o", str(tmp_path / "x.keras"), *arguments])
        assert code == 1
        assert capsys.readouterr().err.startswith("secateur: error: ")
        assert not list(tmp_path.iterdir())

    def test_sparsity_per_layer(self, model_file, tmp_path, capsys):
        from secateur.cli import main

        arguments = ["-s", "hidden=0.5", "-s", "ou*=0.25", "--json"]
        assert main(["prune", str(model_file), "-o", str(tmp_path / "x"), *arguments]) == 0
        report = json.loads(capsys.readouterr().out)["report"]
        assert [row["reached_sparsity"] for row in report["tensors"]] == [0.5, 0.25]

    def test_output_folder_must_exist(self, model_file, tmp_path, capsys):
        from secateur.cli import main

        assert main(["prune", str(model_file), "-s", "0.5", "-o", str(tmp_path / "a/b")]) == 1
        assert "does not exist" in capsys.readouterr().err
