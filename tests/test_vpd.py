"""VPD's training against the equations, step by step; its adversary, its masks and what may be resumed."""

import itertools

import pytest
import torch
from networks import MLP, SHARP, begun, dense_batch, draw, randomize, replay, textbook_of, tms_batch
from torch import Generator

from benchmarks import pair, textbook
from pd_helpers.core import losses, vpd
from pd_helpers.core.causal_importance import straight_through
from pd_helpers.core.components import decompose
from pd_helpers.targets.tms import TMS

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = vpd.VPDConfig(
    d_gate=3,
    importance_network="subcomponent",
    batch_size=10,
    steps=20,
    lr=0.02,
    faithfulness_warmup_steps=0,
    faithfulness_coeff=1.5,
    adversarial_coeff=2.0,
    stochastic_coeff=0.7,
    importance_coeff=0.3,
    frequency_coeff=0.1,
    frequency_a=50.0,
    importance_p=2.0,
    importance_p_end=0.5,
    adversary_warmup_fraction=0.3,
    adversary_lr=0.05,
    adversary_beta1=0.5,
)
NETWORKS = ["tms", "tms with identity", "mlp"]


def decomposition(network="tms", **changes):
    """VPD at step 0 in float64, components and importance functions random, and batches."""
    if network == "mlp":
        target, C, batch = MLP(), {"fc1": 4, "fc2": 2}, dense_batch
    else:
        target, batch = TMS(n_features=4, n_hidden=3, identity="identity" in network), tms_batch
        C = dict.fromkeys(target.layers, 5)
    model = randomize(decompose(randomize(target), C, rank=1), seed=1)
    method = begun(model, CONFIG.replace(**changes))
    randomize(method.importance, seed=2)
    return method, batch


@pytest.mark.parametrize(
    "changes",
    [
        {"adversary": "per input"},
        {"adversary": "shared"},
        {"importance_network": "layer"},
        {"adversary_beta1": 0.01, "adversary_beta2": 0.9, "adversary_steps": 0},
    ],
    ids=["per input", "shared", "an MLP for each layer", "other betas"],
)
@pytest.mark.parametrize("network", NETWORKS)
def test_training_follows_the_textbook(network, changes):
    method, batch = decomposition(network, **changes)
    method.generator = Generator().manual_seed(5)
    mine = pair.in_textbook(textbook_of(method.model.target), method)
    truth = pair.copied(mine)
    adversary = pair.losses_of(truth, CONFIG.replace(**changes), method.model, Generator().manual_seed(5))
    batches = map(batch, range(CONFIG.steps))
    for step, true in enumerate(textbook.train(truth, adversary, batches, CONFIG)):
        (losses_,) = itertools.islice(method.train(lambda *_, step=step: batch(step)), 1)
        torch.testing.assert_close(losses_._asdict(), true, rtol=1e-7, atol=1e-10)
        adversary.climb_along_the_last_step()
        for use, r in adversary.r.items():
            torch.testing.assert_close(method.adversary.sources[use].detach(), r.detach(), rtol=1e-6, atol=1e-8)
    for parameter, true_parameter in zip(mine.parameters, truth.parameters, strict=True):
        torch.testing.assert_close(parameter, true_parameter, rtol=1e-6, atol=1e-8)
    assert step + 1 == method.step == CONFIG.steps


def test_masks_of_one_with_delta_are_the_target():
    method, batch = decomposition("tms with identity")
    model, x = method.model, batch(3)
    ones = {use: torch.ones(len(x), width, dtype=torch.float64) for use, width in method.adversary.widths.items()}
    torch.testing.assert_close(model(x, ones).output, model.target(x), **SHARP)


def test_delta_is_what_components_leave_of_the_matrix():
    method, batch = decomposition("mlp")
    model, x = method.model, batch(3)
    masks = {
        use: draw(len(x), width, seed=i).sigmoid() for i, (use, width) in enumerate(method.adversary.widths.items())
    }
    torch.testing.assert_close(model(x, masks).output, textbook.masked(textbook_of(model), x, masks).output, **SHARP)
    none = {use: torch.cat([mask[:, :-1], mask.new_zeros(len(x), 1)], dim=1) for use, mask in masks.items()}
    without = {use: mask[:, :-1] for use, mask in masks.items()}
    torch.testing.assert_close(model(x, none).output, model(x, without).output, **SHARP)


