"""The induction task and network, and attention taken apart into pairs of subcomponents."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

import pd_helpers as pdh
from pd_helpers.analysis import attention, induction, metrics
from pd_helpers.runs.evaluation import known_target_metrics
from pd_helpers.targets.base import make_target
from pd_helpers.targets.induction import InductionConfig, InductionNetwork, InductionSequences, sinusoids

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = InductionConfig(vocabulary=8, length=9, d_model=8, target_steps=400, target_batch_size=128)


def drawn(config=SMALL, n=64, seed=0):
    return config.features()(n, Generator().manual_seed(seed))


def a_run(n_heads=1):
    """A run whose subcomponents are the singular vectors of the target's matrices, so that they add up exactly."""
    return copy.deepcopy(_a_run(n_heads))


@functools.cache
def _a_run(n_heads):
    config = SMALL.replace(n_heads=n_heads)
    network = config.new(1)
    spd = pdh.SPDConfig(C=config.d_model + 2, steps=1, batch_size=8, output_loss="kl")
    run = pdh.fit(network, spd, config.features(), network.layers, device="cpu", show_progress=False)
    for path, layer in run.components.layers.items():
        U, S, V = torch.linalg.svd(run.components.targets[path])
        P = torch.einsum("oc,c,ci->coi", U, S, V)
        layer.assign_(torch.cat([P, torch.zeros(2, *P.shape[1:])]))
    return run


@pytest.fixture
def all_important(monkeypatch):
    """Every subcomponent counts as important everywhere, so that contributions add up to what the target does."""
    monkeypatch.setattr(metrics, "ALIVE", -1.0)


class TestTask:
    def test_a_sequence_holds_the_marker_twice_and_ends_with_it(self):
        sequences = InductionSequences(vocabulary=64, length=32)
        x = sequences(2000, Generator().manual_seed(0))
        assert x.shape == (2000, 32)
        assert (x[:, 0] == sequences.bos).all()
        assert (x[:, -1] == sequences.marker).all()
        assert ((x == sequences.marker).sum(dim=1) == 2).all()
        assert (x[:, 1:] != sequences.bos).all()
        places = sequences.places(x)
        assert places.unique().tolist() == list(range(1, 30))  # the successor is never the last marker

    def test_the_answer_follows_the_first_marker(self):
        sequences = InductionSequences(vocabulary=5, length=6)
        x = torch.tensor([[5, 1, 6, 3, 0, 6], [5, 6, 4, 4, 2, 6]])
        assert sequences.places(x).tolist() == [2, 1]
        assert sequences.answers(x).tolist() == [3, 4]

    def test_the_answer_may_be_any_token(self):
        sequences = InductionSequences(vocabulary=6, length=8)
        answers = sequences.answers(sequences(3000, Generator().manual_seed(1)))
        assert answers.bincount(minlength=6).min() > 400

    def test_positions_are_sines_and_cosines(self):
        positions = sinusoids(10, 6)
        for t in range(10):
            for i in range(3):
                angle = torch.tensor(t / 10_000 ** (2 * i / 6))
                assert positions[t, 2 * i].item() == pytest.approx(angle.sin().item(), abs=1e-5)
                assert positions[t, 2 * i + 1].item() == pytest.approx(angle.cos().item(), abs=1e-5)
        assert sinusoids(4, 5).shape == (4, 5)


