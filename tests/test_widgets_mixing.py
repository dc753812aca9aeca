"""The lab on compressed computation, without a front end, on a small table made up for it."""

import pandas as pd
import pytest
import torch

from pd_helpers import plots
from pd_helpers.analysis import subspaces
from pd_helpers.course.compressed_computation.lab import MixingNetwork
from pd_helpers.course.compressed_computation.plots import direction_cosines, mixing_losses
from pd_helpers.widgets import MixingLab

BY_P = pd.DataFrame(
    {
        "kind": ["none", "none", "symmetric", "symmetric"],
        "p": [0.01, 1.0, 0.01, 1.0],
        "sigma": [0.0, 0.0, 0.033, 0.033],
        "loss": [0.083, 0.053, 0.065, 0.051],
        "clean_loss": [0.083, 0.053, 0.101, 0.077],
    }
)
BY_SIGMA = pd.DataFrame(
    {"kind": "symmetric", "p": 0.01, "sigma": [0.03, 0.08], "loss": [0.065, 0.101], "clean_loss": [0.1, 0.2]}
)


@pytest.fixture
def lab():
    return MixingLab(BY_SIGMA, BY_P)


def marked(ax) -> list[tuple[float, float]]:
    """Where a panel's ring and cross are."""
    return [(*line.get_xdata(), *line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 1]


def test_the_sliders_choose_a_network_for_each_panel(lab):
    assert lab.values.by_sigma == MixingNetwork(sigma=0.03, p=0.01, loss=0.065, clean_loss=0.1)
    assert lab.values.by_p == MixingNetwork(sigma=0.033, p=0.01, loss=0.065, clean_loss=0.101)
    assert lab.values.verdict == "below"
    before = lab.picture
    lab.sigma.value, lab.p.value = 0.08, 1.0
    assert lab.values.by_sigma == MixingNetwork(sigma=0.08, p=0.01, loss=0.101, clean_loss=0.2)
    assert lab.values.by_p == MixingNetwork(sigma=0.033, p=1.0, loss=0.051, clean_loss=0.077)
    assert lab.values.verdict == "above"
    assert [marked(ax) for ax in lab.axes[0]] == [[(0.08, 0.101), (0.08, 0.2)], [(1.0, 0.051), (1.0, 0.077)]]
    assert "size 0.08 at p = 0.01: 0.1010, on clean labels 0.2000" in lab.alt
    assert "0.1010" in lab.readout
    assert lab.picture != before


def test_the_chosen_kind_stands_out():
    table = pd.concat([BY_SIGMA, BY_SIGMA.assign(kind="asymmetric")])
    lab = MixingLab(table, pd.concat([BY_P, BY_P[BY_P["kind"] == "symmetric"].assign(kind="asymmetric")]))
    for kind in ("symmetric", "asymmetric"):
        lab.kind.value = kind
        for ax in lab.axes[0]:
            assert {line.get_gid() for line in ax.lines if line.get_gid() and line.get_alpha() == 1} == {kind}


def test_without_mixing_every_kind_is_the_clean_network(lab):
    lab.sigma.value = 0.0
    assert lab.values.by_sigma == MixingNetwork(sigma=0.0, p=0.01, loss=0.083, clean_loss=0.083)
    assert lab.values.verdict == "at"
    assert lab.values.naive_loss == pytest.approx(1 / 12)


def test_a_table_without_rows_that_are_needed_is_refused():
    with pytest.raises(ValueError, match="by_p must have a row of kind none at p = 0.01"):
        MixingLab(BY_SIGMA, BY_P[BY_P["kind"] != "none"])
    with pytest.raises(ValueError, match="by_sigma must have rows"):
        MixingLab(BY_SIGMA.iloc[:0], BY_P)


def test_curves_begin_with_clean_labels_and_stand_beside_the_naive_loss():
    _, axes = plots.figure(5, 3)
    lines = mixing_losses(axes[0, 0], pd.concat([BY_P.iloc[:1], BY_SIGMA]), "sigma").lines
    assert lines[0].get_xdata().tolist() == [0.0, 0.03, 0.08]
    assert lines[0].get_ydata().tolist() == [0.083, 0.065, 0.101]
    assert list(lines[1].get_ydata()) == [1 / 12, 1 / 12]


def test_cosines_are_drawn_in_order_with_the_rank_marked():
    _, axes = plots.figure(5, 3)
    directions = subspaces.Directions(*torch.rand(3, 20))
    points, rank = direction_cosines(axes[0, 0], directions, "symmetric", "ours", d=12).lines
    assert points.get_ydata().tolist() == directions.cosine.tolist()
    assert (points.get_label(), list(rank.get_xdata())) == ("ours", [12.5, 12.5])
