"""APD's training against the equations, step by step, and what its gradients reach."""

import pytest
import torch
import torch.nn.functional as F
from networks import (
    MLP,
    SHARP,
    Residual,
    begun,
    dense_batch,
    draw,
    randomize,
    replay,
    residual_mlp,
    textbook_of,
    tms_batch,
)

from benchmarks import pair, textbook
from pd_helpers.core import apd, losses
from pd_helpers.core.components import decompose
from pd_helpers.runs.presets import preset
from pd_helpers.targets.base import make_target
from pd_helpers.targets.gated_functions import GatedNetwork
from pd_helpers.targets.tms import TMS

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = apd.APDConfig(
    C=4,
    rank=2,
    top_k=0.6,
    batch_size=10,
    steps=8,
    lr=0.02,
    schedule="cosine",
    warmup_fraction=0.4,
    faithfulness_coeff=1.5,
    minimality_coeff=2.0,
    simplicity_coeff=0.3,
    schatten_p=0.9,
)


TARGETS = {
    "tms": (lambda: TMS(n_features=5, n_hidden=2), lambda seed: tms_batch(seed, n_features=5)),
    "tms with identity": (lambda: TMS(n_features=5, n_hidden=2, identity=True), lambda seed: tms_batch(seed, 5)),
    "mlp": (MLP, dense_batch),
    "residual mlp": (lambda: residual_mlp(n_layers=3, tied=False), tms_batch),
    "residual mlp with biases": (lambda: residual_mlp(n_layers=2, bias=True), lambda seed: draw(10, 4, seed=seed)),
}


def networks(name):
    """Target, the layers to decompose, and its batches."""
    build, batch = TARGETS[name]
    target = build() if name.startswith("residual") else randomize(build())
    return target, getattr(target, "layers", ["fc1", "fc2"]), batch


@pytest.mark.parametrize("attribution_p", [None, 0.7], ids=["top-k", "Lp"])
@pytest.mark.parametrize("attribute_at", ["target", "components"])
@pytest.mark.parametrize("network", TARGETS)
def test_training_follows_the_textbook(network, attribute_at, attribution_p):
    target, layers, batch = networks(network)
    config = CONFIG.replace(attribute_at=attribute_at, attribution_p=attribution_p, steps=30)
    model = decompose(target, dict.fromkeys(layers, config.C), rank=config.rank).double()
    truth = pair.copied(textbook_of(model))
    theirs = textbook.train(truth, lambda x: textbook.apd_losses(truth, x, config), map(batch, range(30)), config)
    mine = begun(model, config).train(replay(batch))
    for losses_, true_losses in zip(mine, theirs, strict=True):
        torch.testing.assert_close(losses_._asdict(), true_losses, rtol=1e-7, atol=1e-10)
        for parameter, true in zip(textbook_of(model).parameters, truth.parameters, strict=True):
            torch.testing.assert_close(parameter, true, rtol=1e-7, atol=1e-8)


def test_the_lp_formulation_refuses_hidden_reconstruction():
    with pytest.raises(ValueError, match="hidden_coeff must be 0 in the Lp formulation, .* but is 1; 0 works"):
        CONFIG.replace(attribution_p=0.9, hidden_coeff=1.0)


def test_hidden_reconstruction_and_unit_norm_follow_the_textbook():
    """The textbook compares what enters every W_out, and divides the rows of V before and after every step."""
    target, layers, batch = networks("residual mlp")
    config = CONFIG.replace(attribute_at="target", hidden_coeff=1.7, unit_norm=True, steps=30)
    model = decompose(target, dict.fromkeys(layers, config.C), rank=config.rank).double()
    method = begun(model, config)
    truth = pair.copied(textbook_of(model))
    theirs = textbook.train(truth, lambda x: textbook.apd_losses(truth, x, config), map(batch, range(30)), config)
    for losses_, true_losses in zip(method.train(replay(batch)), theirs, strict=True):
        assert losses_.hidden > 0
        torch.testing.assert_close(losses_._asdict(), true_losses, rtol=1e-7, atol=1e-10)
        for parameter, true in zip(textbook_of(model).parameters, truth.parameters, strict=True):
            torch.testing.assert_close(parameter, true, rtol=1e-7, atol=1e-8)


def test_the_number_of_active_pairs_is_rounded_to_the_nearest():
    config = preset("apd/resid_mlp_1").config
    assert (config.top_k, config.batch_size) == (1.28, 256)
    assert config.n_active(0) == 328  # int(1.28 * 256), as in public code, is 327


def test_norms_times_attributions_are_the_same_inside_and_outside_of_the_power_where_it_is_one():
    """Public code of the Lp formulation has them inside; its p_S is 1, as that of the preset is."""
    config = preset("apd/tms_5-2_lp").paper
    assert config.schatten_p == 1
    s, U, V = draw(6, 4).abs(), draw(4, 3, 2, seed=1), draw(4, 2, 5, seed=2)
    outside = losses.simplicity(s, losses.schatten(U, V, 1.0), 15)
    inside = sum(losses.schatten(row[:, None, None] * U, V, 1.0).sum() for row in s) / 6 / 15
    torch.testing.assert_close(inside, outside)


