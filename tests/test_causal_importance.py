"""Both leaky sigmoids, stochastic masks, and the importance functions component by component."""

import pytest
import torch
from networks import SHARP, Residual, begun, draw, randomize
from torch import Generator, nn

from pd_helpers.core.causal_importance import (
    ImportanceMLP,
    hard_sigmoid,
    lower_leaky,
    sample_masks,
    upper_leaky,
)
from pd_helpers.core.components import decompose
from pd_helpers.core.shortcuts import gate_kernel
from pd_helpers.core.spd import SPDConfig
from pd_helpers.targets.tms import TMS

X = [-2.0, -0.5, 0.25, 0.75, 1.5, 3.0]


@pytest.mark.parametrize(
    ("sigmoid", "values", "slopes"),
    [
        (hard_sigmoid, [0, 0, 0.25, 0.75, 1, 1], [0, 0, 1, 1, 0, 0]),
        (lower_leaky, [-0.02, -0.005, 0.25, 0.75, 1, 1], [0.01, 0.01, 1, 1, 0, 0]),
        (upper_leaky, [0, 0, 0.25, 0.75, 1.005, 1.02], [0, 0, 1, 1, 0.01, 0.01]),
    ],
)
def test_sigmoid_values_and_slopes(sigmoid, values, slopes):
    x = torch.tensor(X, requires_grad=True)
    y = sigmoid(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), torch.tensor(values, dtype=torch.float32))
    torch.testing.assert_close(x.grad, torch.tensor(slopes, dtype=torch.float32))


def test_masks_lie_between_importance_and_one_and_fill_that_range():
    g = torch.tensor([0.0, 0.3, 1.0]).repeat(20_000, 1)
    m = sample_masks(g, Generator().manual_seed(0))
    assert (m >= g - 1e-6).all()
    assert (m <= 1 + 1e-6).all()
    assert (m[:, 2] == 1).all()
    # U(g, 1): mean (1 + g) / 2, standard deviation (1 - g) / √12; 5 standard errors.
    for c, low in ((0, 0.0), (1, 0.3)):
        assert abs(m[:, c].mean() - (1 + low) / 2) < 5 * (1 - low) / 12**0.5 / 20_000**0.5
        assert (m[:, c] < low + 0.25 * (1 - low)).float().mean() == pytest.approx(0.25, abs=0.02)


def test_mask_gradient_is_one_minus_r():
    g = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    m = sample_masks(g, Generator().manual_seed(7))
    r = torch.rand(4, 3, dtype=torch.float64, generator=Generator().manual_seed(7))
    (slope,) = torch.autograd.grad(m.sum(), g)
    torch.testing.assert_close(m, g + (1 - g) * r, **SHARP)
    torch.testing.assert_close(slope, 1 - r, **SHARP)


def test_masks_are_drawn_for_each_sample_and_component():
    m = sample_masks(torch.zeros(50, 40), Generator().manual_seed(0))
    assert len(m.unique()) > 1990  # 2000 draws of 24 bits: hardly any coincide


def as_sequential(mlp, c):
    """Γ_c as the paper draws it."""
    first, second = nn.Linear(1, mlp.w_in.shape[1]), nn.Linear(mlp.w_in.shape[1], 1)
    with torch.no_grad():
        first.weight.copy_(mlp.w_in[c].unsqueeze(1))
        first.bias.copy_(mlp.b_in[c])
        second.weight.copy_(mlp.w_out[c].unsqueeze(0))
        second.bias.copy_(mlp.b_out[c])
    return nn.Sequential(first, nn.GELU(), second).double()


