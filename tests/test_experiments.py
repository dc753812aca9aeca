"""What is measured of decomposed residual networks, on decompositions built by hand whose answers are known."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import SHARP, draw, residual_mlp, textbook_of
from torch import Generator, nn

import pd_helpers as pdh
from benchmarks import pair, textbook
from pd_helpers.analysis import gated_functions, importance_matrices, neuron_contributions, scrubbing
from pd_helpers.runs import api, evaluation
from pd_helpers.targets.features import SparseFeatures

pytestmark = pytest.mark.usefixtures("one_thread")

OWN = [0, 3, 4, 5, 1]
"""The component of each of five features; the first has no neuron, and components 0 and 2 are empty."""
DATA = SparseFeatures(5, 0.3, low=-1.0)


def double(features):
    return lambda n, generator: features(n, generator).double()


def rows(*values):
    """Data that are these rows, in turn."""
    table, at = torch.tensor(values, dtype=torch.float64), itertools.count()
    return lambda n, generator: torch.stack([table[next(at) % len(table)] for _ in range(n)])


@torch.no_grad()
def perfect(n_layers=1, served=(1, 2, 3, 4), data=DATA, top_k=5.0, **config):
    """Each feature served has a neuron of its own, y = x + ReLU(x), which is one component; none overlap."""
    n_features, d_mlp = 5, len(served) // n_layers
    target = pdh.ResidualMLP(n_features=n_features, d_resid=7, d_mlp=d_mlp, n_layers=n_layers).double()
    target.W_E.copy_(torch.eye(7)[:, [4, 0, 6, 2, 5]])  # exact, where a random rotation leaves attributions of 1e-16
    target.W_U.copy_(target.W_E.T)
    settings = {"C": 6, "rank": 2, "top_k": top_k, "attribute_at": "target", "batch_size": 8, **config}
    data = double(data) if isinstance(data, SparseFeatures) else data
    run = api.begin(target, pdh.APDConfig(**settings), data, target.layers, device="cpu")
    for parameter in [*target.parameters(), *run.components.parameters()]:
        if parameter is not target.W_E:
            parameter.zero_()
    for n, feature in enumerate(served):
        layer, neuron = n % n_layers, n // n_layers
        mlp, direction = target.mlps[layer], target.W_E[:, feature]
        mlp.W_in.weight[neuron] = mlp.W_out.weight[:, neuron] = direction
        W_in, W_out = (run.components.layers[f"mlps.{layer}.{name}"] for name in ("W_in", "W_out"))
        W_in.U[OWN[feature], neuron, 0] = W_out.V[OWN[feature], 0, neuron] = 1.0
        W_in.V[OWN[feature], 0] = W_out.U[OWN[feature], :, 0] = direction
    return run


@torch.no_grad()
def shared(**changes):
    """The same, but a quarter of what feature 1's neuron writes is in component 2, which reads nothing."""
    run = perfect(**changes)
    writes = run.components.layers["mlps.0.W_out"]
    writes.U[2], writes.V[2] = writes.U[OWN[1]] / 4, writes.V[OWN[1]]
    writes.U[OWN[1]] *= 3 / 4
    return run


def random_run(method="apd", n_layers=2):
    """A residual MLP and a decomposition of it, both random."""
    target = residual_mlp(n_layers, d_resid=9)
    config = pdh.APDConfig(C=5, rank=2) if method == "apd" else pdh.SPDConfig(C=5, d_gate=3)
    run = api.begin(target, config, double(SparseFeatures(4, 0.3, low=-1.0)), target.layers, device="cpu")
    for i, parameter in enumerate(run.method.parameters().values()):
        parameter.data.copy_(draw(*parameter.shape, seed=70 + i))
    return run


# Neuron contributions


