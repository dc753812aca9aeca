"""The labs of notebook 12 without a front end, and what they compute against closed forms."""

import pytest
import torch

import pd_helpers as pdh
from pd_helpers.course.spd_from_scratch.lab import SIGMOIDS, descend, slope
from pd_helpers.widgets import MaskLab, SigmoidLab


@pytest.fixture
def orthogonal():
    """Three features in three dimensions, W the identity and no bias: output j is just x_j."""
    target = pdh.TMSConfig(n_features=3, n_hidden=3).new(seed=0)
    with torch.no_grad():
        target.embed.weight.copy_(torch.eye(3))
        target.unembed.bias.zero_()
    return target


def test_masks_fill_the_range_from_g_to_1_in_both_uses(orthogonal):
    lab = MaskLab(orthogonal, n_draws=4000)
    for g in (0.0, 0.6):
        y = lab.masked_outputs(torch.full((3,), g), 1)  # 0.75 m_embed m_unembed
        assert (y[:, [0, 2]] == 0).all()
        assert y[:, 1].mean().item() == pytest.approx(0.75 * ((1 + g) / 2) ** 2, abs=0.01)
        assert 0.75 * g**2 <= y[:, 1].min() < 0.75 * (g + 0.05) ** 2
        assert 0.75 * 0.95**2 < y[:, 1].max() <= 0.75
    assert torch.allclose(lab.masked_outputs(torch.ones(3), 1), orthogonal(0.75 * torch.eye(3))[1])


def test_the_mask_lab_adds_up_both_losses(orthogonal):
    lab = MaskLab(orthogonal, n_draws=4000, beta_3=0.01)
    # E (1 - m m')² for m, m' uniform on [0, 1] is 1 - 2/4 + 1/9; a third of the outputs is wrong
    assert lab.values.recon == pytest.approx(0.75**2 * (1 - 1 / 2 + 1 / 9) / 3, rel=0.03)
    assert lab.values.importance_loss == 0
    assert sum(bar.get_height() for bar in lab.axes[0, 1].containers[0]) == 4000
    before = lab.picture
    lab.g[0].value = 1.0
    assert lab.values.recon == 0
    assert lab.values.total == lab.values.importance_loss == pytest.approx(0.02)  # both uses
    assert lab.picture != before
    lab.g[1].value = 0.5
    assert lab.values.importance_loss == pytest.approx(0.03)
    lab.feature.value = 2
    assert lab.values.recon > 0.1
    assert "feature 2 at 0.75" in lab.alt
    assert f"{lab.values.total:.5f}" in lab.readout


@pytest.mark.parametrize("name", SIGMOIDS)
def test_slopes_are_those_of_the_sigmoids(name):
    sigmoid = SIGMOIDS[name][0]
    for gate in (-0.7, 0.3, 1.6):
        rise = sigmoid(torch.tensor(gate + 0.01)) - sigmoid(torch.tensor(gate - 0.01))
        assert slope(name, gate) == pytest.approx(rise.item() / 0.02, abs=1e-4)


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("name", SIGMOIDS)
def test_a_gate_goes_where_torchs_adam_takes_it(name, up):
    gate = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    optimizer, sigmoid = torch.optim.Adam([gate], lr=0.02), SIGMOIDS[name][0]
    for _ in range(60):
        optimizer.zero_grad()
        ((1 - sigmoid(gate)) ** 2 if up else sigmoid(gate)).backward()
        optimizer.step()
    path = descend(name, 0.4, up, n_steps=60)
    assert len(path) == 61
    assert path[-1] == pytest.approx(gate.item(), abs=1e-4)


def test_gates_die_on_the_flat_side_only():
    assert {name for name in SIGMOIDS if descend(name, -0.5, up=True)[-1] > 0.9} == {"lower-leaky"}
    assert {name for name in SIGMOIDS if descend(name, 1.5, up=False)[-1] < 0} == {"upper-leaky"}


def test_the_sigmoid_lab_shows_where_gates_end():
    lab = SigmoidLab()
    for pull, gate in (("up", -0.5), ("down", 1.5)):
        lab.pull.value, lab.gate.value = pull, gate
        assert lab.values.ends == {name: descend(name, gate, pull == "up")[-1] for name in SIGMOIDS}
        assert lab.values.slopes == {name: slope(name, gate) for name in SIGMOIDS}
        for ax, (name, (sigmoid, _, _)) in zip(lab.axes[0], SIGMOIDS.items(), strict=False):
            assert lab.values.g[name] == pytest.approx(sigmoid(torch.tensor(gate)).item())
            _, dot = ax.lines
            assert (*dot.get_xdata(), *dot.get_ydata()) == (gate, lab.values.g[name])
        drawn = {line.get_label(): line.get_ydata()[-1] for line in lab.axes[0, 3].lines}
        assert drawn == lab.values.ends
    assert "pulled down: hard slope 0, does not move" in lab.alt


def test_the_mask_lab_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="no identity layer"):
        MaskLab(pdh.TMSConfig(identity=True).new(seed=0))
    with pytest.raises(ValueError, match="at most 8 features"):
        MaskLab(pdh.TMSConfig(n_features=40, n_hidden=10).new(seed=0))
