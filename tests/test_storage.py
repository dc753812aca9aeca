"""Runs that survive: killed, interrupted or out of disk, a run goes on bit for bit, or says why it cannot."""

import errno
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings

import pandas as pd
import pytest
import torch
from networks import MLP

import pd_helpers as pdh
from pd_helpers.__main__ import main
from pd_helpers.runs import files
from pd_helpers.runs.run import Run
from pd_helpers.targets.tms import TMSConfig

COMMON = {"steps": 30, "n_init": 2, "selection_steps": 10, "target_steps": 50, "faithfulness_warmup_steps": 5}
SMALL = {
    "apd/tms_5-2": {**COMMON, "batch_size": 64},
    "spd/tms_5-2": {**COMMON, "batch_size": 64, "C": 6, "d_gate": 4},
}
STEPS = 2 * 10 + 20
"""Two starts of ten steps, and twenty more for the better one."""
pytestmark = [
    pytest.mark.usefixtures("as_a_user", "quick_evaluation"),
    pytest.mark.slow,
]  # trainings that are stopped and go on


@pytest.fixture(scope="module", params=list(SMALL))
def whole(request):
    """A run that nothing stopped."""
    return pdh.run(request.param, 3, show_progress=False, **SMALL[request.param])


def assert_same(resumed, whole):
    for mine, theirs in zip(resumed.components.factors, whole.components.factors, strict=True):
        assert torch.equal(mine, theirs)
    if whole.importance is not None:
        pairs = zip(resumed.importance.parameters(), whole.importance.parameters(), strict=True)
        assert all(torch.equal(mine, theirs) for mine, theirs in pairs)
    assert resumed.metrics == whole.metrics
    pd.testing.assert_frame_equal(resumed.history, whole.history)
    for mine, theirs in zip(resumed.snapshots, whole.snapshots, strict=True):
        assert mine.step == theirs.step
        for path, factors in theirs.factors.items():
            assert all(map(torch.equal, mine.factors[path], factors))


def stop_after(n, run, folder):
    """What a process leaves that is killed after n steps of a run."""
    assert len(list(itertools.islice(run.steps(), n))) == n
    files.write_checkpoint(folder, *run.pack_checkpoint())


def after_every_step(patch):
    """Write a checkpoint after every step."""
    patch.setattr(files, "CHECKPOINT_EVERY", 0.0)
    patch.setattr(files, "CHECKPOINT_SHARE", math.inf)


