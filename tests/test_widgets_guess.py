"""The lab that is wrong about both numbers at once, without a front end."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis import metrics
from pd_helpers.course.apd_against_spd.lab import shown_shares
from pd_helpers.widgets import GuessLab


@pytest.fixture(scope="module")
def runs(quick_evaluation):
    apd = pdh.run("apd/tms_5-2", steps=30, batch_size=64, target_steps=50, n_init=1, show_progress=False, device="cpu")
    settings = {"steps": 30, "batch_size": 64, "n_init": 1, "C": 8}
    return apd, pdh.run("spd/tms_5-2", target=apd, show_progress=False, device="cpu", **settings)


def test_a_move_trains_both_with_their_numbers_times_the_factor(runs):
    lab = GuessLab(*runs)
    before = lab.picture
    lab.factor.value = 2
    apd, spd = lab.runs
    assert apd.config == runs[0].config.replace(top_k=2 * runs[0].config.top_k)
    assert spd.config == runs[1].config.replace(importance_coeff=2 * runs[1].config.importance_coeff)
    assert apd.step == spd.step == 30
    assert apd.target is runs[0].target
    assert lab.picture != before
    lab.factor.value = 1  # back: the same seed, so the same numbers
    torch.testing.assert_close(lab.runs[0].first_layer[0], runs[0].first_layer[0])


def test_values_are_those_of_both_runs(runs):
    lab = GuessLab(*runs)
    assert (lab.values.apd.guess, lab.values.spd.guess) == (runs[0].config.top_k, runs[1].config.importance_coeff)
    for values, run in zip(lab.values, runs, strict=True):
        P, W = run.first_layer
        assert (values.mmcs, values.ml2r) == (metrics.mmcs(P, W), metrics.ml2r(P, W))
        shares = torch.einsum("cij,ij->cj", P, W) / W.square().sum(dim=0)
        assert values.n_own == sum((column > 0.5).any() and _owner_is_alone(shares, column) for column in shares.T)
        assert f"{values.ml2r:.3f}" in lab.readout
    torch.testing.assert_close(lab.values.spd.shares.sum(dim=0), _total_share(runs[1]))


def _owner_is_alone(shares: torch.Tensor, column: torch.Tensor) -> bool:
    """Whether the component with more than half of this column has more than half of no other."""
    return int((shares[column.argmax()] > 0.5).sum()) == 1


def _total_share(run) -> torch.Tensor:
    """How much of each column of W lies in all components together."""
    P, W = run.first_layer
    return ((P.sum(dim=0) * W).sum(dim=0) / W.square().sum(dim=0)).detach()


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
