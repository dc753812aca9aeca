"""The room of notebook 19: sequences as text, ablations, edits, attacks, its pictures and its lab."""

import functools

import pandas as pd
import pytest
import torch
from torch import Generator

import pd_helpers as pdh
from pd_helpers.course.attention import ideas, plots
from pd_helpers.course.attention.lab import AttentionLab

pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def run(method="vpd", seed="seed0"):
    return pdh.shipped(f"{method}/induction", seed)


def drawn(n=500, seed=0):
    return ideas.sequences_of(run())(n, Generator().manual_seed(seed))


def test_text_and_tokens_are_each_others_inverse():
    x = drawn(3)[1]
    written = ideas.text(x)
    assert (written[0], written[-1], len(written)) == ("^", "*", 32)
    assert ideas.tokens(written).equal(x)
    with pytest.raises(ValueError, match="text must consist of letters, digits.* but has '!'; 'ab.c' works"):
        ideas.tokens("a!")


def test_other_networks_have_no_sequences():
    with pytest.raises(TypeError, match=r"decomposes a TMS; pdh.shipped\('vpd/induction'\) works"):
        ideas.sequences_of(pdh.shipped("spd/tms_5-2"))


class TestAblation:
    """What the issue asks of the decomposition, on all three seeds."""

    @pytest.mark.parametrize("seed", ["seed0", "seed1", "seed2"])
    def test_the_pieces_that_the_rule_finds_are_the_mechanism(self, seed):
        decomposed, x, test = run("vpd", seed), drawn(1000, 2), drawn(2000, 3)
        assert decomposed.metrics["rounded_accuracy"] >= 0.99
        groups = ideas.carriers(decomposed, x)
        assert ideas.accuracy_without(decomposed, test, {}) > 0.99
        for group in groups.values():
            assert ideas.accuracy_without(decomposed, test, group) < 0.1
        others = ideas.all_but(decomposed, list(groups.values()))
        assert sum(map(len, others.values())) > 60
        assert ideas.accuracy_without(decomposed, test, others) > 0.9

    def test_groups_and_their_rest_are_everything(self):
        groups = ideas.carriers(run(), drawn())
        assert list(groups) == ["previous token", "induction"]
        assert list(groups["induction"]) == [f"blocks.1.{letter}" for letter in "qkvo"]
        rest = ideas.all_but(run(), list(groups.values()))
        for use in run().components.uses:
            taken = [c for group in groups.values() for c in group.get(use, [])]
            assert sorted(taken + rest[use]) == list(range(30))

    def test_without_subcomponents_their_masks_are_zero(self):
        x, off = drawn(), {"blocks.1.v": [3, 5, 8], "blocks.0.o": list(range(20))}
        masks = {use: torch.ones(500, 32, 30) for use in off}
        for use, numbers in off.items():
            masks[use][..., numbers] = 0
        expected = ideas.sequences_of(run()).accuracy(run().components(x, masks).output, x)
        assert ideas.accuracy_without(run(), x, off) == pytest.approx(expected)
        assert expected < 0.99