@pytest.mark.parametrize("n_layers", [1, 2])
def test_contributions_of_a_perfect_decomposition(n_layers):
    found = neuron_contributions.contributions(perfect(n_layers))
    mine = torch.zeros(5, 4, dtype=torch.float64)
    for n, feature in enumerate((1, 2, 3, 4)):  # neurons of the first layer, then of the second
        mine[feature, (n % n_layers) * (4 // n_layers) + n // n_layers] = 1.0
    torch.testing.assert_close(found.target, mine, **SHARP)
    torch.testing.assert_close(found.components, mine, **SHARP)
    assert found.chosen.tolist() == [[c] * n_layers for c in OWN]
    assert found.r == pytest.approx(1)


def test_contributions_of_apd_are_of_the_one_component_that_contributes_most_in_all_layers():
    run = random_run()
    found, net = neuron_contributions.contributions(run), run.target
    W_U, W_E = net.W_U.numpy(), net.W_E.numpy()
    P = {path: layer.P.detach().numpy() for path, layer in run.components.layers.items()}
    for i in range(4):
        of_each = [
            np.concatenate(
                [
                    (W_U[i] @ P[f"mlps.{layer}.W_out"][c]) * (P[f"mlps.{layer}.W_in"][c] @ W_E[:, i])
                    for layer in range(2)
                ]
            )
            for c in range(5)
        ]
        best = int(np.argmax([np.linalg.norm(contribution) for contribution in of_each]))
        assert found.chosen[i].tolist() == [best, best]
        np.testing.assert_allclose(found.components[i], of_each[best], rtol=1e-9)
    whole = [(net.W_U @ mlp.W_out.weight) * (mlp.W_in.weight @ net.W_E).T for mlp in net.mlps]
    torch.testing.assert_close(found.target, torch.cat(whole, dim=1), **SHARP)
    both = np.corrcoef(found.target.flatten(), found.components.flatten())
    assert found.r == pytest.approx(both[0, 1])


def test_contributions_of_spd_take_a_subcomponent_of_each_W_in_with_the_whole_W_out():
    run = random_run("spd")
    found, net = neuron_contributions.contributions(run), run.target
    for layer, mlp in enumerate(net.mlps):
        P = run.components.layers[f"mlps.{layer}.W_in"].P.detach()
        for i in range(4):
            of_each = torch.stack([(net.W_U[i] @ mlp.W_out.weight) * (P[c] @ net.W_E[:, i]) for c in range(5)])
            best = int(of_each.norm(dim=1).argmax())
            assert found.chosen[i, layer] == best
            torch.testing.assert_close(found.components[i, 3 * layer : 3 * layer + 3], of_each[best].detach(), **SHARP)
    assert len(set(map(tuple, found.chosen.tolist()))) > 1


# Which component serves which feature


@pytest.mark.parametrize("n_layers", [1, 2])
def test_feature_components_of_a_perfect_decomposition(n_layers):
    assert neuron_contributions.feature_components(perfect(n_layers)).tolist() == OWN


def test_feature_components_look_at_the_value_asked_for():
    run = perfect()
    with torch.no_grad():  # component 2 acts on feature 1, but only where it is below zero
        run.target.mlps[0].W_in.weight[3] = -run.target.W_E[:, 1]
        W_in, W_out = (run.components.layers[f"mlps.0.{name}"] for name in ("W_in", "W_out"))
        W_in.U[2, 3, 0] = W_out.V[2, 0, 3] = 1.0
        W_in.V[2, 0] = W_out.U[2, :, 0] = run.target.W_E[:, 1]
    assert neuron_contributions.feature_components(run)[1] == OWN[1]
    assert neuron_contributions.feature_components(run, value=-1.0)[1] == 2


def test_importance_matrix_of_apd_is_the_batch_top_k_of_one_hot_inputs():
    for top_k, found in ((1.0, {(i, OWN[i]) for i in (1, 2, 3, 4)}), (0.2, None)):
        g = importance_matrices.importance_matrix(perfect(n_layers=2, top_k=top_k))
        assert list(g) == ["mlps.0.W_in", "mlps.0.W_out", "mlps.1.W_in", "mlps.1.W_out"]
        for table in g.values():
            on = {tuple(pair) for pair in table.nonzero().tolist()}
            assert on == found if found else len(on) == 1  # 0.2 of five inputs


def test_importance_matrix_of_spd_is_the_hard_sigmoid_of_the_gates_on_one_hot_inputs():
    run = random_run("spd")
    truth = pair.in_textbook(textbook_of(run.target), run.method)
    for value in (0.75, -0.5):
        logits = textbook.importance_logits(truth, value * torch.eye(4, dtype=torch.float64))
        g = importance_matrices.importance_matrix(run, *([] if value == 0.75 else [value]))
        torch.testing.assert_close(g, {use: table.detach().clamp(0, 1) for use, table in logits.items()}, **SHARP)


# The order of columns


def test_orders_of_a_permuted_identity():
    matrix = torch.eye(4)[[2, 0, 3, 1]] * 0.9 + 0.05
    for order in (importance_matrices.greedy_order, importance_matrices.hungarian_order):
        torch.testing.assert_close(matrix[:, order(matrix)], torch.eye(4) * 0.9 + 0.05)


def test_the_greedy_order_serves_rows_in_turn_where_the_hungarian_one_looks_ahead():
    matrix = torch.tensor([[0.9, 0.8, 0.0], [0.8, 0.1, 0.0]])
    assert importance_matrices.greedy_order(matrix).tolist() == [0, 1, 2]
    assert importance_matrices.hungarian_order(matrix).tolist() == [1, 0, 2]


def test_columns_that_are_left_over_come_last_in_their_order():
    matrix = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    for order in (importance_matrices.greedy_order, importance_matrices.hungarian_order):
        assert order(matrix).tolist() == [2, 4, 0, 1, 3]


def test_more_rows_than_columns_still_give_every_column_once():
    matrix = draw(5, 3).abs()
    for order in (importance_matrices.greedy_order, importance_matrices.hungarian_order):
        assert sorted(order(matrix).tolist()) == [0, 1, 2]


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 4), extra=st.integers(0, 2), seed=st.integers(0, 999))
def test_orders_by_brute_force(n, extra, seed):
    matrix = draw(n, n + extra, seed=seed).abs()
    greedy, hungarian = importance_matrices.greedy_order(matrix).tolist(), importance_matrices.hungarian_order(matrix)
    assert sorted(greedy) == sorted(hungarian.tolist()) == list(range(n + extra))
    for i in range(n):
        assert matrix[i, greedy[i]] == matrix[i, greedy[i:]].max()
    largest = max(sum(matrix[i, c] for i, c in enumerate(p)) for p in itertools.permutations(range(n + extra), n))
    torch.testing.assert_close(matrix[:, hungarian].diagonal().sum(), largest)


