"""SPD's training against the equations, step by step, and what its gradients reach."""

import pytest
import torch
from networks import MLP, SHARP, Residual, begun, dense_batch, draw, randomize, replay, textbook_of, tms_batch
from torch import Generator

from benchmarks import pair, textbook
from pd_helpers.core import losses, spd
from pd_helpers.core.causal_importance import lower_leaky, sample_masks, upper_leaky
from pd_helpers.core.components import ComponentModel, decompose
from pd_helpers.targets.tms import TMS

pytestmark = pytest.mark.usefixtures("one_thread")

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


NETWORKS = ["tms", "tms with identity", "mlp"]


def decomposition(network):
    """SPD at step 0 in float64, components and importance functions random, and batches."""
    if network == "mlp":
        target, C, batch = MLP(), {"fc1": 4, "fc2": 2}, dense_batch
    else:
        target, batch = TMS(n_features=4, n_hidden=3, identity="identity" in network), tms_batch
        C = dict.fromkeys(target.layers, 5)
    model = randomize(decompose(randomize(target), C, rank=1), seed=1)
    method = begun(model, CONFIG)
    randomize(method.importance, seed=2)
    return method, batch


@pytest.mark.parametrize("network", NETWORKS)
def test_training_follows_the_textbook(network):
    method, batch = decomposition(network)
    config, same = CONFIG.replace(steps=30), Generator().manual_seed(5)
    method.config, method.generator = config, Generator().manual_seed(5)
    shared = pair.in_textbook(textbook_of(method.model.target), method)
    truth = pair.copied(shared)

    def true_losses(x):
        return textbook.spd_losses(truth, x, config, pair.rand_like_core(method.model, x, same))

    theirs = textbook.train(truth, true_losses, map(batch, range(30)), config)
    for losses_, true in zip(method.train(replay(batch)), theirs, strict=True):
        torch.testing.assert_close(losses_._asdict(), true, rtol=1e-7, atol=1e-10)
        for parameter, true_parameter in zip(shared.parameters, truth.parameters, strict=True):
            torch.testing.assert_close(parameter, true_parameter, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("network", NETWORKS)
def test_losses_and_gradients_under_given_masks_equal_the_textbooks(network):
    """Each loss by itself, over all the rows, none merged."""
    method, batch = decomposition(network)
    model, x = method.model, batch(3)
    truth = pair.in_textbook(textbook_of(model.target), method)
    [table] = method.importance(model.inner(model.target_forward(x).inputs))
    logits = table.split()
    true_logits = textbook.importance_logits(truth, x)
    torch.testing.assert_close(logits, {use: true_logits[use] for use in logits}, **SHARP)

    r = {use: draw(*value.shape, seed=i).sigmoid() for i, (use, value) in enumerate(logits.items())}
    masks = {use: lower_leaky(logits[use]) + (1 - lower_leaky(logits[use])) * r[use] for use in logits}
    draws = iter(r.values())
    true_g = {use: textbook.lower_leaky(true_logits[use]) for use in logits}
    true_masks = textbook.stochastic_masks(true_g, lambda value: next(draws))
    ones = torch.ones(len(x), dtype=torch.float64)
    terms = [
        (model.faithfulness(), textbook.faithfulness(truth)),
        (losses.recon(model(x, masks).output, model.target(x)), textbook.reconstruction(truth, x, true_masks)),
        (
            losses.importance_minimality(upper_leaky(table.values), 1.5, ones, len(x)),
            textbook.importance(true_logits, 1.5),
        ),
    ]
    for use in masks:
        one, true_one = {use: masks[use]}, {use: true_masks[use]}
        mine = losses.recon(model(x, one).output, model.target(x))
        terms.append((mine, textbook.reconstruction(truth, x, true_one)))
    for mine, true in terms:
        assert true > 0
        torch.testing.assert_close(mine, true, **SHARP)
        of = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        grads, true_grads = (torch.autograd.grad(loss, truth.parameters, **of) for loss in (mine, true))
        torch.testing.assert_close(grads, true_grads, **SHARP)


@pytest.mark.parametrize("network", ["tms", "mlp", "residual"])
def test_reconstruction_reaches_components_with_importance_zero(network):
    if network == "residual":
        model = randomize(decompose(randomize(Residual()), dict.fromkeys(Residual.layers, 4), rank=1), seed=1)
        x = draw(10, 3)
    else:
        method, batch = decomposition(network)
        model, x = method.model, batch(0)
    g = {
        use: torch.zeros(10, model.layers[layer].C, dtype=torch.float64, requires_grad=True)
        for use, (layer, _) in model.uses.items()
    }
    masks = {use: sample_masks(value, Generator().manual_seed(i)) for i, (use, value) in enumerate(g.items())}
    loss = losses.recon(model(x, masks).output, model.target(x))
    for grad in torch.autograd.grad(loss, model.factors, retain_graph=True):
        assert (grad != 0).flatten(1).any(dim=1).all()
    for use, grad in zip(g, torch.autograd.grad(loss, list(g.values())), strict=True):
        assert (grad != 0).any(dim=0).all(), use


def test_importance_of_dead_and_saturated_components_can_still_move():
    """Through the lower-leaky sigmoid a mask's gradient revives; through the upper-leaky one importance falls."""
    gate = torch.tensor([[-1.0, 0.5, 2.0]], requires_grad=True)
    (revive,) = torch.autograd.grad(lower_leaky(gate).sum(), gate)
    (fall,) = torch.autograd.grad(losses.importance_minimality(upper_leaky(gate), 1.0, torch.ones(1), 1), gate)
    torch.testing.assert_close(revive, torch.tensor([[0.01, 1.0, 0.0]]))
    torch.testing.assert_close(fall, torch.tensor([[0.0, 1.0, 0.01]]))


def test_losses_of_merged_rows_equal_those_of_all_rows_under_the_same_draws():
    method, batch = decomposition("tms")
    model, importance, x = method.model, method.importance, batch(3)
    merged, weights, _ = model.merge_empty_rows(x)
    assert len(merged) < len(x)
    r = {use: draw(10, 5, seed=i).sigmoid() for i, use in enumerate(model.uses)}  # any numbers between 0 and 1
    kept = x.any(dim=1).nonzero().squeeze(1)
    kept = torch.cat([kept, (~x.any(dim=1)).nonzero()[0]])  # the non-zero rows, and one of the others

    def terms(x, weights, r):
        [gates] = importance(model.inner(model.target_forward(x).inputs))
        g = gates.split(lower_leaky(gates.values))
        masks = {use: g[use] + (1 - g[use]) * r[use] for use in g}
        minimality = losses.importance_minimality(upper_leaky(gates.values), 1.5, weights, 10)
        recon = losses.recon(model(x, masks).output, model.target(x), 10)
        layerwise = [losses.recon(model(x, {use: mask}).output, model.target(x), 10) for use, mask in masks.items()]
        return recon, losses.layerwise(layerwise), minimality

    ones = torch.ones(10, dtype=torch.float64)
    mine, truth = terms(merged, weights, {use: r[use][kept] for use in r}), terms(x, ones, r)
    torch.testing.assert_close(mine, truth, **SHARP)
    parameters = [*model.factors, *importance.parameters()]
    for grad, true_grad in zip(
        torch.autograd.grad(sum(mine), parameters), torch.autograd.grad(sum(truth), parameters), strict=True
    ):
        torch.testing.assert_close(grad, true_grad, **SHARP)


def test_masks_are_drawn_anew_for_every_loss(monkeypatch):
    method, batch = decomposition("mlp")
    seen = []
    forward = ComponentModel.forward
    monkeypatch.setattr(
        ComponentModel, "forward", lambda self, x, masks, inner: seen.append(masks) or forward(self, x, masks, inner)
    )
    next(method.train(replay(batch)))
    together, *alone = seen
    assert list(together) == list(method.model.uses)
    assert [list(masks) for masks in alone] == [[use] for use in method.model.uses]
    for masks in alone:
        for use, mask in masks.items():
            assert (mask != together[use]).any()


def test_faithfulness_warm_up_leaves_the_importance_functions_alone():
    method, _ = decomposition("mlp")
    model = method.model
    before = model.faithfulness().item()
    gates = [p.detach().clone() for p in method.importance.parameters()]
    method.config = CONFIG.replace(faithfulness_warmup_steps=100)
    method.warm_up()
    assert model.faithfulness() < before / 2
    assert all(map(torch.equal, method.importance.parameters(), gates))