class TestEdits:
    def test_a_rotation_moves_positions_back(self):
        positions = run().target.positions
        R = ideas.rotation(16, 3)
        torch.testing.assert_close(positions[3:] @ R.T, positions[:-3], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(R @ R.T, torch.eye(16))

    def test_shifting_all_pieces_is_rotating_the_matrix(self):
        moved = ideas.shifted(run(), range(30), 2)
        path, target = "blocks.0.q", run().target
        layer = run().components.layers[path]
        rotated = (layer.U.squeeze(-1).T @ layer.V.squeeze(1)) @ ideas.rotation(16, 2)
        delta = target.get_submodule(path).weight - layer.U.squeeze(-1).T @ layer.V.squeeze(1)
        torch.testing.assert_close(moved.get_submodule(path).weight, rotated + delta, rtol=1e-3, atol=1e-3)
        assert moved.get_submodule("blocks.0.k").weight.equal(target.get_submodule("blocks.0.k").weight)

    def test_swap_vectors_exchange_the_means(self):
        means = torch.randn(6, 4, generator=Generator().manual_seed(0))
        d, r = ideas.swap_vectors(means, 1, 4)
        assert (r @ d).item() == pytest.approx(1, rel=1e-4)
        torch.testing.assert_close(d, means[1] - means[4])
        for _ in range(5):  # no other direction with r · d = 1 reads less of what is there
            other = r + 0.1 * torch.randn(4)
            other = other / (other @ d)
            assert (means @ other).square().sum() >= (means @ r).square().sum() - 1e-4

    def test_the_best_pair_can_be_swapped(self):
        table = ideas.swaps(run(), drawn(3000, 4))
        assert len(table) == 64 * 63 // 2
        best = table.loc[table[["swapped", "others"]].min(axis=1).idxmax()]
        a, b = int(best["a"]), int(best["b"])
        edited, x = ideas.swapped(run(), drawn(3000, 4), a, b), drawn(3000, 5)
        answers = ideas.sequences_of(run()).answers(x)
        wanted = answers.masked_fill(answers == a, b).masked_fill(answers == b, a)
        right = (edited(x).argmax(dim=1) == wanted).float()
        assert right.mean() > 0.9
        assert right[(answers == a) | (answers == b)].mean() > 0.9

    def test_the_table_of_swaps_tells_what_the_edited_network_does(self):
        x = drawn(3000, 4)
        row = ideas.swaps(run(), x).iloc[100]
        a, b = int(row["a"]), int(row["b"])
        answers, given = ideas.sequences_of(run()).answers(x), ideas.swapped(run(), x, a, b)(x).argmax(dim=1)
        on = (answers == a) | (answers == b)
        wanted = answers.masked_fill(answers == a, b).masked_fill(answers == b, a)
        assert row["swapped"] == pytest.approx((given == wanted)[on].float().mean().item(), abs=0.02)
        assert row["others"] == pytest.approx((given == wanted)[~on].float().mean().item(), abs=0.02)

    def test_accuracy_ahead_counts_what_is_there(self):
        sequences, x = ideas.sequences_of(run()), drawn(1000, 3)
        assert ideas.accuracy_ahead(run().target, x, sequences, 1) > 0.99
        assert ideas.accuracy_ahead(run().target, x, sequences, 2) < 0.1


def test_ladders_have_a_row_for_each_rung():
    grid = {"run": ["vpd/induction:seed0", "spd/induction:seed0"], "scope": ["shared"]}
    table = ideas.ladders(grid, rungs=(0, 5), show_progress=False)
    assert table["steps"].tolist() == [0, 5, 0, 5]
    assert table["attacked"][1] < table["attacked"][3]
    assert table["accuracy"][1] > 0.95


class TestPictures:
    def test_arrows(self):
        patterns = torch.zeros(2, 4, 4)
        patterns[0, torch.arange(4), (torch.arange(4) - 1).clamp(min=0)] = 1.0
        patterns[1, :, 0] = 1.0
        _, alt = plots.arrows(list(patterns), "^a*b")
        assert "layer 0 from the last position most to position 2 ('*', 1.00)" in alt
        assert "layer 1 from the last position most to position 0 ('^', 1.00)" in alt

    def test_importance_maps_count_pieces(self):
        g = {f"blocks.{i}.{letter}": torch.full((5, 3), 0.5) for i in range(2) for letter in "qkvo"}
        fig, alt = plots.importance_maps(g, {use: [0, 2] for use in g})
        assert "layer 1, o 2.0" in alt
        assert fig.axes[0].get_title() == "layer 0, q (2 pieces)"

    def test_pairs(self):
        scores = torch.zeros(4, 2, 3)
        scores[1, 0, 0], scores[1, 1, 2], scores[0, 0, 1] = 4.0, 2.0, 1.0
        _, alt = plots.by_offset(scores, [(0, 0), (1, 2)])
        assert "largest at offset 1, 4.2 above its mean" in alt
        assert "the 2 pairs that carry the mechanism make 4.5 of 4.2, and the strongest of them 3.00" in alt
        assert "key piece 0 makes 3.0 with all query pieces together" in alt
        contrast = torch.tensor([[3.0, 1.0], [0.5, -1.0]])
        _, alt = plots.pair_strengths(contrast, [(0, 0)])
        assert "Together all pairs make 3.5; the 1 that carry it (blue) make 3.0, the largest 3.0." in alt

    def test_heads_count_those_that_span_both(self):
        shares = {"blocks.0.q": torch.tensor([0.0, 0.5, 1.0]), "blocks.0.k": torch.tensor([0.05])}
        _, alt = plots.heads(shares)
        assert "layer 0, q 1 of 3, layer 0, k 0 of 1" in alt

    def test_ladders_swaps_and_learning(self):
        rows = [
            {
                "run": f"{method}/induction:seed{seed}",
                "scope": "shared",
                "steps": n,
                "attacked": 0.1,
                "accuracy": accuracy,
            }
            for method, accuracy in (("spd", 0.2), ("vpd", 1.0))
            for seed in range(2)
            for n in (0, 20)
        ]
        _, alt = plots.ladders(pd.DataFrame(rows))
        assert "SPD 0.200 to 0.200, VPD 1.000 to 1.000" in alt
        _, alt = plots.swaps(pd.DataFrame({"swapped": [0.95, 0.5], "others": [0.92, 1.0]}))
        assert "For 50% of the pairs" in alt
        assert "the best pair (circle) has 0.95 and 0.92" in alt
        _, alt = plots.learning({0: 0.0, 50: 0.6, 100: 1.0})
        assert "passes one half at step 50 and ends at 1.000" in alt
        assert "never passes one half" in plots.learning({0: 0.0})[1]


@pytest.fixture(scope="module")
def lab():
    return AttentionLab(run())


class TestLab:
    def test_it_answers_what_is_typed(self, lab):
        lab.input.value = "abcdefgh*Kjklmnopqrstuvwxyzabc"
        assert lab.values.answer == lab.values.target_answer == lab.values.right_answer == "K"
        assert lab.values.probability > 0.9
        assert lab.values.text == "^abcdefgh*Kjklmnopqrstuvwxyzabc*"
        lab.position.value = 31
        assert lab.values.patterns[1, 31].argmax() == 10
        picture = lab.picture
        lab.position.value = 10
        assert lab.picture != picture
        assert "position 10" in lab.alt

    def test_what_cannot_be_read_leaves_the_answer(self, lab):
        lab.input.value = "abcdefgh*Kjklmnopqrstuvwxyzabc"
        lab.input.value = "tooshort"
        assert lab.values.answer == "K"
        assert "text must have 30 characters" in lab.readout
        lab.input.value = "!" * 30
        assert "letters, digits" in lab.readout
        lab.input.value = "abcdefgh*Qjklmnopqrstuvwxyzabc"
        assert lab.values.answer == "Q"

    def test_pieces_that_are_off_are_missed(self, lab):
        lab.input.value = "abcdefgh*Kjklmnopqrstuvwxyzabc"
        keys = ideas.carriers(run(), drawn(256))["induction"]["blocks.1.k"]
        line, chosen = next(option for option in lab.off.options if option[0].startswith("layer 1, k: all"))
        assert line == f"layer 1, k: all {len(keys)} that carry induction"
        before = lab.values.probability
        lab.off.value = (chosen,)
        assert lab.values.probability < before
        assert sum(lab.values.is_on) == len(lab.subcomponents) - len(keys)
        lab.off.value = ()
        lab.others.value = "important"
        assert lab.values.answer == "K"
        assert sum(lab.values.is_on) == int((lab.values.g > 0.1).sum())
        lab.others.value = "all"

    def test_bad_calls(self):
        with pytest.raises(ValueError, match="text must have 30 characters, among them"):
            AttentionLab(run(), "abc")
        with pytest.raises(TypeError, match="decomposes a TMS"):
            AttentionLab(pdh.shipped("spd/tms_5-2"))
