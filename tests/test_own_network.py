"""Pictures and lab of notebook 17 on a small classifier, whose numbers are worked out here once more."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator, nn

import pd_helpers as pdh
from pd_helpers import judging, plots
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
        factors = plots.factors_of(run, x, use)
        for c in range(7):
            u, v = factors[c]
            torch.testing.assert_close(torch.outer(u, v), layer.P[c].detach())
            assert (g[:, c] * (run.components.target_forward(x).inputs[use] @ v)).sum() >= 0


def test_reading_shows_what_is_read_and_where(own):
    run, x, labels = own
    used = (run.importances(x)["0"] > 0.1).sum(dim=0).argsort()
    c, other = used[-1].item(), used[-2].item()
    fig, alt = plots.reading(run, x, labels, "0", [other, c], (3, 2), n_examples=3)
    axes = np.reshape(fig.axes, (2, 6))
    u, v = plots.factors_of(run, x, "0")[c]
    np.testing.assert_allclose(axes[1, 0].images[0].get_array(), v.view(3, 2), rtol=1e-6)
    np.testing.assert_allclose([bar.get_height() for bar in axes[1, 1].containers[0]], u, rtol=1e-6)
    g = run.importances(x)["0"][:, c]
    shares = [(g[labels == k] > 0.1).double().mean().item() for k in range(int(labels.max()) + 1)]
    assert [bar.get_height() for bar in axes[1, 2].containers[0]] == pytest.approx(shares)
    best = torch.where(g > 0.1, x @ v, -torch.inf).argmax()
    np.testing.assert_array_equal(axes[1, 3].images[0].get_array(), x[best].view(3, 2))
    assert f"{c} is important for" in alt
    assert plots.png(fig)
    bars, _ = plots.reading(run, x, labels, "2", [0, 1], (3, 2))  # what it reads is no image
    assert len(np.reshape(bars.axes, (2, 8))[0, 0].containers[0]) == 5


def test_tables_and_curves_draw_their_numbers():
    _, axes = plots.figure(6, 4, 1, 2)
    plots.class_table(axes[0, 0], torch.tensor([[0.0, -0.9], [0.25, 0.001]]), ["a", "b"])
    assert [text.get_text() for text in axes[0, 0].texts] == ["0", "-0.90", "+0.25", "0"]
    plots.match_curves(axes[0, 1], {"one": torch.tensor([0.9, 0.2]), "two": torch.tensor([0.5])})
    assert [line.get_ydata().tolist() for line in axes[0, 1].get_lines()[:2]] == [pytest.approx([0.9, 0.2]), [0.5]]
    names = ["accuracy important", "accuracy random", "KL important", "KL random", "alive 0", "alive 2", "L0 0", "L0 2"]
    table = pd.DataFrame(np.arange(1.0, 17).reshape(2, 8), columns=names, index=[0.01, 0.1])
    fig = plots.price_curves(table, {"own loss": 0.5})
    drawn = [[line.get_ydata()[0] for line in ax.get_lines()] for ax in fig.axes]
    assert drawn == [[1, 2], [3, 4, 0.5], [5, 6, 7, 8]]


def readout(lab, name: str) -> str:
    return lab._numbers.value.split(f'pdh-{name}">')[1].split("<")[0]


class TestLab:
    def test_it_starts_with_what_is_used_most(self, own):
        run, x, labels = own
        lab = SubcomponentLab(run, x, labels, shape=(3, 2))
        use = (run.importances(x)["0"] > 0.1).sum(dim=0)
        assert int(readout(lab, "c")) == use.argmax()
        assert lab.rank.max == 7
        assert use[lab.order["0"]].tolist() == sorted(use.tolist(), reverse=True)

    def test_off_is_the_network_without_it(self, own):
        run, x, labels = own
        lab = SubcomponentLab(run, x, labels, shape=(3, 2))
        for layer in ("0", "2"):
            lab.layer.value = layer
            for rank in (1, 2, 7):
                lab.rank.value = rank
                lab.off.value = False
                on = readout(lab, "accuracy")
                lab.off.value = True
                P = run.components.layers[layer].P[lab.c].detach()
                sums = {path: W - run.components.targets[path] for path, W in run.components.sums.items()}
                removed = judging.edited(run.target, sums | {layer: sums[layer].detach() - P})
                answers = removed(x).argmax(dim=1)
                assert float(readout(lab, "accuracy")) == pytest.approx(
                    (answers == labels).double().mean().item(), abs=6e-4
                )
                assert on == f"{(lab.full.argmax(dim=1) == labels).double().mean():.3f}"
                row = lab._confusion.get_array()[1]
                assert row.tolist() == pytest.approx(
                    [(answers[labels == 1] == k).double().mean().item() for k in range(4)]
                )

    def test_it_draws_without_images_too(self, own):
        lab = SubcomponentLab(*own)
        before = lab._image.value
        lab.rank.value = 3
        assert lab._image.value != before
        assert f"Subcomponent {lab.c} of 0, switched on" in lab.alt
        assert len(lab._pictures[0]) == 6

    def test_a_dead_subcomponent_is_important_for_no_class(self, own):
        lab = SubcomponentLab(*own)
        assert "of the inputs, most for class" in lab.alt
        lab.on["0"][:, lab.c] = False
        lab.draw()
        assert "It is important on no input." in lab.alt

    def test_it_needs_importances(self):
        run = pdh.prepare("apd/tms_5-2", seed=0, device="cpu", target_steps=2)
        with pytest.raises(ValueError, match="must be an SPD run"):
            SubcomponentLab(run, torch.eye(5), torch.arange(5))
