"""Residual MLPs: their equation, the two exact savings, their training, and the monosemantic baseline."""

import math

import pytest
import torch
import torch.nn.functional as F
from networks import SHARP, draw, residual_mlp

from benchmarks import pair
from pd_helpers.core import apd, losses
from pd_helpers.core.attributions import attributions
from pd_helpers.core.components import decompose
from pd_helpers.core.training import generator
from pd_helpers.targets.base import make_target
from pd_helpers.targets.gated_functions import GatedConfig
from pd_helpers.targets.residual_mlp import ResidualMLP, ResidualMLPConfig, labels, monosemantic_baseline
from pd_helpers.targets.tms import TMSConfig

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS_AND_BIASES = [(1, False), (2, False), (3, False), (1, True), (3, True)]


# The equation


def test_two_layers_by_hand():
    model = ResidualMLP(n_features=2, d_resid=2, d_mlp=1, n_layers=2, n_outputs=1, bias=True)
    model.W_E.copy_(torch.eye(2))
    model.W_U.copy_(torch.tensor([[0.0, 1.0]]))
    with torch.no_grad():
        for parameter, value in zip(
            model.parameters(),
            [[[1.0, 0.0]], [1.0], [[0.0], [2.0]], [[1.0, 1.0]], [0.0], [[1.0], [1.0]]],
            strict=True,
        ):
            parameter.copy_(torch.tensor(value))
    # x = (3, 0): h = ReLU(3 + 1) = 4, s = (3, 0 + 2 · 4) = (3, 8); h = ReLU(11) = 11, s = (14, 19).
    # x = (-2, 0): h = ReLU(-2 + 1) = 0, s = (-2, 0); h = ReLU(-2) = 0, s = (-2, 0).
    assert model(torch.tensor([[3.0, 0.0], [-2.0, 0.0]])).tolist() == [[19.0], [0.0]]


def test_layers_uses_and_sizes():
    model = ResidualMLP(n_features=4, d_resid=9, d_mlp=3, n_layers=2)
    assert model.layers == ["mlps.0.W_in", "mlps.0.W_out", "mlps.1.W_in", "mlps.1.W_out"]
    assert model.hidden_layers == ["mlps.0.W_out", "mlps.1.W_out"]
    assert (model.n_features, model.n_neurons) == (4, 6)
    assert model.ideal == {
        ("mlps.0.W_in",): None,
        ("mlps.1.W_in",): None,
        ("mlps.0.W_out", "mlps.1.W_out"): 6,
    }
    assert all(mlp.W_in.bias is None and mlp.W_out.bias is None for mlp in model.mlps)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("n_layers", "bias"), LAYERS_AND_BIASES)
def test_by_products_gives_the_same_output_and_gradients(n_layers, bias, tied):
    model, x = residual_mlp(n_layers, bias, tied, n_outputs=4 if tied else 5).requires_grad_(), draw(6, 4)
    truth, mine = model(x), model.by_products(x)
    torch.testing.assert_close(mine, truth, **SHARP)
    true_grads, grads = (torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (truth, mine))
    torch.testing.assert_close(grads, true_grads, **SHARP)


# The stream in the dimensions in use


def wide_and_narrow(n_layers=2, bias=False, tied=True, C=5, rank=2, **sizes):
    """A network, its narrow equal, Q, a random decomposition of that and the same components in the wide network."""
    wide = residual_mlp(n_layers, bias, tied, **sizes)
    narrow, Q = wide.narrow()
    model, lifted = (decompose(net, dict.fromkeys(net.layers, C), rank=rank) for net in (narrow, wide))
    set_factors(
        model,
        {
            path: (0.7 * draw(*layer.U.shape, seed=30 + i), 0.7 * draw(*layer.V.shape, seed=40 + i))
            for i, (path, layer) in enumerate(model.layers.items())
        },
    )
    set_factors(lifted, {path: lift(path, layer.U, layer.V, Q) for path, layer in model.layers.items()})
    return wide, narrow, Q, model, lifted


def lift(path, U, V, Q):
    return (U, V @ Q.T) if path.endswith("W_in") else (Q @ U, V)


@torch.no_grad()
def set_factors(model, factors):
    for path, (U, V) in factors.items():
        model.layers[path].U.copy_(U)
        model.layers[path].V.copy_(V)


def own_attributions(model, x):
    return attributions(model.target, x, {path: (layer.U, layer.V) for path, layer in model.layers.items()})


