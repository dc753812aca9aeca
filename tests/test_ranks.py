"""Several processes, as torchrun starts them, make the run that one of them would make alone."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared import CASES, SPD, dense, fitted, numbers, of
from shared import MLP as Network

import pd_helpers as pdh
from pd_helpers.__main__ import main
from pd_helpers.core.shortcuts.empty_rows import Batch
from pd_helpers.core.shortcuts.parts import parts
from pd_helpers.core.training import pick_device, progress
from pd_helpers.runs import files

pytestmark = pytest.mark.usefixtures("as_a_user", "one_thread", "quick_evaluation")
HERE = Path(__file__).parent


def started(*arguments, folder, n=2):
    """The n processes that torchrun would start, without the time that it takes itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join(map(str, (HERE.parent, HERE)))
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n), "PYTHONPATH": path}
    for_all = {**os.environ, **common, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env={**for_all, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n)
    ]


def ended(processes):
    """Exit code, stdout and stderr of each; a failure if they do not end."""
    try:
        written = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, written, strict=True)]


def assert_close(mine, theirs, case="", rel=1e-5):
    assert list(mine) == list(theirs)
    for name, values in theirs.items():
        tolerance = 1e-4 if "float32" in case else rel
        assert mine[name] == pytest.approx(values, rel=tolerance, abs=1e-2 * tolerance), (case, name)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each of two processes says that make many runs, and the folder that they worked in."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    for code, out, error in ended(started(HERE / "shared.py", folder, folder=folder)):
        assert (code, out, error) == (0, "", "")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)], folder


class TestOfTwo:
    """Two processes that make many runs, one after another."""

    @pytest.mark.slow
    @pytest.mark.parametrize("case", CASES)
    def test_losses_are_those_of_one_process(self, told, case):
        (first, second), _ = told
        assert first["runs"][case] == second["runs"][case]  # to the bit
        assert_close(first["runs"][case], numbers(fitted(case)), case)

    @pytest.mark.slow
    def test_one_of_them_writes(self, told):
        (first, second), folder = told
        assert sorted(path.name for path in (folder / "fitted").iterdir()) == ["run.json", "tensors.safetensors"]
        assert first["saved"] == second["saved"] == str((folder / "saved").resolve())
        assert pdh.load(folder / "saved", target=Network().double()).history.to_dict("list") == {
            name: values for name, values in first["runs"]["apd"].items() if name != "recon at the end"
        }

    @pytest.mark.slow
    def test_what_is_wrong_on_one_is_refused_on_both(self, told):
        (first, second), _ = told
        assert first["refusals"] == second["refusals"]
        parts_of_them = {
            "folder": "out is 'full', which is not empty",
            "network": "all 2 processes of a run must have the same network, but that of rank 1 is another",
            "data": "all 2 processes of a run must have the same data",
            "configuration": "all 2 processes of a run must have the same configuration",
            "kind of data": "data must be a function",
            "batch_size": "batch_size must be at least 2, an input for each process, but is 1; 2 works",
            "mixing": "the network computes an input from the others of its batch",
            "sweep": "pdh.sweep starts processes of its own",
            "resume": "nowhere' does not exist",
        }
        assert list(first["refusals"]) == list(parts_of_them)
        for name, part in parts_of_them.items():
            assert part in first["refusals"][name]


QUICK = ["--steps", "20", "--set", "target_steps=30", "--set", "n_init=2", "--set", "selection_steps=5"]