def test_top_k_falls_from_its_start_by_hand():
    config = CONFIG.replace(C=16, top_k=1.0, top_k_start=16.0, steps=8)  # to a half with every step, in half of them
    assert [config.n_active(step) for step in range(8)] == [160, 80, 40, 20, 10, 10, 10, 10]
    assert [10 * textbook.top_k(step, config) for step in range(8)] == [160, 80, 40, 20, 10, 10, 10, 10]
    steady = config.replace(top_k_start=None)
    assert [steady.n_active(step) for step in range(8)] == [10] * 8
    assert [textbook.top_k(step, steady) for step in range(8)] == [1.0] * 8


@pytest.mark.parametrize("network", ["mlp", "residual mlp"])
def test_a_top_k_that_falls_follows_the_textbook(network):
    target, layers, batch = networks(network)
    config = CONFIG.replace(attribute_at="target", top_k=0.3, top_k_start=3.0, steps=16)
    model = decompose(target, dict.fromkeys(layers, config.C), rank=config.rank).double()
    truth = pair.copied(textbook_of(model))
    theirs = textbook.train(truth, pair.losses_of(truth, config), map(batch, range(16)), config)
    mine = begun(model, config).train(replay(batch))
    for losses_, true_losses in zip(mine, theirs, strict=True):
        torch.testing.assert_close(losses_._asdict(), true_losses, rtol=1e-7, atol=1e-10)


def lengths(model):
    return torch.cat([layer.V.detach().norm(dim=-1).flatten() for layer in model.layers.values()])


@pytest.mark.parametrize("unit_norm", [True, False])
def test_unit_norm_keeps_the_rows_of_V_at_length_one_from_the_start(unit_norm):
    target, layers, batch = networks("residual mlp")
    config = CONFIG.replace(unit_norm=unit_norm, attribute_at="target")
    model = decompose(target, dict.fromkeys(layers, config.C), rank=config.rank).double()
    directions = [F.normalize(layer.V.detach(), dim=-1) for layer in model.layers.values()]
    method, Us = begun(model, config), [layer.U.detach().clone() for layer in model.layers.values()]
    held = [lengths(model)]
    torch.testing.assert_close(
        [F.normalize(layer.V.detach(), dim=-1) for layer in model.layers.values()], directions, **SHARP
    )
    for _ in method.train(replay(batch)):
        held.append(lengths(model))
    assert all(torch.allclose(one, torch.ones_like(one)) == unit_norm for one in held)
    assert not any(map(torch.equal, Us, [layer.U for layer in model.layers.values()]))


def test_unit_norm_holds_after_the_faithfulness_warm_up():
    target, layers, _ = networks("residual mlp")
    model = decompose(target, dict.fromkeys(layers, 4), rank=2).double()
    begun(model, CONFIG.replace(unit_norm=True, faithfulness_warmup_steps=20))
    torch.testing.assert_close(lengths(model), torch.ones_like(lengths(model)))


def test_hidden_reconstruction_is_left_out_unless_asked_for():
    target, layers, batch = networks("residual mlp")
    model = decompose(target, dict.fromkeys(layers, 4), rank=2).double()
    config = CONFIG.replace(attribute_at="target")
    losses_ = next(begun(model, config).train(replay(batch)))
    assert losses_.hidden == 0


@pytest.mark.parametrize("attribute_at", ["target", "components"])
@pytest.mark.parametrize("network", TARGETS)
def test_active_components_are_the_textbooks(network, attribute_at):
    target, layers, batch = networks(network)
    model = randomize(decompose(target, dict.fromkeys(layers, 4), rank=2), seed=1)
    own_sums = {layer: P.sum(dim=0) for layer, P in textbook_of(model).P.items()}
    truth = textbook_of(model)
    for seed in range(5):
        x = batch(seed)
        A = textbook.attributions(truth, truth.W if attribute_at == "target" else own_sums, truth.P, x)
        mine = apd.active_components(model, x, CONFIG.replace(attribute_at=attribute_at), 6)
        assert 0 < mine.sum() <= 6  # 0.6 of ten rows
        assert torch.equal(mine.double(), textbook.batch_top_k(A, 6))


