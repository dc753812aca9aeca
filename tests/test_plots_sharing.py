"""Figures of APD's residual MLPs: what is drawn is what the measurements say."""

import pytest
import torch

from pd_helpers import plots
from pd_helpers.analysis.neuron_contributions import Contributions
from pd_helpers.analysis.scrubbing import Scrubbed, SingleFeature


def axes():
    return plots.figure(3, 3)[1][0, 0]


def test_a_contribution_pair_names_each_features_component():
    target = torch.tensor([[0.5, 0.0], [0.0, 0.3]])
    found = Contributions(target, 0.5 * target, torch.tensor([[7], [4]]))
    fig, alt = plots.contribution_pair(found, n_features=2)
    assert [label.get_text() for label in fig.axes[1].get_xticklabels()] == ["0\n(7)", "1\n(4)"]
    assert "largest values are 0.50 and 0.25" in alt
    assert "correlation of the two pictures is 1.00" in alt


def test_halves_are_drawn_from_lowest_to_highest():
    found = {
        "target": torch.tensor([[0.0, 0.6]]),
        "topk": torch.tensor([[0.0, 0.4]]),
        "scrubbed": torch.tensor([[0.1, 0.5], [-0.2, 0.7], [0.0, 0.6]]),
        "anti_scrubbed": torch.tensor([[0.0, 0.0], [0.1, -0.1], [0.0, 0.1]]),
    }
    fig, alt = plots.halves(found, 1)
    kept, ablated = ([tuple(s[:, 1].tolist()) for s in fig.axes[i].collections[0].get_segments()] for i in (0, 2))
    assert kept == [pytest.approx((-0.2, 0.1)), pytest.approx((0.5, 0.7))]
    assert ablated == [pytest.approx((0.0, 0.1)), pytest.approx((-0.1, 0.1))]
    assert "0.60 on average over 3 draws, from 0.50 to 0.70" in alt
    assert "0.00, from -0.10 to 0.10" in alt


def test_scrubbed_histograms_count_inputs_with_something_on():
    errors = torch.tensor([0.0, 1e-5, 1e-4, 1e-9])
    fig, alt = plots.scrub_histograms(Scrubbed(errors, 2 * errors, 3 * errors, errors), {"topk_mse": (2e-5, None)})
    counts = [patch.get_data().values.sum() for patch in fig.axes[0].patches]
    assert counts == [3] * 6  # three outlines and three fills; one input has nothing on, one lies below the first bin
    assert "25% of the inputs" in alt
    assert f"scrubbed {2 * errors.mean():.1e}" in alt
    published = next(line for line in fig.axes[0].lines if line.get_marker() == "v")
    assert list(published.get_xdata()) == [2e-5]


def single(n=3):
    label = torch.tensor([3.0, 1.0, 2.0])[:n] * 1e-3
    return SingleFeature(label / 3, label / 10, torch.tensor([1.0, 0.5, 2.0]), label, 2 * label, 1.1 * label)


def test_errors_of_features_are_sorted_by_the_targets_own():
    fig, alt = plots.feature_errors(single(), 1.28)
    above, below = fig.axes
    assert above.lines[0].get_ydata() == pytest.approx([1, 2, 3])
    assert above.lines[1].get_ydata() == pytest.approx([2, 4, 6])
    assert below.lines[1].get_ydata() == pytest.approx([1.1, 2.2, 3.3])
    assert above.get_ylim()[1] > 6
    assert "2.0 and 1.1 times the target's" in alt


def test_active_components_stand_over_the_error_of_one():
    ax = plots.active_components(axes(), single())
    assert ax.lines[0].get_xdata() == pytest.approx([10, 10 / 3, 20 / 3])
    assert ax.lines[0].get_ydata() == pytest.approx([1.0, 0.5, 2.0])


def test_a_component_that_is_first_for_two_features_is_a_square():
    A = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.1], [0.1, 0.7, 0.3]])  # components 0 and 1 are first; 0 for two
    ax = axes()
    panel = plots.SharedComponents(ax, 1.0)
    panel.move(A)
    assert [tuple(v) for v in panel.two.get_xydata()] == [pytest.approx((0.9, 0.8))]
    assert [tuple(v) for v in panel.all.get_xydata()] == [pytest.approx((0.7, 0.2)), pytest.approx((0.3, 0.1))]
