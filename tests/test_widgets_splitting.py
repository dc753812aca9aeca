"""The lab on the number of subcomponents, without a front end."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers import metrics
from pd_helpers.widgets import RoomLab


@pytest.fixture(scope="module")
def run():
    settings = {"steps": 30, "batch_size": 64, "target_steps": 50, "starts": 1, "C": 8}
    return pdh.run("spd/tms_5-2_id", show_progress=False, device="cpu", **settings)


def test_it_begins_with_the_run_and_comes_back_to_it(run):
    lab = RoomLab(run)
    first = lab._image.value
    assert lab.run is run
    assert lab.size.options == (5, 8, 10, 20, 40, 80)  # the run's own C among them
    lab.size.value = 5
    assert lab.run is not run
    assert lab.run.config == run.config.replace(C=5)
    assert lab.run.target is run.target
    assert lab.run.state.step == 30
    assert lab._image.value != first
    lab.size.value = 8
    assert lab.run is run
    assert lab._image.value == first
    assert lab.progress.stop.disabled


def test_it_counts_the_alive_and_shows_the_most_important(run):
    lab = RoomLab(run)
    g = run.importances(0.75 * torch.eye(5))
    for layer, image in zip(("embed", "identity"), lab._images, strict=True):
        alive = int((g[layer] > 0.1).any(dim=0).sum())
        assert f'"pdh-alive-{layer}">{alive}</b> of 8' in lab._numbers.value
        shown = torch.tensor(image.get_array().filled(torch.nan))  # (5, 10): eight, and two that there are not
        assert shown[:, 8:].isnan().all()
        sums = shown[:, :8].sum(dim=0)
        assert (sums.diff() <= 0).all()
        torch.testing.assert_close(sums.sum(), g[layer].sum())
    assert f"{metrics.mmcs(*run.first_layer):.3f}" in lab._numbers.value
    lengths = run.components.layers["identity"].P.detach().norm(dim=(1, 2))
    torch.testing.assert_close(torch.tensor(lab._lengths[1].get_ydata()), lengths.sort(descending=True).values)


def test_many_steps_are_cut(run):
    lab = RoomLab(pdh.shipped("spd/tms_5-2_id"))
    assert lab.prepare().config.steps == RoomLab.STEPS < lab.published.config.steps
    assert lab.prepare().alternatives == []


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="run must be an SPD run on a toy model with an identity; pdh.shipped"):
        RoomLab(pdh.shipped("spd/tms_5-2"))
    with pytest.raises(ValueError, match="run must be an SPD run"):
        RoomLab(pdh.shipped("apd/tms_5-2_id"))