@pytest.mark.parametrize("network", ["tms", "mlp", "residual"])
def test_minimality_and_simplicity_do_not_reach_inactive_components_but_faithfulness_does(network):
    if network == "residual":
        target, layers, x = randomize(Residual()), list(Residual.layers), draw(10, 3)
    else:
        target, layers, batch = networks(network)
        x = batch(0)
    model = randomize(decompose(target, dict.fromkeys(layers, 6), rank=2), seed=1)
    active = apd.active_components(model, x, CONFIG, n_active=3)
    used = active.any(dim=0)
    assert 0 < used.sum() < 6

    norms, n_parameters = apd.schatten_norms(model, 0.9)
    minimality = losses.recon(model(x, active.double()).output, target(x))
    simplicity = losses.simplicity(active.double(), norms, n_parameters)
    faithfulness = model.faithfulness()
    for loss, reaches_inactive in ((minimality, False), (simplicity, False), (faithfulness, True)):
        for grad in torch.autograd.grad(loss, model.factors):  # (6, ..., ...)
            assert grad[used].flatten(1).any()
            assert (grad[~used] != 0).flatten(1).any(dim=1).tolist() == [reaches_inactive] * int((~used).sum())


def test_losses_and_active_components_of_merged_rows_equal_those_of_all_rows():
    target, _, batch = networks("tms")
    model = randomize(decompose(target, {"embed": 4}, rank=2), seed=1)
    x = batch(3)
    merged = model.merge_empty_rows(x).rows
    assert len(merged) < len(x)
    all_active, active = (apd.active_components(model, rows, CONFIG, 6) for rows in (x, merged))
    assert torch.equal(active[:-1], all_active[x.any(dim=1)])
    assert not active[-1].any()
    norms, n_parameters = apd.schatten_norms(model, 0.9)

    def terms(x, active):
        active = active.double()
        minimality = losses.recon(model(x, active).output, model.target(x), n_inputs=10)
        return minimality, losses.simplicity(active, norms, n_parameters, n_inputs=10)

    torch.testing.assert_close(terms(merged, active), terms(x, all_active), **SHARP)


@pytest.mark.parametrize("attribute_at", ["target", "components"])
def test_inputs_without_a_control_bit_are_merged_and_change_nothing(attribute_at, monkeypatch):
    settings = preset("apd/gated").paper_settings
    target = make_target(settings.target, 0, show_progress=False).double()
    config = settings.config.replace(batch_size=300, hidden_coeff=1.0, attribute_at=attribute_at)

    def gradients():
        method = begun(decompose(target, dict.fromkeys(target.layers, 4), rank=7), config)
        x = settings.target.features()(300, torch.Generator().manual_seed(1)).double()
        values = method.batch_losses(x)
        sum(values).backward()
        return len(method.merged(x).rows), values, [factor.grad for factor in method.model.factors]

    n_rows, values, grads = gradients()
    monkeypatch.setattr(GatedNetwork, "silent_rows", lambda network, x: None)
    n_all, all_values, all_grads = gradients()
    assert n_all >= 300
    assert n_rows < 100 if attribute_at == "target" else n_rows == n_all  # the components' sum may not be silent
    torch.testing.assert_close((values, grads), (all_values, all_grads), **SHARP)


def test_a_gated_network_whose_weights_were_changed_is_not_taken_for_silent():
    network = make_target(preset("apd/gated").target, 0, show_progress=False)
    x = torch.tensor([[4.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0], [4.0, 1, 0, 0, 0]])
    assert network.silent_rows(x).tolist() == [True, True, False]
    network.mlps[1].W_in.weight[3, 0] = 1.5  # 1.5 · 4 - 5 > 0: this neuron is on without a bit
    assert network.silent_rows(x).tolist() == [False, True, False]
    network.mlps[0].W_in.bias[0] = 0.1
    assert network.silent_rows(x) is None


def test_components_sum_is_where_attributions_are_taken_when_asked():
    target, _, batch = networks("tms")
    model = randomize(decompose(target, {"embed": 4}, rank=2), seed=4)
    x = batch(3)
    at_target, at_components = (
        apd.active_components(model, x, CONFIG.replace(attribute_at=where), 6) for where in ("target", "components")
    )
    assert not torch.equal(at_target, at_components)


def test_no_coefficient_no_change():
    target, _, batch = networks("tms")
    config = CONFIG.replace(faithfulness_coeff=0.0, minimality_coeff=0.0, simplicity_coeff=0.0)
    model = decompose(target, {"embed": 4}, rank=2).double()
    before = [factor.detach().clone() for factor in model.factors]
    for _ in begun(model, config).train(replay(batch)):
        pass
    assert all(map(torch.equal, model.factors, before))


def test_faithfulness_warm_up_precedes_the_first_step():
    target, *_ = networks("tms")
    model = decompose(target, {"embed": 4}, rank=2).double()
    before = model.faithfulness().item()
    method = begun(model, CONFIG.replace(faithfulness_warmup_steps=50))
    assert method.step == 0
    assert model.faithfulness() < before / 2


def test_a_stopped_training_goes_on_where_it_stood():
    def trained(stops):
        target, _, batch = networks("mlp")
        model = decompose(target, {"fc1": 4, "fc2": 4}, rank=2).double()
        method, data = begun(model, CONFIG), replay(batch)
        for stop in stops:
            for _ in method.train(data):
                if method.step == stop:
                    break
        return model.factors

    assert all(map(torch.equal, trained([8]), trained([3, 4, 8])))