def small(name, **options):
    return pdh.run(name, 3, show_progress=False, **SMALL[name], **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


FINISHED = ["run.json", "tensors.safetensors"]


class TestBitForBit:
    @pytest.mark.parametrize("n", [0, 1, 10, 11, 20, 21, STEPS])
    def test_a_run_stopped_after_any_step(self, whole, n, tmp_path):
        run = pdh.prepare(whole.name, 3, show_progress=False, **SMALL[whole.name])
        stop_after(n, run, tmp_path / "run")
        resumed = pdh.resume(tmp_path / "run", show_progress=False)
        assert_same(resumed, whole)
        assert names(tmp_path / "run") == FINISHED
        assert pdh.load(tmp_path / "run").metrics == whole.metrics

    def test_stopped_again_and_again(self, whole, tmp_path):
        run = pdh.prepare(whole.name, 3, show_progress=False, **SMALL[whole.name])
        for _ in range(5):
            stop_after(7, run, tmp_path / "run")
            run = self.reopened(tmp_path / "run")
        assert run.remaining == STEPS - 5 * 7
        assert_same(pdh.resume(tmp_path / "run", show_progress=False), whole)

    @staticmethod
    def reopened(folder):
        """The run in a folder, as resume has it before it trains."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pdh.Run, "train_into", lambda run, *_, **__: run)
            return pdh.resume(folder)

    def test_writing_checkpoints_changes_nothing(self, whole, tmp_path, monkeypatch):
        after_every_step(monkeypatch)
        written = []
        write = files.write_checkpoint

        def noted(folder, tensors, facts):
            written.append(facts)
            write(folder, tensors, facts)

        monkeypatch.setattr(files, "write_checkpoint", noted)
        assert_same(small(whole.name, out=tmp_path / "run"), whole)
        of_target = written[: 1 + COMMON["target_steps"]]
        assert [facts["target_step"] for facts in of_target] == list(range(1 + COMMON["target_steps"]))
        of_run = written[len(of_target) :]
        assert [candidate["step"] for candidate in of_run[0]["candidates"]] == [0, 0]
        assert len(of_run) == 1 + STEPS
        assert names(tmp_path / "run") == FINISHED

    def test_a_start_that_blew_up_stays_out(self, tmp_path):
        def prepare():
            run = pdh.prepare("apd/tms_5-2", 3, show_progress=False, **SMALL["apd/tms_5-2"])
            with torch.no_grad():
                run.components.factors[0].fill_(torch.nan)
            return run

        whole = prepare().train(show_progress=False)
        first_check = next(step for step in whole.history["step"] if step)  # where the first start is given up
        stop_after(int(first_check) + 5, prepare(), tmp_path / "run")
        assert_same(pdh.resume(tmp_path / "run", show_progress=False), whole)

    def test_seconds_add_up(self, tmp_path):
        run = pdh.prepare("apd/tms_5-2", 3, show_progress=False, **SMALL["apd/tms_5-2"])
        stop_after(25, run, tmp_path / "run")
        before, target_seconds = run.seconds, run.target_seconds
        resumed = pdh.resume(tmp_path / "run", show_progress=False)
        assert resumed.seconds > before > 0
        assert resumed.target_seconds == target_seconds > 0


PROGRAM = """
import math, signal, sys, time
from pd_helpers.runs import evaluation, files
from pd_helpers.__main__ import main

def write_and_rest(*arguments):
    write(*arguments)
    time.sleep(0.02)  # so that the test can stop this in time

write, files.write_checkpoint = files.write_checkpoint, write_and_rest
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
evaluation.N_EVALUATION = 1024
files.CHECKPOINT_EVERY, files.CHECKPOINT_SHARE = 0.0, math.inf  # after every step
sys.exit(main(sys.argv[1:]))
"""
LONGER = {"steps": 120, "selection_steps": 40}


@pytest.fixture(scope="module")
def longer():
    """Name → the run that the processes below would end with."""
    return {name: pdh.run(name, 3, show_progress=False, **{**settings, **LONGER}) for name, settings in SMALL.items()}


def stopped_process(name, folder, stop, enough):
    """Start a run, send it a signal once its checkpoint has come far enough; gives exit code, stdout, stderr."""
    words = [word for key, value in {**SMALL[name], **LONGER}.items() for word in ("--set", f"{key}={value}")]
    command = [sys.executable, "-c", PROGRAM, "run", name, "--seed", "3", "--out", str(folder), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if files.has_checkpoint(folder) and enough(files.read_checkpoint(folder)[1]["candidates"]):
                process.send_signal(stop)
                break
            time.sleep(0.01)
        return (*process.communicate(timeout=100), process.returncode)


class TestProcesses:
    @pytest.mark.parametrize("name", list(SMALL))
    @pytest.mark.parametrize("phase", ["second start", "best start"])
    def test_killed(self, name, phase, longer, tmp_path):
        def enough(candidates):
            return len(candidates) == 1 or (phase == "second start" and candidates and candidates[1]["step"] > 10)

        *_, code = stopped_process(name, tmp_path / "run", signal.SIGKILL, enough)
        assert code == -signal.SIGKILL
        assert files.has_checkpoint(tmp_path / "run")
        assert_same(pdh.resume(tmp_path / "run", show_progress=False), longer[name])
        assert names(tmp_path / "run") == FINISHED  # and nothing half-written

    def test_ctrl_c_leaves_a_run_that_can_be_resumed(self, longer, tmp_path, capsys):
        name, folder = "apd/tms_5-2", tmp_path / "run"
        out, error, code = stopped_process(name, folder, signal.SIGINT, lambda candidates: len(candidates) == 1)
        assert (code, out) == (130, "")
        assert error.splitlines()[-1] == f"stopped; python -m pd_helpers resume {folder} continues from there"
        assert "Traceback" not in error
        assert names(folder) == ["checkpoint.safetensors"]
        assert main(["resume", str(folder)]) == 0
        line = json.loads(capsys.readouterr().out)
        assert (line["experiment"], line["seed"], line["steps"]) == (name, 3, LONGER["steps"])
        assert line["metrics"] == longer[name].metrics


def gaussian(batch_size, generator):
    return torch.randn(batch_size, 3, generator=generator)


class CtrlC:
    """Data that presses Ctrl-C while batch n is drawn."""

    def __init__(self, n, times=1):
        self.left, self.times = n, times

    def __call__(self, batch_size, generator):
        if batch_size == 16:
            self.left -= 1
            for _ in range(self.times if self.left == 0 else 0):
                signal.raise_signal(signal.SIGINT)
        return gaussian(batch_size, generator)


def fit(data=gaussian, **options):
    torch.manual_seed(0)
    config = pdh.SPDConfig(C=4, d_gate=3, steps=40, batch_size=16, lr=0.01)
    return pdh.fit(MLP(), config, data, {"fc1": 3, "fc2": 4}, show_progress=False, **options)


def press_while_the_target_trains(patch):
    """Let Ctrl-C be pressed in the seventh step of the target's training."""
    loss, count = TMSConfig.loss, itertools.count(1)

    def pressing(config, model, x):
        if next(count) == 7:
            signal.raise_signal(signal.SIGINT)
        return loss(config, model, x)

    patch.setattr(TMSConfig, "loss", pressing)


class TestInterrupts:
    @pytest.fixture(autouse=True)
    def python_s_own_handler(self, monkeypatch):
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_a_network_of_your_own_goes_on_after_ctrl_c(self, tmp_path):
        with pytest.raises(
            KeyboardInterrupt, match=r"stopped at step 17; pdh.resume\('.*run', target=network, data=data\)"
        ):
            fit(CtrlC(17), out=tmp_path / "run")
        assert files.read_checkpoint(tmp_path / "run")[1]["candidates"][0]["step"] == 17
        with pytest.raises(ValueError, match="a network of your own, so pdh.resume needs target=.* and data="):
            pdh.resume(tmp_path / "run", target=MLP())
        with pytest.raises(ValueError, match="cannot be resumed: target.fc1.* in target=; a network of the same"):
            pdh.resume(tmp_path / "run", target=MLP(d_hidden=5), data=gaussian)
        with pytest.raises(ValueError, match="cannot be resumed: data.* must give a batch, such as a tensor"):
            pdh.resume(tmp_path / "run", target=MLP(), data=lambda n, g: torch.zeros(n))
        with pytest.raises(ValueError, match="data gives other inputs than the function that the run was started with"):
            pdh.resume(tmp_path / "run", target=MLP(), data=lambda n, g: 2 * gaussian(n, g))
        with pytest.raises(ValueError, match="data gives other inputs for the same generator"):
            pdh.resume(tmp_path / "run", target=MLP(), data=lambda n, _: torch.randn(n, 3))
        resumed = pdh.resume(tmp_path / "run", target=MLP(), data=gaussian, show_progress=False)
        assert_same(resumed, fit())
        assert resumed.data.data is gaussian  # a feed, which gives the network what the function draws

    def test_a_second_ctrl_c_does_not_wait(self, tmp_path):
        with pytest.raises(KeyboardInterrupt, match=r"stopped; pdh.resume\('.*run', target=.*\) continues it"):
            fit(CtrlC(17, times=2), out=tmp_path / "run")
        assert files.read_checkpoint(tmp_path / "run")[1]["candidates"][0]["step"] == 0
        assert_same(pdh.resume(tmp_path / "run", target=MLP(), data=gaussian, show_progress=False), fit())

    def test_ctrl_c_is_python_s_own_again_afterwards(self, tmp_path):
        fit(out=tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_somebody_else_s_ctrl_c_is_left_alone(self, tmp_path):
        heard = []
        signal.signal(signal.SIGINT, lambda *_: heard.append(1))
        fit(CtrlC(17), out=tmp_path / "run")
        assert heard == [1]

    def test_without_a_folder_ctrl_c_is_immediate(self):
        with pytest.raises(KeyboardInterrupt, match="stopped; with out=, a new folder, a run leaves checkpoints"):
            fit(CtrlC(17))

    def test_the_command_line_without_a_folder(self, monkeypatch, capsys):
        press_while_the_target_trains(monkeypatch)
        assert main(["run", "apd/tms_5-2"]) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "stopped; with --out DIR, a run can be resumed"

    def test_the_command_line_where_nothing_is_kept(self, monkeypatch, capsys):
        press_while_the_target_trains(monkeypatch)
        assert main(["reproduce", "apd/tms_5-2"]) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "stopped; nothing was written"

    def test_the_command_line_while_the_target_trains(self, monkeypatch, capsys, tmp_path):
        with monkeypatch.context() as patch:
            press_while_the_target_trains(patch)
            assert main(["run", "apd/tms_5-2", "--out", str(tmp_path / "run")]) == 130
        message = capsys.readouterr().err.splitlines()[-1]
        assert message == f"stopped; python -m pd_helpers resume {tmp_path / 'run'} continues from there"
        assert files.read_checkpoint(tmp_path / "run")[1]["target_step"] == 7
        assert names(tmp_path / "run") == ["checkpoint.safetensors"]

    def test_jupyter_shows_one_line(self, tmp_path):
        from IPython.core.interactiveshell import InteractiveShell

        with pytest.raises(KeyboardInterrupt) as stopped:
            fit(CtrlC(17), out=tmp_path / "run")
        shown = InteractiveShell().instance()
        lines = []
        shown._showtraceback = lambda etype, value, traceback: lines.extend(traceback)
        shown.showtraceback((type(stopped.value), stopped.value, stopped.value.__traceback__))
        assert lines == [
            f"Stopped at step 17; pdh.resume('{tmp_path / 'run'}', target=network, data=data) continues it."
        ]


class TestFinishedRuns:
    @pytest.fixture
    def folder(self, tmp_path):
        small("apd/tms_5-2", out=tmp_path / "run")
        return tmp_path / "run"

    def test_a_finished_run_is_reported_and_not_repeated(self, folder, capsys, monkeypatch):
        monkeypatch.setattr(Run, "steps", lambda _: pytest.fail("it was trained again"))
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        resumed = pdh.resume(folder)
        assert main(["resume", str(folder)]) == 0
        line = json.loads(capsys.readouterr().out)
        assert line["metrics"] == resumed.metrics
        assert line["steps"] == COMMON["steps"]
        assert line["seconds"] == pytest.approx(resumed.seconds, abs=1e-3)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def test_run_json_says_where_it_was_trained(self, folder):
        facts = json.loads((folder / "run.json").read_text())
        assert facts["threads"] == torch.get_num_threads()
        assert facts["device"] == "cpu"
        assert facts["versions"] == {"pd_helpers": pdh.__version__, "torch": torch.__version__}
        assert len(facts["date"]) == len("2026-01-31")

    def test_a_loaded_run_saved_again_keeps_saying_so(self, folder, tmp_path):
        facts = json.loads((folder / "run.json").read_text())
        facts |= {"date": "2020-02-02", "threads": 7}
        (folder / "run.json").write_text(json.dumps(files.sealed(facts)))
        again = json.loads((pdh.load(folder).save(tmp_path / "again") / "run.json").read_text())
        assert (again["date"], again["threads"]) == ("2020-02-02", 7)

    @pytest.mark.parametrize("moment", ["before run.json", "before the checkpoint is removed"])
    def test_killed_while_the_finished_run_is_written(self, whole, moment, tmp_path, monkeypatch):
        replace, folder = os.replace, tmp_path / "run"

        def killed(*_):
            raise SystemExit  # nothing after this happens, as in a process that is gone

        with monkeypatch.context() as patch:
            if moment == "before run.json":
                patch.setattr(os, "replace", lambda a, b: killed() if b.name == "run.json" else replace(a, b))
            else:
                patch.setattr(files, "discard_checkpoint", killed)
            with pytest.raises(SystemExit):
                small(whole.name, out=folder)
        rest = ["run.json"] if moment != "before run.json" else []
        assert names(folder) == ["checkpoint.safetensors", *rest, "tensors.safetensors"]
        resumed = pdh.resume(folder, show_progress=False)
        assert_same(resumed, whole)
        assert names(folder) == FINISHED
        assert_same(pdh.load(folder), whole)


class TestUnfinishedFolders:
    @pytest.fixture(scope="class")
    @classmethod
    def content(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("unfinished") / "run"
        stop_after(15, pdh.prepare("apd/tms_5-2", 3, show_progress=False, **SMALL["apd/tms_5-2"]), folder)
        return (folder / "checkpoint.safetensors").read_bytes()

    @pytest.fixture
    def folder(self, tmp_path, content):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoint.safetensors").write_bytes(content)
        return tmp_path / "run"

    def test_load_says_that_it_is_unfinished(self, folder):
        with pytest.raises(ValueError, match=r"run' is not finished; pdh.resume\('.*run'\) continues it"):
            pdh.load(folder)

    def test_a_new_run_does_not_overwrite_it(self, folder, content):
        with pytest.raises(ValueError, match=r"holds an unfinished run; pdh.resume\(.*run-2' takes a new run"):
            pdh.run("apd/tms_5-2", out=folder)
        assert (folder / "checkpoint.safetensors").read_bytes() == content

    @pytest.mark.parametrize("share", [0.0, 0.0001, 0.1, 0.5, 0.999])
    def test_a_cut_checkpoint(self, folder, content, share):
        (folder / "checkpoint.safetensors").write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=r"checkpoint.safetensors' is damaged .*; start the run again"):
            pdh.resume(folder)

    def test_a_changed_byte_anywhere(self, folder, content):
        for position in [*range(0, len(content), len(content) // 150), len(content) - 1]:
            changed = bytearray(content)
            changed[position] ^= 1
            (folder / "checkpoint.safetensors").write_bytes(changed)
            with pytest.raises(ValueError, match="is damaged"):
                files.read_checkpoint(folder)
        (folder / "checkpoint.safetensors").write_bytes(content)
        assert files.read_checkpoint(folder)[1]["seed"] == 3

    @pytest.mark.parametrize("made", [True, False])
    def test_a_folder_without_a_checkpoint(self, made, tmp_path, capsys):
        if made:
            (tmp_path / "run").mkdir()
        what = "holds no checkpoint" if made else "does not exist"
        with pytest.raises(ValueError, match=f"run' {what}, .* before its first checkpoint is started again"):
            pdh.resume(tmp_path / "run")
        assert main(["resume", str(tmp_path / "run")]) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_another_number_of_threads_is_a_warning(self, folder):
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(before + 1)
            with pytest.warns(UserWarning, match=rf"on {before} threads.* {before + 1}.*set_num_threads\({before}\)"):
                resumed = pdh.resume(folder, show_progress=False)
        finally:
            torch.set_num_threads(before)
        assert resumed.metrics

    def test_the_same_number_of_threads_is_none(self, folder):
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            resumed = pdh.resume(folder, show_progress=False)
        assert not [str(warning.message) for warning in given if warning.category is UserWarning]
        assert resumed.metrics

    def test_another_version_of_torch_is_a_warning(self, folder, monkeypatch):
        monkeypatch.setattr(torch, "__version__", "9.9.9")
        with pytest.warns(UserWarning, match="started with .* and continues with .*torch 9.9.9"):
            pdh.resume(folder, show_progress=False)

    def test_another_instruction_set_is_a_warning(self, folder):
        tensors, facts = files.read_checkpoint(folder)
        assert facts["instruction_set"] == torch.backends.cpu.get_cpu_capability()
        files.write_checkpoint(folder, tensors, facts | {"instruction_set": "MMX"})
        with pytest.warns(UserWarning, match=r"instruction set MMX .* ATEN_CPU_CAPABILITY=mmx makes them the same"):
            pdh.resume(folder, show_progress=False)

    def test_a_device_that_is_not_here(self, folder, monkeypatch):
        tensors, facts = files.read_checkpoint(folder)
        files.write_checkpoint(folder, tensors, facts | {"device": "cuda"})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ValueError, match="was trained on cuda, which torch does not find here"):
            pdh.resume(folder)

    def test_what_a_killed_writer_left_goes(self, folder):
        (folder / ".partial-x").mkdir()
        (folder / ".partial-x" / "checkpoint.safetensors").write_bytes(b"half")
        pdh.resume(folder, show_progress=False)
        assert names(folder) == FINISHED


class TestAFullDisk:
    @staticmethod
    def fill(patch, room):
        """Let the disk be full after so many files, and half of the next."""
        write, left = files.write_file, iter(range(room))

        def write_file(path, data):
            if next(left, None) is None:
                path.write_bytes(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            write(path, data)

        patch.setattr(files, "write_file", write_file)

    def test_training_goes_on_and_the_last_checkpoint_remains(self, whole, tmp_path, monkeypatch):
        folder = tmp_path / "run"
        with monkeypatch.context() as patch:
            after_every_step(patch)
            self.fill(patch, room=2)
            with (
                pytest.warns(UserWarning, match="no checkpoint .*No space left.*the one before is kept") as warned,
                pytest.raises(OSError, match="run' .No space left.*checkpoint remains: make room, then pdh.resume"),
            ):
                small(whole.name, out=folder)
        assert sum("no checkpoint" in str(warning.message) for warning in warned) == 2  # of the target, of the run
        assert names(folder) == ["checkpoint.safetensors"]
        assert_same(pdh.resume(folder, show_progress=False), whole)

    def test_full_from_the_start(self, tmp_path, monkeypatch, capsys):
        self.fill(monkeypatch, room=0)
        words = [w for key, value in SMALL["apd/tms_5-2"].items() for w in ("--set", f"{key}={value}")]
        assert main(["run", "apd/tms_5-2", "--out", str(tmp_path / "run"), *words]) == 1
        written = capsys.readouterr()
        assert written.out == ""
        assert "warning: no checkpoint could be written to" in written.err
        assert "error: the finished run cannot be written" in written.err.splitlines()[-1]
        assert "there is no checkpoint of it either" in written.err
        assert names(tmp_path) == []


def test_a_loss_that_blows_up_leaves_nothing_to_resume(tmp_path):
    with pytest.raises(FloatingPointError):
        small("apd/tms_5-2", lr=1e30, out=tmp_path / "run")
    assert names(tmp_path) == []


def test_a_target_that_was_given_comes_from_the_checkpoint(whole, tmp_path):
    settings = {key: value for key, value in SMALL[whole.name].items() if key != "target_steps"}
    other = pdh.run(whole.name, 5, target=whole, show_progress=False, **settings)
    run = pdh.prepare(whole.name, 5, target=whole, show_progress=False, **settings)
    stop_after(13, run, tmp_path / "run")
    resumed = pdh.resume(tmp_path / "run", show_progress=False)
    assert_same(resumed, other)
    assert torch.equal(resumed.target.embed.weight, whole.target.embed.weight)