def measures(model, x):
    """Outputs, hidden activations, attributions and losses of a decomposition, with some components on."""
    on = (draw(len(x), 5, seed=8) > 0).double()
    forward, target = model(x, on), model.target_forward(x)
    norms, n_counted = apd.schatten_norms(model, 0.9)
    return {
        "output": forward.output,
        "hidden": [forward.inputs[use] for use in model.hidden],
        "attributions": own_attributions(model, x),
        "faithfulness": model.faithfulness(),
        "minimality": losses.recon(forward.output, target.output),
        "simplicity": losses.simplicity(on, norms, n_counted),
        "hidden loss": losses.hidden_recon(forward.inputs, target.inputs, model.hidden),
    }


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("n_layers", "bias"), LAYERS_AND_BIASES)
def test_a_narrow_network_and_its_components_equal_the_wide_ones(n_layers, bias, tied):
    n_outputs = 4 if tied else 2
    wide, narrow, Q, model, lifted = wide_and_narrow(n_layers, bias, tied, n_outputs=n_outputs, d_resid=60)
    width = 4 + (0 if tied else 2) + 2 * 3 * n_layers
    assert narrow.W_E.shape == (width, 4)
    assert narrow.W_U.shape == (n_outputs, width)
    torch.testing.assert_close(Q.T @ Q, torch.eye(width, dtype=torch.float64), **SHARP)
    x = draw(7, 4, seed=3)
    torch.testing.assert_close(narrow(x), wide(x), **SHARP)
    assert not any(p.requires_grad for p in narrow.parameters())
    torch.testing.assert_close(measures(model, x), measures(lifted, x), **SHARP)


def test_the_narrow_network_counts_the_parameters_of_the_wide_one():
    _, narrow, _, model, lifted = wide_and_narrow(n_layers=2, d_resid=60)
    assert model.n_parameters == lifted.n_parameters == dict.fromkeys(narrow.layers, 3 * 60)
    assert narrow.mlps[0].W_in.weight.numel() == 3 * 16  # in the dimensions in use, 4 + 2 · 2 · 3
    assert apd.schatten_norms(model, 1.0)[1] == 4 * 3 * 60


def outside(Q):
    """Projection onto the dimensions that are not in use."""
    return torch.eye(len(Q), dtype=Q.dtype) - Q @ Q.T


@pytest.mark.parametrize("side", ["reads", "writes"])
def test_a_part_of_a_component_outside_only_raises_faithfulness_and_simplicity(side):
    _, _, Q, _, lifted = wide_and_narrow()
    x, factors = draw(7, 4, seed=3), {}
    before, sums = measures(lifted, x), dict(lifted.sums)
    for i, (path, layer) in enumerate(lifted.layers.items()):
        U, V = layer.U.detach().clone(), layer.V.detach().clone()
        if side == "reads" and path.endswith("W_in"):
            V += draw(*V.shape, seed=20 + i) @ outside(Q)
        if side == "writes" and path.endswith("W_out"):
            U += outside(Q) @ draw(*U.shape, seed=20 + i)
        factors[path] = U, V
    set_factors(lifted, factors)
    after = measures(lifted, x)
    for same in ("output", "hidden", "attributions", "minimality", "hidden loss"):
        torch.testing.assert_close(after[same], before[same], **SHARP)
    # What is outside is orthogonal to everything inside, so the squares simply add up.
    moved = sum((lifted.sums[path] - sums[path]).square().sum() for path in sums) / (4 * 3 * 40)
    assert moved > 0.01
    torch.testing.assert_close(after["faithfulness"], before["faithfulness"] + moved, **SHARP)
    assert after["simplicity"] > 1.01 * before["simplicity"]


def test_no_gradient_leads_out_of_the_dimensions_in_use():
    _, _, Q, _, lifted = wide_and_narrow(n_layers=3, bias=True)
    terms = measures(lifted, draw(7, 4, seed=3))
    for name in ("faithfulness", "minimality", "simplicity", "hidden loss"):
        factors = [layer.V if path.endswith("W_in") else layer.U for path, layer in lifted.layers.items()]
        if name == "hidden loss":
            factors.pop()  # what the last W_out writes enters no layer
        for grad in torch.autograd.grad(terms[name], factors, retain_graph=True):
            along = grad if grad.shape[-1] == len(Q) else grad.mT
            assert (along @ Q).abs().max() > 1e-6
            assert (along @ outside(Q)).abs().max() < 1e-12 * along.abs().max()