def test_straight_through_is_a_clamp_whose_zeros_can_only_rise():
    x = torch.tensor([-2.0, -2.0, 0.5, 0.5, 3.0, 3.0], requires_grad=True)
    g = straight_through(x)
    assert g.tolist() == [0, 0, 0.5, 0.5, 1, 1]
    (grad,) = torch.autograd.grad(g, x, torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0]))
    torch.testing.assert_close(grad, torch.tensor([0.0, -0.01, 1.0, -1.0, 0.0, 0.0]))


def test_subsets_are_of_every_size_equally_often_and_of_every_matrix():
    chosen = vpd.subsets((30_000,), 3, Generator().manual_seed(0))
    sizes = chosen.sum(dim=1).bincount(minlength=4) / 30_000
    torch.testing.assert_close(sizes, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]), atol=0.01, rtol=0)
    torch.testing.assert_close(chosen.float().mean(dim=0), torch.full((3,), 2 / 3), atol=0.01, rtol=0)


def test_two_purposes_cost_more_in_one_component_than_in_two():
    one, two = (
        losses.frequency_minimality(torch.tensor([0.2, 0.0]), 100),
        losses.frequency_minimality(torch.tensor([0.1, 0.1]), 100),
    )
    assert one.item() == pytest.approx(0.2 * torch.log2(torch.tensor(21.0)).item())
    assert two < one


def test_the_smooth_l0_counts_what_is_important():
    g = torch.tensor([0.0, 0.01, 0.5, 1.0])
    torch.testing.assert_close(losses.smooth_l0(g, 0.01), torch.tensor([0.0, 0.5, 1.0, 1.0]), atol=1e-3, rtol=0)
    assert CONFIG.replace(gamma=1.0, gamma_end=0.01).gamma_at(10) == pytest.approx(0.1)


def test_the_adversary_climbs_where_the_components_stand_still():
    method, batch = decomposition(lr=1e-9, adversary_warmup_fraction=0.0)
    x = batch(3)
    target = method.model.target_forward(x)
    errors = []
    for _ in method.train(lambda *_: x):
        full = vpd.Batch.whole(x)
        r, inner = method.adversary.taken(), method.model.inner(target.inputs)
        gates = method.importance(inner, target.inputs)
        loss = method._losses(full, target, inner, gates, r, Generator().manual_seed(0), 0)
        errors.append(loss.adversarial.item())
    assert errors[-1] > 8 * errors[0]
    assert min(b / a for a, b in itertools.pairwise(errors)) > 1 - 1e-6


@pytest.mark.parametrize("which", ["layer", "shared", "subcomponent"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(which):
    def trained(n, method=None):
        method = method or decomposition(importance_network=which, d_gate=4)[0]
        first = method.step
        list(itertools.islice(method.train(lambda *_: tms_batch(method.step)), n - first))
        return method

    whole, half = trained(8), trained(3)
    fresh = decomposition(importance_network=which, d_gate=4)[0]
    with torch.no_grad():
        for name, parameter in fresh.parameters().items():
            parameter.copy_(half.parameters()[name])
    fresh.load_state({name: t.clone() for name, t in half.state().items()}, 3)
    trained(8, fresh)
    for name, parameter in whole.parameters().items():
        assert torch.equal(parameter, fresh.parameters()[name]), name
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, fresh.state()[name]), name


def test_a_stored_adversary_that_cannot_be_is_refused_by_name():
    method, _ = decomposition()
    list(itertools.islice(method.train(replay(tms_batch)), 2))
    state = method.state()
    for change, message in [
        (lambda r: r[:, :-1], "adversary.source.embed must hold numbers of torch.float64 in 6 columns"),
        (lambda r: r.float(), "adversary.source.embed must hold numbers of torch.float64"),
        (lambda r: r + 1, "adversary.source.embed must hold numbers from 0 to 1"),
        (lambda r: r * torch.nan, "adversary.source.embed must hold numbers from 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            decomposition()[0].load_state(
                state | {"adversary.source.embed": change(state["adversary.source.embed"])}, 2
            )
    with pytest.raises(ValueError, match="optimizer.0.exp_avg is missing"):
        decomposition()[0].load_state({k: v for k, v in state.items() if k != "adversary.optimizer.0.exp_avg"}, 2)


def test_batches_of_another_shape_need_a_shared_adversary():
    def changing(sizes):
        return lambda *_: dense_batch(0)[: next(sizes)]

    method, _ = decomposition("mlp")
    with pytest.raises(ValueError, match=r"adversary is 'per input'.*fc1 had rows \(10,\) before and now has \(9,\)"):
        list(method.train(changing(iter([10, 9]))))
    method, _ = decomposition("mlp", adversary="shared", steps=2)
    assert len(list(method.train(changing(iter([10, 9]))))) == 2
