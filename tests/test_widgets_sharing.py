"""The labs on APD's components of a residual MLP, without a front end."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis import neuron_contributions, scrubbing
from pd_helpers.course.kit.residual_labs import N_DRAWS
from pd_helpers.widgets import AblationLab, FeatureLab, SharingLab

SMALL = {"n_features": 8, "d_resid": 30, "d_mlp": 4, "feature_probability": 0.2, "target_steps": 300, "target_seed": 0}


LOSSES = {"top_k": 1.28, "top_k_start": 4.0, "simplicity_coeff": 7.0}


def small(**changes):
    quick = {"C": 9, "rank": 3, "steps": 60, "batch_size": 64, "lr": 0.01, "init_std": None}
    settings = {**quick, **LOSSES, **SMALL, **changes}
    return pdh.run("apd/resid_mlp_2", show_progress=False, device="cpu", **settings)


@pytest.fixture(scope="module")
def run(quick_evaluation):
    return small()


@pytest.fixture(scope="module")
def runs(run):
    return {3: run, 1: small(rank=1)}


@pytest.fixture(scope="module")
def errors(runs):
    return {key: scrubbing.single_feature(run, 2000, torch.Generator().manual_seed(0)) for key, run in runs.items()}


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.lines}


@torch.no_grad()
def test_with_all_components_on_the_feature_lab_shows_the_networks_of_their_sum(run):
    lab = FeatureLab(run, feature=5)
    lab.n_on.value = 9
    net, W = run.target, run.components.sums
    whole = [(net.W_U[5] @ W[f"mlps.{i}.W_out"]) * (W[f"mlps.{i}.W_in"] @ net.W_E[:, 5]) for i in range(len(net.mlps))]
    torch.testing.assert_close(lab.values.contributions, torch.cat(whole), rtol=1e-4, atol=1e-5)
    x = torch.eye(8)[[5]]
    skip = (x @ (net.W_U @ net.W_E).T)[0, 5].item()
    assert lab.values.added == pytest.approx(run.components(x).output[0, 5].item() - skip, abs=1e-5)
    assert lab.values.target_added == pytest.approx(net(x)[0, 5].item() - skip, abs=1e-5)
    stems = {lines.get_label(): lines.get_segments() for lines in lab.axes[0, 0].collections}
    heights = [segment[1, 1] for segment in stems["components that are on"]]
    assert heights == pytest.approx(lab.values.contributions.tolist())


def test_with_one_component_on_the_feature_lab_shows_that_component_alone(run):
    lab, pictures = FeatureLab(run, feature=5), set()
    A = neuron_contributions.feature_attributions(run)
    for i in (5, 2):
        lab.feature.value = i
        alone = scrubbing.ablate_halves(run, i, 1, torch.Generator())["topk"][0, i].item()
        assert lab.values.added == pytest.approx(alone, abs=1e-5)
        assert lab.values.order[0] == A[i].argmax()
        assert lab.values.served == [k for k in range(8) if A[k].argmax() == A[i].argmax()]
        assert lab.values.attributions.tolist() == sorted(A[i].tolist(), reverse=True)
        pictures.add(lab.picture)
    assert len(pictures) == 2
    heights = [bar.get_height() for bar in lab.axes[0, 1].containers[0]]
    assert heights == pytest.approx(lab.values.attributions[:8].tolist())
    assert f"of component {lab.values.order[0]} and" in lab.alt
    assert f"{lab.values.added:.3f}" in lab.readout


def test_the_ablation_lab_shows_one_of_the_halves_it_counts(run):
    lab = AblationLab(run, feature=3)
    table = scrubbing.ablate_halves(run, 3, N_DRAWS, torch.Generator().manual_seed(0))
    for ablation in ("scrubbed", "anti_scrubbed"):
        lab.ablation.value, lab.half.value = ablation, 7
        torch.testing.assert_close(lab.values.added, table[ablation][7])
        torch.testing.assert_close(lab.values.target, table["target"][0])
        squares = (table[ablation] - table["target"]).square()
        assert lab.values.error == pytest.approx(squares[7].mean().item(), rel=1e-4)
        torch.testing.assert_close(lab.values.errors[ablation], squares.mean(dim=1))
        left, right = lab.axes[0]
        assert list(lines(left)["half ablated"].get_ydata()) == pytest.approx(table[ablation][7].tolist())
        assert lines(right)["this half"].get_xdata()[0] == pytest.approx(lab.values.error)
        assert [stairs.get_data().values.sum() for stairs in right.patches] == [N_DRAWS, N_DRAWS]
        assert f"{lab.values.added[3]:.3f}" in lab.readout
    lab.feature.value = 4
    others = scrubbing.ablate_halves(run, 4, N_DRAWS, torch.Generator().manual_seed(0))
    torch.testing.assert_close(lab.values.added, others["anti_scrubbed"][7])
    assert "With feature 4 at 1" in lab.alt


def test_the_sharing_lab_follows_its_slider(runs, errors):
    lab = SharingLab(runs, errors, "rank")
    assert lab.setting.value == 3
    for key in (1, 3):
        lab.setting.value = key
        owner = neuron_contributions.feature_components(runs[key]).tolist()
        served = {c: [i for i in range(8) if owner[i] == c] for c in set(owner)}
        assert lab.values.shared == {c: features for c, features in served.items() if len(features) > 1}
        assert lab.values.n_own == sum(len(features) == 1 for features in served.values())
        A = neuron_contributions.feature_attributions(runs[key]).sort(dim=1, descending=True).values
        assert lab.values.n_split == sum(second > 0.3 * first for first, second in A[:, :2].tolist())
        sorted_errors = sorted((1e3 * errors[key].label_error).tolist())
        assert list(lines(lab.axes[0, 0])["target"].get_ydata()) == pytest.approx(sorted_errors)
        assert f"At rank {key}" in lab.alt


def test_labs_refuse_what_they_cannot_draw(runs, errors):
    tms = pdh.prepare("apd/tms_5-2", target_steps=5, show_progress=False)
    spd = pdh.prepare("spd/resid_mlp_1", show_progress=False, C=3, importance_coeff=1e-5, **SMALL)
    for other in (tms, spd):
        for lab in (FeatureLab, AblationLab):
            with pytest.raises(ValueError, match="APD run on a ResidualMLP"):
                lab(other)
    with pytest.raises(ValueError, match="same settings"):
        SharingLab(runs, {3: errors[3]}, "rank")


@pytest.mark.parametrize("C", [2, 5, 8, 40])
def test_the_lab_of_a_feature_takes_any_number_of_components(C):
    quick = {"target_steps": 3, "n_features": 6, "d_mlp": 3, "d_resid": 9, "show_progress": False, "warm_up": False}
    lab = FeatureLab(pdh.prepare("apd/resid_mlp_1", C=C, **quick), feature=3)
    assert list(lab.n_on.options) == [n for n in (1, 2, 3, 5, 10, 30) if n < C] + [C]
    lab.n_on.value = C
    assert lab.values.n_on == C
    assert len(lab.axes[0, 1].get_xticklabels()) == min(C, 8)
