"""The lab on APD's Lp formulation, without a front end."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis import metrics
from pd_helpers.widgets import LpLab

SHORT = {"steps": 60, "target_steps": 300, "n_init": 1, "attribution_p": 0.7}


@pytest.fixture(scope="module")
def run(quick_evaluation):
    return pdh.run("apd/tms_5-2", seed=0, show_progress=False, **SHORT)


def test_moving_a_slider_trains_with_its_value_on_the_same_target(run):
    lab = LpLab(run)
    before = lab.picture
    lab.sliders["attribution_p"].value = 0.5
    assert lab.run.config == run.config.replace(attribution_p=0.5, minimality_coeff=1.0, simplicity_coeff=1.0)
    assert lab.values.step == 60
    assert torch.equal(lab.values.W, run.target.embed.weight)
    assert lab.picture != before


def test_values_are_those_of_the_components_shown(run):
    lab = LpLab(run)
    trained = lab.train(minimality_coeff=3.0, simplicity_coeff=0.0)
    P, W = trained.first_layer
    assert torch.equal(lab.values.P, P)
    assert (lab.values.mmcs, lab.values.ml2r) == (metrics.mmcs(P, W), metrics.ml2r(P, W))
    torch.testing.assert_close(lab.values.shares, torch.einsum("cij,ij->cj", P, W) / W.square().sum(dim=0))
    assert lab.values.n_own == metrics.own_columns(P, W)
    assert "λ_M = 3, λ_S = 0" in lab.alt
    assert f"{lab.values.ml2r:.3f}" in lab.readout


def test_runs_it_cannot_show_are_refused(run):
    with pytest.raises(ValueError, match="its attribution_p is None; 0.9 works"):
        LpLab(pdh.prepare("apd/tms_5-2", target=run, attribution_p=None))
    with pytest.raises(ValueError, match="run must be an APD run on a toy model with two hidden dimensions"):
        LpLab(pdh.prepare("apd/tms_5-2", n_hidden=3, target_steps=10, attribution_p=0.9, show_progress=False))
