"""The lab that is wrong about both numbers at once, without a front end."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers import metrics
from pd_helpers.widgets import GuessLab
from pd_helpers.widgets.guess import shown_shares


@pytest.fixture(scope="module")
def runs():
    apd = pdh.run("apd/tms_5-2", steps=30, batch_size=64, target_steps=50, starts=1, show_progress=False, device="cpu")
    settings = {"steps": 30, "batch_size": 64, "starts": 1, "C": 8}
    return apd, pdh.run("spd/tms_5-2", target=apd, show_progress=False, device="cpu", **settings)


def test_a_move_trains_both_with_their_numbers_times_the_factor(runs):
    lab = GuessLab(*runs)
    before = lab._image.value
    lab.factor.value = 2
    apd, spd = lab.runs
    assert apd.config == runs[0].config.replace(top_k=2 * runs[0].config.top_k)
    assert spd.config == runs[1].config.replace(importance_coeff=2 * runs[1].config.importance_coeff)
    assert apd.state.step == spd.state.step == 30
    assert apd.target is runs[0].target
    assert lab._image.value != before
    assert f"{metrics.ml2r(*spd.first_layer):.3f}" in lab._numbers.value
    lab.factor.value = 1  # back: the same seed, so the same numbers
    torch.testing.assert_close(lab.runs[0].first_layer[0], runs[0].first_layer[0])


def test_shares_come_longest_first_and_are_filled_up():
    W = torch.eye(3)
    P = torch.stack([0.1 * torch.eye(3), 0.9 * torch.eye(3)])
    shares = shown_shares(P, W, 3)
    torch.testing.assert_close(shares, torch.tensor([[0.9] * 3, [0.1] * 3, [0.0] * 3]))


def test_it_says_what_it_needs(runs):
    with pytest.raises(ValueError, match="spd_run must be a run of SPD on a toy model; pdh.run"):
        GuessLab(runs[0], runs[0])
    with pytest.raises(ValueError, match="apd_run must be a run of APD"):
        GuessLab(runs[1], runs[1])
