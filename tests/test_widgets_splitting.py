"""The lab on the number of subcomponents, without a front end."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis import metrics
from pd_helpers.widgets import RoomLab


@pytest.fixture(scope="module")
def run(quick_evaluation):
    settings = {"steps": 30, "batch_size": 64, "target_steps": 50, "n_init": 1, "C": 8}
    return pdh.run("spd/tms_5-2_id", show_progress=False, device="cpu", **settings)


def test_it_begins_with_the_run_and_comes_back_to_it(run):
    lab = RoomLab(run)
    first = lab.picture
    assert lab.run is run
    assert lab.size.options == (5, 8, 10, 20, 40, 80)  # the run's own C among them
    lab.size.value = 5
    assert lab.run.config == run.config.replace(C=5)
    assert lab.run.target is run.target
    assert lab.run.step == 30
    assert lab.values.C == 5
    assert lab.picture != first
    lab.size.value = 8
    assert lab.run is run
    assert lab.picture == first
    assert lab.progress.stop.disabled


def test_it_counts_the_alive_and_shows_the_most_important(run):
    lab = RoomLab(run)
    g = run.importances(0.75 * torch.eye(5))
    for layer, ax in zip(("embed", "identity"), lab.axes[0], strict=False):
        values, sums = lab.values.layers[layer], g[layer].sum(dim=0)
        assert values.n_alive == int((g[layer] > 0.1).any(dim=0).sum())
        torch.testing.assert_close(values.g.sum(dim=0), sums.sort(descending=True).values)
        U, V = (factor.detach() for factor in (run.components.layers[layer].U, run.components.layers[layer].V))
        lengths = (U.norm(dim=1) * V.norm(dim=2)).flatten()  # of rank-one matrices
        torch.testing.assert_close(values.lengths, lengths.sort(descending=True).values)
        shown = torch.tensor(ax.images[0].get_array().filled(torch.nan))  # (5, 10): eight, and two that do not exist
        assert shown[:, 8:].isnan().all()
        torch.testing.assert_close(shown[:, :8], values.g)
        assert f'"pdh-alive-{layer}">{values.n_alive}</b> of 8' in lab.readout
    P, W = run.first_layer
    assert (lab.values.mmcs, lab.values.ml2r) == (metrics.mmcs(P, W), metrics.ml2r(P, W))


def test_a_live_training_is_short_and_tries_one_initialisation():
    lab = RoomLab(pdh.shipped("spd/tms_5-2_id"))
    run = lab.prepare()
    assert run.config.steps == RoomLab.STEPS < lab.published.config.steps
    assert run.remaining == RoomLab.STEPS


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="run must be an SPD run on a toy model with an identity; pdh.shipped"):
        RoomLab(pdh.shipped("spd/tms_5-2"))
    with pytest.raises(ValueError, match="run must be an SPD run"):
        RoomLab(pdh.shipped("apd/tms_5-2_id"))
