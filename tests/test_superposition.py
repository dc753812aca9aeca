"""Toy models over numbers of features and probabilities, and their picture."""

import matplotlib.pyplot as plt
import pytest
import torch

import pd_helpers as pdh
from pd_helpers.course.superposition import ideas as superposition
from pd_helpers.course.superposition.plots import phases

GRID = {"n_features": [2, 4], "feature_probability": [0.05, 1.0]}


def test_a_sweep_is_the_target_of_each_point():
    table = superposition.sweep(GRID, seed=3, show_progress=False, target_steps=60)
    assert list(table[["n_features", "feature_probability"]].itertuples(index=False, name=None)) == [
        *((2, 0.05), (2, 1.0), (4, 0.05), (4, 1.0))
    ]
    config = pdh.TMSConfig(n_features=2, feature_probability=1.0, target_steps=60)
    W = pdh.make_target(config, seed=3, show_progress=False).embed.weight
    assert torch.equal(table["kept"][1]["W"], torch.cat([W, torch.zeros(2, 2)], dim=1))
    assert table["represented"][1] == (W.norm(dim=0) > 0.5).sum()


def test_a_wrong_setting_is_named():
    with pytest.raises(ValueError, match="feature_probability"):
        superposition.sweep(GRID | {"feature_probability": [0.05, 2.0]}, show_progress=False)


def test_two_features_are_both_kept_and_eight_are_not_when_all_are_always_on():
    table = pdh.shipped_sweep("tms/sparsity", "phases").set_index(["n_features", "feature_probability"])
    assert table.loc[(2, 0.01), "represented"] == table.loc[(2, 1.0), "represented"] == 2
    assert table.loc[(5, 0.05), "represented"] == 5
    assert table.loc[(8, 1.0), "represented"] < 8
    for (n, _), row in table.iterrows():
        assert superposition.represented(row["kept"]["W"]) == row["represented"]
        assert row["kept"]["W"][:, n:].count_nonzero() == 0


def test_the_picture_says_how_many_are_kept_and_shades_where_some_are_lost():
    W = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    table = superposition.sweep(
        {"n_features": [2], "feature_probability": [0.1, 1.0]}, target_steps=1, show_progress=False
    )
    table["kept"], table["represented"] = [{"W": W}, {"W": W * torch.tensor([1.0, 0.1])}], [2, 1]
    ax = phases(plt.figure().subplots(), table)
    assert [text.get_text() for text in ax.texts] == ["2", "1"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.1", "1"]
    white, grey = (patch.get_facecolor()[0] for patch in ax.patches)
    assert white == 1 > grey
