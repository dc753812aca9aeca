"""The benchmarks' command line: the promised JSON and tables, and one sentence for bad input. Speed is not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pd_helpers as pdh
from benchmarks import __main__ as command_line
from benchmarks import growth, timing

pytestmark = [pytest.mark.usefixtures("as_a_user", "one_thread"), pytest.mark.slow]
KEYS = ["experiment", "device", "textbook_ms", "core_ms", "ratio", "max_abs_diff"]
QUICK = [
    "--device",
    "cpu",
    "--set",
    "target_steps=50",
    "--set",
    "batch_size=64",
    "--set",
    "faithfulness_warmup_steps=5",
]
NARROW = ["--set", "d_resid=60", "--set", "d_mlp=5", "--set", "rank=3"]


@pytest.fixture(autouse=True)
def hardly_any_warm_up(monkeypatch):
    monkeypatch.setattr(timing, "WARM_UP", 1)


def run(capsys, *arguments):
    """Exit code, lines of stdout, all of stderr; argparse exits by itself."""
    try:
        code = command_line.main(list(arguments))
    except SystemExit as end:
        code = end.code
    written = capsys.readouterr()
    return code, written.out.splitlines(), written.err


@pytest.mark.parametrize(
    ("name", "settings"), [("apd/tms_5-2", []), ("spd/tms_5-2_id", []), ("apd/resid_mlp_2", NARROW)]
)
def test_stdout_ends_with_the_promised_json(name, settings, capsys):
    code, lines, said = run(capsys, name, "--steps", "7", *QUICK, *settings)
    assert code == 0
    result = json.loads(lines[-1])
    assert list(result)[: len(KEYS)] == KEYS
    assert (result["experiment"], result["device"], result["steps"]) == (name, "cpu", 7)
    assert (result["batch_size"], result["threads"]) == (64, 1)
    assert result["textbook_ms"] > 0
    assert result["core_ms"] > 0
    assert result["ratio"] == pytest.approx(result["textbook_ms"] / result["core_ms"])
    assert result["max_abs_diff"] < 1e-12  # in float64
    assert result["max_abs_diff_float32"] < 1e-4
    assert said.startswith(f"{name}: textbook ")


def test_a_table_of_all_experiments(capsys):
    """Settings that only some of the experiments have are for those."""
    code, lines, _ = run(capsys, "--all", "--steps", "1", *QUICK, *NARROW, "--set", "C=6")
    assert code == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert [row[0] for row in rows] == [f"`{name}`" for name in pdh.PRESETS]
    assert all(row[1:3] == ["64", "6"] for row in rows)
    assert all(float(row[-1]) < 1e-12 for row in rows)
    assert f"torch {torch.__version__}" in lines[-1]


def test_every_experiment_has_a_batch_size_of_the_papers():
    used = {name: timing.PAPERS_BATCH[name.split("/")[0], pdh.preset(name).target.kind] for name in pdh.PRESETS}
    assert (used["apd/tms_40-10"], used["spd/tms_40-10"]) == (2048, 4096)
    assert (used["apd/resid_mlp_2"], used["apd/gated"], used["spd/resid_mlp_3"]) == (256, 10_000, 2048)


def test_a_top_k_that_falls_is_timed_where_it_ends(monkeypatch):
    used = []

    def prepare(name, device, **settings):
        used.append(settings)
        raise ValueError

    monkeypatch.setattr(timing, "prepare", prepare)
    for name, settings in (("apd/tms_40-10", {}), ("apd/tms_40-10", {"top_k_start": 3.0}), ("spd/tms_40-10", {})):
        with pytest.raises(ValueError):  # noqa: PT011
            timing.compare(name, 1, "cpu", settings)
    assert [settings.get("top_k_start", "no such field") for settings in used] == [None, 3.0, "no such field"]


def test_growth_measures_every_cell(capsys, monkeypatch):
    asked = []

    def cell(name, C, batch_size, device, overrides):
        asked.append((name, C, batch_size))
        return {"ms": C * batch_size, "peak_mb": C + batch_size}

    monkeypatch.setattr(command_line, "growth", cell)
    code, lines, _ = run(capsys, "--growth", "spd/tms_40-10", "--C", "2", "3", "--batch", "10", "20")
    assert code == 0
    assert asked == [("spd/tms_40-10", C, batch_size) for C in (2, 3) for batch_size in (10, 20)]
    assert "| C 3 | 30 | 60 |" in lines
    assert "| C 3 | 13 | 23 |" in lines


def test_a_larger_problem_takes_more_memory(monkeypatch):
    monkeypatch.setattr(growth, "SECONDS", 0.0)
    settings = {"target_steps": 10, "faithfulness_warmup_steps": 1}
    small, large = (growth.growth("spd/tms_40-10", 50, rows, "cpu", settings) for rows in (64, 2048))
    # (rows, C, d_gate) numbers of each use alone are 6.6 MB for the larger; a third of its rows is not zero.
    assert large["peak_mb"] > small["peak_mb"] + 5
    assert small["ms"] > 0


def test_growth_of_a_residual_network_and_of_the_hand_written_one(monkeypatch):
    monkeypatch.setattr(growth, "SECONDS", 0.0)
    for name, settings in (("apd/resid_mlp_1", {"target_steps": 5, "d_resid": 60, "rank": 2}), ("apd/gated", {})):
        cell = growth.measure(name, 4, 64, "cpu", 1, settings)
        assert cell["ms"] > 0


BAD = {
    "unknown experiment": (["apd/tms_5_2"], "did you mean 'apd/tms_5-2'?"),
    "unknown growth": (["--growth", "apd/tms_40"], "unknown experiment 'apd/tms_40': did you mean 'apd/tms_40-10'?"),
    "steps": (["apd/tms_5-2", "--steps", "0"], "steps must be a whole number of at least 1, but is 0; 50 works"),
    "threads": (["apd/tms_5-2", "--threads", "-1"], "threads must be a whole number of at least 1, but is -1; 1 works"),
    "device": (["apd/tms_5-2", "--device", "tpu"], "device must be auto, cpu, cuda or mps, but is 'tpu'; auto works"),
    "value": (["apd/tms_5-2", "--set", "C=0"], "C must be a whole number of at least 1, but is 0; 5 works"),
    "key": (["--all", "--set", "n_feature=3"], "unknown field 'n_feature': did you mean 'n_features'?"),
    "key of others": (["apd/gated", "--set", "target_steps=5"], "unknown field 'target_steps'"),
    "no value": (["apd/tms_5-2", "--set", "C"], "--set takes KEY=VALUE, but got 'C'; C=30 works"),
    "C": (["--growth", "apd/tms_5-2", "--C", "5", "0"], "C must be a whole number of at least 1, but is 0; 50 works"),
    "batch": (["--growth", "apd/tms_5-2", "--batch", "-8"], "batch must be a whole number of at least 1, but is -8; "),
    "C set": (["--growth", "apd/tms_5-2", "--set", "C=7"], "--growth varies C itself; --C 7 works"),
    "C without growth": (["apd/tms_5-2", "--C", "9"], "--C goes with --growth; --set C=9 works"),
    "batch without growth": (["--all", "--batch", "64"], "--batch goes with --growth; --set batch_size=64 works"),
    "steps of growth": (["--growth", "apd/tms_5-2", "--steps", "9"], "steps is 9, but --growth decides"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_two(case, capsys):
    arguments, message = BAD[case]
    code, lines, error = run(capsys, *arguments)
    assert (code, lines) == (2, [])
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize("arguments", [[], ["apd/tms_5-2", "--all"], ["--growth"], ["apd/tms_5-2", "--steps", "x"]])
def test_a_malformed_command_shows_how_it_is_used(arguments, capsys):
    code, _, said = run(capsys, *arguments)
    assert code == 2
    assert "usage: python -m benchmarks" in said


def test_as_a_program_stdout_holds_the_json_alone():
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "apd/tms_5-2", "--steps", "2", *QUICK],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0
    assert list(json.loads(ended.stdout))[: len(KEYS)] == KEYS
    assert "times faster" in ended.stderr
