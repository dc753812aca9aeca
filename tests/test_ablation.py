"""Ablation, integrated gradients and eq. 10, against closed forms and numbers worked out by hand."""

import math

import pytest
import torch
from networks import SHARP, Residual, draw, randomize
from torch.func import functional_call

from pd_helpers.analysis.ablation import ablated, ablation_curve, integrated, masked, pathological, root_mean_square
from pd_helpers.core.attributions import attributions, tangents
from pd_helpers.targets.tms import TMS


def toy(n_features=5, n_hidden=2):
    return randomize(TMS(n_features=n_features, n_hidden=n_hidden)).requires_grad_(False)


def one_neuron():
    """W = (1 2), b = (0, -1)."""
    model = TMS(n_features=2, n_hidden=1).double().requires_grad_(False)
    model.embed.weight.copy_(torch.tensor([[1.0, 2.0]]))
    model.unembed.bias.copy_(torch.tensor([0.0, -1.0]))
    return model


def split(W, C=4):
    """C random matrices that add up to W."""
    P = draw(C, *W.shape, seed=7)
    return P + (W - P.sum(dim=0)) / C


def smooth():
    model = randomize(Residual()).requires_grad_(False)
    return model, {path: model.get_submodule(path).weight for path in Residual.layers}


def test_ablation_by_hand():
    # x = (1, 1): output ReLU(W 3 + b) = (3, 5). Without (1 0): W = (0 2), hidden 2, output (0, 3).
    # Without (0 2): W = (1 0), hidden 1, output (1, 0): the second is cut off at -1.
    P = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]).double()
    effects = ablated(one_neuron(), torch.ones(1, 2).double(), {"embed": P})
    assert effects[:, 0].tolist() == [[3.0, 2.0], [2.0, 5.0]]


def test_ablation_of_any_network_is_a_forward_pass_without_it():
    model, weights = smooth()
    directions = {path: draw(3, *W.shape, seed=i) for i, (path, W) in enumerate(weights.items())}
    x = draw(4, 3)
    found = ablated(model, x, directions)
    for c in range(3):
        without = {f"{path}.weight": W - directions[path][c] for path, W in weights.items()}
        torch.testing.assert_close(found[c], model(x) - functional_call(model, without, (x,)), **SHARP)


def test_the_size_of_first_order_effects_is_the_attribution():
    model, x = toy(), draw(6, 5)
    P = {"embed": split(model.embed.weight)}
    torch.testing.assert_close(root_mean_square(tangents(model, x, P)), attributions(model, x, P), **SHARP)


def test_first_order_effects_of_a_faithful_decomposition_add_up_to_the_derivative_along_the_weights():
    # z = WᵀW x + b; along W itself its derivative is 2 WᵀW x
    model, x = toy(), draw(6, 5)
    W = model.embed.weight
    total = tangents(model, x, {"embed": split(W)}).sum(dim=0)
    a = x @ W.T @ W
    torch.testing.assert_close(total, 2 * a * (a + model.unembed.bias > 0), **SHARP)


def test_integrated_gradients_are_complete_on_a_smooth_network():
    model, weights = smooth()
    parts = {path: split(W) for path, W in weights.items()}
    start = {path: torch.zeros_like(W) for path, W in weights.items()}
    x = draw(4, 3)
    effects = integrated(model, x, parts, start, n_points=40)
    nothing = functional_call(model, {f"{path}.weight": W for path, W in start.items()}, (x,))
    torch.testing.assert_close(effects.sum(dim=0), model(x) - nothing, rtol=1e-9, atol=1e-11)


def kinks(model, x):
    """Where an output crosses zero on the way from zero weights: t² (WᵀWx) + b = 0."""
    W = model.embed.weight
    squares = (-model.unembed.bias / (x @ W.T @ W)).flatten()
    return squares[squares > 0].sqrt().tolist()


def test_integrated_gradients_are_complete_across_kinks():
    model, x = toy(), 2 * draw(3, 5)
    W, b = model.embed.weight, model.unembed.bias
    parts, start, at = {"embed": split(W)}, {"embed": torch.zeros_like(W)}, kinks(model, x)
    assert sum(0 < t < 1 for t in at) >= 3
    gained = model(x) - torch.relu(b)
    effects = integrated(model, x, parts, start, kinks=at, n_points=1)  # the derivative is linear in t between them
    torch.testing.assert_close(effects.sum(dim=0), gained, **SHARP)
    blind = integrated(model, x, parts, start, n_points=8).sum(dim=0)
    assert (blind - gained).abs().max() > 1e-3


