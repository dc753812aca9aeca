"""The drawings of the method say what they were given."""

import torch

from pd_helpers import plots
from pd_helpers.course.apd_superposition.plots import losses_diagram, sum_of_components, telling_inputs

X = torch.tensor([[0.9, 0.0], [0.2, 0.0], [0.0, 0.8], [0.5, 0.6]])
ACTIVE = torch.tensor([[1, 0], [0, 0], [0, 1], [1, 1]], dtype=torch.bool)


def test_telling_inputs_have_as_many_components_as_features():
    assert telling_inputs(X, ACTIVE).tolist() == [0, 2, 3]
    both_on_for_one = ACTIVE | torch.tensor([[True], [False], [False], [False]])
    assert telling_inputs(X, both_on_for_one).tolist() == [2, 3]


def test_a_sum_of_components_tells_which_are_on():
    W = torch.tensor([[1.0, 0.5], [0.0, -1.0]])
    P = torch.stack([W * torch.tensor([1.0, 0.0]), W * torch.tensor([0.0, 1.0])])
    fig, alt = sum_of_components(W, P, X[[0, 3]], ACTIVE[[0, 3]])
    assert "sum of 2 components" in alt
    assert "input 0 uses 0; input 1 uses 0, 1" in alt
    said = [text.get_text() for ax in fig.axes for text in ax.texts]
    assert (said.count("on"), said.count("off")) == (3, 1)
    assert (said.count("="), said.count("+")) == (1, 1)


def test_the_diagram_names_the_three_losses():
    fig, axes = plots.figure(9.2, 2.7)
    said = " ".join(text.get_text() for text in losses_diagram(axes[0, 0]).texts)
    assert all(name in said for name in ("faithfulness", "minimality", "simplicity", "attributions"))
    fig.canvas.draw()
