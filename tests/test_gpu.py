"""What only a machine with a CUDA device can tell; elsewhere this file is not collected (see conftest).

`python tools/gpu_check.py` runs it. Training is compared with the CPU's in float64, and a training recorded as a CUDA
graph with one whose operations are launched one by one.
"""

import copy
import warnings
from contextlib import contextmanager
from itertools import islice

import pytest
import torch
from pretended_gpu import CONFIGS
from torch import nn

import pd_helpers as pdh
from benchmarks.pair import in_turn, prepare
from benchmarks.timing import steady
from pd_helpers.core.shortcuts.step_graph import EAGER, StepGraph
from pd_helpers.runs import files
from pd_helpers.runs.presets import PRESETS
from pd_helpers.targets.base import TrainedConfig

DEVICE = "cuda"
NETWORKS = {
    "linear": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)),
    "convolution": lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(16, 3)),
    "embedding": lambda: nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 11)),
}
INPUTS = {
    "linear": lambda n, g: torch.rand(n, 6, generator=g, device=g.device),
    "convolution": lambda n, g: torch.rand(n, 2, 6, generator=g, device=g.device),
    "embedding": lambda n, g: torch.randint(11, (n, 5), generator=g, device=g.device),
}


def settings(name: str) -> dict:
    """Overrides with which a preset is quick to prepare, and every step of it does the same."""
    trained = isinstance(PRESETS[name].target, TrainedConfig)
    return {"batch_size": 128, "n_init": 1} | steady(name) | ({"target_steps": 20} if trained else {})


@contextmanager
def no_waiting():
    """Within the block, whatever reads a value back from the GPU, which makes Python wait for it, raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def prepared(name: str, *, recorded: bool):
    """A decomposition of a preset at step 0, and batches for it: the same in every call."""
    asked = {"cuda_graph": True} if recorded else {}
    run = pdh.prepare(name, device=DEVICE, show_progress=False, **asked, **settings(name))
    draw = torch.Generator(DEVICE).manual_seed(5)
    return run.method, [run.data(run.config.batch_size, draw) for _ in range(12)]


def steps_of(method, batches, n: int) -> list[torch.Tensor]:
    """The losses of n steps."""
    training = method.train(in_turn(iter(batches)))
    return [torch.stack(list(next(training))) for _ in range(n)]


@pytest.mark.parametrize("name", PRESETS)
def test_losses_and_gradients_are_those_of_the_textbook(name):
    assert prepare(name, DEVICE, **settings(name)).max_abs_diff(torch.float64) < 1e-9


@pytest.mark.parametrize("name", PRESETS)
def test_a_step_never_waits_for_the_gpu(name):
    method, batches = prepared(name, recorded=False)
    training = method.train(in_turn(iter(batches)))
    next(training)
    next(training)
    with no_waiting():
        next(training)
        losses = next(training)
    assert method.step == 4
    assert all(loss.device.type == DEVICE and loss.isfinite() for loss in losses)


@pytest.mark.parametrize("name", [name for name in PRESETS if not name.startswith("vpd/")])  # whose settings move
def test_a_recorded_training_is_the_same(name):
    (plain, batches), (recorded, _) = prepared(name, recorded=False), prepared(name, recorded=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, theirs = steps_of(recorded, batches, 10), steps_of(plain, batches, 10)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    for a, b in zip(recorded.model.factors, plain.model.factors, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "recorded"), [(m, r) for m in CONFIGS for r in (False, True) if not (r and m == "vpd")]
)
@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_of_ones_own(kind, method, recorded):
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    before = copy.deepcopy(network.state_dict())
    config = CONFIGS[method].replace(cuda_graph=True) if recorded else CONFIGS[method]
    run = pdh.fit(network, config, INPUTS[kind], device=DEVICE, show_progress=False)
    draw = torch.Generator(DEVICE).manual_seed(0)
    masks = run.importances(INPUTS[kind](9, draw))
    assert all(mask.device.type == DEVICE and mask.isfinite().all() for mask in masks.values())
    assert all(value.device.type == "cpu" and value.equal(before[key]) for key, value in network.state_dict().items())
    same = pdh.fit(network, CONFIGS[method], INPUTS[kind], device="cpu", show_progress=False)
    assert run.metrics.keys() == same.metrics.keys()


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", ["spd/tms_5-2", "apd/tms_5-2"])
def test_a_stopped_run_continues_as_if_it_had_not(tmp_path, name, recorded):
    short = {"steps": 60, "batch_size": 64, "n_init": 2, "selection_steps": 20, "target_steps": 50}
    short |= {"cuda_graph": recorded, "device": DEVICE, "show_progress": False}
    whole, stopped = pdh.run(name, **short), pdh.prepare(name, **short)
    for _ in islice(stopped.steps(), 71):
        pass
    files.write_checkpoint(tmp_path, *stopped.pack_checkpoint())
    resumed = pdh.resume(tmp_path, show_progress=False)
    for ours, theirs in zip(resumed.components.factors, whole.components.factors, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_what_cannot_be_recorded_is_computed_as_usual_after_one_warning():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            return self.layer(x) * (1 if x.sum().item() > -1 else 0)

    config = CONFIGS["spd"].replace(cuda_graph=True)
    with pytest.warns(UserWarning, match="cuda_graph is True, but a step of this training cannot be recorded") as seen:
        run = pdh.fit(Reads(), config, INPUTS["linear"], device=DEVICE, show_progress=False)
    assert sum("cuda_graph" in str(warning.message) for warning in seen) == 1
    assert run.step == config.steps


def test_a_recorded_step_takes_batches_of_other_sizes_as_usual():
    total = torch.zeros((), device=DEVICE)
    step = StepGraph(lambda x: total.add_(x.sum()).clone(), torch.Generator(DEVICE))
    sizes = [4] * (EAGER + 2) + [3, 4]
    seen = [step(torch.ones(n, device=DEVICE)).item() for n in sizes]
    assert seen == list(torch.tensor(sizes).cumsum(0))


def test_random_numbers_of_a_recorded_step_are_those_that_the_generator_would_draw():
    a, b = (torch.Generator(DEVICE).manual_seed(1) for _ in range(2))
    x = torch.zeros(5, device=DEVICE)
    step = StepGraph(lambda x: x + torch.rand(5, generator=a, device=DEVICE), a)
    for _ in range(8):
        assert torch.rand(3, generator=a, device=DEVICE).equal(torch.rand(3, generator=b, device=DEVICE))
        assert step(x).equal(torch.rand(5, generator=b, device=DEVICE))


@pytest.mark.parametrize("name", ["apd/tms_5-2", "spd/tms_5-2", "spd/resid_mlp_1"])
def test_a_shipped_run_measures_the_same_on_a_gpu(name):
    here, there = (pdh.shipped(name, device=device) for device in (DEVICE, "cpu"))
    x = there.data(512, torch.Generator().manual_seed(3))
    for use, g in there.importances(x).items():
        torch.testing.assert_close(here.importances(x.to(DEVICE))[use].cpu(), g, rtol=1e-3, atol=1e-3)


def test_bfloat16_trains_on_a_gpu():
    config = CONFIGS["spd"].replace(autocast=True, cuda_graph=True)
    run = pdh.fit(NETWORKS["linear"](), config, INPUTS["linear"], device=DEVICE, show_progress=False)
    assert all(factor.dtype == torch.float32 and factor.isfinite().all() for factor in run.components.factors)
