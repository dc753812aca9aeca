"""APD that begins at the mechanisms of the hand-written network."""

import pytest
import torch

from pd_helpers import analysis
from pd_helpers.course.apd_gated_functions import ideas, plots

pytestmark = pytest.mark.usefixtures("one_thread")


def test_mechanisms_add_up_to_the_network_and_no_weight_is_in_two():
    run = ideas.at_mechanisms(0)
    for path, Z in analysis.mechanisms(run.target).items():
        torch.testing.assert_close(Z.sum(dim=0), run.target.get_submodule(path).weight)
        assert ((Z != 0).sum(dim=0) <= 1).all()


def test_at_the_mechanisms_only_simplicity_costs_anything():
    run = ideas.at_mechanisms(1)
    x = run.data(5000, torch.Generator().manual_seed(0))
    terms = run.method.batch_losses(x, torch.Generator())
    assert terms.faithfulness.item() < 1e-9
    assert terms.minimality.item() < 1e-6
    active = run.importances(x)["mlps.0.W_in"]
    lengths = [  # of the singular values of each mechanism, over all layers
        sum(torch.linalg.svdvals(Z[i]).sum().item() for Z in analysis.mechanisms(run.target).values()) for i in range(4)
    ]
    n_parameters = sum(W.numel() for W in run.components.targets.values())
    expected = (active.mean(dim=0) @ torch.tensor(lengths) / n_parameters).item()
    assert terms.simplicity.item() == pytest.approx(expected, rel=1e-2)  # factors of zero cost a little, too
    assert ideas.total_loss(run) == pytest.approx(5 * expected, rel=0.05)  # on other inputs
    assert (analysis.alone(run).errors[torch.arange(4), torch.arange(4)] < 1e-6).all()


def test_a_table_of_trainings():
    table = ideas.from_mechanisms({"lr": [1e-6, 0.03], "seed": [2]}, show_progress=False, steps=30, batch_size=200)
    assert list(table.columns) == [
        "lr",
        "seed",
        "loss_before",
        "loss_after",
        "n_served",
        "n_working",
        "seconds",
        "error",
    ]
    assert table["loss_before"].nunique() == 1
    assert table["loss_after"][0] == pytest.approx(table["loss_before"][0], rel=1e-2)
    assert table["n_served"][0] == table["n_working"][0] == 4
    assert table["loss_after"][1] != pytest.approx(table["loss_before"][1], rel=0.2)


def test_at_the_mechanisms_nothing_is_asleep_and_at_half_of_them_nearly_all_is():
    run = ideas.at_mechanisms(0)
    assert ideas.asleep(run) < 0.01
    with torch.no_grad():
        for layer in run.components.layers.values():
            layer.U *= 0.5
    assert ideas.asleep(run) > 0.9


def test_a_training_that_is_watched():
    run = ideas.at_mechanisms(1, steps=50, batch_size=200)
    table = ideas.watched(run, (0, 2, 5), show_progress=False)
    assert table["step"].tolist() == [0, 2, 5]
    assert run.step == 5
    assert table["total"][0] == pytest.approx(ideas.total_loss(ideas.at_mechanisms(1, batch_size=200)))
    parts = table[["faithfulness", "minimality", "simplicity"]].sum(axis=1)
    assert parts.tolist() == pytest.approx(table["total"].tolist())
    assert table["asleep"][2] == ideas.asleep(run)
    fig, alt = plots.leaving(table)
    assert fig.axes[0].lines[0].get_ydata()[-1] == pytest.approx(table["total"][2])
    assert f"to {table['total'][2]:.3f} after 5 steps" in alt


def test_successes_are_counted_by_both_criteria():
    errors = torch.tensor([[0.01, 0.02, 0.03, 0.1], [0.01, 0.2, 0.3, 1.0], [0.5, 0.5, 0.5, 0.5]])
    sparse = torch.tensor([[0.01] * 4, [0.01] * 4, [0.01, 0.01, 0.5, 0.5]])
    fig, alt = plots.successes(errors, sparse, 0.1)
    heights = [[bar.get_height() for bar in bars] for bars in fig.axes[1].containers]
    assert heights == [[0, 0, 1, 0, 2], [1, 1, 0, 0, 1]]
    assert "1 of 3 seeds have all there" in alt
    assert "alone: 1 with 0, 1 with 1, 0 with 2, 0 with 3, 1 with 4; and" in alt