@pytest.mark.parametrize(("C", "d_gate"), [(1, 1), (3, 4), (7, 16)])
def test_importance_mlp_is_one_small_network_per_component(C, d_gate):
    mlp = randomize(ImportanceMLP(C=C, d_gate=d_gate, generator=Generator()), seed=1)
    h = draw(6, C).requires_grad_()
    separate = [as_sequential(mlp, c) for c in range(C)]
    truth = torch.cat([separate[c](h[:, c : c + 1]) for c in range(C)], dim=1)
    torch.testing.assert_close(mlp(h), truth, rtol=1e-6, atol=1e-6)  # as_sequential copies through float32

    weights = draw(6, C, seed=5)
    (into_h,) = torch.autograd.grad((mlp(h) * weights).sum(), h)
    (truth_h,) = torch.autograd.grad((truth * weights).sum(), h, retain_graph=True)
    torch.testing.assert_close(into_h, truth_h, rtol=1e-5, atol=1e-5)
    (mlp(h) * weights).sum().backward()
    (truth * weights).sum().backward()
    for c in range(C):
        torch.testing.assert_close(mlp.w_in.grad[c], separate[c][0].weight.grad[:, 0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mlp.b_in.grad[c], separate[c][0].bias.grad, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mlp.w_out.grad[c], separate[c][2].weight.grad[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mlp.b_out.grad[c], separate[c][2].bias.grad[0], rtol=1e-5, atol=1e-5)


def test_every_use_of_a_tied_matrix_reads_its_own_input_with_its_own_importance():
    model = randomize(
        decompose(TMS(n_features=3, n_hidden=2, identity=True), {"embed": 4, "identity": 2}, rank=1), seed=1
    )
    target, importance = model.target, randomize(begun(model, SPDConfig(d_gate=3)).importance, seed=2)
    x = draw(5, 3)
    inputs = model.target_forward(x).inputs
    [table] = importance(model.inner(inputs))
    gates = table.split()
    assert {use: tuple(g.shape) for use, g in gates.items()} == {"embed": (5, 4), "identity": (5, 2), "unembed": (5, 4)}

    W, M = target.embed.weight, target.identity.weight
    embed, identity = model.layers["embed"], model.layers["identity"]
    h = {
        "embed": x @ embed.V[:, 0].T,  # V_c x
        "identity": x @ W.T @ identity.V[:, 0].T,
        "unembed": x @ W.T @ M.T @ embed.U[:, :, 0].T,  # used transposed, the matrix reads with U
    }
    for use, truth in h.items():
        torch.testing.assert_close(gates[use], importance.mlps[use](truth), **SHARP)


def test_importance_of_a_network_with_dotted_paths():
    model = randomize(decompose(randomize(Residual()), dict.fromkeys(Residual.layers, 3), rank=1), seed=1)
    importance, x = randomize(begun(model, SPDConfig(d_gate=2)).importance, seed=2), draw(4, 3)
    [table] = importance(model.inner(model.target_forward(x).inputs))
    gates = table.split()
    a = torch.tanh(x @ model.targets["blocks.0.up"].T + model.target.blocks[0].up.bias)
    truth = importance.mlps["blocks.0.down"](a @ model.layers["blocks.0.down"].V[:, 0].T)
    assert list(gates) == list(Residual.layers)
    torch.testing.assert_close(gates["blocks.0.down"], truth, **SHARP)


def test_the_generator_decides_the_initial_importance():
    first, again, other = (ImportanceMLP(C=3, d_gate=4, generator=Generator().manual_seed(s)).w_in for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_initial_importance_has_kaimings_gains():
    mlp = ImportanceMLP(C=300, d_gate=16, generator=Generator().manual_seed(0))
    assert mlp.w_in.detach().std().item() == pytest.approx(2**0.5, rel=0.05)  # fan-in 1, into a rectifier
    assert mlp.w_out.detach().std().item() == pytest.approx(1 / 4, rel=0.05)  # fan-in 16, linear
    assert not mlp.b_in.any()
    assert not mlp.b_out.any()


@pytest.mark.parametrize("block", [1, 2 * 6 * 3, 10**6], ids=["one at a time", "two at a time", "all at once"])
def test_the_gates_equal_autograds_plain_version(block, monkeypatch):
    monkeypatch.setitem(gate_kernel.BLOCK, "cpu", block)
    h, weights = draw(6, 5, seed=1), [draw(5, 3, seed=2), draw(5, 3, seed=3), draw(5, 3, seed=4), draw(5, seed=5)]
    leaves = [tensor.requires_grad_() for tensor in (h, *weights)]
    w_in, b_in, w_out, b_out = weights
    plain = (torch.nn.functional.gelu(h.unsqueeze(-1) * w_in + b_in) * w_out).sum(dim=-1) + b_out
    mine = gate_kernel.gates(h, *weights)
    torch.testing.assert_close(mine, plain, **SHARP)
    into = draw(6, 5, seed=6)
    torch.testing.assert_close(
        torch.autograd.grad((mine * into).sum(), leaves), torch.autograd.grad((plain * into).sum(), leaves), **SHARP
    )