# Ablating halves


@pytest.mark.parametrize("n_layers", [1, 2])
def test_scrubbing_a_perfect_decomposition_hurts_only_without_the_active_features_components(n_layers):
    found = scrubbing.scrub(perfect(n_layers), 500, Generator().manual_seed(1))
    x = DATA(500, Generator().manual_seed(1)).double()
    relu = x.clamp(min=0).square()
    for errors in (found.topk, found.scrubbed):
        assert errors.shape == (500,)
        assert errors.max() < 1e-20
    torch.testing.assert_close(found.anti_scrubbed, relu[:, 1:].sum(dim=1) / 5, **SHARP)
    # The monosemantic network serves features 0 to 3, the target 1 to 4.
    torch.testing.assert_close(found.monosemantic, (relu[:, 0] + relu[:, 4]) / 5, **SHARP)


def test_scrubbing_ablates_a_random_half_of_the_other_components():
    """Component 2 holds a quarter of what feature 1's neuron writes, so without it a quarter of ReLU(x) is missing."""
    found = scrubbing.scrub(shared(data=rows([0.0, 0.8, 0.0, 0.0, 0.0])), 2000, Generator().manual_seed(1))
    missing = (0.8 / 4) ** 2 / 5
    off = found.scrubbed > missing / 2
    torch.testing.assert_close(found.scrubbed, off.double() * missing, **SHARP)
    assert off.double().mean() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(found.anti_scrubbed, torch.full((2000,), 0.8**2 / 5, dtype=torch.float64), **SHARP)
    assert found.topk.max() < 1e-20  # with five components an input, both are active


