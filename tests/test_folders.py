"""Folders of runs: which paths work, whose a folder is, and that nothing leaves one that neither runs nor resumes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from networks import MLP

import pd_helpers as pdh
from pd_helpers.__main__ import main
from pd_helpers.runs import files
from pd_helpers.runs.folders import LOCK, PARTIAL, check_new_folder, claimed

SMALL = {"steps": 6, "target_steps": 5, "batch_size": 16, "n_init": 1}
WORDS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]

pytestmark = pytest.mark.usefixtures("as_a_user", "quick_evaluation")


def run(**options):
    return pdh.run("apd/tms_5-2", 3, show_progress=False, **SMALL, **options)


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def odd(tmp_path):
    """Name → a path that cannot be a folder of runs."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    return {
        "loop": tmp_path / "a",
        "too long": "x" * 5000,
        "below a file": tmp_path / "file" / "x",
        "a file": tmp_path / "file",
        "NUL": "a\0b",
        "no home": "~nobody-of-this-name/x",
        "empty": "",
        "a list": [],
        "a number": 3,
        "bytes": b"x",
    }


@pytest.mark.parametrize(
    "kind", ["loop", "too long", "below a file", "a file", "NUL", "no home", "empty", "a list", "a number", "bytes"]
)
def test_a_path_that_cannot_be(kind, odd, capsys):
    calls = {
        "run": lambda path: run(out=path),
        "fit": lambda path: pdh.fit(MLP(), pdh.SPDConfig(C=3), lambda n, g: torch.zeros(n, 3), ["fc1"], out=path),
        "load": pdh.load,
        "resume": pdh.resume,
    }
    for call in calls.values():
        with pytest.raises((ValueError, TypeError)) as raised:
            call(odd[kind])
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500
    if isinstance(odd[kind], list | int | bytes):
        return
    for command in (["run", "apd/tms_5-2", *WORDS, "--out"], ["resume"]):
        assert main([*command, str(odd[kind])]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_load_and_resume_need_a_folder():
    for call in (pdh.load, pdh.resume):
        with pytest.raises(TypeError, match="folder must be the path of a folder, but is None"):
            call(None)


def test_a_tilde_is_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run(out="~/runs/1")
    assert contents(tmp_path / "runs" / "1") == ["run.json", "tensors.safetensors"]
    assert pdh.load("~/runs/1").metrics == pdh.resume("~/runs/1").metrics


def test_a_link_to_nowhere_is_followed(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    run(out=tmp_path / "link")
    assert contents(tmp_path / "elsewhere") == ["run.json", "tensors.safetensors"]


class TestRemnants:
    """What a process leaves that is killed before its first checkpoint."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "run"
        (folder / f"{PARTIAL}x").mkdir(parents=True)
        (folder / f"{PARTIAL}x" / files.CHECKPOINT).write_bytes(b"half")
        (folder / LOCK).touch()
        return folder

    def test_a_new_run_takes_the_folder(self, folder):
        run(out=folder)
        assert contents(folder) == ["run.json", "tensors.safetensors"]

    def test_resume_says_what_works_and_it_does(self, folder, capsys):
        assert main(["resume", str(folder)]) == 2
        assert "is started again with run" in capsys.readouterr().err
        assert main(["run", "apd/tms_5-2", "--out", str(folder), *WORDS]) == 0

    def test_save_takes_the_folder(self, folder):
        run().save(folder)
        assert contents(folder) == ["run.json", "tensors.safetensors"]

    def test_the_resume_of_a_finished_run_clears_them(self, folder, tmp_path):
        run(out=tmp_path / "other")
        for name in contents(tmp_path / "other"):
            (tmp_path / "other" / name).rename(folder / name)
        assert main(["resume", str(folder)]) == 0
        assert contents(folder) == [LOCK, "run.json", "tensors.safetensors"]

    def test_a_folder_with_anything_else_is_not_new(self, folder):
        (folder / "thesis.tex").touch()
        with pytest.raises(ValueError, match="is not empty"):
            check_new_folder(folder)
        assert (folder / "thesis.tex").exists()


class TestALock:
    """A folder belongs to one process at a time, for as long as it lives."""

    def test_in_one_process(self, tmp_path):
        with claimed(tmp_path / "run"):
            for call in (lambda: run(out=tmp_path / "run"), lambda: pdh.resume(tmp_path / "run")):
                with pytest.raises(ValueError, match="belongs to a run that is being trained at this moment"):
                    call()
        assert not (tmp_path / "run").exists()
        run(out=tmp_path / "run")

    @pytest.mark.slow
    def test_between_processes(self, tmp_path, capsys):
        folder = tmp_path / "run"
        hold = "import sys, time\nfrom pathlib import Path\nfrom pd_helpers.runs.folders import claimed\n"
        hold += "with claimed(Path(sys.argv[1])):\n    print('mine', flush=True)\n    time.sleep(100)\n"
        with subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "mine\n"
            for command in (["resume", str(folder)], ["run", "apd/tms_5-2", "--out", str(folder), *WORDS]):
                assert main(command) == 2
                assert "is being trained at this moment" in capsys.readouterr().err
            process.kill()
        assert contents(folder) == [LOCK]
        assert main(["run", "apd/tms_5-2", "--out", str(folder), *WORDS]) == 0
        assert contents(folder) == ["run.json", "tensors.safetensors"]

    @pytest.mark.slow
    def test_while_the_target_trains(self, tmp_path, capsys):
        folder = tmp_path / "run"
        command = [sys.executable, "-m", "pd_helpers", "run", "apd/tms_5-2", "--out", str(folder)]
        long = ["--set", "target_steps=10000000"]
        with subprocess.Popen([*command, *long], stderr=subprocess.DEVNULL) as process:
            while not (folder / files.CHECKPOINT).exists():
                assert process.poll() is None
                time.sleep(0.05)
            before = (folder / files.CHECKPOINT).read_bytes()
            assert main(["run", "apd/tms_5-2", "--out", str(folder), *WORDS]) == 2
            assert main(["resume", str(folder)]) == 2
            assert capsys.readouterr().err.count("is being trained at this moment") == 2
            assert (folder / files.CHECKPOINT).read_bytes()[:8] == before[:8]
            process.kill()
        assert files.read_checkpoint(folder)[1]["candidates"] == []

    def test_a_read_only_finished_run_is_resumed(self, tmp_path):
        whole = run(out=tmp_path / "run")
        os.chmod(tmp_path / "run", 0o555)
        try:
            assert pdh.resume(tmp_path / "run").metrics == whole.metrics
        finally:
            os.chmod(tmp_path / "run", 0o755)


def test_the_resume_of_a_finished_run_looks_at_its_tensors(tmp_path, capsys):
    run(out=tmp_path / "run")
    (tmp_path / "run" / files.TENSORS).unlink()
    assert main(["resume", str(tmp_path / "run")]) == 2
    assert "tensors.safetensors: it is missing" in capsys.readouterr().err
    assert Path(tmp_path / "run" / files.RUN).exists()
