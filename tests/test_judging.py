"""Measurements of a classifier's decomposition, on networks small enough to know the answers."""

import pytest
import torch
from networks import draw
from torch import Generator, nn

from pd_helpers.analysis import editing, judging
from pd_helpers.core.components import decompose
from pd_helpers.core.losses import kl_divergence


def rng() -> Generator:
    return Generator().manual_seed(0)


class Known:
    """A run whose importances we set: one layer without bias, decomposed by hand."""

    def __init__(self, W, P, g):
        self.target = nn.Sequential(nn.Linear(W.shape[1], W.shape[0], bias=False))
        with torch.no_grad():
            self.target[0].weight.copy_(W)
        self.components = decompose(self.target, {"0": len(P)}, rank=1)
        self.components.layers["0"].assign_(P)
        self.g, self.seed, self.data, self.method = g, 0, None, None

    def importances(self, x):
        return {"0": self.g(x)}


@pytest.fixture
def diagonal():
    """Three inputs, three classes, W = 4 I; subcomponent c reads input c and is important where that is on."""
    P = 4 * torch.diag_embed(torch.eye(3))
    return Known(4 * torch.eye(3), P, lambda x: (x > 0).float())


@pytest.fixture
def wasteful():
    """The same and a fourth, never important, which confuses class 0 with class 1, and a fifth that undoes it."""
    confusing = torch.zeros(1, 3, 3)
    confusing[0, 1, 0] = 100.0
    P = torch.cat([4 * torch.diag_embed(torch.eye(3)), confusing, -confusing])
    return Known(4 * torch.eye(3), P, lambda x: torch.cat([(x > 0).float(), torch.zeros(len(x), 2)], dim=1))


class TestJudge:
    def test_a_perfect_decomposition_loses_nothing(self, diagonal):
        found = judging.judge(diagonal, torch.eye(3), torch.arange(3), rng())
        assert found.keys() == {"network", "all", "important", "random"}
        for judged in found.values():
            assert judged.accuracy == 1
            assert judged.kl == pytest.approx(0, abs=1e-6)

    def test_importances_hold_for_each_row_of_an_input(self):
        """Three positions, each a class: a subcomponent is on where it is important, and only there."""
        known = Known(torch.eye(1), torch.ones(1, 1, 1), None)
        known.target = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten())
        nn.init.constant_(known.target[0].weight, 5.0)
        known.components = decompose(known.target, {"0": 1}, rank=1)
        known.components.layers["0"].assign_(torch.full((1, 1, 1), 5.0))
        known.g = lambda x: (x > 0).float() * torch.tensor([1.0, 1.0, 0.05])[:, None]  # (inputs, positions, 1)
        judged = judging.judge(known, torch.eye(3).unsqueeze(2), torch.arange(3), rng())
        assert [judged[key].accuracy for key in ("network", "all", "important")] == pytest.approx([1, 1, 2 / 3])
        kl = kl_divergence(torch.diag(torch.tensor([5.0, 5.0, 0.0])), 5 * torch.eye(3)).item()
        assert judged["important"].kl == pytest.approx(kl)

    def test_a_missing_piece_costs_what_it_did(self, diagonal):
        diagonal.g = lambda x: (x > 0).float() * torch.tensor([1.0, 1.0, 0.05])
        found = judging.judge(diagonal, torch.eye(3), torch.tensor([0, 1, 2]), rng(), n_draws=2000)
        assert found["all"].accuracy == 1
        assert found["important"].accuracy == pytest.approx(2 / 3)  # all logits 0, and the first wins
        wanted = torch.tensor([[0.0, 0.0, 4.0]])
        assert found["important"].kl == pytest.approx(kl_divergence(torch.zeros(1, 3), wanted).item() / 3, rel=1e-5)
        m = torch.linspace(0, 1, 2001)[:, None]
        mean = kl_divergence(m * wanted, wanted.expand(2001, 3)).item() / 3
        assert found["random"].kl == pytest.approx(mean, rel=0.1)

    def test_random_masks_find_pieces_that_only_cancel(self, wasteful):
        found = judging.judge(wasteful, torch.eye(3), torch.arange(3), rng(), n_draws=400)
        assert found["important"] == found["all"] == judging.Judged(1.0, pytest.approx(0, abs=1e-6))
        assert found["random"].accuracy == pytest.approx(
            1 - 0.5 * 0.92 / 3, abs=0.02
        )  # 100 (m − m') < 4 spoils nothing
        assert found["random"].kl > 1


class TestNoise:
    def test_pieces_that_read_nothing_make_no_noise(self, diagonal):
        found = judging.noise(diagonal, torch.eye(3), "0", rng())
        assert found.measured == pytest.approx(0, abs=1e-6)
        assert found.random_directions == 0  # a mask cannot make a zero into something

    def test_random_directions_read_as_much_as_expected(self):
        """Unimportant pieces that do read random directions cause what is foretold for them."""
        V = torch.nn.functional.normalize(torch.randn(60, 40, generator=rng()), dim=1)
        U = 0.2 * torch.randn(60, 5, generator=rng())
        P = U[:, :, None] * V[:, None, :]
        run = Known(P.sum(dim=0), P, lambda x: torch.zeros(len(x), 60))
        x = torch.randn(400, 40, generator=rng())
        found = judging.noise(run, x, "0", rng(), n_draws=20)
        assert found.measured == pytest.approx(found.random_directions, rel=0.25)
        assert found.measured > 0.005


