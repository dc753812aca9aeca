"""SPD's training against the equations, step by step, and what its gradients reach."""

import math

import oracle
import pytest
import torch
from oracle import MLP, SHARP, Adam, Residual, dense_batch, draw, each, randomize, replay, tms_batch
from torch import Generator

from pd_helpers import losses, spd
from pd_helpers.causal_importance import CausalImportance, lower_leaky, upper_leaky
from pd_helpers.components import decompose
from pd_helpers.targets import TMS

CONFIG = spd.SPDConfig(
    d_gate=3,
    batch_size=10,
    steps=5,
    lr=0.02,
    faithfulness_coeff=1.5,
    recon_coeff=2.0,
    recon_layerwise_coeff=0.7,
    importance_coeff=0.3,
    importance_p=1.5,
)
NAMES = ("w_in", "b_in", "w_out", "b_out")


def decomposition(network):
    """Model and importance functions in float64, all random, and the same network for the oracle."""
    if network == "tms":
        target = randomize(TMS(n_features=4, n_hidden=3))
        (f, uses), C, batch = oracle.tms(target.unembed.bias.detach()), {"embed": 5}, tms_batch
    else:
        target = randomize(MLP())
        (f, uses), C, batch = oracle.mlp(target), {"fc1": 4, "fc2": 2}, dense_batch
    model = randomize(decompose(target, C, rank=1), seed=1)
    importance = randomize(CausalImportance(model, d_gate=3, generator=Generator()), seed=2)
    return model, importance, f, uses, batch


def uniform(x, C, generator, merged):
    """r (rows, C), drawn as the core does: where all-zero rows are merged, for the other rows and then for one more."""
    rows = x.any(dim=1)
    drawn = torch.rand(int(rows.sum()) + merged, C, generator=generator, dtype=torch.float64)
    r = torch.full((len(x), C), 0.5, dtype=torch.float64)  # any number will do on all-zero rows
    r[rows] = drawn[: int(rows.sum())]
    return r


@pytest.mark.parametrize("network", ["tms", "mlp"])
def test_training_follows_the_equations(network):
    model, importance, f, uses, batch = decomposition(network)
    U = {path: layer.U.detach().clone().requires_grad_() for path, layer in model.layers.items()}
    V = {path: layer.V.detach().clone().requires_grad_() for path, layer in model.layers.items()}
    W = {path: weight.clone() for path, weight in model.targets.items()}
    mlps = {
        use: {name: getattr(mlp, name).detach().clone().requires_grad_() for name in NAMES}
        for use, mlp in importance.mlps.items()
    }
    adam = Adam([*U.values(), *V.values(), *(p for mlp in mlps.values() for p in mlp.values())])
    transposed = {"unembed"}

    state = spd.start(model, importance, CONFIG, Generator().manual_seed(5))
    same = Generator().manual_seed(5)
    for step, mine in enumerate(spd.train(model, importance, replay(batch), CONFIG, state)):
        x = batch(step)
        gates = oracle.gates(f, uses, transposed, W, U, V, mlps, x)
        g = {use: each(oracle.lower_leaky, table) for use, table in gates.items()}

        def masks_of(*names, x=x, g=g):
            r = {use: uniform(x, g[use].shape[1], same, merged=network == "tms") for use in names}
            return {use: g[use] + (1 - g[use]) * r[use] for use in names}

        truth = (
            oracle.faithfulness(W, U, V),
            oracle.squared_error(f, uses, W, U, V, x, masks_of(*uses)),
            sum(oracle.squared_error(f, uses, W, U, V, x, masks_of(use)) for use in uses) / len(uses),
            oracle.importance(gates, CONFIG.importance_p),
        )
        torch.testing.assert_close(tuple(mine), tuple(loss.detach() for loss in truth), rtol=1e-7, atol=1e-10)
        lr = 0.02 * 0.5 * (1 + math.cos(math.pi * step / 5))
        adam.step(1.5 * truth[0] + 2.0 * truth[1] + 0.7 * truth[2] + 0.3 * truth[3], lr)
        for path, layer in model.layers.items():
            torch.testing.assert_close(layer.U, U[path], rtol=1e-7, atol=1e-8)
            torch.testing.assert_close(layer.V, V[path], rtol=1e-7, atol=1e-8)
        for use, mlp in importance.mlps.items():
            for name in NAMES:
                torch.testing.assert_close(getattr(mlp, name), mlps[use][name], rtol=1e-7, atol=1e-8)
    assert step == 4


