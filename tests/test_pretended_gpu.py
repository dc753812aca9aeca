"""A training step on a GPU, as far as a CPU can tell: every tensor is on the device, and nothing waits for it."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pretended_gpu
import pretended_graph
import pytest
import torch
from torch import nn

import pd_helpers as pdh
from benchmarks.pair import in_turn
from benchmarks.timing import steady
from pd_helpers.core.apd import APD
from pd_helpers.core.method import Method
from pd_helpers.core.shortcuts import step_graph
from pd_helpers.core.shortcuts.empty_rows import Batch, EmptyRows
from pd_helpers.core.shortcuts.step_graph import EAGER, StepGraph, replayed
from pd_helpers.core.training import adam, learning_rate, set_learning_rate
from pd_helpers.runs.presets import PRESETS
from pd_helpers.targets.base import TrainedConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def devices() -> dict[str, str]:
    """What each training gives on the pretended GPU: the device of its losses, or an error."""
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    script = [sys.executable, str(Path(__file__).with_name("pretended_gpu.py"))]
    done = subprocess.run(script, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_of_a_preset_stays_on_the_gpu_and_never_waits_for_it(devices, name):
    assert devices[name] == "pretended:0"


@pytest.mark.parametrize("kind", pretended_gpu.NETWORKS)
@pytest.mark.parametrize("method", pretended_gpu.CONFIGS)
def test_so_does_a_step_on_a_network_of_ones_own(devices, kind, method):
    assert devices[f"{method} of {kind}"] == "pretended:0"
    assert len(devices) == len(PRESETS) + len(pretended_gpu.NETWORKS) * len(pretended_gpu.CONFIGS)


@pytest.fixture
def graphs(monkeypatch) -> None:
    """A stand-in for CUDA graphs, and whole batches, as on a GPU."""
    monkeypatch.setattr(step_graph, "cuda", pretended_graph.CUDA)
    monkeypatch.setattr("pd_helpers.core.components.worthwhile", lambda on: False)
    monkeypatch.setattr(EmptyRows, "merge", lambda self, x: Batch.whole(x))
    monkeypatch.setattr(APD, "merged", Method.merged)


def prepared(name: str):
    """A preset's decomposition at step 0, with an optimiser whose steps can be recorded, and a batch for every step."""
    quick = {"target_steps": 20} if isinstance(PRESETS[name].target, TrainedConfig) else {}
    quick |= {"batch_size": 32, "n_init": 1, "steps": 12, "selection_steps": 12} | steady(name)
    method, data = (run := pdh.prepare(name, device="cpu", show_progress=False, **quick)).method, run.data
    parameters = [parameter for group in method.optimizer.param_groups for parameter in group["params"]]
    method.optimizer = torch.optim.Adam(parameters, lr=torch.tensor(0.0), fused=True)
    draw = torch.Generator().manual_seed(4)
    return method, [data(32, draw) for _ in range(12)]


@pytest.mark.parametrize(
    "name", ["apd/tms_5-2", "apd/tms_5-2_lp", "spd/tms_5-2_id", "apd/resid_mlp_1_rank4", "spd/resid_mlp_1", "apd/gated"]
)
def test_a_recorded_training_is_the_plain_one(graphs, monkeypatch, name):
    (plain, batches), (recorded, _) = prepared(name), prepared(name)
    steps = StepGraph(recorded._step, recorded.generator)
    monkeypatch.setattr(f"pd_helpers.core.{recorded.name}.replayed", lambda step, *_, **__: step)
    recorded._step = steps
    ours, theirs = (
        [torch.stack(list(losses)) for losses in method.train(in_turn(iter(batches)))] for method in (recorded, plain)
    )
    assert steps.recorded
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), rtol=1e-4, atol=1e-7)
    for a, b in zip(recorded.model.factors, plain.model.factors, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert recorded.generator.get_state().equal(plain.generator.get_state())


def test_what_a_recorded_step_gave_stays_as_it_is(graphs):
    step = StepGraph(lambda x: x * 2, torch.Generator())
    given = [step(torch.full((2,), float(i))) for i in range(EAGER + 4)]
    assert step.recorded
    assert [value.tolist() for value in given] == [[2.0 * i] * 2 for i in range(EAGER + 4)]


def test_batches_of_other_sizes_are_computed_as_usual(graphs):
    total = torch.zeros(())
    step = StepGraph(lambda x: total.add_(x.sum()).clone(), torch.Generator())
    sizes = [4] * (EAGER + 2) + [3, 4]
    assert [step(torch.ones(n)).item() for n in sizes] == torch.tensor(sizes).cumsum(0).tolist()


def test_random_numbers_are_those_that_the_generator_would_draw(graphs):
    ours, theirs = (torch.Generator().manual_seed(1) for _ in range(2))
    step = StepGraph(lambda x: x + torch.rand(5, generator=ours), ours)
    for _ in range(EAGER + 4):
        assert torch.rand(3, generator=ours).equal(torch.rand(3, generator=theirs))
        assert step(torch.zeros(5)).equal(torch.rand(5, generator=theirs))


def test_what_cannot_be_recorded_is_computed_as_usual_after_one_warning(graphs):
    generator = torch.Generator().manual_seed(1)
    same = torch.Generator().manual_seed(1)
    step = StepGraph(lambda x: torch.rand(2, generator=generator) * x.sum().item(), generator)
    with pytest.warns(
        UserWarning, match=r"cuda_graph is True, but .* cannot be recorded \(a value is read back\)"
    ) as seen:
        given = [step(torch.ones(3)) for _ in range(EAGER + 3)]
    assert len(seen) == 1
    assert not step.recorded
    for value in given:
        assert value.equal(torch.rand(2, generator=same) * 3)


class TestAsking:
    """What `cuda_graph` does in a run."""

    def test_on_a_cpu_it_changes_nothing(self):
        config = pretended_gpu.CONFIGS["spd"]
        network, x = nn.Linear(6, 4), torch.rand(64, 6)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            runs = [
                pdh.fit(network, config.replace(cuda_graph=asked), x, device="cpu", show_progress=False)
                for asked in (False, True)
            ]
        assert all(a.equal(b) for a, b in zip(*(run.components.factors for run in runs), strict=True))

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            (
                pdh.APDConfig(C=6, top_k=2.0, top_k_start=3.0, batch_size=16, cuda_graph=True),
                "its settings change from step to step",
            ),
            (pdh.SPDConfig(C=6, micro_batches=2, batch_size=16, cuda_graph=True), "micro_batches is 2"),
        ],
    )
    def test_a_step_that_is_not_always_the_same_is_not_recorded(self, config, reason):
        static = getattr(config, "top_k_start", None) is None
        with pytest.warns(UserWarning, match=f"a step of this training cannot be recorded .{reason}"):
            step = replayed(len, torch.Generator(), config, static=static, on="cuda")
        assert step is len

    def test_the_learning_rate_is_a_tensor_that_a_recorded_step_reads(self):
        parameter = nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.Adam([parameter], lr=torch.tensor(0.5), fused=True)
        before = optimizer.param_groups[0]["lr"]
        set_learning_rate(optimizer, learning_rate(10, pdh.SPDConfig(lr=0.25, schedule="constant")))
        assert optimizer.param_groups[0]["lr"] is before
        assert before.item() == 0.25
        assert isinstance(adam([parameter], 0.5, recorded=True).param_groups[0]["lr"], float)  # on a CPU
