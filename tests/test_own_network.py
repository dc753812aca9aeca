"""Pictures and lab of notebook 17 on a small classifier, whose numbers are worked out here once more."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, nn

import pd_helpers as pdh
from pd_helpers import plots
from pd_helpers.analysis import editing
from pd_helpers.course.your_own_network import ideas
from pd_helpers.course.your_own_network.plots import (
    class_table,
    coefficient_curves,
    factors_of,
    match_curves,
    places,
    reading,
)
from pd_helpers.widgets import SubcomponentLab

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own():
    """A network with two layers on 3x2 images in four classes, decomposed for a few steps; inputs and labels."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(4)

    def data(n, generator):
        return torch.rand(n, 6, generator=generator)

    config = pdh.SPDConfig(C=7, d_gate=3, steps=40, batch_size=64, output_loss="kl", importance_coeff=0.05)
    run = pdh.fit(network, config, data, ["0", "2"], device="cpu", show_progress=False)
    x = data(200, Generator().manual_seed(1))
    y = run.target(x)
    return run, x, (y - y.mean(dim=0)).argmax(dim=1)


def test_a_subcomponent_is_shown_with_the_sign_that_reads_up(own):
    run, x, _ = own
    for use in run.components.uses:
        layer, g = run.components.layers[use], run.importances(x)[use]
        factors = factors_of(run, x, use)
        for c in range(7):
            u, v = factors[c]
            torch.testing.assert_close(torch.outer(u, v), layer.P[c].detach())
            assert (g[:, c] * (run.components.target_forward(x).inputs[use] @ v)).sum() >= 0


def test_reading_shows_what_is_read_and_where(own):
    run, x, labels = own
    used = (run.importances(x)["0"] > 0.1).sum(dim=0).argsort()
    c, other = used[-1].item(), used[-2].item()
    fig, alt = reading(run, x, labels, "0", [other, c], (3, 2), n_examples=3)
    axes = np.reshape(fig.axes, (2, 6))
    u, v = factors_of(run, x, "0")[c]
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), v.view(3, 2), rtol=1e-6)
    np.testing.assert_allclose([bar.get_height() for bar in axes[1, 1].containers[0]], u, rtol=1e-6)
    g = run.importances(x)["0"][:, c]
    shares = [(g[labels == k] > 0.1).double().mean().item() for k in range(int(labels.max()) + 1)]
    assert [bar.get_height() for bar in axes[1, 2].containers[0]] == pytest.approx(shares)
    best = torch.where(g > 0.1, x @ v, -torch.inf).argmax()
    np.testing.assert_array_equal(axes[1, 3].images[0].get_array(), x[best].view(3, 2))
    assert f"{c} is important for" in alt
    assert plots.png(fig)
    bars, _ = reading(run, x, labels, "2", [0, 1], (3, 2))  # what it reads is no image
    assert len(np.reshape(bars.axes, (2, 8))[0, 0].containers[0]) == 5


def test_places_show_importances_on_the_image_and_beside_it():
    draw = Generator().manual_seed(0)
    images, patches = torch.rand(2, 4, 3, generator=draw), torch.rand(2, 4, 3, 5, generator=draw)
    lines = torch.zeros(2, 4, 6)
    lines[0, 1, 4], lines[0, 2, 4], lines[1, 3, 2], lines[1, 0, 5] = 1.0, 0.5, 0.8, 0.05  # 5 is never important
    fig = places(images, patches, lines, [3, 0], ("conv", "v"))
    axes = np.reshape(fig.axes[:8], (2, 4))
    for i in range(2):
        np.testing.assert_allclose(axes[i, 0].images[0].get_array(), images[i])
        for ax, c in zip(axes[i, 1:3], (3, 0), strict=True):
            opacity = np.asarray(ax.images[1].get_array())[..., 3]
            np.testing.assert_allclose(
                opacity / opacity.max(), patches[i, ..., c] / patches[i, ..., c].max(), rtol=1e-5
            )
        np.testing.assert_allclose(axes[i, 3].images[0].get_array(), lines[i][:, [4, 2]])
    assert [label.get_text() for label in axes[1, 3].get_xticklabels()] == ["4", "2"]
    assert [ax.get_title() for ax in axes[0, 1:3]] == ["3", "0"]
    assert plots.png(fig)


def test_an_input_needs_a_subcomponent_once_however_often_it_does():
    g = torch.tensor([[[0.9, 0.0, 0.1], [0.8, 0.3, 0.0]], [[0.0, 0.0, 0.05], [0.0, 0.2, 0.05]]])
    assert ideas.subcomponents_per_input(g) == 1.5  # 0 and 1 on the first input, 1 on the second
    assert ideas.subcomponents_per_input(g.unsqueeze(1)) == 1.5
    assert ideas.subcomponents_per_input(g[:, 0]) == 0.5


