"""The hand-written gated network against numpy: its interpolated functions, its bits, and which weights serve which."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from pd_helpers.targets.base import make_target
from pd_helpers.targets.gated_functions import RANGES, GatedConfig, GatedInputs, knots

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE_2 = {  # APD
    "a": (-1, 1),
    "b": (0.1, 1),
    "c": (-np.pi, np.pi),
    "d": (-1, 1),
    "e": (0.1, 1),
    "f": (-np.pi, np.pi),
    "g": (-1, 1),
}


def network(seed=0, **sizes):
    return make_target(GatedConfig(**sizes), seed, show_progress=False)


def exact(net, x):
    """F_i(x) from the coefficients, by numpy (n_functions, points)."""
    a, b, c, d, e, f, g = net.coefficients.double().numpy()[:, :, None].transpose(1, 0, 2)
    return a * np.cos(b * x + c) + d * np.sin(e * x + f) + g


def interpolated(net, x, n_neurons):
    """F_i at n_neurons equally spaced points of [0, 5], and straight lines between them."""
    points = np.linspace(0, 5, n_neurons)
    return np.stack([np.interp(x, points, values) for values in exact(net, points)])


def outputs(net, x, bits):
    """The network's output at all points, with these bits on."""
    rows = np.concatenate([x[:, None], np.tile(bits, (len(x), 1))], axis=1)
    return net(torch.tensor(rows, dtype=torch.float32)).squeeze(1).numpy()


X = np.linspace(0, 5, 403)  # falls between the knots and, at both ends, on them


@settings(deadline=None, max_examples=40)
@given(
    n_functions=st.integers(1, 5), n_neurons=st.integers(2, 15), n_layers=st.integers(1, 4), seed=st.integers(0, 999)
)
def test_every_function_is_interpolated_linearly_between_its_knots(n_functions, n_neurons, n_layers, seed):
    if n_functions * n_neurons % n_layers:
        n_layers = 1
    net = network(seed, n_functions=n_functions, n_neurons=n_neurons, n_layers=n_layers)
    truth = interpolated(net, X, n_neurons)
    for i, bits in enumerate(np.eye(n_functions)):
        np.testing.assert_allclose(outputs(net, X, bits), truth[i], atol=2e-4)


def test_the_functions_are_those_of_the_coefficients():
    net = network(seed=3)
    np.testing.assert_allclose(net.functions(torch.tensor(X).float()).numpy(), exact(net, X), atol=1e-5)
    assert knots(10).tolist() == pytest.approx(np.linspace(0, 5, 10).tolist())


