import pytest
import torch
from scipy.stats import spearmanr
from torch import Generator, nn

import pd_helpers as pdh
from pd_helpers.analysis import comparison
from pd_helpers.core.apd import APD
from pd_helpers.course.apd_against_spd import ideas
from pd_helpers.runs.selection import Candidate

QUICK = {"steps": 20, "batch_size": 64, "target_steps": 10}


def prepared(name, **overrides):
    return pdh.prepare(name, seed=0, device="cpu", show_progress=False, **(QUICK | overrides))


def hand_made(model):
    """An APD run whose components are these."""
    C = next(iter(model.layers.values())).C
    method = APD(model, pdh.APDConfig(C=C), init=Generator(), draw=Generator())
    return pdh.Run(name=None, seed=0, target_config=None, data=None, candidates=[Candidate(method)])


def one_neuron(*shares, bias=0.0):
    """relu(Σ_c P_c x + bias), with a component for each share of the weight 1."""
    network = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.fill_(bias)
    model = pdh.decompose(network, {"0": len(shares)}, rank=1)
    model.layers["0"].assign_(torch.tensor(shares).view(-1, 1, 1))
    return hand_made(model)


class TestEffects:
    def test_a_linear_network_leaves_nothing_to_estimate(self):
        weight = torch.randn(4, 6, generator=Generator().manual_seed(0))
        network = nn.Sequential(nn.Linear(6, 4, bias=False))
        with torch.no_grad():
            network[0].weight.copy_(weight)
        model = pdh.decompose(network, {"0": 6}, rank=4)
        P = torch.zeros(6, 4, 6)
        for j in range(6):
            P[j, :, j] = weight[:, j]
        model.layers["0"].assign_(P)
        run = hand_made(model)
        x = torch.randn(5, 6, generator=Generator().manual_seed(1))
        found = comparison.effects(run, x, Generator().manual_seed(2))
        truth = (x.unsqueeze(-1) * weight.T).square().mean(dim=-1).sqrt()  # |x_j| times the size of column j
        for estimate in found[:4]:
            torch.testing.assert_close(estimate, truth, atol=1e-5, rtol=1e-4)
        assert found.importance is None

    def test_a_relu_misleads_the_first_order(self):
        x = torch.tensor([[2.0], [-1.0]])
        found = comparison.effects(one_neuron(3.0, -1.0, -1.0), x, Generator().manual_seed(0))
        # at x = 2 the sum is 2: without the first it is -4, which the ReLU makes 0; without another it is 4
        torch.testing.assert_close(found.gradient, torch.tensor([[6.0, 2.0, 2.0], [0.0, 0.0, 0.0]]))
        # at x = -1 the sum is -1: without the first it is 2, which the ReLU lets through
        torch.testing.assert_close(found.alone, torch.tensor([[2.0, 2.0, 2.0], [2.0, 0.0, 0.0]]))

    def test_integrated_gradients_see_the_threshold(self):
        x = torch.tensor([[2.0]])
        found = comparison.effects(one_neuron(0.75, 0.25, bias=-1.0), x, Generator().manual_seed(0))
        # the neuron is on over the second half of the way, so that each gets half of what it adds
        torch.testing.assert_close(found.integrated, torch.tensor([[0.75, 0.25]]))
        torch.testing.assert_close(found.gradient, torch.tensor([[1.5, 0.5]]))

    def test_company_is_the_mean_over_all_subsets_of_the_others(self):
        x = torch.tensor([[1.0]])
        found = comparison.effects(one_neuron(3.0, -2.0), x, Generator().manual_seed(0), n_draws=300)
        # the first: 3 alone, 1 beside the second; the second: 2 beside the first, 0 alone
        expected = torch.tensor([[((9 + 1) / 2) ** 0.5, (4 / 2) ** 0.5]])
        torch.testing.assert_close(found.company, expected, atol=0.15, rtol=0)

    def test_subcomponents_of_every_use_have_a_column(self):
        run = pdh.shipped("spd/tms_5-2")
        found = comparison.effects(run, torch.eye(5), Generator().manual_seed(0), n_draws=2, n_points=2)
        assert found.importance.shape == found.alone.shape == (5, 40)
        used = found.importance > 0.5
        assert found.alone[used].min() > 2 * found.alone[found.importance == 0].max()

    def test_errors_with_the_best_only(self):
        run, x = one_neuron(3.0, -2.0), torch.tensor([[1.0], [2.0]])
        first = torch.tensor([[2.0, 1.0], [1.0, 2.0]])  # the first component comes first on the first input
        # none: 0 for 1 and 2; one: 3 for 1, and -4, made 0 by the ReLU, for 2; both: exact
        assert comparison.errors_with(run, x, first, [0, 1, 2]) == pytest.approx([2.5, 4.0, 0.0])