def test_the_top_k_of_scrubbing_is_over_all_inputs_at_once():
    data = rows([0.0, 0.9, 0.0, 0.0, 0.0], [0.0, 0.5, 0.0, 0.0, 0.0], [0.0, 0.1, 0.0, 0.0, 0.0], [0.0] * 5)
    run = perfect(top_k=0.5)  # two active components for four inputs
    run.data = data
    found = scrubbing.scrub(run, 4, Generator())
    torch.testing.assert_close(found.topk, torch.tensor([0.0, 0.0, 0.1**2 / 5, 0.0], dtype=torch.float64), **SHARP)


def test_halves_of_one_feature():
    found = scrubbing.ablate_halves(shared(), 1, 2000, Generator().manual_seed(1), value=0.5)
    added = {name: table[:, 1] for name, table in found.items()}  # to feature 1's own output
    for name, n in {"target": 1, "topk": 1, "scrubbed": 2000, "anti_scrubbed": 2000}.items():
        assert found[name].shape == (n, 5)
        assert found[name][:, [0, 2, 3, 4]].abs().max() < 1e-12
    assert added["target"].item() == pytest.approx(0.5)
    assert added["topk"].item() == pytest.approx(0.375)  # its own component alone, of the largest attribution
    whole = added["scrubbed"] > 0.4
    torch.testing.assert_close(added["scrubbed"], torch.where(whole, 0.5, 0.375).double(), **SHARP)
    assert whole.double().mean() == pytest.approx(0.5, abs=0.05)
    assert added["anti_scrubbed"].abs().max() < 1e-12


def test_ablation_leaves_the_skip_connection_alone():
    """W_U W_E is no identity here; what the MLPs add is counted from what it passes on."""
    run = random_run()
    found = scrubbing.ablate_halves(run, 2, 3, Generator().manual_seed(1))
    x = torch.eye(4, dtype=torch.float64)[[2]]
    torch.testing.assert_close(found["target"], run.target(x) - x @ run.target.W_E.T @ run.target.W_U.T, **SHARP)


# One feature on


def test_one_feature_in_a_perfect_decomposition():
    data = rows(
        [0.0, 0.5, 0.0, 0.0, 0.0],
        [0.0, -0.5, 0.0, 0.0, 0.0],  # ReLU is off: no component is active
        [0.0, 0.0, 1.0, 0.0, 0.0],
        [0.0, 1.0, 1.0, 0.0, 0.0],  # two features: left out
        [0.4, 0.0, 0.0, 0.0, 0.0],  # without a neuron: the target itself is wrong
        [0.0, 0.0, 0.0, 0.0, 0.0],
    )
    found = scrubbing.single_feature(perfect(data=data), 6, Generator(), batch_size=4)
    nan = float("nan")
    wanted = scrubbing.SingleFeature(
        top_1=[0.0, 0.0, 0.0, nan, nan],
        batch_top_k=[0.0, 0.0, 0.0, nan, nan],
        n_active=[0.0, 0.5, 1.0, nan, nan],
        label_error=[0.4**2 / 5, 0.0, 0.0, nan, nan],
        top_1_label_error=[0.4**2 / 5, 0.0, 0.0, nan, nan],
        batch_top_k_label_error=[0.4**2 / 5, 0.0, 0.0, nan, nan],
    )
    for mine, truth in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, torch.tensor(truth), rtol=1e-5, atol=1e-12, equal_nan=True)


def test_one_component_is_not_enough_where_two_share_a_feature():
    data = rows([0.0, 0.8, 0.0, 0.0, 0.0], [0.0, 0.4, 0.0, 0.0, 0.0], [0.0, 0.0, 0.9, 0.0, 0.0])
    found = scrubbing.single_feature(shared(data=data), 3, Generator())
    assert found.top_1[1].item() == pytest.approx((0.2**2 + 0.1**2) / 2 / 5)
    assert found.batch_top_k[1].item() == pytest.approx(0, abs=1e-12)
    assert found.n_active[1:3].tolist() == [2.0, 1.0]
    for mine, against_target in zip(found[-2:], found[:2], strict=True):  # this target has no error in feature 1
        assert mine[1].item() == pytest.approx(against_target[1].item(), abs=1e-12)
    # One active component an input: the third of three goes to the larger attribution of what is left.
    #   feature 1, own component: (0.8 + 0.75 · 0.8, 0.4 + 0.75 · 0.4); feature 2: 2 · 0.9; component 2: 0.2 and 0.1
    found = scrubbing.single_feature(shared(data=data, top_k=2 / 3), 3, Generator())
    assert found.n_active[1:3].tolist() == [0.5, 1.0]
    assert found.batch_top_k[1].item() == pytest.approx((0.2**2 + 0.4**2) / 2 / 5)