def test_bits_that_are_off_leave_nothing_and_several_that_are_on_add_up():
    net = network(seed=1)
    truth = interpolated(net, X, 10)
    assert np.abs(outputs(net, X, np.zeros(4))).max() < 1e-6
    for bits in ([1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 1, 1]):
        np.testing.assert_allclose(outputs(net, X, bits), np.array(bits) @ truth, atol=1e-4)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_every_function_has_neurons_of_its_own_and_owners_marks_their_weights(n_layers):
    net = network(seed=2, n_layers=n_layers, n_functions=4, n_neurons=6)
    owners, seen = net.owners(), []
    assert list(owners) == net.layers
    for i, mlp in enumerate(net.mlps):
        W_in, W_out = mlp.W_in.weight, mlp.W_out.weight
        of_neuron = W_in[:, 1:5].argmax(dim=1)  # the bit that it reads
        seen += of_neuron.tolist()
        assert (W_in[:, 1:5] > 0).sum(dim=1).tolist() == [1] * (24 // n_layers)
        assert ((W_in != 0).sum(dim=1) == 2).all()  # x and one bit
        assert not W_out[:-1].any()  # the output is the last dimension of the stream
        assert torch.equal(owners[f"mlps.{i}.W_in"], torch.where(W_in != 0, of_neuron.unsqueeze(1), -1))
        assert torch.equal(owners[f"mlps.{i}.W_out"], torch.where(W_out != 0, of_neuron, -1))
    assert sorted(seen) == sorted([0, 1, 2, 3] * 6)


def test_neurons_are_spread_over_the_layers_at_random():
    layouts = {tuple(network(seed).owner.flatten().tolist()) for seed in range(5)}
    assert len(layouts) == 5
    assert all(len(set(layer)) > 1 for layer in network(0).owner.tolist())


def test_a_bit_makes_up_for_what_holds_its_neurons_below_zero():
    gates, net = [], network(seed=4)
    for mlp in net.mlps:
        assert (mlp.W_in.weight[:, 0] == 1).all()
        assert (mlp.W_in.bias == -5).all()
        gates.append(mlp.W_in.weight[:, 1:5].sum(dim=1))
    starts = 5 - torch.cat(gates)  # where each ramp begins, once its bit is on
    wanted = np.repeat(np.linspace(0, 5, 10) - 5 / 9, 4)
    np.testing.assert_allclose(starts.sort().values, wanted, atol=1e-5)


@pytest.mark.parametrize("n_neurons", [2, 400])
def test_weights_are_finite_however_many_neurons(n_neurons):
    net = network(seed=0, n_neurons=n_neurons)
    assert all(p.isfinite().all() for p in net.parameters())


def test_coefficients_fill_the_papers_ranges():
    assert {name: tuple(ends) for name, ends in RANGES.items()} == TABLE_2
    coefficients = network(n_functions=2000, n_neurons=2, n_layers=1).coefficients
    low, high = np.array(list(TABLE_2.values())).T
    lowest, highest = coefficients.min(dim=0).values.numpy(), coefficients.max(dim=0).values.numpy()
    assert (lowest >= low - 1e-6).all()
    assert (highest <= high + 1e-6).all()
    assert (lowest < low + 0.01 * (high - low)).all()
    assert (highest > high - 0.01 * (high - low)).all()
    np.testing.assert_allclose(coefficients.mean(dim=0), (low + high) / 2, atol=0.02 * np.max(high - low))


def test_the_seed_decides_the_network():
    first, again, other = (network(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["coefficients"], other["coefficients"])


def test_the_network_is_written_and_frozen():
    net = network()
    assert not any(p.requires_grad for p in net.parameters())
    assert (net.n_features, net.n_neurons, net.d_mlp, len(net.mlps)) == (5, 40, 20, 2)
    assert net.ideal == {}


def test_a_network_tells_the_sizes_of_its_configuration():
    config = GatedConfig(n_functions=3, n_neurons=6, n_layers=3)
    assert GatedConfig.sizes(network(n_functions=3, n_neurons=6, n_layers=3)) == {
        "n_functions": 3,
        "n_neurons": 6,
        "n_layers": 3,
    }
    assert {name: t.shape for name, t in config.build().state_dict().items()} == {
        name: t.shape for name, t in network(n_functions=3, n_neurons=6, n_layers=3).state_dict().items()
    }
    assert config.reduce(net := network()) is net  # the stream is narrow as it is


def test_layers_that_cannot_share_the_neurons_are_refused():
    with pytest.raises(ValueError, match="n_layers must divide n_functions · n_neurons = 40, but is 3; 1 works"):
        GatedConfig(n_layers=3)
    with pytest.raises(ValueError, match="n_neurons must be a whole number of at least 2, but is 1"):
        GatedConfig(n_neurons=1)


def test_inputs_are_uniform_and_bits_are_on_as_often_as_said():
    x = GatedConfig(n_functions=3, feature_probability=0.2).features()(40_000, Generator().manual_seed(0))
    assert x.shape == (40_000, 4)
    assert 0 <= x[:, 0].min() < 0.01
    assert 4.99 < x[:, 0].max() <= 5
    quarters = torch.histc(x[:, 0], bins=4, min=0, max=5) / len(x)
    torch.testing.assert_close(quarters, torch.full((4,), 0.25), rtol=0.03, atol=0)
    assert set(x[:, 1:].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(x[:, 1:].mean(dim=0), torch.full((3,), 0.2), rtol=0.05, atol=0)
    together = (x[:, 1] * x[:, 2]).mean()  # bits do not know of each other
    assert together.item() == pytest.approx(0.04, rel=0.1)


def test_the_generator_decides_the_inputs():
    draw = GatedInputs(2, 0.5)
    first, again, other = (draw(8, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_interpolation_comes_closer_with_more_neurons():
    errors = []
    for n_neurons in (5, 10, 20):
        net = network(seed=6, n_neurons=n_neurons)
        errors.append(np.abs(outputs(net, X, np.array([1, 0, 0, 0])) - exact(net, X)[0]).max())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
