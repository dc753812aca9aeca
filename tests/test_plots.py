"""Figures: what is drawn is what the tensors say, and every figure is described."""

import base64

import pytest
import torch

import pd_helpers as pdh
from pd_helpers import plots
from pd_helpers.course.apd_superposition.plots import column_sums
from pd_helpers.course.spd_superposition.plots import deep_network, sorted_lengths
from pd_helpers.course.training_the_targets.plots import responses

W = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])


def axes():
    return plots.figure(3, 3)[1][0, 0]


def test_an_arrow_per_column_that_is_not_zero():
    ax = plots.columns(axes(), W)
    tips = [tuple(line.get_xydata()[-1]) for line in ax.lines if len(line.get_xydata()) == 1]
    assert tips == [(1.0, 0.0), (0.0, 0.5)]
    assert [text.get_text() for text in ax.texts] == ["0", "1"]


def test_negative_weights_are_told_by_line_style_too():
    ax = plots.network(axes(), torch.tensor([[1.0, -1.0]]))
    assert len({line.get_linestyle() for line in ax.lines}) == 2


def test_column_sums_reach_one_for_a_faithful_decomposition():
    P = torch.stack([0.9 * W, 0.3 * W, -0.2 * W])
    ax = column_sums(axes(), P[:, :, :2], W[:, :2])
    heights = [bar.get_height() for bar in ax.patches if bar.get_x() < 0.5]
    assert sum(heights) == pytest.approx(1)
    assert sorted(heights) == pytest.approx([-0.2, 0.3, 0.9])


def test_greedy_order_gives_each_input_its_component():
    g = torch.tensor([[0.0, 0.9, 0.0, 0.1], [0.2, 0.8, 0.0, 0.0], [0.0, 0.0, 0.7, 0.0]])
    assert plots.greedy_order(g) == [1, 0, 2, 3]


def test_a_decomposition_is_drawn_and_described():
    run = pdh.run("apd/tms_5-2", steps=5, n_init=1, target_steps=50, show_progress=False)
    fig, alt = plots.decomposition(run)
    titles = [ax.get_title() for ax in fig.axes if ax.get_title()]
    assert titles[:2] == ["target W", "sum of 5"]
    assert sorted(titles[2:]) == [f"component {c}" for c in range(5)]
    assert f"ML2R {run.metrics['ml2r']:.3f}" in alt


def test_show_carries_the_alt_text_as_metadata_and_in_sight(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **options: shown.append((data, options)))
    pdh.show(plots.figure(3, 2)[0], alt="Two <arrows>.")
    (picture, options), (sentence, _) = shown
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG")
    assert options["metadata"]["image/png"] == {"alt": "Two <arrows>.", "width": 300}
    assert "Two &lt;arrows&gt;." in sentence["text/html"]


def test_a_deep_network_has_a_line_per_weight_that_is_not_zero():
    ax = deep_network(axes(), [W, torch.eye(2), W.T], names=["W", "I", "Wᵀ"], behind=[W, torch.eye(2), W.T])
    assert len(ax.lines) == 2 * (2 + 2 + 2)
    assert {"W", "I", "Wᵀ"} <= {text.get_text() for text in ax.texts}


def test_sorted_lengths_are_sorted_and_split_where_told():
    P = torch.stack([0.1 * W, 2 * W, W])
    alive, others = [line for line in sorted_lengths(axes(), P, 2).lines if line.get_ls() == "None"]
    assert (alive.get_ydata() / W.norm().item()).tolist() == pytest.approx([2, 1])
    assert (others.get_ydata() / W.norm().item()).tolist() == pytest.approx([0.1])


@pytest.fixture(scope="module")
def two_layers():
    config = pdh.ResidualMLPConfig(n_features=6, d_resid=40, d_mlp=3, n_layers=2, target_steps=20)
    return pdh.make_target(config, seed=0, show_progress=False)


def test_responses_of_one_feature_are_those_of_the_network(two_layers):
    fig, alt = responses(two_layers, [4], n_points=11)
    left, right = fig.axes
    y = two_layers(torch.eye(6)[[4]])[0]
    dots = dict(left.collections[0].get_offsets().tolist())
    assert [dots[i] for i in range(6)] == pytest.approx(y.tolist())
    curves = {line.get_label(): line.get_ydata().tolist() for line in right.lines}
    assert curves["network"][-1] == pytest.approx(y[4].item())
    assert curves["label"] == pytest.approx([v + max(v, 0) for v in torch.linspace(-1, 1, 11).tolist()])
    assert curves["skip alone"][-1] == pytest.approx(1)
    assert f"{y[4]:.2f}" in alt


def test_responses_of_all_features(two_layers):
    fig, alt = responses(two_layers, n_points=11)
    assert len(fig.axes[0].collections[0].get_offsets()) == 36
    assert len(fig.axes[1].lines) == 6 + 1
    own = two_layers(torch.eye(6)).diag()
    assert f"between {own.min():.2f} and {own.max():.2f}" in alt


def test_contributions_have_a_marker_for_the_layer_and_a_number_when_large():
    ax = plots.neuron_contributions(axes(), torch.tensor([[0.5, 0.0, 0.3, 0.0], [0.0, 0.05, 0.0, -0.2]]), n_layers=2)
    assert [text.get_text() for text in ax.texts] == ["0", "2"]
    assert len({line.get_marker() for line in ax.lines if line.get_ls() == "None"}) == 2


def test_numbers_of_contributions_keep_their_distance():
    ax = plots.neuron_contributions(axes(), torch.tensor([[0.5, 0.5, 0.499, 0.498]]))
    places = [text.get_position() for text in ax.texts]
    assert len({round(x, 2) for x, _ in places}) == 2
    assert places[0][1] - places[2][1] >= 0.024


def test_the_gated_network_has_a_line_per_weight_in_the_colour_of_its_function():
    net = pdh.make_target(pdh.GatedConfig(n_functions=2, n_neurons=3, n_layers=2), seed=0)
    drawn = [line for line in plots.gated_network(axes(), net).lines if line.get_zorder() == 1]
    assert len(drawn) == 6 * 3
    assert {line.get_color() for line in drawn} == {plots.color(0), plots.color(1)}


def test_weights_that_serve_no_function_are_dotted():
    net = pdh.make_target(pdh.GatedConfig(n_functions=2, n_neurons=3, n_layers=2), seed=0)
    weights = {path: torch.zeros_like(net.get_submodule(path).weight) for path in net.layers}
    weights["mlps.0.W_in"][0, -1] = 1.0  # nobody reads the output
    drawn = [line for line in plots.gated_network(axes(), net, weights).lines if line.get_zorder() == 1]
    assert [(line.get_linestyle(), line.get_color()) for line in drawn] == [(":", plots.NO_FUNCTION)]


def test_the_diagram_of_a_residual_network_names_every_matrix():
    texts = [text.get_text() for text in plots.residual_network(axes(), 2).texts]
    assert sum("in" in text and "W" in text for text in texts) == 2
    assert {"$W_E$", "$W_U$", "$x$", "$y$"} <= set(texts)
