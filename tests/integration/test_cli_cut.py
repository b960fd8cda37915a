"""`secateur cut` from the arguments to the exit code."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import secateur as sc
from secateur.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("cut")
    keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(64, "relu", name="wide"),
            layers.Dense(32, "relu", name="second"),
            layers.Dense(4, name="out"),
        ]
    ).save(path / "model.keras")
    left, right = keras.Input((6,), name="left"), keras.Input((5,), name="right")
    joined = layers.Concatenate()([layers.Dense(32, name="a")(left), layers.Dense(16)(right)])
    keras.Model([left, right], layers.Dense(2)(joined)).save(path / "two.keras")
    random = np.random.default_rng(0)
    np.save(path / "x.npy", random.normal(size=(100, 12)).astype("float32"))
    np.save(path / "few.npy", random.normal(size=(5, 12)).astype("float32"))
    np.save(path / "wrong.npy", random.normal(size=(100, 13)).astype("float32"))
    np.savez(path / "x.npz", x=random.normal(size=(100, 12)), y=np.zeros(100))
    np.savez(path / "two.npz", left=np.ones((40, 6)), right=np.ones((40, 5)), y=np.ones(40))
    np.savez(path / "other.npz", a=np.ones((40, 6)), b=np.ones((40, 5)))
    (path / "broken.npy").write_bytes(b"not an array")
    return path


def run(*words):
    return main(["cut", *map(str, words)])


def test_a_ratio_on_data(folder, tmp_path, capsys):
    code = run(
        folder / "model.keras", "-d", folder / "x.npy", "-r", 0.5, "-o", tmp_path / "small.keras"
    )
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    assert "wide: 64 -> 32 neurons" in out
    assert "3,044 -> 1,012 parameters (66.8% gone)" in out
    assert "proven:" in out
    assert "on 31 given samples" in out
    size = (tmp_path / "small.keras").stat().st_size
    assert f"{size:,} bytes" in out
    small = keras.models.load_model(tmp_path / "small.keras")
    expected = sc.cut(
        keras.models.load_model(folder / "model.keras"), np.load(folder / "x.npy"), ratio=0.5
    )
    for mine, theirs in zip(small.get_weights(), expected.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_json_and_our_own_format(folder, tmp_path, capsys):
    code = run(
        folder / "model.keras",
        "--keep",
        "wide=16",
        "-k",
        "second=8",
        "-o",
        tmp_path / "s",
        "--json",
    )
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parameters_before"] == 3044
    assert summary["parameters_after"] == sc.load(tmp_path / "s").count_params() == 380
    assert summary["bytes_after"] == (tmp_path / "s").stat().st_size < summary["bytes_before"]
    assert summary["proof"]["data"] == "random"
    assert [len(group["removed"]) for group in summary["plan"]["groups"]] == [48, 24, 0]


def test_a_dry_run_writes_a_plan_that_can_be_edited_and_made(folder, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    model = folder / "model.keras"
    assert run(model, "-r", 0.5, "--dry-run", "--plan-out", plan) == 0
    assert "wide: 64 -> 32" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    edited = sc.CutPlan.from_json(plan.read_text()).edit("second", [0])
    plan.write_text(edited.to_json())
    assert run(model, "--plan", plan, "-d", folder / "x.npy", "-o", tmp_path / "s.keras") == 0
    widths = [x.units for x in keras.models.load_model(tmp_path / "s.keras").layers]
    assert widths == [32, 31, 4]


def test_options_reach_the_plan(folder, tmp_path, capsys):
    words = [
        "--align",
        1,
        "--measure",
        "max",
        "--relative",
        "--exclude",
        "sec*",
        "--max-samples",
        50,
    ]
    code = run(
        folder / "model.keras", "-d", folder / "x.npz", "-t", 0.9, *words, "--dry-run", "--json"
    )
    assert code == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    x = np.load(folder / "x.npz")["x"]
    expected = sc.plan_cut(
        keras.models.load_model(folder / "model.keras"), x, threshold=0.9, align=1, measure="max",
        relative=True, exclude=["sec*"], max_samples=50,
    )  # fmt: skip
    assert plan == json.loads(expected.to_json())
    assert len(plan["groups"][0]["removed"]) > 3


def test_named_inputs(folder, tmp_path, capsys):
    output = tmp_path / "small.keras"
    assert run(folder / "two.keras", "-d", folder / "two.npz", "-r", 0.5, "-o", output) == 0
    assert "a: 32 -> 16" in capsys.readouterr().out


def test_less_than_asked_ends_with_three(folder, tmp_path, capsys):
    output = tmp_path / "small.keras"
    assert run(folder / "model.keras", "-r", 0.5, "--align", 48, "-o", output) == 3
    err = capsys.readouterr().err
    assert err.startswith("secateur: warning: Of 48 units that were to go from 'sequential")
    assert "only 16 can. " in err
    assert "32 rounded up to 48 by align=48" in err
    assert err.count("\n") == 1
    assert output.exists()


def test_few_samples_are_told_and_the_cut_is_made(folder, tmp_path, capsys):
    output = tmp_path / "small.keras"
    assert run(folder / "model.keras", "-d", folder / "few.npy", "-r", 0.5, "-o", output) == 0
    assert capsys.readouterr().err.startswith("secateur: warning: Only 5 calibration sample(s)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-r", 0.5], "Name the file to write with -o OUT"),
        (["-o", "OUT"], "Say how much goes"),
        (["-r", 1.5, "-o", "OUT"], "ratio must be in [0, 1)"),
        (["-t", 1e9, "-d", "x.npy", "-o", "OUT"], "would empty every layer"),
        (["-r", 0.5, "-d", "none.npy", "-o", "OUT"], "There is no file"),
        (["-r", 0.5, "-d", "broken.npy", "-o", "OUT"], "NumPy cannot read"),
        (["-r", 0.5, "-d", "model.keras", "-o", "OUT"], "takes a .npy or .npz file"),
        (["-r", 0.5, "-d", "wrong.npy", "-o", "OUT"], "axis 1 is 13, not 12"),
        (
            ["-r", 0.5, "-d", "other.npz", "-o", "OUT"],
            "it should hold one array, or one named x or",
        ),
        (["-k", "wide", "-o", "OUT"], "--keep takes NAME=NUMBER"),
        (["-k", "wide=many", "-o", "OUT"], "--keep takes NAME=NUMBER"),
        (["-k", "wilde=8", "-o", "OUT"], "keep names layers that make no units: ['wilde']"),
        (["-k", "wide=8", "--relative", "-o", "OUT"], "relative=True is for a threshold"),
        (["-t", 0.1, "--scope", "global", "-o", "OUT"], "scope='global' is for a ratio"),
        (["-r", 0.5, "--align", "fast", "-o", "OUT"], "or 'auto', got 'fast'"),
        (["-r", 0.5, "--align", "0", "-o", "OUT"], "align must be an integer of at least 1"),
        (["-r", 0.5, "--granularity", "cell", "-o", "OUT"], "granularity must be among"),
        (["-r", 0.5, "--measure", "mean", "-o", "OUT"], "measure without data must be one of"),
        (["-r", 0.5, "--include", "nowhere", "-o", "OUT"], "No layer is called ['nowhere']"),
        (
            ["-r", 0.5, "--max-samples", 0, "-d", "x.npy", "-o", "OUT"],
            "max_samples must be at least",
        ),
        (["-r", 0.5, "-o", "OUT/deep/er"], "does not exist"),
        (["--plan", "none.json", "-o", "OUT"], "There is no file"),
        (["--plan", "x.npy", "-o", "OUT"], "is not a plan"),
        (["--plan", "none.json", "--align", "4", "-o", "OUT"], "leave out --align"),
    ],
)
def test_mistakes_are_one_line(words, message, folder, tmp_path, capsys):
    output = tmp_path / "out.keras"
    named = {"OUT": output, "OUT/deep/er": output / "deep" / "er"}
    words = [
        named[word] if word in named
        else folder / word if str(word).endswith((".npy", ".npz", ".keras", ".json"))
        else word
        for word in words
    ]  # fmt: skip
    assert run(folder / "model.keras", *words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("secateur: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_amounts_exclude_each_other(folder, tmp_path):
    with pytest.raises(SystemExit) as error:
        run(folder / "model.keras", "-r", 0.5, "-t", 1, "-o", tmp_path / "s.keras")
    assert error.value.code == 2


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--repair", "--damping", 0.2], {"repair": True, "damping": 0.2}),
        (["--no-fold", "--measure", "rms"], {"fold": False, "measure": "rms"}),
        (["--measure", "std"], {"measure": "std"}),
        (["--measure", "flap", "--align", 1], {"measure": "flap", "align": 1}),
    ],
)
def test_what_makes_up_for_the_cut(folder, tmp_path, words, options):
    model, data = folder / "model.keras", folder / "x.npy"
    assert run(model, "-d", data, "-r", 0.5, *words, "-o", tmp_path / "s.keras") == 0
    found = keras.models.load_model(tmp_path / "s.keras").get_weights()
    expected = sc.cut(keras.models.load_model(model), np.load(data), ratio=0.5, **options)
    for mine, theirs in zip(found, expected.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_repair_without_data_is_refused_in_one_line(folder, tmp_path, capsys):
    assert run(folder / "model.keras", "-r", 0.5, "--repair", "-o", tmp_path / "s.keras") == 1
    assert "takes data" in capsys.readouterr().err


def test_padding_is_left_out_by_a_mask_of_the_file(tmp_path):
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(16, "relu", name="wide"), layers.GlobalAveragePooling1D()]
    model = keras.Sequential([keras.Input((5, 6)), *hidden, layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    random = np.random.default_rng(0)
    real = np.arange(5) < random.integers(2, 5, (60, 1))
    x = np.where(real[..., None], random.normal(size=(60, 5, 6)), 50 * random.normal(size=6))
    np.savez(tmp_path / "padded.npz", x=x, real=real)
    words = (tmp_path / "model.keras", "-d", tmp_path / "padded.npz", "-r", 0.5, "--dry-run")
    assert run(*words, "--mask", "real", "--batch-size", 7, "--plan-out", tmp_path / "plan") == 0
    made = sc.CutPlan.from_json((tmp_path / "plan").read_text())["wide"]
    assert made.removed == sc.plan_cut(model, x, ratio=0.5, mask=real)["wide"].removed
    assert made.removed != sc.plan_cut(model, x, ratio=0.5)["wide"].removed


def test_a_warning_of_several_passes_is_said_once(folder, tmp_path, capsys):
    words = (folder / "model.keras", "-d", folder / "few.npy", "-r", 0.5, "--repair")
    run(*words, "-o", tmp_path / "small.keras")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(set(lines)) > 0