def test_overlap_is_both_over_either():
    on = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 0]]).bool()
    found = judging.overlap(on)
    assert found[0, 1] == found[1, 0] == 3 / 5
    assert found[0, 2] == 1 / 4
    assert (found[3] == 0).all()
    assert judging.duplicates(on, 0.5) == judging.duplicates(on, 3 / 5) == [(0, 1)]
    assert judging.duplicates(on) == []


def test_matching_undoes_an_order_whatever_the_factors_signs_and_lengths():
    U, V, order = draw(6, 4, 1, seed=1), draw(6, 1, 5, seed=2), torch.tensor([3, 1, 5, 0, 2, 4])
    signs = torch.tensor([1.0, -1, -1, 1, -1, 1])[:, None, None]
    P, Q = U @ V, (2 * signs * U)[order] @ (signs * V)[order]
    found = judging.matched(P, Q)
    assert torch.equal(order[found.second], found.first)
    assert found.cosine.tolist() == pytest.approx([1] * 6)
    smaller = judging.matched(P[:2], -Q)
    assert len(smaller.cosine) == 2
    assert smaller.cosine[0] >= smaller.cosine[1]


def test_matching_prefers_the_best_sum_to_the_best_pair():
    def piece(angle):
        return torch.tensor([[[angle.cos(), angle.sin()]]])

    angles = torch.tensor([0.0, 0.5])
    P = torch.cat([piece(a) for a in angles])
    Q = torch.cat([piece(a) for a in torch.tensor([0.4, 1.5])])
    # Alone, both of P are nearest to Q's first; cos 0.1 + cos 1.5 < cos 0.4 + cos 1.0
    assert judging.matched(P, Q).cosine.tolist() == pytest.approx(torch.tensor([0.4, 1.0]).cos().tolist())


class TestIdentity:
    network = nn.Sequential()
    network.add_module("first", nn.Linear(4, 6))
    network.add_module("relu", nn.ReLU())
    network.add_module("last", nn.Linear(6, 3))

    def test_the_function_stays(self):
        longer = editing.with_identity(self.network, "last")
        assert [name for name, _ in longer.named_children()] == ["first", "relu", "identity", "last"]
        x = torch.randn(9, 4, generator=rng())
        assert torch.equal(longer(x), self.network(x))
        longer.first.weight.data.zero_()
        assert self.network.first.weight.any()

    @pytest.mark.usefixtures("as_a_user")
    @pytest.mark.parametrize("before", ["relu", "third"])
    def test_it_stands_before_a_linear_layer(self, before):
        with pytest.raises(ValueError, match=f"but is '{before}'; 'last' works"):
            editing.with_identity(self.network, before)

    def test_kept_counts_what_the_next_layer_reads(self):
        W = torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
        P = torch.diag_embed(torch.eye(3))
        assert judging.kept(P, W) == judging.kept(P[:2], W) == 1
        assert judging.kept(P[1:], W) == pytest.approx(1 - 3 / 5)
        assert judging.kept(P[2:], W) == 0


def test_shuffling_keeps_the_entries():
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    other = editing.shuffled(network, rng())
    for i in (0, 2):
        mine, theirs = network[i].weight.detach(), other[i].weight.detach()
        assert not torch.equal(mine, theirs)
        assert torch.equal(mine.flatten().sort().values, theirs.flatten().sort().values)
        assert torch.equal(network[i].bias, other[i].bias)


def test_class_accuracy_by_hand():
    output = torch.eye(3)[[0, 0, 1, 2]]
    found = judging.class_accuracy(output, torch.tensor([0, 1, 1, 0]))
    assert found[:2].tolist() == [0.5, 0.5]
    assert found[2].isnan()


def test_what_a_piece_does_is_what_its_removal_undoes(diagonal):
    x, labels = torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 1, 1, 2])
    effects = judging.class_effects(diagonal, x, labels, "0")
    assert torch.equal(effects, torch.tensor([[0.0, 0, 0], [0, -1, 0], [0, 0, -1]]).double())  # ties go to class 0
    for c in range(3):
        removed = editing.edited(diagonal.target, {"0": -diagonal.components.layers["0"].P[c]})
        torch.testing.assert_close(removed(x), editing.output_without(diagonal, x, "0", c))
    assert torch.equal(diagonal.target[0].weight, 4 * torch.eye(3))


def test_it_works_on_finished_runs():
    import pd_helpers as pdh

    run = pdh.shipped("spd/tms_40-10")
    x = run.data(64, rng())
    x = x[x.any(dim=1)]
    found = judging.judge(run, x, x.argmax(dim=1), rng(), n_draws=1)
    assert found["network"].kl == 0
    for use in run.components.uses:
        assert judging.noise(run, x, use, rng(), n_draws=1).measured >= 0
