"""Pictures and the lab of SPD on residual MLPs: they show the numbers they are given."""

import numpy as np
import pytest
import torch

import pd_helpers as pdh
from pd_helpers import plots
from pd_helpers.experiments import Contributions
from pd_helpers.widgets import PriceLab


@pytest.fixture
def two_layers():
    target = torch.arange(24.0).view(4, 6) / 24
    return Contributions(target, target + 0.01, torch.zeros(4, 2, dtype=torch.long))


def test_contributions_beside_draws_both_and_names_the_largest_difference(two_layers):
    fig, alt = plots.contributions_beside(two_layers, n_features=3)
    above, below = (
        np.concatenate([line.get_ydata() for line in ax.lines if len(line.get_ydata()) == 3]) for ax in fig.axes
    )
    assert sorted(above) == pytest.approx(sorted(two_layers.target[:3].flatten().tolist()))
    assert sorted(below) == pytest.approx(sorted(two_layers.components[:3].flatten().tolist()))
    assert "largest difference is 0.010" in alt


def test_contribution_scatter_has_a_marker_for_each_layer(two_layers):
    _, axes = plots.figure(4, 4)
    ax = plots.contribution_scatter(axes[0, 0], two_layers)
    points = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert [line.get_marker() for line in points] == ["o", "s"]
    assert points[1].get_xdata() == pytest.approx(two_layers.target[:, 3:].flatten().numpy())
    assert "r = 1.0000" in {text.get_text() for text in ax.texts}


def test_readable_order_shows_a_diagonal_or_the_largest_first():
    permutation = torch.tensor([3, 0, 2, 1, 4])
    assert plots.readable_order(torch.eye(5)[:4][:, permutation]) == [1, 3, 2, 0, 4]
    dense = torch.tensor([[0.2, 0.9, 0.0, 0.5]]).repeat(6, 1) + 0.15
    assert plots.readable_order(dense) == [1, 3, 0, 2]


def test_importance_grid_shows_every_matrix():
    columns = [(f"column {k}", [("W_in", torch.full((3, 4), k / 2)), ("W_out", torch.eye(3, 4))]) for k in range(3)]
    fig = plots.importance_grid(columns)
    images = [ax.images[0].get_array().mean() for ax in fig.axes if ax.images]
    assert sorted(images)[-1] == 1
    assert len(images) == 6
    assert [ax.get_title() for ax in fig.axes[:3]] == ["column 0", "column 1", "column 2"]


@pytest.fixture(scope="module")
def lab():
    return PriceLab({b: pdh.shipped("spd/resid_mlp_1", v) for b, v in ((1e-3, "beta1e-03"), (1e-5, "seed0"))}, 1e-5)


def readout(lab, name: str) -> str:
    return lab._numbers.value.split(f'pdh-{name}">')[1].split("<")[0]


def test_the_price_lab_looks_runs_up(lab):
    lab.price.value = 1e-5
    assert (readout(lab, "W_in"), readout(lab, "W_out")) == ("100", "50")
    assert lab._images[0].get_array().diagonal().min() > 0.9
    before = lab._image.value
    lab.price.value = 1e-3
    assert int(readout(lab, "W_out")) > 80
    assert float(readout(lab, "recon")) > 1e-4
    assert lab._image.value != before
    assert "At β₃ = 0.001, in W_in 100 subcomponents are alive" in lab.alt
    assert list(lab.price.options) == [1e-5, 1e-3]


def test_the_price_lab_refuses_other_networks():
    with pytest.raises(ValueError, match="SPD runs on a residual MLP of one layer"):
        PriceLab({1.0: pdh.shipped("spd/tms_5-2")})