def test_a_narrow_network_is_given_back():
    narrow, _ = residual_mlp().narrow()
    again, Q = narrow.narrow()
    assert again is narrow
    assert torch.equal(Q, torch.eye(16, dtype=torch.float64))


@pytest.mark.parametrize("d_resid", [3, 6, 16])
def test_a_stream_with_nothing_to_save_keeps_its_width(d_resid):
    wide, narrow, _, model, lifted = wide_and_narrow(d_resid=d_resid)  # 16 dimensions are in use, if there are as many
    assert narrow.W_E.shape == (d_resid, 4)
    x = draw(7, 4, seed=3)
    torch.testing.assert_close(narrow(x), wide(x), **SHARP)
    torch.testing.assert_close(measures(model, x), measures(lifted, x), **SHARP)
    again, _ = narrow.narrow()
    torch.testing.assert_close(again(x), wide(x), **SHARP)


def test_narrow_in_single_precision_is_as_exact_as_that_allows():
    wide = residual_mlp(n_layers=3).float()
    narrow, Q = wide.narrow()
    assert {t.dtype for t in (Q, narrow.W_E, narrow.mlps[0].W_in.weight)} == {torch.float32}
    x = draw(50, 4).float()
    torch.testing.assert_close(narrow(x), wide(x), rtol=1e-4, atol=1e-4)


def test_a_preset_decomposes_the_narrow_network_in_the_shape_that_is_stored():
    config = ResidualMLPConfig(n_features=6, d_resid=50, d_mlp=4, n_layers=2, target_steps=2)
    target = make_target(config, show_progress=False)
    reduced = config.reduce(target)
    assert {name: t.shape for name, t in reduced.state_dict().items()} == {
        name: t.shape for name, t in config.build().state_dict().items()
    }
    assert config.sizes(reduced) == config.sizes(target)
    assert config.replace(**config.sizes(reduced)) == config


def test_lifting_in_the_benchmarks_is_the_one_tested_here():
    wide, narrow, Q, model, lifted = wide_and_narrow()
    theirs = pair.lifted(pair.in_textbook(pair.undecomposed(wide), model), Q)
    torch.testing.assert_close(theirs.parameters, pair.in_textbook(pair.undecomposed(wide), lifted).parameters, **SHARP)
    back = pair.projected(theirs, Q)
    torch.testing.assert_close(back.parameters, pair.in_textbook(pair.undecomposed(narrow), model).parameters, **SHARP)


def test_sizes_are_told_apart_from_those_of_other_networks():
    plain, biased = residual_mlp(), residual_mlp(bias=True)
    assert ResidualMLPConfig.sizes(plain) == {"n_features": 4, "d_resid": 40, "d_mlp": 3, "n_layers": 2}
    assert ResidualMLPConfig.sizes(biased) is None
    assert ResidualMLPConfig.sizes(make_target(GatedConfig(), show_progress=False)) is None
    assert ResidualMLPConfig.sizes(TMSConfig().build()) is None
    assert TMSConfig.sizes(plain) is None


# Training

CONFIG = ResidualMLPConfig(
    n_features=6, d_resid=20, d_mlp=4, n_layers=2, feature_probability=0.15, target_steps=1, target_batch_size=64
)


def in_full(W_E, weights, x):
    """The network's output from the equation, in the full stream; `weights`: W_in, W_out, W_in, W_out, ..."""
    s = x @ W_E.T
    for W_in, W_out in zip(weights[::2], weights[1::2], strict=True):
        s = s + F.relu(s @ W_in.T) @ W_out.T
    return s @ W_E


def test_the_loss_is_the_mean_over_all_rows_those_of_zeros_too():
    model, x = CONFIG.new(seed=0), CONFIG.features()(64, torch.Generator().manual_seed(0))
    assert (x == 0).all(dim=1).any()
    truth = (in_full(model.W_E, list(model.parameters()), x) - labels(x)).square().mean()
    torch.testing.assert_close(CONFIG.loss(model, x), truth)


