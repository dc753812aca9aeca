"""The lab on SPD across layers, without a front end."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis import importance_matrices, neuron_contributions
from pd_helpers.widgets import LayersLab

SMALL = {"n_features": 8, "d_resid": 30, "d_mlp": 4, "feature_probability": 0.2, "target_steps": 100}
QUICK = {"C": 9, "steps": 40, "batch_size": 64, "n_init": 1, "importance_coeff": 1e-5}


@pytest.fixture(scope="module")
def runs(quick_evaluation):
    names = {"two": "spd/resid_mlp_2", "three": "spd/resid_mlp_3"}
    return {k: pdh.run(name, show_progress=False, device="cpu", **QUICK, **SMALL) for k, name in names.items()}


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.lines}


def test_it_shows_the_feature_in_every_layer(runs):
    lab = LayersLab(runs, feature=5)
    target = neuron_contributions.contributions(runs["two"]).target[5]
    assert lab.values.target.flatten().tolist() == pytest.approx(target.tolist())
    halves = [half.clamp(min=0).sum() for half in target.chunk(2)]
    assert lab.values.shares.tolist() == pytest.approx([float(half / sum(halves)) for half in halves])
    g = importance_matrices.importance_matrix(runs["two"])["mlps.1.W_in"][5]
    assert lab.values.n_important["mlps.1.W_in"] == int((g > 0.1).sum())
    assert lab.values.g["mlps.1.W_in"].tolist() == sorted(g.tolist(), reverse=True)
    assert list(lines(lab.axes[0, 0])["target"].get_ydata()) == pytest.approx(target.tolist())
    drawn = lines(lab.axes[0, 1])["layer 1 W_in"].get_ydata()
    assert list(drawn) == pytest.approx(sorted(g.tolist(), reverse=True))
    assert f"layer 1 W_in {lab.values.n_important['mlps.1.W_in']}" in lab.readout


def test_another_run_may_have_more_layers(runs):
    lab = LayersLab(runs)
    before = lab.picture
    lab.run.value = "three"
    assert lab.values.target.shape == (3, lab.runs["three"].target.n_neurons // 3)
    assert len(lab.values.n_important) == 6
    assert lab.picture != before
    assert len(lines(lab.axes[0, 1])["layer 2 W_out"].get_ydata()) == 9
    lab.run.value = "two"
    assert len(lab.values.shares) == 2
    assert len(lines(lab.axes[0, 1])["layer 2 W_out"].get_ydata()) == 0
    lab.feature.value = 0
    assert "feature 0" in lab.alt


def test_contributions_are_those_of_one_subcomponent_a_layer(runs):
    lab, run = LayersLab(runs, feature=2), runs["two"]
    net, layers = run.target, []
    chosen = neuron_contributions.contributions(run).chosen[2]
    with torch.no_grad():
        for k, mlp in enumerate(net.mlps):
            P = run.components.layers[f"mlps.{k}.W_in"].P[chosen[k]]
            layers.append((net.W_U[2] @ mlp.W_out.weight) * (P @ net.W_E[:, 2]))
    torch.testing.assert_close(lab.values.contributions, torch.stack(layers), rtol=1e-4, atol=1e-5)
    r = torch.corrcoef(torch.stack([torch.cat(layers), lab.values.target.flatten()]))[0, 1].item()
    assert lab.values.r == pytest.approx(r, abs=1e-4)


def test_it_says_what_it_needs():
    with pytest.raises(ValueError, match="SPD runs on a residual MLP; pdh.shipped"):
        LayersLab({"apd": pdh.shipped("apd/tms_5-2")})
