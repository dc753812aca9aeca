"""The lab on SPD across layers, without a front end."""

import re

import pytest
import torch

import pd_helpers as pdh
from pd_helpers import experiments
from pd_helpers.widgets import LayersLab

SMALL = {"n_features": 8, "d_resid": 30, "d_mlp": 4, "feature_probability": 0.2, "target_steps": 100}
QUICK = {"C": 9, "steps": 40, "batch_size": 64, "starts": 1}


@pytest.fixture(scope="module")
def runs():
    names = {"two": "spd/resid_mlp_2", "three": "spd/resid_mlp_3"}
    return {k: pdh.run(name, show_progress=False, device="cpu", **QUICK, **SMALL) for k, name in names.items()}


def said(lab, name):
    return re.search(f'pdh-{name}">(.*?)<', lab._numbers.value)[1]


def test_it_shows_the_feature_in_every_layer(runs):
    lab = LayersLab(runs, feature=5)
    target = experiments.contributions(runs["two"]).target[5]
    assert list(lab._theirs.get_ydata()) == pytest.approx(target.tolist())
    layers = target.clamp(min=0).unflatten(0, (2, -1)).sum(dim=1)
    assert said(lab, "shares") == " + ".join(f"{share:.0%}" for share in (layers / layers.sum()).tolist())
    g = experiments.importance_matrix(runs["two"])["mlps.1.W_in"][5]
    assert f"layer 1 W_in {int((g > 0.1).sum())}" in said(lab, "needed")
    assert list(lab._lines[2].get_ydata()) == pytest.approx(g.sort(descending=True).values.tolist())


def test_another_run_may_have_more_layers(runs):
    lab = LayersLab(runs)
    before = lab._image.value
    lab.run.value = "three"
    assert said(lab, "shares").count("%") == 3
    assert len(lab._theirs.get_ydata()) == sum(mlp.W_in.out_features for mlp in runs["three"].target.mlps)
    assert lab._image.value != before
    lab.run.value = "two"
    assert said(lab, "shares").count("%") == 2
    assert len(lab._lines[5].get_ydata()) == 0  # the third layer's W_out is gone again
    lab.feature.value = 0
    assert "feature 0" in lab.alt


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="SPD runs on a residual MLP; pdh.shipped"):
        LayersLab({"apd": pdh.shipped("apd/tms_5-2")})


def test_contributions_are_those_of_one_subcomponent_a_layer(runs):
    lab, run = LayersLab(runs, feature=2), runs["two"]
    net, parts = run.target, []
    chosen = experiments.contributions(run).chosen[2]
    with torch.no_grad():
        for k, mlp in enumerate(net.mlps):
            P = run.components.layers[f"mlps.{k}.W_in"].P[chosen[k]]
            parts.append((net.W_U[2] @ mlp.W_out.weight) * (P @ net.W_E[:, 2]))
    drawn = [segment[1, 1] for segment in lab._mine.get_segments()]
    assert drawn == pytest.approx(torch.cat(parts).tolist(), abs=1e-5)