def test_erasing_costs_what_the_weights_without_it_lose(own):
    run, x, labels = own
    costs = ideas.ablation_costs(run, x, labels)
    important = {(use, c) for use, g in run.importances(x).items() for c in range(7) if (g[:, c] > 0.1).any()}
    assert costs.keys() == important
    layer, c = max(costs, key=lambda piece: costs[piece].abs().max().item())
    weights = {name: value.clone() for name, value in run.target.state_dict().items()}
    weights[f"{layer}.weight"] -= run.components.layers[layer].P[c].detach()
    answers = torch.func.functional_call(run.target, weights, x).argmax(dim=1)
    before = run.target(x).argmax(dim=1)
    for k in range(4):
        change = (answers == k)[labels == k].double().mean() - (before == k)[labels == k].double().mean()
        assert costs[layer, c][k].item() == pytest.approx(change.item(), nan_ok=True)


def test_tables_and_curves_draw_their_numbers():
    _, axes = plots.figure(6, 4, 1, 2)
    class_table(axes[0, 0], torch.tensor([[0.0, -0.9], [0.25, 0.001]]), ["a", "b"])
    assert [text.get_text() for text in axes[0, 0].texts] == ["0", "-0.90", "+0.25", "0"]
    match_curves(axes[0, 1], {"one": torch.tensor([0.9, 0.2]), "two": torch.tensor([0.5])})
    assert [line.get_ydata().tolist() for line in axes[0, 1].get_lines()[:2]] == [pytest.approx([0.9, 0.2]), [0.5]]
    names = ["accuracy important", "accuracy random", "KL important", "KL random", "alive 0", "alive 2", "L0 0", "L0 2"]
    table = pd.DataFrame(np.arange(1.0, 17).reshape(2, 8), columns=names, index=[0.01, 0.1])
    fig = coefficient_curves(table, {"own loss": 0.5})
    drawn = [[line.get_ydata()[0] for line in ax.get_lines()] for ax in fig.axes]
    assert drawn == [[1, 2], [3, 4, 0.5], [5, 6, 7, 8]]


class TestLab:
    def test_it_begins_with_the_subcomponent_that_is_important_most_often(self, own):
        run, x, labels = own
        lab = SubcomponentLab(run, x, labels, shape=(3, 2))
        on = run.importances(x)["0"] > 0.1
        used = on.sum(dim=0)
        assert lab.values.c == lab.c == used.argmax()
        assert lab.values.share == pytest.approx(used.max().item() / len(x))
        expected = [on[labels == k, lab.c].double().mean().item() for k in range(4)]
        assert lab.values.class_shares.tolist() == pytest.approx(expected)
        assert lab.rank.max == 7
        assert used[lab.order["0"]].tolist() == sorted(used.tolist(), reverse=True)

    def test_off_is_the_network_without_it(self, own):
        run, x, labels = own
        lab = SubcomponentLab(run, x, labels, shape=(3, 2))
        whole = run.components(x).output.argmax(dim=1)
        for layer in ("0", "2"):
            lab.layer.value = layer
            for rank in (1, 2, 7):
                lab.rank.value, lab.off.value = rank, False
                assert lab.values.accuracy == pytest.approx((whole == labels).double().mean().item())
                assert (lab.values.change == 0).all()
                P = run.components.layers[layer].P[lab.c].detach()
                torch.testing.assert_close(torch.outer(lab.values.u, lab.values.v), P)
                lab.off.value = True
                sums = {path: W - run.components.targets[path] for path, W in run.components.sums.items()}
                removed = editing.edited(run.target, sums | {layer: sums[layer].detach() - P})
                answers = removed(x).argmax(dim=1)
                assert lab.values.accuracy == pytest.approx((answers == labels).double().mean().item(), abs=1e-9)
                table = [[(answers[labels == k] == j).double().mean().item() for j in range(4)] for k in range(4)]
                np.testing.assert_allclose(lab.values.confusion, table, rtol=1e-6)
                changes = [table[k][k] - (whole[labels == k] == k).double().mean().item() for k in range(4)]
                assert lab.values.change.tolist() == pytest.approx(changes)
                np.testing.assert_array_equal(lab.axes[0, 3].images[0].get_array(), lab.values.confusion)
                assert f"{lab.values.accuracy:.3f}" in lab.readout

    def test_it_draws_without_images_too(self, own):
        lab = SubcomponentLab(*own)
        before = lab.picture
        lab.rank.value = 3
        assert lab.picture != before
        heights = [bar.get_height() for bar in lab.axes[0, 0].containers[0]]
        assert heights == pytest.approx(lab.values.v.tolist())
        assert f"Subcomponent {lab.c} of 0, switched on" in lab.alt

    def test_a_dead_subcomponent_is_important_for_no_class(self, own):
        lab = SubcomponentLab(*own)
        assert "of the inputs, most for class" in lab.alt
        lab.on["0"][:, lab.c] = False
        lab.update()
        assert lab.values.share == 0
        assert "It is important on no input." in lab.alt

    def test_it_needs_importances(self):
        run = pdh.prepare("apd/tms_5-2", seed=0, device="cpu", target_steps=2)
        with pytest.raises(ValueError, match="must be an SPD run"):
            SubcomponentLab(run, torch.eye(5), torch.arange(5))
