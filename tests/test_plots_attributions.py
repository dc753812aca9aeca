"""Pictures of attributions: bars are the numbers, marks are the pairs."""

import pytest
import torch

from pd_helpers import plots
from pd_helpers.course.attributions.plots import effect_bars, estimates


def axes():
    return plots.figure(3, 3)[1][0, 0]


def test_effect_bars_stand_side_by_side_and_differ_by_hatch():
    effects = {"gradient": torch.tensor([1.0, -0.5]), "ablation": torch.tensor([0.25, 0.0])}
    drawn = effect_bars(axes(), effects)
    assert {name: [bar.get_height() for bar in bars] for name, bars in drawn.items()} == {
        name: values.tolist() for name, values in effects.items()
    }
    first, second = (bars[0] for bars in drawn.values())
    assert first.get_x() + first.get_width() == pytest.approx(second.get_x())
    assert first.get_hatch() != second.get_hatch()


def test_estimates_are_marked_by_group_and_compared_with_the_diagonal():
    full, estimate = torch.tensor([[0.1, 0.2], [0.3, 0.0]]), torch.tensor([[0.2, 0.4], [0.6, 0.1]])
    ax = estimates(axes(), full, estimate, groups=torch.tensor([[0, 1], [0, 1]]))
    dots, crosses, diagonal = ax.lines
    assert dots.get_xydata().flatten().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.6])
    assert crosses.get_xydata().flatten().tolist() == pytest.approx([0.2, 0.4, 0.0, 0.1])
    assert dots.get_marker() != crosses.get_marker()
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
