"""The toy model of superposition: its equation, its tied and its fixed weights, its training."""

import pytest
import torch
import torch.nn.functional as F
from networks import draw
from torch import nn

from pd_helpers.core.components import TransposedLinear
from pd_helpers.core.training import generator
from pd_helpers.targets.base import make_target
from pd_helpers.targets.features import SparseFeatures
from pd_helpers.targets.tms import TMS, TMSConfig


def test_tms_by_hand():
    model = TMS(n_features=3, n_hidden=2)
    with torch.no_grad():
        model.embed.weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]]))
        model.unembed.bias.copy_(torch.tensor([0.5, -1.0, 0.0]))
    # x = (1, 1, 0): W x = (1, 2); Wᵀ W x = (1, 4, -1 + 2 = 1); + b = (1.5, 3, 1)
    # x = (0, 0, 1): W x = (-1, 1); Wᵀ W x = (-1, 2, 2); + b = (-0.5, 1, 2), and ReLU cuts the first
    x = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert model(x).tolist() == [[1.5, 3.0, 1.0], [0.0, 1.0, 2.0]]


def test_identity_layer_is_a_fixed_identity_in_the_middle():
    model = TMS(n_features=3, n_hidden=2, identity=True)
    assert torch.equal(model.identity.weight, torch.eye(2))
    assert not model.identity.weight.requires_grad
    with torch.no_grad():
        model.identity.weight.copy_(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    W, M, x = model.embed.weight, model.identity.weight, draw(4, 3).float()
    torch.testing.assert_close(model(x), torch.stack([F.relu(W.T @ M @ W @ row) for row in x]))


def test_layers_names_what_gets_decomposed():
    assert TMS(n_features=3, n_hidden=2).layers == ["embed"]
    assert TMS(n_features=3, n_hidden=2, identity=True).layers == ["embed", "identity"]


def test_transposed_linear_shares_the_weight_and_has_its_own_bias():
    source = nn.Linear(3, 2)
    layer = TransposedLinear(source)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    assert layer.weight is source.weight
    y = torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(layer(y)[0], source.weight[0] - source.weight[1] + layer.bias)


def test_first_training_step_is_adamw_on_the_mean_squared_error():
    config = TMSConfig(target_steps=1, target_batch_size=64, target_lr=0.1, target_weight_decay=0.5)
    model = TMS(n_features=5, n_hidden=2)
    nn.init.xavier_normal_(model.embed.weight, generator=generator(3, "target_init"))
    x = SparseFeatures(5, 0.05)(64, generator(3, "target_data"))
    ((model(x) - x) ** 2).mean().backward()
    trained = make_target(config, seed=3, show_progress=False)
    # At step one Adam's moments are g and g²: decay by lr · wd, then a step of lr · g / (|g| + 1e-8).
    for before, after in zip(model.parameters(), trained.parameters(), strict=True):
        g = before.grad
        wanted = before * (1 - 0.1 * 0.5) - 0.1 * g / (g.abs() + 1e-8)
        torch.testing.assert_close(after, wanted.detach(), rtol=1e-4, atol=1e-6)


def test_training_beats_the_output_zero():
    config = TMSConfig(target_steps=400, target_batch_size=256, target_lr=0.02)
    model = make_target(config, seed=0, show_progress=False)
    x = config.features()(4096, torch.Generator().manual_seed(1))
    assert F.mse_loss(model(x), x) < 0.7 * x.square().mean()


def test_a_trained_target_is_frozen_and_its_identity_untouched():
    config = TMSConfig(target_steps=5, identity=True)
    model = make_target(config, seed=0, show_progress=False)
    assert not any(p.requires_grad for p in model.parameters())
    assert torch.equal(model.identity.weight, torch.eye(2))


def test_the_seed_decides_the_target():
    config = TMSConfig(target_steps=5)
    first, again, other = (make_target(config, seed, show_progress=False).embed.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(("field", "value"), [("feature_probability", 1.5), ("n_hidden", 0), ("target_lr", 0.0)])
def test_bad_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be .* but is {value}; .* works"):
        TMSConfig(**{field: value})


@pytest.mark.parametrize("identity", [False, True])
def test_a_network_tells_the_sizes_of_its_configuration(identity):
    config = TMSConfig(n_features=7, n_hidden=3, identity=identity)
    assert TMSConfig.sizes(config.build()) == {"n_features": 7, "n_hidden": 3, "identity": identity}
    assert TMSConfig.sizes(nn.Linear(2, 2)) is None
    assert config.reduce(network := config.build()) is network


def test_training_goes_step_by_step_and_freezes_at_the_end():
    config = TMSConfig(target_steps=3)
    model = config.new(seed=0)
    frozen = [not model.embed.weight.requires_grad for _ in config.train(model, seed=0)]
    assert frozen == [False] * 3
    assert not model.embed.weight.requires_grad
    assert torch.equal(model.embed.weight, make_target(config, 0, show_progress=False).embed.weight)


def test_what_spd_should_find():
    assert TMS(n_features=5, n_hidden=2).ideal == {("embed",): None, ("unembed",): None}
    assert TMS(n_features=5, n_hidden=2, identity=True).ideal == {
        ("embed",): None,
        ("identity",): 2,
        ("unembed",): None,
    }
