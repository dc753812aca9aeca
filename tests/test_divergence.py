"""A loss that blows up is noticed at its first bad step, whatever comes after it, and after a resume too."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.runs import files
from pd_helpers.runs.divergence import DivergenceWatch


def watched(*losses):
    watch = DivergenceWatch()
    for step, loss in enumerate(losses):
        watch.see(torch.tensor(loss), step)
    return watch


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ((1.0, 1.0, torch.nan, 1.0, torch.inf), 2),
        ((1.0, 1e-5, 1e-4, 9.0, 12.0, 1e-5), 4),  # above a million times the lowest, but finite
        ((torch.inf,), 0),
    ],
)
def test_the_first_bad_step_is_named(losses, step):
    with pytest.raises(FloatingPointError, match=f"blew up at step {step}; a smaller lr than 0.1"):
        watched(*losses).check(0.1)


def test_before_the_bad_step_nothing_is_wrong():
    watch = watched(1.0, 1.0)
    watch.check(0.1)
    watch.see(torch.tensor(torch.nan), 2)
    with pytest.raises(FloatingPointError):
        watch.check(0.1)


def test_a_loss_of_zero_allows_any_of_ordinary_size_after_it():
    watched(0.0, 0.9, 0.0).check(0.1)


def test_its_state_is_all_it_needs():
    again = DivergenceWatch()
    again.load_state(watched(1.0, 1e-5).state())
    again.see(torch.tensor(12.0), 2)
    with pytest.raises(FloatingPointError, match="step 2"):
        again.check(0.1)


DIVERGES = {
    "n_init": 1,
    "target_steps": 200,
    "batch_size": 64,
    "schedule": "constant",
    "warmup_fraction": 1.0,
    "steps": 400,
    "lr": 3.0,
}
"""The learning rate rises until the loss does, slowly enough that it is finite at the next recorded step."""


@pytest.mark.slow
def test_a_resumed_run_diverges_where_the_whole_one_does(tmp_path):
    with pytest.raises(FloatingPointError) as whole:
        pdh.run("spd/tms_5-2", 0, show_progress=False, device="cpu", **DIVERGES)
    bad_step = int(str(whole.value).split("at step ")[1].split(";")[0])
    run = pdh.prepare("spd/tms_5-2", 0, show_progress=False, device="cpu", **DIVERGES)
    for step in run.steps():
        if step == bad_step:  # the last good one
            break
    files.write_checkpoint(tmp_path / "run", *run.pack_checkpoint())
    with pytest.raises(FloatingPointError) as resumed:
        pdh.resume(tmp_path / "run", show_progress=False)
    assert str(resumed.value) == str(whole.value)