def test_every_batch_has_a_top_k_of_its_own():
    data = (
        [0.0, 0.8, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.9, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.3, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.2],
    )
    together = scrubbing.single_feature(perfect(data=rows(*data), top_k=0.5), 4, Generator())
    assert together.n_active[1:].tolist() == [1.0, 1.0, 0.0, 0.0]
    by_twos = scrubbing.single_feature(perfect(data=rows(*data), top_k=0.5), 4, Generator(), batch_size=2)
    assert by_twos.n_active[1:].tolist() == [0.0, 1.0, 1.0, 0.0]


def test_features_that_never_are_alone_have_no_number():
    found = scrubbing.single_feature(perfect(data=rows([0.5, 0.5, 0.0, 0.0, 0.0])), 3, Generator())
    assert all(values.isnan().all() for values in found)


# The hand-written network


@torch.no_grad()
def of_functions(order, scale=1.0, together=()):
    """A gated network of four functions; component `order[i]` holds the weights of function i, times `scale`."""
    target = pdh.make_target(pdh.GatedConfig(n_neurons=5), 0, show_progress=False)
    run = api.begin(target, pdh.APDConfig(C=6, rank=None), pdh.GatedConfig().features(), target.layers, device="cpu")
    for path, layer in run.components.layers.items():
        W, owner = target.get_submodule(path).weight, target.owners()[path]
        P = torch.zeros(6, *W.shape)
        for i, c in enumerate(order):
            P[c] += scale * W * (owner == i)
        layer.assign_(P)
    return run


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_components_split_by_function_serve_one_each(scale):
    run = of_functions([2, 0, 3, 5], scale)
    torch.testing.assert_close(gated_functions.serving(run), torch.eye(6)[[2, 0, 3, 5]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_components_split_by_function_are_pure(scale):
    found = gated_functions.purity(of_functions([2, 0, 3, 5], scale))
    torch.testing.assert_close(found[[2, 0, 3, 5]], torch.eye(4), rtol=0, atol=1e-5)


def test_weights_that_serve_no_function_count_against_purity():
    run = of_functions([2, 0, 3, 5])
    for path, layer in run.components.layers.items():  # component 2 gets as much again where no function has a weight
        P, (row, column) = layer.P.detach().clone(), (run.target.owners()[path] == -1).nonzero()[0]
        P[2, row, column] = P[2].norm()
        layer.assign_(P)
    torch.testing.assert_close(gated_functions.purity(run)[2], torch.tensor([0.5, 0, 0, 0]), rtol=0, atol=1e-3)


def test_a_component_with_all_of_a_functions_weights_computes_it_alone_and_is_silent_for_others():
    run = of_functions([2, 0, 3, 5])
    torch.testing.assert_close(gated_functions.alone(run).errors, 1 - torch.eye(6)[[2, 0, 3, 5]], rtol=0, atol=1e-4)
    assert gated_functions.alone(run).served_by.tolist() == [2, 0, 3, 5]
    assert evaluation.known_target_metrics(run, Generator()) == {"n_served": 4}


def test_a_component_with_less_than_its_bit_needs_is_silent():
    run = of_functions([2, 0, 3, 5], scale=0.4)  # 0.4 (x + 5 - t) is at most 0.4 (5 + 5 + 1.25), less than 5
    torch.testing.assert_close(gated_functions.alone(run).errors, torch.ones(4, 6))
    assert evaluation.known_target_metrics(run, Generator()) == {"n_served": 0}


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0), (0.4, 1)])
def test_active_components_together_compute_what_they_hold(scale, expected):
    """There is a place for each, but neurons that lack most of their weights sleep."""
    run = of_functions([2, 0, 3, 5], scale)
    run.method.config = run.method.config.replace(top_k=4.0)
    found = gated_functions.sparse_errors(run, 1000, Generator().manual_seed(0))
    torch.testing.assert_close(found, torch.full((4,), float(expected)), rtol=0, atol=1e-5)


