"""The command line: one JSON line last, exit code 2 with one sentence for bad input, nothing left behind."""

import json
import os
import subprocess
import sys

import pytest

import pd_helpers as pdh
from pd_helpers.__main__ import main

pytestmark = pytest.mark.usefixtures("as_a_user", "quick_evaluation")
QUICK = ["--steps", "20", "--set", "target_steps=50", "--set", "batch_size=64", "--set", "faithfulness_warmup_steps=0"]
KEYS = ["experiment", "seed", "device", "steps", "seconds", "target_seconds", "metrics"]
NUMBERS = ["mmcs", "ml2r", "faithfulness", "recon"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, "TERM": "dumb"}
    )


def run(capsys, *arguments):
    """Exit code, last line of stdout, all of stderr; argparse exits by itself."""
    try:
        code = main(["run", *arguments])
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr()
    return code, (written.out.splitlines() or [""])[-1], written.err


def test_list_names_every_experiment(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(pdh.PRESETS)


def test_list_as_json_holds_the_settings(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(pdh.PRESETS)
    for name, entry in listed.items():
        assert entry["config"] == pdh.PRESETS[name].config.to_dict()
        assert entry["target"] == pdh.PRESETS[name].target.to_dict()


@pytest.mark.parametrize("name", ["apd/tms_5-2", "spd/tms_5-2"])
def test_the_last_line_is_the_promised_json(name, capsys, tmp_path):
    code, line, _ = run(capsys, name, "--seed", "3", "--device", "cpu", *QUICK)
    assert code == 0
    result = json.loads(line)
    assert list(result) == KEYS
    assert (result["experiment"], result["seed"], result["device"], result["steps"]) == (name, 3, "cpu", 20)
    assert result["seconds"] > 0
    assert result["target_seconds"] >= 0
    metrics = result["metrics"]
    assert {*NUMBERS, "n_alive", "l0"} <= set(metrics)
    assert all(isinstance(metrics[key], float) for key in NUMBERS)
    assert set(metrics["n_alive"]) == set(metrics["l0"]) == {"embed", "unembed"}
    assert list(tmp_path.iterdir()) == []


def test_out_writes_a_run_that_loads(capsys):
    code, line, _ = run(capsys, "apd/tms_5-2", "--out", "runs/1", *QUICK)
    assert code == 0
    assert pdh.load("runs/1").metrics == json.loads(line)["metrics"]


def test_set_overrides_sizes_and_all_kinds_of_values(capsys):
    settings = ["n_features=8", "n_hidden=3", "C=9", "identity=true", "lr=1e-2", "target_seed=none"]
    code, _, _ = run(
        capsys, "spd/tms_5-2", "--out", "it", *QUICK, *(word for text in settings for word in ("--set", text))
    )
    assert code == 0
    loaded = pdh.load("it")
    assert loaded.target.embed.weight.shape == (3, 8)
    assert loaded.target.identity is not None
    assert (loaded.config.C, loaded.config.lr, loaded.target_config.target_seed) == (9, 0.01, None)


BAD = {
    "unknown experiment": (["apd/tms_5_2"], "did you mean 'apd/tms_5-2'?"),
    "C": (["--set", "C=0"], "C must be a whole number of at least 1, but is 0; 5 works"),
    "steps": (["--steps", "0"], "steps must be a whole number of at least 1, but is 0; "),
    "batch_size": (["--set", "batch_size=0"], "batch_size must be a whole number of at least 1, but is 0; "),
    "probability above 1": (["--set", "feature_probability=1.5"], "feature_probability must be "),
    "probability below 0": (["--set", "feature_probability=-0.1"], "feature_probability must be "),
    "negative coefficient": (["--set", "simplicity_coeff=-1"], "simplicity_coeff must be "),
    "NaN coefficient": (["--set", "simplicity_coeff=nan"], "simplicity_coeff must be "),
    "infinite coefficient": (["--set", "simplicity_coeff=inf"], "simplicity_coeff must be "),
    "word for a number": (["--set", "C=five"], "C must be a whole number of at least 1, but is 'five'; 5 works"),
    "unknown key": (["--set", "simplicity_coef=1"], "did you mean 'simplicity_coeff'?"),
    "set without value": (["--set", "C"], "--set takes KEY=VALUE, but got 'C'; C=30 works"),
    "set without key": (["--set", "=3"], "--set takes KEY=VALUE, but got '=3'; C=30 works"),
    "device": (["--device", "tpu"], "device must be auto, cpu, cuda or mps, but is 'tpu'; auto works"),
    "seed": (["--seed", "-1"], "seed must be a whole number of at least 0, but is -1; 0 works"),
    "seed of too many bits": (["--seed", str(2**61)], "seed must be a whole number of at most 858993458, but is "),
    "seed of the target": (["--set", "target_seed=9999999999"], "target_seed must be a whole number of at most "),
    "seed in words": (["--seed", "one"], "argument --seed: invalid int value: 'one'; usage: python -m pd_helpers run"),
    "unknown option": (["--bogus"], "unrecognized arguments: --bogus; usage: python -m pd_helpers"),
    "size beyond memory": (["--set", f"C={10**12}"], "C must fit into memory, of which "),
    "size beyond numbers": (
        ["--set", "C=1e30"],
        "C must be a whole number of at most 1000000000000000, but is 1000000",
    ),
    "size of thousands of digits": (["--set", "C=" + "9" * 5000], "C must be a whole number "),
    "size that is none": (["--set", "C=nan"], "C must be a whole number of at least 1, but is nan; 5 works"),
    "nothing": (["--set", "steps="], "steps must be a whole number of at least 1, but is ''; "),
    "zero byte": (["--set", "C=1\0"], r"C must be a whole number of at least 1, but is '1\x00'; 5 works"),
    "line break in a name": (["--set", "a\nb=1"], r"unknown field 'a\nb': "),
    "steps twice": (["--steps", "5", "--set", "steps=6"], "steps is set 2 times; leave all but one of them out"),
    "field twice": (["--set", "C=5", "--set", "C=6"], "C is set 2 times; leave all but one of them out"),
    "too many active": (["--set", "top_k=77"], "top_k must be at most C = 5, but is 77; 5 works"),
    "too few active": (["--set", "top_k=1e-12"], "top_k must be so large that "),
    "rank beyond the matrix": (["--set", "rank=4"], "rank must be at most min(d_out, d_in) + 1 = 3 for "),
    "number beyond floats": (["--set", "lr=1e-320"], "lr must be a number of at least 1e-10, since smaller steps "),
    "set name": (["--set", "name=x"], "--set takes fields of the experiment, and name is none; pd_helpers run "),
    "set seed": (["--set", "seed=1"], "--set takes fields of the experiment, and seed is none; --seed 1 works"),
    "set device": (["--set", "device=cpu"], "and device is none; --device cpu works"),
    "set out": (["--set", "out=x"], "and out is none; --out DIR works"),
    "set paper": (["--set", "paper=1"], "and paper is none; --paper works"),
    "set show_progress": (["--set", "show_progress=false"], "and show_progress is none; 2> /dev/null works"),
    "set target": (["--set", "target=1"], "and target is none; pdh.run(..., target=network) in Python works"),
    "set self": (["--set", "self=1"], "unknown field 'self': "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_two(case, capsys, tmp_path):
    arguments, message = BAD[case]
    name = [] if case == "unknown experiment" else ["apd/tms_5-2"]
    code, line, error = run(capsys, *name, *arguments)
    assert code == 2
    assert line == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", BAD)
def test_bad_input_leaves_no_output_folder(case, capsys, tmp_path):
    arguments, _ = BAD[case]
    name = [] if case == "unknown experiment" else ["apd/tms_5-2"]
    code, _, _ = run(capsys, *name, *arguments, "--out", "runs/1")
    assert code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "variant"), [("apd/tms_5-2", "seed9"), ("apd/tms_5-2", "../.."), ("apd/tms_5-2", ""), ("a\0", "seed0")]
)
def test_reproducing_what_is_not_shipped_is_one_sentence(name, variant, capsys):
    assert main(["reproduce", name, "--variant", variant]) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert written.err.startswith("error: no ")
    assert "is shipped" in written.err


def test_out_that_is_not_empty_is_refused_before_any_work(capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    (tmp_path / "file").touch()
    for out, message in (("full", "not empty"), ("file", "is a file"), ("file/below", "cannot be written")):
        code, line, error = run(capsys, "apd/tms_5-2", "--out", out)  # with all its steps, were it to start
        assert (code, line, error.count("\n")) == (2, "", 1)
        assert error.startswith(f"error: out is '{out}', which ")
        assert message in error
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_a_loss_that_blows_up_is_one_sentence(capsys):
    code, line, error = run(capsys, "spd/tms_5-2", "--set", "lr=1e30", *QUICK)
    assert (code, line) == (2, "")
    assert "error: the loss blew up at step " in error.splitlines()[-1]


@pytest.mark.parametrize("arguments", [[], ["run"], ["walk"], ["run", "apd/tms_5-2", "--seed", "x"]])
def test_a_malformed_command_shows_how_it_is_used(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: python -m pd_helpers" in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_program_stdout_holds_the_json_and_stderr_the_progress():
    ended = python("-m", "pd_helpers", "run", "spd/tms_5-2", *QUICK)
    assert ended.returncode == 0
    assert list(json.loads(ended.stdout)) == KEYS  # nothing else on stdout
    assert "target" in ended.stderr


@pytest.mark.slow
def test_as_a_program_an_error_is_one_line_and_no_traceback():
    ended = python("-m", "pd_helpers", "run", "spd/tms_5-2", "--set", "C=0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: C must be")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
def test_importing_is_silent_writes_nothing_and_loads_no_drawing(tmp_path):
    heavy = {"ipywidgets", "matplotlib", "pandas", "seaborn", "IPython", "joblib"}
    ended = python("-c", f"import pd_helpers, sys; pd_helpers.run; assert not {heavy} & set(sys.modules)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