def test_first_training_step_is_adamw_on_the_mean_squared_error():
    config = CONFIG.replace(target_lr=0.1, target_weight_decay=0.5)
    before, x = config.new(seed=3), config.features()(64, generator(3, "target_data"))
    (in_full(before.W_E, list(before.parameters()), x) - x - x.clamp(min=0)).square().mean().backward()
    trained = make_target(config, seed=3, show_progress=False)
    # At step one Adam's moments are g and g²: decay by lr · wd, then a step of lr · g / (|g| + 1e-8).
    for old, new in zip(before.parameters(), trained.parameters(), strict=True):
        wanted = old * (1 - 0.1 * 0.5) - 0.1 * old.grad / (old.grad.abs() + 1e-8)
        torch.testing.assert_close(new, wanted.detach(), rtol=1e-3, atol=1e-5)


def test_the_learning_rate_falls_along_a_half_cosine():
    config, steps = CONFIG.replace(target_steps=8, target_lr=0.03), 8
    model, data = config.new(seed=1), generator(1, "target_data")
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, weight_decay=0.01)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 + math.cos(math.pi * step / steps)) / 2
        x = config.features()(64, data)
        optimizer.zero_grad()
        F.mse_loss(in_full(model.W_E, weights, x), labels(x)).backward()
        optimizer.step()
    for mine, truth in zip(make_target(config, 1, show_progress=False).parameters(), weights, strict=True):
        torch.testing.assert_close(mine, truth.detach(), rtol=1e-3, atol=1e-4)


def test_the_untrained_network():
    model = ResidualMLPConfig(n_features=20, d_resid=400, d_mlp=25).new(seed=0)
    torch.testing.assert_close(model.W_E.norm(dim=0), torch.ones(20))
    assert torch.equal(model.W_U, model.W_E.T)
    overlaps = (model.W_U @ model.W_E - torch.eye(20)).square().mean()
    assert overlaps == pytest.approx(1 / 400, rel=0.2)  # random directions
    for layer in (model.mlps[0].W_in, model.mlps[0].W_out):  # uniform on ± 1/√d_in, of standard deviation bound/√3
        bound = layer.in_features**-0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)


def test_training_leaves_the_embedding_alone_and_freezes_the_rest():
    config = CONFIG.replace(target_steps=5)
    before, model = config.new(seed=2), make_target(config, 2, show_progress=False)
    assert torch.equal(model.W_E, before.W_E)
    assert torch.equal(model.W_U, before.W_E.T)
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before.parameters(), strict=True))


def test_the_seed_decides_the_target():
    config = CONFIG.replace(target_steps=3)
    first, again, other = (make_target(config, seed, show_progress=False).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_batch_of_nothing_but_zeros_does_no_harm():
    model = make_target(CONFIG.replace(feature_probability=0.0, target_steps=2), show_progress=False)
    assert all(p.isfinite().all() for p in model.parameters())


def test_training_beats_the_network_without_neurons():
    config = CONFIG.replace(target_steps=500, target_batch_size=512, target_lr=0.01)
    model, x = make_target(config, show_progress=False), config.features()(4096, torch.Generator().manual_seed(1))
    without = x @ (model.W_U @ model.W_E).T
    assert F.mse_loss(model(x), labels(x)) < 0.5 * F.mse_loss(without, labels(x))


# What is learned, and the network to compare with


def test_labels_by_hand():
    assert labels(torch.tensor([[1.0, -1.0, 0.0]])).tolist() == [[2.0, -1.0, 0.0]]


def test_monosemantic_baseline_by_hand():
    x = torch.tensor([[1.0, -1.0, 0.5], [-1.0, 2.0, -3.0]])
    assert monosemantic_baseline(x, 2).tolist() == [[2.0, -1.0, 0.5], [-1.0, 4.0, -3.0]]
    skip = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 0.0, 1.0]])
    assert monosemantic_baseline(x, 2, skip).tolist() == [[2.0, -1.0, 2.5], [-1.0, 4.0, -5.0]]


@pytest.mark.parametrize("n_neurons", [3, 5])
def test_with_a_neuron_for_every_feature_the_baseline_is_exact(n_neurons):
    x = draw(4, 3)
    torch.testing.assert_close(monosemantic_baseline(x, n_neurons), labels(x))


def test_the_baselines_error_on_half_of_the_features():
    """Of a feature left alone ReLU(x)² is missing: on average p · 1/2 · 1/3, over half of the features p / 12."""
    p = 0.2
    x = ResidualMLPConfig(n_features=40, feature_probability=p).features()(20_000, torch.Generator().manual_seed(0))
    assert F.mse_loss(monosemantic_baseline(x, 20), labels(x)).item() == pytest.approx(p / 12, rel=0.03)