def test_a_missing_function_is_the_only_one_that_active_components_get_wrong():
    run = of_functions([2, 0, 3])  # none holds function 3
    run.method.config = run.method.config.replace(top_k=4.0)
    found = gated_functions.sparse_errors(run, 1000, Generator().manual_seed(0))
    torch.testing.assert_close(found, torch.tensor([0.0, 0, 0, 1]), rtol=0, atol=1e-5)
    assert gated_functions.sparse_errors(run, 1, Generator().manual_seed(3)).isnan().any()


def test_a_component_of_two_functions_is_like_each_in_part():
    run = of_functions([2, 2, 3, 5])
    found, net = gated_functions.serving(run), run.target
    owners = net.owners()
    squares = [
        sum((net.get_submodule(path).weight[owners[path] == i] ** 2).sum().item() for path in net.layers)
        for i in (0, 1)
    ]
    for i in (0, 1):
        assert found[i, 2].item() == pytest.approx((squares[i] / sum(squares)) ** 0.5, rel=1e-4)
    torch.testing.assert_close(found[2:], torch.eye(6)[[3, 5]], rtol=0, atol=1e-5)
    assert evaluation.known_target_metrics(run, Generator())["n_served"] == 3  # it computes both, but counts once


# What is added to a run's metrics


@pytest.mark.parametrize("n_layers", [1, 2])
def test_metrics_of_a_perfect_decomposition(n_layers):
    run = perfect(n_layers)
    found = evaluation.known_target_metrics(run, Generator().manual_seed(1))
    x = DATA(evaluation.N_SCRUBBED, Generator().manual_seed(1)).double()
    relu = x.clamp(min=0).square().mean(dim=0) / 5
    assert found == {
        "contribution_r": pytest.approx(1),
        "n_own": 5,
        "n_doubled": 0,
        "topk_mse": pytest.approx(0, abs=1e-20),
        "scrubbed_mse": pytest.approx(0, abs=1e-20),
        "anti_scrubbed_mse": pytest.approx(relu[1:].sum().item()),
        "monosemantic_mse": pytest.approx((relu[0] + relu[4]).item()),
    }


@torch.no_grad()
def test_a_component_with_two_features_is_counted_as_doubled():
    run = perfect()
    for layer in run.components.layers.values():  # feature 2's mechanism moves into feature 1's component
        for factor, dim in ((layer.U, 1), (layer.V, 0)):
            factor[OWN[1]].select(dim, 1).copy_(factor[OWN[2]].select(dim, 0))
            factor[OWN[2]] = 0
    assert neuron_contributions.feature_components(run).tolist() == [0, 3, 3, 5, 1]
    assert neuron_contributions.doubled(neuron_contributions.feature_components(run)) == {3: [1, 2]}
    found = evaluation.known_target_metrics(run, Generator())
    assert (found["n_own"], found["n_doubled"]) == (3, 1)


def test_identity_error_of_spd_asks_for_every_feature_in_every_layer(monkeypatch):
    """Four features, two layers of three neurons: in each W_in one for every feature, and one of W_out for a neuron."""
    run, eye = random_run("spd"), torch.eye(4)
    none = torch.zeros(4, 1)
    first, second = torch.cat([eye[:, [2, 0, 3, 1]], none], dim=1), torch.cat([none, eye], dim=1)
    g = {
        "mlps.0.W_in": first,
        "mlps.1.W_in": second,
        "mlps.0.W_out": torch.ones(4, 3),
        "mlps.1.W_out": torch.ones(4, 4),
    }
    monkeypatch.setattr(evaluation, "importance_matrix", lambda run: g)
    assert (
        evaluation.known_target_metrics(run, Generator())["identity_ci_error"] == 4
    )  # the seventh of W_out, on four inputs
    g["mlps.1.W_out"] = torch.ones(4, 3)
    assert evaluation.known_target_metrics(run, Generator())["identity_ci_error"] == 0
    first[0, 0] = 0.5  # off the diagonal
    assert evaluation.known_target_metrics(run, Generator())["identity_ci_error"] == 1
    second[0, 1] = 0.5  # on it
    assert evaluation.known_target_metrics(run, Generator())["identity_ci_error"] == 2