class TestNetwork:
    def test_each_position_sees_those_before_it(self):
        network, x = SMALL.new(0), drawn()
        before = network.stream(x)
        changed = x.clone()
        changed[:, 5] = (x[:, 5] + 1) % SMALL.vocabulary
        after = network.stream(changed)
        assert after[:, :5].equal(before[:, :5])
        assert not torch.allclose(after[:, 6], before[:, 6])

    @pytest.mark.parametrize("n_heads", [1, 2])
    def test_attention_by_hand(self, n_heads):
        config = SMALL.replace(n_heads=n_heads)
        network, x = config.new(0), drawn()
        s = network.embed(x)
        for block in network.blocks:
            placed, total = s + network.positions, torch.zeros_like(s)
            for rows in torch.arange(config.d_model).chunk(n_heads):
                q, k, v = (W.weight[rows] for W in (block.q, block.k, block.v))
                scores = (placed @ q.T) @ (placed @ k.T).mT / len(rows) ** 0.5
                causal = torch.full(scores.shape[1:], -torch.inf).triu(1)
                total = total + (scores + causal).softmax(dim=-1) @ (s @ v.T) @ block.o.weight[:, rows].T
            s = s + total
        torch.testing.assert_close(network.stream(x), s)
        torch.testing.assert_close(network(x), s[:, -1] @ network.unembed.weight.T)

    def test_training_learns_the_task(self):
        config = InductionConfig(target_steps=700)
        network, sequences = make_target(config, 0, show_progress=False), config.features()
        x = drawn(config, n=2000, seed=5)
        assert sequences.accuracy(network(x), x) > 0.99
        assert sequences.accuracy(config.new(0)(x), x) < 0.1
        assert not any(parameter.requires_grad for parameter in network.parameters())

    def test_training_is_the_same_every_time(self):
        config = SMALL.replace(target_steps=20)
        once, again = (make_target(config, 0, show_progress=False).state_dict() for _ in range(2))
        assert all(once[name].equal(again[name]) for name in once)
        other = make_target(config, 1, show_progress=False).state_dict()
        assert not once["embed.weight"].equal(other["embed.weight"])

    def test_the_learning_rate_rises_and_falls_along_a_line(self):
        from pd_helpers.core.training import learning_rate

        config = InductionConfig(target_steps=100, target_lr=1.0)
        rates = [learning_rate(step, config, config.target_warmup_fraction) for step in range(100)]
        assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
        assert rates[10:] == pytest.approx([1 - i / 90 for i in range(90)])

    def test_layers_that_are_left_out_count_by_their_chances(self):
        """With three layers: both later ones remain with (1 - p)², either alone with p (1 - p), and never none."""
        config = SMALL.replace(n_layers=3, drop=0.4)
        network, x = config.new(2), drawn()
        answers = config.features().answers(x)
        both, one, two = (F.cross_entropy(network(x, without), answers) for without in ((), (1,), (2,)))
        expected = (0.36 * both + 0.24 * one + 0.24 * two) / 0.84
        torch.testing.assert_close(config.loss(network, x), expected)
        torch.testing.assert_close(config.replace(drop=0.0).loss(network, x), both)
        with pytest.raises(ValueError, match="drop is 0.4, but with n_layers = 2 .* n_layers=3 works"):
            SMALL.replace(drop=0.4)

    def test_a_layer_that_is_left_out_adds_nothing(self):
        network, x = SMALL.new(0), drawn()
        s = network.embed(x)
        torch.testing.assert_close(network.stream(x, {0, 1}), s)
        torch.testing.assert_close(network.stream(x, {0}), s + network.blocks[1](s, network.positions))

    def test_shuffled_answers_are_those_of_other_sequences(self):
        network, x = SMALL.new(0), drawn()
        answers = SMALL.features().answers(x)
        expected = F.cross_entropy(network(x), answers[torch.arange(len(x)) - 1])
        torch.testing.assert_close(SMALL.replace(shuffled=True).loss(network, x), expected)

    @pytest.mark.parametrize("n_heads", [1, 2])
    def test_patterns_are_those_of_the_forward_pass(self, n_heads):
        network, x = SMALL.replace(n_heads=n_heads).new(0), drawn()
        patterns = network.patterns(x)
        assert patterns.shape == (2, 64, n_heads, 9, 9)
        torch.testing.assert_close(patterns.sum(dim=-1), torch.ones(2, 64, n_heads, 9))
        assert patterns.triu(1).abs().max() == 0
        s = network.embed(x)
        for block, pattern in zip(network.blocks, patterns, strict=True):
            mixed = pattern @ block.by_head(block.v(s))
            s = s + block.o(mixed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(network.stream(x), s)

    def test_heads_must_share_the_width(self):
        with pytest.raises(ValueError, match="n_heads must divide d_model = 16, but is 3; 1 works, and so does 16"):
            InductionConfig(n_heads=3)

    def test_sizes_are_read_off_a_network(self):
        config = InductionConfig(vocabulary=9, length=12, d_model=12, n_heads=3, n_layers=1)
        assert config.replace(**InductionConfig.sizes(config.build())) == config
        assert InductionConfig.sizes(torch.nn.Linear(2, 2)) is None


class TestPairs:
    @pytest.mark.parametrize("n_heads", [1, 2])
    @pytest.mark.parametrize("i", [0, 1])
    def test_they_add_up_to_the_scores(self, n_heads, i):
        run, x = a_run(n_heads), drawn()
        run.components.double()
        found = attention.pairs(run, x, f"blocks.{i}.q", f"blocks.{i}.k", n_heads)
        block, entering = run.target.blocks[i], run.components.entering(x)
        q, k = (
            block.by_head(getattr(block, name)(entering[f"blocks.{i}.{name}"])) for name in "qk"
        )  # (batch, heads, length, d_head)
        scores = q @ k.mT / q.shape[-1] ** 0.5
        assert (found.scores - scores).abs().max() < 1e-6  # the subcomponents were made in float32
        assert found.scores.abs().max() > 0.1
        single = sum(found.of(c, d) for c in range(10) for d in range(10))
        torch.testing.assert_close(single, found.scores)
        torch.testing.assert_close(
            attention.patterns(scores) @ block.by_head(block.v(entering[f"blocks.{i}.v"])),
            F.scaled_dot_product_attention(q, k, block.by_head(block.v(entering[f"blocks.{i}.v"])), is_causal=True),
        )

    def test_offsets_and_contrasts_are_means_of_single_terms(self):
        run, x = a_run(2), drawn(n=7)
        found = attention.pairs(run, x, "blocks.0.q", "blocks.0.k", 2)
        draw = Generator().manual_seed(2)
        places = torch.randint(0, 7, (7,), generator=draw)
        queries = places + torch.randint(1, 3, (7,), generator=draw)
        for c, d in ((0, 0), (3, 5)):
            term = found.of(c, d)  # (batch, heads, length, length)
            for offset in (0, 1, 4):
                chosen = [term[b, :, t, t - offset] for b, t in enumerate(queries.tolist()) if t >= offset]
                expected = torch.stack(chosen).mean(dim=0)
                torch.testing.assert_close(found.at_offset(queries, offset)[:, c, d], expected, rtol=1e-4, atol=1e-6)
            contrasts = []
            for b, (t, s) in enumerate(zip(queries.tolist(), places.tolist(), strict=True)):
                row = term[b, :, t, : t + 1]
                contrasts.append(row[:, s] - (row.sum(dim=-1) - row[:, s]) / t)
            expected = torch.stack(contrasts).mean(dim=0)
            torch.testing.assert_close(found.contrast(queries, places)[:, c, d], expected, rtol=1e-4, atol=1e-6)

    def test_static_strengths_take_the_sign_of_what_is_read(self):
        run, x = a_run(), drawn()
        found = attention.pairs(run, x, "blocks.1.q", "blocks.1.k")
        Q, K = (run.components.layers[f"blocks.1.{name}"] for name in "qk")
        for c, d in ((0, 1), (2, 2)):
            size = Q.V[c].norm() * K.V[d].norm() * (Q.U[c, :, 0] @ K.U[d, :, 0]) / 8**0.5
            sign = found.queries[..., c].mean().sign() * found.keys[..., d].mean().sign()
            assert found.static[0, c, d].item() == pytest.approx((size * sign).item(), rel=1e-4, abs=1e-7)

    def test_bad_calls(self):
        run, x = a_run(), drawn(n=2)
        with pytest.raises(ValueError, match="query names 'blocks.7.q', which is not decomposed; .* work"):
            attention.pairs(run, x, "blocks.7.q", "blocks.0.k")
        with pytest.raises(ValueError, match="n_heads is 3, but 'blocks.0.q' has 8 rows"):
            attention.pairs(run, x, "blocks.0.q", "blocks.0.k", 3)

    def test_shares_of_heads(self):
        run = a_run(2)
        layer = run.components.layers["blocks.0.q"]
        with torch.no_grad():
            layer.U[0, :4] = 0.0
        shares = attention.head_shares(layer, 2)
        assert shares[0].tolist() == [0.0, 1.0]
        torch.testing.assert_close(shares[:8].sum(dim=1), torch.ones(8))
        o = run.components.layers["blocks.0.o"]
        expected = o.V[3, 0, :4].square().sum() / o.V[3].square().sum()
        assert attention.head_shares(o, 2, reads=True)[3, 0].item() == pytest.approx(expected.item(), rel=1e-5)


class TestFewest:
    def test_the_largest_are_taken_until_the_share_is_there(self):
        values = torch.tensor([[5.0, -1.0], [3.0, 1.0]])  # 8 in all, of which 7.2 are asked for
        assert attention.fewest(values, 0.9).tolist() == [[True, False], [True, False]]
        assert attention.fewest(values, 0.5).tolist() == [[True, False], [False, False]]
        assert attention.fewest(values, 1.0).sum() == 2

    def test_nothing_carries_what_is_not_there(self):
        assert not attention.fewest(torch.tensor([-1.0, 0.5])).any()


class TestContributions:
    """Of subcomponents that add up to the target's matrices, contributions add up to what the target does."""

    def test_outputs_of_layer_1_add_up_to_the_logit(self, all_important):
        run, x = a_run(2), drawn()
        sequences, net = SMALL.features(), run.target
        found = induction.induction(run, x)
        s = net.embed(x)
        s = s + net.blocks[0](s, net.positions)
        logits = net.blocks[1](s, net.positions)[:, -1] @ net.unembed.weight.T
        answer = logits.gather(1, sequences.answers(x).unsqueeze(1)).squeeze(1) - logits.mean(dim=1)
        for parts in (found.values, found.outputs):
            assert parts.sum().item() == pytest.approx(answer.mean().item(), rel=1e-4, abs=1e-6)

    def test_outputs_of_layer_0_add_up_to_the_contrast_that_they_make(self, all_important):
        run, x = a_run(2), drawn()
        sequences, net = SMALL.features(), run.target
        found = induction.previous_token(run, x)
        s = net.embed(x)
        added, second = net.blocks[0](s, net.positions), net.blocks[1]
        q = second.by_head(second.q((s + added + net.positions)[:, -1:]))
        scores = (q @ second.by_head(second.k(added)).mT).sum(dim=1)[:, 0] / 4**0.5  # (batch, length), over heads
        there = scores.gather(1, sequences.places(x).unsqueeze(1) + 1).squeeze(1)
        contrast = (there - (scores.sum(dim=1) - there) / 8).mean().item()
        for parts in (found.values, found.outputs):
            assert parts.sum().item() == pytest.approx(contrast, rel=1e-3, abs=1e-6)

    def test_another_network_is_refused(self):
        network = torch.nn.Sequential(torch.nn.Linear(4, 4))
        run = pdh.fit(network, pdh.SPDConfig(C=3, steps=1), torch.rand(9, 4), device="cpu", show_progress=False)
        with pytest.raises(TypeError, match="run must decompose an InductionNetwork of two layers, but .* Sequential"):
            induction.induction_network(run)


def test_a_run_measures_the_accuracy_of_its_important_subcomponents(monkeypatch):
    run, sequences = a_run(), SMALL.features()
    x = drawn(n=500, seed=3)
    half = {use: torch.linspace(0, 1, 10).expand(500, 9, 10) for use in run.components.uses}
    monkeypatch.setattr(run.method, "importances", lambda x, n_inputs=None: {u: g[: len(x)] for u, g in half.items()})
    monkeypatch.setattr("pd_helpers.runs.evaluation.N_EVALUATION", 500)
    found = known_target_metrics(run, Generator().manual_seed(3))
    masks = {use: (g > 0.1).float() for use, g in half.items()}
    assert found == pytest.approx(
        {
            "accuracy": sequences.accuracy(run.target(x), x),
            "rounded_accuracy": sequences.accuracy(run.components(x, masks).output, x),
        }
    )


def test_the_network_is_one_that_people_may_bring():
    assert isinstance(SMALL.build(), InductionNetwork)
    assert SMALL.build().layers == [f"blocks.{i}.{name}" for i in (0, 1) for name in "qkvo"]