def test_along_a_components_own_path_the_integral_is_its_ablation():
    model, x = toy(), draw(3, 5)
    model.unembed.bias.fill_(100.0)  # no kinks
    P = split(model.embed.weight)
    full = ablated(model, x, {"embed": P})
    for c in range(len(P)):
        start = {"embed": model.embed.weight - P[c]}
        effects = integrated(model, x, {"embed": P[[c]]}, start, n_points=1)
        torch.testing.assert_close(effects[0], full[c], rtol=1e-9, atol=1e-9)


def test_masks_give_every_input_its_own_weights():
    model, x, m = toy(), draw(3, 5), draw(3, 4, seed=3)
    P = split(model.embed.weight)
    found = masked(model, x, {"embed": P}, m)
    for i in range(3):
        W = sum(m[i, c] * P[c] for c in range(4))
        torch.testing.assert_close(found[i], torch.relu(W.T @ W @ x[i] + model.unembed.bias), **SHARP)


def test_an_ablation_curve_begins_at_the_target_and_ends_at_the_active_components():
    model, x = toy(), draw(3, 5)
    P = {"embed": split(model.embed.weight)}
    active = (draw(3, 4, seed=3) > 0).double()
    curve = ablation_curve(model, x, P, active, torch.tensor([0.0, 0.5, 1.0]).double())
    torch.testing.assert_close(curve[0], model(x), **SHARP)
    torch.testing.assert_close(curve[1], masked(model, x, P, (1 + active) / 2), **SHARP)
    torch.testing.assert_close(curve[2], masked(model, x, P, active), **SHARP)


def test_each_component_may_fade_at_a_pace_of_its_own():
    model, x = toy(), draw(3, 5)
    P = {"embed": split(model.embed.weight)}
    pace = torch.tensor([[0.2, 1.0, 0.0, 0.5]], dtype=torch.float64)
    [found] = ablation_curve(model, x, P, torch.zeros(3, 4).double(), pace)
    torch.testing.assert_close(found, masked(model, x, P, (1 - pace).expand(3, 4)), **SHARP)


def rotation(degrees):
    turn = math.radians(degrees)
    matrix = [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]
    return torch.tensor(matrix, dtype=torch.float64)


def test_eq_10_is_faithful_whatever_the_experts():
    W, experts = draw(2, 5), draw(7, 2, 5, seed=1)
    P = pathological({"embed": experts}, {"embed": W})["embed"]
    torch.testing.assert_close(P.sum(dim=0), W, **SHARP)
    assert ((P - experts) - (P - experts)[0]).abs().max() < 1e-12  # all get the same


def test_two_turned_copies_do_the_whole_job_each_and_fail_half_way():
    # R(60°) + R(-60°) = I, and the hidden plane may be turned freely: nothing remains for eq. 10 to spread.
    model, x = toy(), draw(20, 5).abs()
    W = model.embed.weight
    copies = torch.stack([rotation(60) @ W, rotation(-60) @ W])
    P = pathological({"embed": copies}, {"embed": W})
    torch.testing.assert_close(P["embed"], copies, **SHARP)
    only_first = torch.tensor([[1.0, 0.0]]).double().expand(20, 2)
    at = torch.tensor([0.0, 0.5, 1.0]).double()
    start, middle, end = ablation_curve(model, x, P, only_first, at)
    torch.testing.assert_close(start, model(x), **SHARP)
    torch.testing.assert_close(end, model(x), **SHARP)
    # half way the columns have the squared length 1 - 1/2 + 1/4 = 3/4 of what they were
    truth = torch.relu(0.75 * x @ W.T @ W + model.unembed.bias)
    torch.testing.assert_close(middle, truth, **SHARP)
    assert (middle - model(x)).abs().max() > 0.1


@pytest.mark.parametrize("points", [1, 3])
def test_more_points_than_needed_change_nothing(points):
    model, x = toy(), draw(3, 5)
    model.unembed.bias.fill_(100.0)
    P, start = {"embed": split(model.embed.weight)}, {"embed": draw(2, 5, seed=4)}
    truth = integrated(model, x, P, start, n_points=6)
    torch.testing.assert_close(integrated(model, x, P, start, n_points=points), truth, rtol=1e-9, atol=1e-9)