@pytest.mark.slow
def test_the_command_line_under_torchrun(tmp_path, capsys):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "pd_helpers", "run", "spd/tms_5-2", "--device", "cpu", *QUICK]
    path = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    result = subprocess.run(
        [*command, "--out", "run"], cwd=tmp_path, env=path, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    assert main(["run", "spd/tms_5-2", "--device", "cpu", *QUICK, "--out", str(tmp_path / "alone")]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (json.loads(line)["experiment"], json.loads(line)["device"]) == (alone["experiment"], "cpu")
    together = pdh.load(tmp_path / "run")
    assert_close(together.history.to_dict("list"), pdh.load(tmp_path / "alone").history.to_dict("list"), rel=1e-4)
    assert set(together.trained) == {"date", "device", "threads", "instruction_set", "versions"}


@pytest.mark.slow
def test_an_error_is_said_once(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    command = ["-m", "pd_helpers", "run", "spd/tms_5-2", "--device", "cpu", "--out", "full"]
    first, second = ended(started(*command, folder=tmp_path))
    assert first == (2, "", "error: out is 'full', which is not empty; a new folder such as 'full-2' works\n")
    assert second == (2, "", "")


STOPPED = """
import math, os, signal, sys
import pd_helpers as pdh
from pd_helpers.runs import files
from shared import MLP, SPD, dense, of

number, calls = getattr(signal, sys.argv[1]), 0
files.CHECKPOINT_EVERY, files.CHECKPOINT_SHARE = 0.0, math.inf  # after every step

def data(n, generator):
    global calls
    calls += n == SPD.batch_size
    if calls == 12 and (number is signal.SIGINT or os.environ["RANK"] == "1"):
        os.kill(os.getpid(), number)
    return dense(n, generator)

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    pdh.fit(of(MLP), SPD, data, ["up", "down"], out="run", show_progress=False)
except (ConnectionError, KeyboardInterrupt) as end:
    sys.exit(f"{type(end).__name__}: {end}")
"""
RESUMED = """
import os, torch
from torch import distributed
import pd_helpers as pdh
from pd_helpers.runs import evaluation
from shared import MLP, dense, of

evaluation.N_EVALUATION = 1024
distributed.init_process_group("gloo")  # as a script may do for its own ends
pdh.resume("run", target=of(MLP), data=dense, show_progress=False)
assert distributed.is_initialized()
distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_a_run_that_was_stopped_continues_on_one_and_on_two(name, tmp_path):
    first, second = ended(started("-c", STOPPED, name, folder=tmp_path))
    if name == "SIGINT":
        assert first[2].startswith("Stopped: stopped at step 12; pdh.resume(")
        assert second[2].startswith("Stopped: stopped; pdh.resume(")
    else:
        assert first[2].startswith("ConnectionError: another process of this run was lost")
        assert second == (-signal.SIGKILL, "", "")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoint.safetensors"]
    _, facts = files.read_checkpoint(tmp_path / "run")
    assert facts["candidates"][0]["step"] == 11 + (name == "SIGINT")

    truth = numbers(fitted("spd"))
    shutil.copytree(tmp_path / "run", tmp_path / "one")
    assert_close(numbers(pdh.resume(tmp_path / "one", target=of(Network), data=dense, show_progress=False)), truth)
    if name == "SIGKILL":
        assert ended(started("-c", RESUMED, folder=tmp_path)) == [(0, "", "")] * 2
        assert_close(numbers(pdh.load(tmp_path / "run", target=of(Network))), truth)


class TestOneProcess:
    """What can be said of a process without the others."""

    @pytest.fixture
    def as_rank_1(self, monkeypatch):
        for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
            monkeypatch.setenv(name, value)

    def test_only_rank_0_speaks(self, as_rank_1, monkeypatch, capsys):
        assert main(["list"]) == 0
        assert list(progress(range(3), total=3, description="steps")) == [0, 1, 2]
        with pytest.raises(SystemExit):
            main(["run"])
        assert capsys.readouterr() == ("", "")
        monkeypatch.setenv("RANK", "0")
        assert main(["list"]) == 0
        assert "spd/tms_5-2" in capsys.readouterr().out

    def test_each_has_a_gpu_of_its_own(self, as_rank_1, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 1)
        assert pick_device("cuda:0") == torch.device("cuda", 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(ValueError, match="device is 'cuda:1', but .* as many processes as there are GPUs, works"):
            pick_device("auto")

    def test_a_process_of_one_is_no_group(self, monkeypatch):
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "nowhere"}.items():
            monkeypatch.setenv(name, value)
        pdh.fit(of(Network), SPD.replace(steps=1), dense, show_progress=False)
        assert not torch.distributed.is_initialized()


class TestParts:
    @pytest.mark.parametrize("n", [1, 2, 3, 7])
    @pytest.mark.parametrize("n_ranks", [1, 2, 5])
    @pytest.mark.parametrize("n_inputs", [1, 4, 23])
    def test_every_row_is_in_one_part(self, n, n_ranks, n_inputs):
        batch = Batch.whole(torch.arange(n_inputs).unsqueeze(1).double())
        of_all = [parts(batch, n, rank, n_ranks) for rank in range(n_ranks)]
        assert all(of_all)
        own = [part for of_rank in of_all for part in of_rank if part.weight]
        assert torch.equal(torch.cat([part.rows for part in own]), batch.rows)
        assert math.isclose(sum(part.weight for part in own), 1)
        sizes = [len(part.rows) for part in own]
        assert max(sizes) - min(sizes) <= 1
        assert [part.start for part in own] == [sum(sizes[:i]) for i in range(len(sizes))]

    def test_a_row_weighs_what_it_stands_for(self):
        batch = Batch(torch.tensor([[1.0], [2.0], [0.0]]), torch.tensor([1.0, 1.0, 8.0]), 10)
        first, second = parts(batch, 2)
        assert (first.weight, first.n_inputs, second.weight, second.n_inputs) == (0.1, 1, 0.9, 9)
        assert parts(batch._replace(counts=torch.tensor([1.0, 1.0, 0.0]), n_inputs=2), 3)[2].weight == 0
