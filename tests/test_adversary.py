"""The room of notebook 18: ladders, robustness against sparsity, the lookup table, its pictures and its lab."""

import pandas as pd
import pytest
import torch

import pd_helpers as pdh
from pd_helpers.analysis.attacks import attack
from pd_helpers.course.adversary import ideas, plots
from pd_helpers.course.adversary.lab import SCOPES, STEPS, AttackLab

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def runs():
    return [pdh.shipped(f"{method}/tms_5-2") for method in ("apd", "spd", "vpd")]


@pytest.fixture(scope="module")
def lab(runs):
    return AttackLab(runs, show_progress=False)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_long_attack_holds_the_shorter_ones(runs, scope):
    x = ideas.inputs(runs[1], 50)
    errors = ideas.ladder(runs[1], x, scope, (0, 5, 20, 40))
    assert list(errors) == [0, 5, 20, 40]
    for n, error in errors.items():
        assert error == pytest.approx(attack(runs[1], x, n, scope, show_progress=False).error, rel=1e-4)


def test_ladders_are_a_table_with_a_row_for_each_rung():
    grid = {"run": ["spd/tms_5-2", "spd/tms_40-10:seed1"], "scope": ["shared"]}
    table = ideas.ladders(grid, rungs=(0, 1), show_progress=False)
    assert table["steps"].tolist() == [0, 1, 0, 1]
    assert (table["attacked"] < table["scale"]).all()
    run = pdh.shipped("spd/tms_5-2")
    x = ideas.inputs(run)
    counts = [(g > 0.1).sum(dim=1).float().mean().item() for g in run.importances(x).values()]
    assert table["l0"][0] == pytest.approx(sum(counts))
    empty = torch.relu(run.target.unembed.bias)
    assert table["scale"][0] == pytest.approx((run.target(x) - empty).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize(("name", "coefficients"), [("spd/tms_5-2", 1), ("vpd/tms_5-2", 2)])
def test_a_share_multiplies_what_makes_importances_small(name, coefficients):
    usual = pdh.preset(name).config
    run = ideas.at_share(name, 3.0, 0, steps=2, target_steps=2, n_init=1)
    changed = {f for f, value in usual.to_dict().items() if getattr(run.config, f) != value} - {"steps", "n_init"}
    assert changed == set(["importance_coeff", "frequency_coeff"][:coefficients])
    assert run.config.importance_coeff == pytest.approx(3 * usual.importance_coeff)
    grid = {"name": [name], "share": [0.5], "seed": [0]}
    table = ideas.sparsity(grid, attack_steps=2, show_progress=False, steps=2, target_steps=2, n_init=1)
    assert table[["share", "seed"]].values.tolist() == [[0.5, 0]]
    assert (table["attacked"] >= table["random"]).all()


def test_a_lookup_table_does_on_each_input_what_the_matrix_does():
    W, x = torch.randn(3, 4), torch.randn(6, 4)
    P = ideas.lookup(W, x)
    torch.testing.assert_close(torch.einsum("noi,ni->no", P, x), x @ W.T)
    assert torch.linalg.matrix_rank(P).tolist() == [1] * 6


def test_pictures_say_what_they_show():
    rows = [
        {"run": f"{method}/{target}", "scope": scope, "steps": n, "attacked": error * (n + 1)}
        for method, error in (("apd", 1e-2), ("spd", 1e-3), ("vpd", 1e-4))
        for target in ("tms_5-2", "tms_5-2_id", "resid_mlp_1")
        for scope in SCOPES
        for n in (0, 1, 5)
    ]
    fig, alt = plots.ladders(pd.DataFrame(rows))
    assert [ax.get_title() for ax in fig.axes] == ["TMS 5-2", "TMS 5-2 + identity", "residual MLP 1 layer"]
    assert "SPD 1.0e-03 to 6.0e-03" in alt
    points = [{"name": n, "l0": l0, "attacked": 1e-3, "random": 1e-4} for n in ("spd/a", "vpd/a") for l0 in (1.0, 2.0)]
    fig, alt = plots.sparsity(pd.DataFrame(points))
    assert "VPD under the worst masks found: errors 1.0e-03 to 1.0e-03 at L0 1.00 to 2.00" in alt
    assert len({ax.get_ylim() for ax in fig.axes}) == 1
    _, alt = plots.corners(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 1.0]))
    assert "For 50% of the inputs" in alt
    counts = pd.DataFrame({"frequency_coeff": [0.0, 0.0, 0.1], "n_alive": [2, 3, 4]})
    W = torch.eye(2).repeat_interleave(2, dim=1)
    _, alt = plots.circuits(counts, W, {"without": torch.eye(4), "with": torch.eye(4)})
    assert "2.5 at 0, 4.0 at 0.1" in alt
    table = pd.DataFrame({"sigmoid": ["leaky", "straight_through"], "importance_coeff": [1e-5] * 2, "alive": [51, 50]})
    _, axes = pdh.plots.figure(4, 3)
    assert "straight-through: 50 at 1e-05" in plots.sigmoids(axes[0, 0], table)
    with pytest.raises(ValueError, match="sigmoid must be one of leaky, straight_through, but is 'soft'; leaky works"):
        plots.sigmoids(axes[0, 0], table.replace("leaky", "soft"))


class TestAttackLab:
    def test_its_error_is_that_of_the_attack(self, lab, runs):
        for method, scope, steps in (("spd", "shared", 20), ("apd", "per input", 5), ("vpd", "shared", 0)):
            lab.method.value, lab.scope.value, lab.steps.value = method, scope, steps
            run = next(run for run in runs if run.method.name == method)
            found = attack(run, lab.x, steps, scope, show_progress=False)
            assert lab.values.error == pytest.approx(found.error, rel=1e-4)
            assert f"{found.error:.2e}" in lab.readout

    def test_without_strength_nothing_is_taken_away(self, lab):
        lab.method.value, lab.scope.value, lab.steps.value = "vpd", "shared", 20
        lab.strength.value = 0.0
        assert lab.values.error < 1e-9
        assert (lab.values.masks[lab.values.masks > 0] > 0.999).all()
        lab.strength.value = 0.5
        half = lab.values.error
        lab.strength.value = 1.0
        assert 1e-9 < half < lab.values.error

    def test_masks_are_at_least_the_importances(self, lab):
        for feature in range(5):
            lab.feature.value = feature
            assert (lab.values.masks >= lab.values.g - 1e-6).all()
            assert lab.values.target_output.argmax() == feature
        assert f"With feature {feature} on" in lab.alt

    def test_other_runs_are_refused(self, runs):
        with pytest.raises(ValueError, match=r"at most 8 features, but one is 'spd/tms_40-10'"):
            AttackLab([pdh.shipped("spd/tms_40-10", "seed0")])
        with pytest.raises(ValueError, match="at least one run, each by another method"):
            AttackLab([runs[1], runs[1]])
        assert len(STEPS) == len(AttackLab(runs[1:2], show_progress=False).steps.options)