@pytest.mark.parametrize("network", ["tms", "mlp", "residual"])
def test_reconstruction_reaches_components_with_importance_zero(network):
    if network == "residual":
        model = randomize(decompose(randomize(Residual()), dict.fromkeys(Residual.layers, 4), rank=1), seed=1)
        x = draw(10, 3)
    else:
        model, *_, batch = decomposition(network)
        x = batch(0)
    g = {
        use: torch.zeros(10, model.layers[layer].C, dtype=torch.float64, requires_grad=True)
        for use, (layer, _) in model.uses.items()
    }
    loss = spd.masked_loss(model, x, model.target(x), g, 10, Generator().manual_seed(0))
    for grad in torch.autograd.grad(loss, model.factors, retain_graph=True):
        assert (grad != 0).flatten(1).any(dim=1).all()
    for use, grad in zip(g, torch.autograd.grad(loss, list(g.values())), strict=True):
        assert (grad != 0).any(dim=0).all(), use


def test_importance_of_dead_and_saturated_components_can_still_move():
    """Through the lower-leaky sigmoid a mask's gradient revives; through the upper-leaky one importance falls."""
    gate = torch.tensor([[-1.0, 0.5, 2.0]], requires_grad=True)
    (revive,) = torch.autograd.grad(lower_leaky(gate).sum(), gate)
    (fall,) = torch.autograd.grad(losses.importance_minimality({"a": upper_leaky(gate)}, 1.0, torch.ones(1), 1), gate)
    torch.testing.assert_close(revive, torch.tensor([[0.01, 1.0, 0.0]]))
    torch.testing.assert_close(fall, torch.tensor([[0.0, 1.0, 0.01]]))


def test_losses_of_merged_rows_equal_those_of_all_rows_under_the_same_draws():
    model, importance, *_, batch = decomposition("tms")
    x = batch(3)
    merged, weights = model.merge_empty_rows(x)
    assert len(merged) < len(x)
    r = {use: draw(10, 5, seed=i).sigmoid() for i, use in enumerate(model.uses)}  # any numbers between 0 and 1
    kept = x.any(dim=1).nonzero().squeeze(1)
    kept = torch.cat([kept, (~x.any(dim=1)).nonzero()[0]])  # the non-zero rows, and one of the others

    def terms(x, weights, r):
        gates = importance(model, model.target_forward(x).inputs)
        g = {use: lower_leaky(gate) for use, gate in gates.items()}
        masks = {use: g[use] + (1 - g[use]) * r[use] for use in g}
        minimality = losses.importance_minimality(
            {use: upper_leaky(gate) for use, gate in gates.items()}, 1.5, weights, 10
        )
        recon = losses.reconstruction(model(x, masks).output, model.target(x), 10)
        layerwise = [
            losses.reconstruction(model(x, {use: mask}).output, model.target(x), 10) for use, mask in masks.items()
        ]
        return recon, losses.layerwise(layerwise), minimality

    ones = torch.ones(10, dtype=torch.float64)
    mine, truth = terms(merged, weights, {use: r[use][kept] for use in r}), terms(x, ones, r)
    torch.testing.assert_close(mine, truth, **SHARP)
    parameters = [*model.factors, *importance.parameters()]
    for grad, true_grad in zip(
        torch.autograd.grad(sum(mine), parameters), torch.autograd.grad(sum(truth), parameters), strict=True
    ):
        torch.testing.assert_close(grad, true_grad, **SHARP)


def test_masks_are_drawn_anew_for_every_loss():
    model, *_, batch = decomposition("mlp")
    x, draws = batch(0), Generator().manual_seed(0)
    g = {use: torch.zeros(10, model.layers[use].C, dtype=torch.float64) for use in model.uses}
    first, second = (spd.masked_loss(model, x, model.target(x), g, 10, draws) for _ in range(2))
    assert first != second


def test_faithfulness_warm_up_leaves_the_importance_functions_alone():
    model, importance, *_ = decomposition("mlp")
    before = losses.faithfulness(model.targets, model.sums).item()
    gates = [p.detach().clone() for p in importance.parameters()]
    spd.start(model, importance, CONFIG.replace(faithfulness_warmup_steps=100), Generator())
    assert losses.faithfulness(model.targets, model.sums) < before / 2
    assert all(map(torch.equal, importance.parameters(), gates))


def test_a_loss_that_blows_up_is_noticed_with_its_step():
    model, importance, *_, batch = decomposition("tms")
    config = CONFIG.replace(lr=1e200)
    state = spd.start(model, importance, config, Generator())
    steps = spd.train(model, importance, replay(batch), config, state)
    finite = [all(loss.isfinite() for loss in step) for step in steps]
    assert finite[0]
    with pytest.raises(FloatingPointError, match=f"non-finite at step {finite.index(False)}; a smaller lr"):
        state.check()