RESIDUAL = (pdh.ResidualMLPConfig(n_features=5, d_resid=12, d_mlp=3, target_steps=2), SparseFeatures(5, 0.5, low=-1.0))
TMS = (pdh.TMSConfig(identity=True, target_steps=2), SparseFeatures(5, 0.5))
GATED = (pdh.GatedConfig(), pdh.GatedConfig().features())
APD, SPD = pdh.APDConfig(C=3, steps=2, batch_size=8, top_k=1.0), pdh.SPDConfig(C=3, steps=2, batch_size=8)


@pytest.mark.parametrize(
    ("target", "config", "layers"),
    [
        (RESIDUAL, APD, ["mlps.0.W_in"]),
        (RESIDUAL, SPD, ["mlps.0.W_in"]),
        (RESIDUAL, SPD, ["mlps.0.W_out"]),
        (TMS, SPD, ["embed"]),
        (GATED, APD, ["mlps.1.W_in"]),
        (GATED, SPD, {"mlps.0.W_in": 3, "mlps.0.W_out": 4, "mlps.1.W_in": 5, "mlps.1.W_out": 6}),
    ],
)
def test_a_network_decomposed_in_part_is_measured_without_these(target, config, layers):
    config_of_target, data = target
    network = pdh.make_target(config_of_target, show_progress=False)
    run = pdh.fit(network, config, data, layers, show_progress=False, device="cpu")
    assert {"mmcs", "faithfulness", "recon"} <= set(run.metrics)
    assert not {"contribution_r", "identity_ci_error", "n_own", "n_served"} & set(run.metrics)


def test_a_network_of_your_own_may_use_the_same_names_for_other_things():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.ideal, self.W_E = 2, "nothing", nn.Linear(5, 3)
            self.first = nn.Linear(3, 2)

        def forward(self, x):
            return self.first(torch.relu(self.W_E(x)))

    for config in (APD, SPD):
        run = pdh.fit(Named(), config, SparseFeatures(5, 0.5), ["first"], show_progress=False, device="cpu")
        assert "recon" in run.metrics


@pytest.mark.parametrize("d_mlp", [3, 8])
def test_networks_with_more_neurons_than_features_are_measured_too(d_mlp):
    run = pdh.run(
        "apd/resid_mlp_1", n_features=5, d_resid=30, d_mlp=d_mlp, target_steps=2, steps=2, C=4, rank=2,
        batch_size=16, device="cpu", show_progress=False,
    )  # fmt: skip
    assert np.isfinite(run.metrics["monosemantic_mse"])


# What is refused


@pytest.mark.usefixtures("as_a_user")
@pytest.mark.parametrize("function", [neuron_contributions.contributions, neuron_contributions.feature_components])
def test_other_networks_are_refused_by_name(function):
    gated = api.begin(*started(GATED), device="cpu")
    toy = api.begin(*started(TMS), device="cpu")
    for run, name in ((gated, "GatedNetwork"), (toy, "TMS")):
        with pytest.raises(TypeError, match=f"run must decompose a ResidualMLP, but decomposes a {name}"):
            function(run)


def started(target):
    config, data = target
    network = pdh.make_target(config, show_progress=False)
    return network, APD, data, network.layers


@pytest.mark.usefixtures("as_a_user")
def test_serving_wants_the_hand_written_network():
    with pytest.raises(TypeError, match="run must decompose a GatedNetwork, but decomposes a ResidualMLP"):
        gated_functions.serving(perfect())
