"""A run that is stopped while its target trains goes on from there, bit for bit."""

import signal
import subprocess
import sys
import time

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.core.training import pick_device
from pd_helpers.runs import files
from pd_helpers.runs.run import Run
from pd_helpers.runs.target_stage import TargetStage

COMMON = {"steps": 8, "n_init": 1, "batch_size": 16, "target_steps": 30}
SMALL = {
    "apd/tms_5-2": COMMON | {"target_seed": 11},
    "spd/tms_5-2_id": COMMON | {"C": 6, "d_gate": 4},
    "spd/resid_mlp_2": COMMON | {"C": 6, "d_gate": 4, "n_features": 12, "d_resid": 20, "d_mlp": 5},
}

pytestmark = pytest.mark.usefixtures("as_a_user", "quick_evaluation")


@pytest.fixture(scope="module", params=list(SMALL))
def whole(request):
    """A run that nothing stopped."""
    return pdh.run(request.param, 3, show_progress=False, **SMALL[request.param])


def stopped_after(n, name, folder, patch):
    """What a process leaves that is killed after n steps of its target's training."""
    written = 0

    def write(*arguments):
        nonlocal written
        write_checkpoint(*arguments)
        if written == n:
            raise SystemExit  # nothing after this happens, as in a process that is gone
        written += 1

    write_checkpoint = files.write_checkpoint
    with patch.context() as inner:
        inner.setattr(files, "write_checkpoint", write)
        inner.setattr(files, "CHECKPOINT_EVERY", 0.0)
        inner.setattr(files, "CHECKPOINT_SHARE", 1e9)
        with pytest.raises(SystemExit):
            pdh.run(name, 3, show_progress=False, out=folder, **SMALL[name])
    assert files.read_checkpoint(folder)[1]["target_step"] == n


@pytest.mark.parametrize("n", [0, 1, 17, 30])
def test_a_run_stopped_after_any_step_of_its_target(whole, n, tmp_path, monkeypatch):
    stopped_after(n, whole.name, tmp_path / "run", monkeypatch)
    resumed = pdh.resume(tmp_path / "run", show_progress=False)
    for mine, theirs in zip(resumed.target.parameters(), whole.target.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(resumed.components.factors, whole.components.factors, strict=True):
        assert torch.equal(mine, theirs)
    assert resumed.metrics == whole.metrics
    assert resumed.target_config == whole.target_config
    assert resumed.config == whole.config
    assert pdh.load(tmp_path / "run").metrics == whole.metrics


def test_stopped_again_and_again(tmp_path, monkeypatch):
    name = "spd/resid_mlp_2"
    stopped_after(5, name, tmp_path / "run", monkeypatch)
    tensors, facts = files.read_checkpoint(tmp_path / "run")
    config = pdh.preset(name).replace(**SMALL[name])
    for n in (9, 20):
        stage = TargetStage(facts, config.target, 3, torch.device("cpu"), stored=(tensors, facts))
        training = stage._training()
        for _ in zip(range(n - facts["target_step"]), training.steps(), strict=False):
            pass
        tensors = {f"target.{k}": t for k, t in training.model.state_dict().items()} | training.state()
        facts = {**facts, "target_step": training.step}
    files.write_checkpoint(tmp_path / "run", files.stored_form(tensors), facts)
    assert files.read_checkpoint(tmp_path / "run")[1]["target_step"] == 20
    whole = pdh.run(name, 3, show_progress=False, **SMALL[name])
    assert pdh.resume(tmp_path / "run", show_progress=False).metrics == whole.metrics


@pytest.mark.slow
def test_killed(tmp_path):
    name, folder = "apd/tms_5-2", tmp_path / "run"
    settings = SMALL[name] | {"target_steps": 4000}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    program = "import sys\nfrom pd_helpers.runs import evaluation, files\nfrom pd_helpers.__main__ import main\n"
    program += "evaluation.N_EVALUATION, files.CHECKPOINT_EVERY = 1024, 0.1\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "run", name, "--seed", "3", "--out", str(folder), *words]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        step = 0
        while not step:
            assert process.poll() is None
            time.sleep(0.02)
            if (folder / files.CHECKPOINT).exists():
                step = files.read_checkpoint(folder)[1]["target_step"]
        process.send_signal(signal.SIGKILL)
    assert files.read_checkpoint(folder)[1]["candidates"] == []
    resumed = pdh.resume(folder, show_progress=False)
    whole = pdh.run(name, 3, show_progress=False, **settings)
    assert torch.equal(resumed.target.embed.weight, whole.target.embed.weight)
    assert resumed.metrics == whole.metrics


class TestADamagedCheckpoint:
    @pytest.fixture
    def stored(self, tmp_path, monkeypatch):
        stopped_after(17, "spd/resid_mlp_2", tmp_path / "run", monkeypatch)
        monkeypatch.setattr(Run, "train_into", lambda run, *_, **__: run)
        return tmp_path / "run", *files.read_checkpoint(tmp_path / "run")

    @pytest.mark.parametrize("name", ["optimizer.0.exp_avg", "target.W_E", "target.mlps.0.W_in.weight", "generator"])
    def test_a_tensor_of_another_shape(self, stored, name):
        folder, tensors, facts = stored
        files.write_checkpoint(folder, tensors | {name: torch.zeros(3, dtype=tensors[name].dtype)}, facts)
        with pytest.raises(ValueError, match=name):
            pdh.resume(folder)

    @pytest.mark.parametrize("size", [{"C": 10**8}, {"d_gate": 10**8}, {"batch_size": 10**10}])
    def test_sizes_that_cannot_fit(self, stored, size):
        folder, tensors, facts = stored
        files.write_checkpoint(folder, tensors, {**facts, "config": facts["config"] | size})
        with pytest.raises(ValueError, match=f"run' cannot be resumed: {next(iter(size))} must fit into memory"):
            pdh.resume(folder)

    def test_a_tensor_of_nothing(self, stored):
        folder, tensors, facts = stored
        files.write_checkpoint(folder, tensors | {"mystery": torch.zeros(1)}, facts)
        with pytest.raises(ValueError, match="'mystery' is not a tensor of this run"):
            pdh.resume(folder)

    @pytest.mark.parametrize(("value", "message"), [(-1, "is -1, but must be"), (31, "is 31, but target_steps is 30")])
    def test_a_step_that_cannot_be(self, stored, value, message):
        folder, tensors, facts = stored
        files.write_checkpoint(folder, tensors, {**facts, "target_step": value})
        with pytest.raises(ValueError, match=f"target_step {message}"):
            pdh.resume(folder)


def test_the_stage_says_what_the_run_will_be(tmp_path, monkeypatch):
    name = "apd/tms_5-2"
    stopped_after(3, name, tmp_path / "run", monkeypatch)
    _, facts = files.read_checkpoint(tmp_path / "run")
    settings = pdh.preset(name).replace(**SMALL[name])
    assert (facts["experiment"], facts["method"], facts["seed"]) == (name, "apd", 3)
    assert facts["config"] == settings.config.to_dict()
    assert facts["target_config"] == settings.target.to_dict()
    assert (facts["layers"], facts["candidates"], facts["discarded_seconds"]) == ({}, [], 0.0)
    assert pick_device(facts["device"]) == torch.device("cpu")