class TestOrder:
    def test_rank_correlation(self):
        draw = Generator().manual_seed(0)
        a, b = torch.randn(2, 7, 9, generator=draw).round(decimals=0)  # with ties
        expected = [spearmanr(*rows).statistic for rows in zip(a.numpy(), b.numpy(), strict=True)]
        torch.testing.assert_close(comparison.rank_correlation(a, b), torch.tensor(expected).float())

    def test_nothing_to_order(self):
        assert comparison.rank_correlation(torch.ones(1, 3), torch.rand(1, 3)).isnan().all()
        assert comparison.separation(torch.rand(1, 3), torch.ones(1, 3, dtype=torch.bool)).isnan().all()

    def test_separation(self):
        estimate = torch.tensor([[3.0, 2.0, 1.0, 0.0], [3.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
        matters = torch.tensor([[True, True, False, False], [True, False, True, False], [True, False, False, True]])
        # pairs won of four: all; all but (third, second); the fourth's two, and two ties
        torch.testing.assert_close(comparison.separation(estimate, matters), torch.tensor([1.0, 0.75, 0.75]))


class TestGradients:
    def test_an_inactive_component_hears_of_faithfulness_alone(self):
        run = prepared("apd/tms_5-2", n_init=1, attribute_at="components")
        with torch.no_grad():
            run.components.layers["embed"].U[2] = 0.0
            run.components.layers["embed"].U[2, 0, 0] = 1e-9  # never among the batch top-k
        found = ideas.gradient_sizes(run, run.data(64, Generator().manual_seed(0)), Generator().manual_seed(0))
        assert set(found) == {"faithfulness", "minimality", "simplicity"}
        assert found["minimality"][2] == found["simplicity"][2] == 0 < found["faithfulness"][2]
        assert (found["minimality"] > 0).sum() >= 2

    def test_faithfulness_in_closed_form(self):
        run = prepared("spd/tms_5-2_id", n_init=1)
        found = ideas.gradient_sizes(run, run.data(64, Generator().manual_seed(0)), Generator().manual_seed(0))
        model, expected = run.components, []
        for path, layer in model.layers.items():
            n_uses = 2 if path == "embed" else 1  # the embedding is tied, and has 2 · 10 of the 24 parameters
            miss = -2 * n_uses * (model.targets[path] - layer.weight) / 24
            U, V = layer.U[..., 0], layer.V[:, 0]
            expected.append(((V @ miss.T).square().sum(dim=1) + (U @ miss).square().sum(dim=1)).sqrt())
        torch.testing.assert_close(found["faithfulness"], torch.cat(expected).detach())
        assert (found["recon"] > 0).all()

    def test_flow_trains_as_a_plain_run_does(self):
        run, plain = (
            prepared("apd/tms_5-2", n_init=2, selection_steps=5),
            prepared("apd/tms_5-2", n_init=2, selection_steps=5),
        )
        flow = ideas.gradient_flow(run, every=5, show_progress=False)
        plain.train(show_progress=False)
        assert flow.steps.tolist() == [10, 15, 20]
        assert flow.sizes["simplicity"].shape == (3, 5)
        assert flow.reached("faithfulness").tolist() == [True] * 5
        for mine, theirs in zip(run.components.factors, plain.components.factors, strict=True):
            assert torch.equal(mine, theirs)

    def test_flow_replayed_from_snapshots(self):
        run = prepared("apd/tms_5-2", n_init=1)
        run.train(show_progress=False)
        before = [p.clone() for p in run.components.factors]
        flow = ideas.replayed_flow(run)
        assert flow.steps.tolist() == [snapshot.step for snapshot in run.snapshots]
        assert flow.sizes["minimality"].shape == (len(run.snapshots), 5)
        assert all(torch.equal(a, b) for a, b in zip(before, run.components.factors, strict=True))
        U, V = (factor.clone().requires_grad_() for factor in run.snapshots[0].factors["embed"])
        W = run.components.targets["embed"]
        ((W - (U @ V).sum(dim=0)).square().mean()).backward()
        expected = (U.grad.square().flatten(1).sum(dim=1) + V.grad.square().flatten(1).sum(dim=1)).sqrt()
        torch.testing.assert_close(flow.sizes["faithfulness"][0], expected)
        with pytest.raises(ValueError, match="run must be an APD run"):
            ideas.replayed_flow(pdh.shipped("spd/tms_5-2"))

    def test_flow_stops_where_it_is_told(self):
        run = prepared("spd/tms_5-2", n_init=1)
        assert ideas.gradient_flow(run, every=4, until=9, show_progress=False).steps.tolist() == [4, 8]
        assert run.step == 9
        with pytest.raises(ValueError, match="until must be between 4 and 20, but is 21"):
            ideas.gradient_flow(prepared("spd/tms_5-2", n_init=1), every=4, until=21, show_progress=False)

    def test_alive(self):
        assert comparison.alive(pdh.shipped("apd/tms_5-2")).tolist() == [True] * 5
        run = pdh.shipped("spd/tms_5-2")
        assert comparison.alive(run).sum() == run.metrics["n_alive"]["embed"] == 5


class TestRemovals:
    def test_each_is_the_change_of_the_output_without_that_component(self):
        run = prepared("apd/tms_5-2", n_init=1)
        x = run.data(64, Generator().manual_seed(0))
        P, W, b = (
            run.components.layers["embed"].P.detach(),
            run.components.sums["embed"].detach(),
            run.target.unembed.bias,
        )

        def output(M):
            return (x @ M.T @ M + b).relu()

        expected = [(output(W - P[c]) - output(W)).square().mean(dim=1).sqrt() for c in range(5)]
        torch.testing.assert_close(ideas.removals(run, x), torch.stack(expected, dim=1), rtol=1e-4, atol=1e-6)

    def test_training_by_removals_is_another_training_and_leaves_no_trace(self):
        run, other = (prepared("apd/tms_5-2", n_init=1) for _ in range(2))
        assert ideas.train_by_removal(run) is run
        assert run.step == run.config.steps
        other.train(show_progress=False)
        assert not torch.equal(run.components.factors[0], other.components.factors[0])
        assert "attributions" not in vars(run.method)

    def test_snapshots_are_shown_one_after_another(self):
        run = prepared("apd/tms_5-2", n_init=1)
        run.train(show_progress=False)
        before = [factor.clone() for factor in run.components.factors]
        for step, snapshot in zip(ideas.replayed(run), run.snapshots, strict=True):
            assert step == snapshot.step
            torch.testing.assert_close(run.components.layers["embed"].P.detach(), snapshot.P("embed"))
        assert all(torch.equal(a, b) for a, b in zip(before, run.components.factors, strict=True))


def test_cost_counts_what_the_backward_pass_needs():
    small, large = (ideas.cost(prepared("spd/tms_5-2", n_init=1, batch_size=n), n_steps=1) for n in (400, 4000))
    assert small.milliseconds > 0
    assert 5 < large.megabytes / small.megabytes < 11
