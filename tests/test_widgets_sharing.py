"""The labs on APD's components of a residual MLP, without a front end."""

import base64
import re

import pytest
import torch

import pd_helpers as pdh
from pd_helpers import experiments, widgets
from pd_helpers.widgets import AblationLab, FeatureLab, SharingLab

SMALL = {"n_features": 8, "d_resid": 30, "d_mlp": 4, "feature_probability": 0.2, "target_steps": 300, "target_seed": 0}


def small(**changes):
    settings = {"C": 9, "rank": 3, "steps": 60, "batch_size": 64, "lr": 0.01, "init_std": None, **SMALL, **changes}
    return pdh.run("apd/resid_mlp_2", show_progress=False, device="cpu", **settings)


@pytest.fixture(scope="module")
def run():
    return small()


@pytest.fixture(scope="module")
def runs(run):
    return {3: run, 1: small(rank=1)}


@pytest.fixture(scope="module")
def found(runs):
    return {key: experiments.single_feature(run, 2000, torch.Generator().manual_seed(0)) for key, run in runs.items()}


def number(lab, name: str) -> float:
    return float(re.search(f'pdh-{name}">(.*?)<', lab._numbers.value)[1])


@torch.no_grad()
def test_with_all_components_on_the_feature_lab_shows_the_networks_of_their_sum(run):
    lab = FeatureLab(run, feature=5)
    lab.n_on.value = 9
    net, W = run.target, run.components.sums
    whole = [(net.W_U[5] @ W[f"mlps.{i}.W_out"]) * (W[f"mlps.{i}.W_in"] @ net.W_E[:, 5]) for i in range(len(net.mlps))]
    mine = [segment[1, 1] for segment in lab._mine.get_segments()]
    assert mine == pytest.approx(torch.cat(whole).tolist(), abs=1e-5)
    x = torch.eye(8)[[5]]
    added = (run.components(x).output - x @ (net.W_U @ net.W_E).T)[0, 5].item()
    assert number(lab, "adds") == pytest.approx(added, abs=6e-4)


def test_with_one_component_on_the_feature_lab_shows_that_component_alone(run):
    lab, before = FeatureLab(run, feature=5), None
    c = experiments.feature_components(run)
    for i in (5, 2):
        lab.feature.value = i
        alone = experiments.ablate_halves(run, i, 1, torch.Generator())["topk"][0, i].item()
        assert number(lab, "adds") == pytest.approx(alone, abs=6e-4)
        assert f"of component {c[i]} and" in lab.alt
        assert lab._image.value != before
        before = lab._image.value
    heights = [bar.get_height() for bar in lab._bars]
    assert heights == pytest.approx(experiments.feature_attributions(run)[2].sort(descending=True).values[:8].tolist())


def test_the_ablation_lab_shows_one_of_the_halves_it_counts(run):
    lab = AblationLab(run, feature=3)
    table = experiments.ablate_halves(run, 3, widgets.sharing.N_DRAWS, torch.Generator().manual_seed(0))
    for own in ("scrubbed", "anti_scrubbed"):
        lab.own.value, lab.half.value = own, 7
        assert number(lab, "adds") == pytest.approx(table[own][7, 3].item(), abs=6e-4)
        assert list(lab._mine.get_ydata()) == pytest.approx(table[own][7].tolist())
        error = (table[own][7] - table["target"][0]).square().mean().item()
        assert lab._here.get_xdata()[0] == pytest.approx(error, rel=1e-4)
        assert lab._stairs[own].get_data().values.sum() == widgets.sharing.N_DRAWS
    lab.feature.value = 4
    assert lab._ring.get_xdata() == [4]
    assert "With feature 4 at 1" in lab.alt


def test_the_sharing_lab_follows_its_slider(runs, found):
    lab = SharingLab(runs, found, "rank")
    assert lab.setting.value == 3
    for key in (1, 3):
        lab.setting.value = key
        owner = experiments.feature_components(runs[key]).tolist()
        assert number(lab, "doubled") == sum(owner.count(c) > 1 for c in set(owner))
        errors = sorted((1e3 * found[key].label_error).tolist())
        assert list(lab._one.target.get_ydata()) == pytest.approx(errors)
        assert f"At rank {key}" in lab.alt


@pytest.mark.parametrize(
    "make",
    [
        lambda run, found: FeatureLab(run),
        lambda run, found: AblationLab(run),
        lambda run, found: SharingLab({3: run}, {3: found[3]}, "rank"),
    ],
)
def test_a_lab_leaves_a_static_figure_with_alt_text(run, found, make, monkeypatch):
    lab, shown = make(run, found), []
    monkeypatch.setattr(widgets.lab, "display", lambda data, raw, metadata: shown.append((data, metadata)))
    lab._ipython_display_()
    [(data, metadata)] = shown
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert metadata["image/png"]["alt"] == lab.alt
    assert len(lab.alt) > 40


def test_labs_refuse_what_they_cannot_draw(runs, found):
    tms = pdh.prepare("apd/tms_5-2", target_steps=5, show_progress=False)
    spd = pdh.prepare("spd/resid_mlp_1", show_progress=False, C=3, **SMALL)
    for other in (tms, spd):
        for lab in (FeatureLab, AblationLab):
            with pytest.raises(ValueError, match="APD run on a ResidualMLP"):
                lab(other)
    with pytest.raises(ValueError, match="same settings"):
        SharingLab(runs, {3: found[3]}, "rank")
