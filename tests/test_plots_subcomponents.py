"""Pictures and the lab of SPD on residual MLPs: they show the numbers they are given."""

import numpy as np
import pytest
import torch

import pd_helpers as pdh
from pd_helpers import plots
from pd_helpers.analysis import importance_matrices
from pd_helpers.analysis.neuron_contributions import Contributions
from pd_helpers.widgets import ImportanceCoefficientLab


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
def runs():
    return {b: pdh.shipped("spd/resid_mlp_1", v) for b, v in ((1e-3, "beta1e-03"), (1e-5, "seed0"))}


def test_the_importance_coefficient_lab_looks_runs_up(runs):
    lab, pictures = ImportanceCoefficientLab(runs, 1e-5), set()
    assert list(lab.coefficient.options) == [1e-5, 1e-3]
    assert lab.values.n_alive == {"mlps.0.W_in": 100, "mlps.0.W_out": 50}
    for beta, run in runs.items():
        lab.coefficient.value = beta
        for ax, (use, g) in zip(lab.axes[0], importance_matrices.importance_matrix(run).items(), strict=False):
            assert lab.values.n_alive[use] == int((g > 0.1).any(dim=0).sum())
            assert lab.values.l0[use] == pytest.approx((g > 0.1).double().sum(dim=1).mean().item())
            torch.testing.assert_close(lab.values.g[use].sort(dim=1).values, g.sort(dim=1).values)
            np.testing.assert_array_equal(ax.images[0].get_array(), lab.values.g[use])
        assert lab.values.recon == run.metrics["recon"]
        pictures.add(lab.picture)
        n_in, n_out = lab.values.n_alive.values()
        assert f"At β₃ = {beta:g}, in W_in {n_in} subcomponents are alive" in lab.alt
        assert f'pdh-W_out">{n_out}<' in lab.readout
    assert len(pictures) == 2


def test_at_the_published_coefficient_the_order_shows_the_diagonal(runs):
    lab = ImportanceCoefficientLab(runs)
    assert lab.values.coefficient == 1e-5
    assert lab.values.g["mlps.0.W_in"].diagonal().min() > 0.9


def test_the_importance_coefficient_lab_refuses_other_networks():
    with pytest.raises(ValueError, match="SPD runs on a residual MLP of one layer"):
        ImportanceCoefficientLab({1.0: pdh.shipped("spd/tms_5-2")})


def test_importances_shows_the_columns_that_are_chosen_in_their_order():
    g = torch.arange(12.0).view(3, 4) / 12
    [image] = plots.importances(plots.figure(4, 3)[1][0, 0], g, order=[2, 0]).images
    assert np.array_equal(image.get_array(), g[:, [2, 0]])
