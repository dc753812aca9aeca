"""Attributions of networks of every kind are eq. 8, written out with one backward pass for every output."""

import copy
import threading

import pytest
import torch
from kinds import NETWORKS, Attention, Transformer, make, matrix_of, sequential, tokens
from networks import SHARP, draw, randomize
from torch import Generator, nn

from pd_helpers.core import attributions as module
from pd_helpers.core.apd import APD, APDConfig
from pd_helpers.core.attributions import attributions, tangents
from pd_helpers.core.components import decompose
from pd_helpers.core.networks.batches import call, n_inputs

pytestmark = pytest.mark.usefixtures("one_thread")


def directions_for(network, layers, C=3):
    """C random matrices for each of these layers."""
    shapes = {path: matrix_of(network.get_submodule(path)).shape for path in layers}
    return {path: draw(C, *shape, seed=40 + i) for i, (path, shape) in enumerate(shapes.items())}


def by_backward_passes(network, x, directions, output=lambda answer: answer):
    """sqrt( mean_o ( Σ_l ∂f_o/∂W_l · P_l )² ), one backward pass for every number o that an input gives."""
    network = copy.deepcopy(network)
    weights = {path: network.get_submodule(path).weight.requires_grad_() for path in directions}
    outputs = output(call(network, x))
    outputs = outputs.reshape(n_inputs(x), -1)
    C = len(next(iter(directions.values())))
    A = torch.zeros(*outputs.shape, C, dtype=torch.float64)
    for i, row in enumerate(outputs):
        for o, number in enumerate(row):
            gradients = torch.autograd.grad(number, list(weights.values()), retain_graph=True, allow_unused=True)
            for path, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    of_matrix = gradient.flatten(1) if gradient.ndim > 2 else gradient
                    if not isinstance(network.get_submodule(path), nn.Linear) and gradient.ndim == 2:
                        of_matrix = gradient.T
                    A[i, o] += torch.einsum("oi,coi->c", of_matrix, directions[path])
    return A.square().mean(dim=1).sqrt()


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "linear, 4-D"])
def test_they_equal_backward_passes(name):
    network, layers, x = make(name)
    x, directions = x[:3], directions_for(network, layers)
    truth = by_backward_passes(network, x, directions)
    assert (truth > 0).all()
    torch.testing.assert_close(attributions(network, x, directions), truth, **SHARP)


@pytest.mark.parametrize("name", ["transformer, tied", "residual convolutions"])
def test_directions_as_factors_and_other_weights(name):
    network, layers, x = make(name)
    model, x = decompose(network, dict.fromkeys(layers, 3), rank=2), x[:3]
    factors = {path: (layer.U.detach(), layer.V.detach()) for path, layer in model.layers.items()}
    directions = {path: U @ V for path, (U, V) in factors.items()}
    truth = by_backward_passes(network, x, directions)
    torch.testing.assert_close(attributions(model.target, x, factors), truth, **SHARP)
    changed, other = copy.deepcopy(network), {}
    for path in layers:
        matrix_of(changed.get_submodule(path)).mul_(0.5)
        other[path] = matrix_of(changed.get_submodule(path)).clone()
    at_other = by_backward_passes(changed, x, directions)
    assert not torch.allclose(at_other, truth)
    torch.testing.assert_close(attributions(model.target, x, factors, other), at_other, **SHARP)


class Dictionary(nn.Module):
    """Takes tokens and a mask by name, and returns a dictionary."""

    def __init__(self):
        super().__init__()
        self.inner = Transformer()

    def forward(self, tokens, keep):
        return {"logits": self.inner(tokens) * keep.unsqueeze(-1), "keep": keep}


@pytest.mark.parametrize("pick", [lambda out: out["logits"], lambda out: out["logits"][:, -1]])
def test_what_output_picks_is_differentiated(pick):
    network = randomize(Dictionary())
    x = {"tokens": tokens(3, 5), "keep": torch.ones(3, 5, dtype=torch.bool)}
    x["keep"][0, 2:4] = False
    directions = directions_for(network, ["inner.tokens", "inner.attention.q", "inner.down"])
    truth = by_backward_passes(network, x, directions, pick)
    torch.testing.assert_close(attributions(network, x, directions, output=pick), truth, **SHARP)


class Flat(nn.Module):
    """Positions of all inputs as rows: what language models give to a loss."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).flatten(0, 1)


def test_positions_that_are_rows_belong_to_their_inputs():
    network, layers, x = make("transformer")
    x, directions = x[:3], directions_for(network, layers)
    truth = by_backward_passes(network, x, directions)
    flat = {f"network.{path}": P for path, P in directions.items()}
    torch.testing.assert_close(attributions(Flat(network), x, flat), truth, **SHARP)
    with pytest.raises(ValueError, match=r"for 3 inputs the network gives an output of shape \(5, 7\)"):
        attributions(network, x, directions, output=lambda out: out.mean(dim=0))


class Counts(nn.Module):
    """Remembers in its buffers how often it was called, and on what: nothing that `vmap` could do."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("n", torch.zeros((), dtype=torch.long))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.n += 1
        h = self.layer(x)
        self.mean += h.detach().mean(dim=0)
        return self.last(h.tanh())


class Decides(nn.Module):
    """Goes one way or the other, as its activations say."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = self.layer(x)
        return self.last(h.tanh() if h.sum() > 0 else h.sin())


@pytest.mark.parametrize("kind", [Counts, Decides])
def test_networks_that_vmap_cannot_run_are_differentiated_one_direction_at_a_time(kind):
    network = randomize(kind())
    directions, x = directions_for(network, ["layer", "last"]), draw(3, 3)
    truth = by_backward_passes(network, x, directions)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    torch.testing.assert_close(attributions(network, x, directions), truth, **SHARP)
    factors = {path: (P, torch.eye(P.shape[2]).double().expand(3, -1, -1)) for path, P in directions.items()}
    torch.testing.assert_close(attributions(network, x, factors), truth, **SHARP)
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_few_directions_at_a_time(at_once, monkeypatch):
    network, layers, x = make("transformer, tied")
    directions = directions_for(network, layers)
    truth = tangents(network, x, directions)
    size = sum(P[0].numel() for P in directions.values())
    monkeypatch.setattr(module, "LARGEST", at_once * size)
    seen = []
    vmap = torch.func.vmap
    monkeypatch.setattr(
        torch.func, "vmap", lambda f, chunk_size: seen.append(chunk_size) or vmap(f, chunk_size=chunk_size)
    )
    torch.testing.assert_close(tangents(network, x, directions), truth, **SHARP)
    assert seen == [at_once]


class Encoder(nn.Module):
    """PyTorch's own encoder, which takes short cuts in evaluation mode that cannot be differentiated forwards."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.first, self.encoder = nn.Linear(4, 4), nn.TransformerEncoder(layer, 2)

    def forward(self, x, padding):
        return self.encoder(self.first(x), src_key_padding_mask=padding)


def test_an_encoder_with_padding():
    model = decompose(randomize(Encoder()), {"first": 3, "encoder.layers.0.linear1": 3, "encoder.layers.1.linear2": 3})
    x = {"x": draw(3, 5, 4), "padding": torch.zeros(3, 5, dtype=torch.bool)}
    x["padding"][:, 4] = True
    directions = {path: layer.P.detach() for path, layer in model.layers.items()}
    truth = by_backward_passes(model.target, x, directions)
    torch.testing.assert_close(attributions(model.target, x, directions), truth, **SHARP)
    assert torch.backends.mha.get_fastpath_enabled()


class Squared(torch.autograd.Function):
    """Has a backward pass and nothing else."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class OwnFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        return Squared.apply(self.layer(x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.recurrent = nn.Linear(3, 4), nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.recurrent(self.layer(x))[0]


@pytest.mark.parametrize(("kind", "shape"), [(OwnFunction, (8, 3)), (Recurrent, (8, 5, 3))])
def test_what_has_no_forward_derivative_is_said(kind, shape):
    model = decompose(kind(), {"layer": 3}, rank=1)
    method = APD(model, APDConfig(C=3, batch_size=8, steps=1, top_k=1.0), init=Generator(), draw=Generator())
    with pytest.raises(ValueError, match=r"which torch does not have for something in this network \(.*SPD.*works"):
        next(method.train(lambda n, generator: torch.rand(shape, generator=generator)))


def test_a_network_that_is_one_layer():
    network = randomize(nn.Linear(3, 2))
    directions, x = {"": draw(3, 2, 3)}, draw(4, 3)
    truth = torch.einsum("coi,ni->nco", directions[""], x).square().mean(dim=2).sqrt()
    torch.testing.assert_close(attributions(network, x, directions), truth, **SHARP)


def test_threads_leave_torchs_kernels_as_they_were():
    def flags():
        cuda = torch.backends.cuda
        return cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()

    before, x = flags(), draw(3, 5, 4)
    networks = [randomize(nn.Sequential(Attention(4)), seed=i) for i in range(3)]
    directions = directions_for(networks[0], ["0.q", "0.o"])
    truths, found = [attributions(network, x, directions) for network in networks], {}

    def work(i):
        for _ in range(3):
            found[i] = attributions(networks[i], x, directions)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flags() == before
    for i, truth in enumerate(truths):
        assert torch.equal(found[i], truth)


def test_a_network_that_runs_out_of_its_own_shapes_says_so_itself():
    network = randomize(sequential(3, 4, 2))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied|size"):
        attributions(network, draw(4, 5), directions_for(network, ["0"]))


def test_attention_by_hand():
    """The kernels that attributions use are attention, and no other function."""
    network, x = randomize(Attention(4)), draw(2, 5, 4)
    q, k, v = (layer(x).unflatten(-1, (2, 2)).transpose(1, 2) for layer in (network.q, network.k, network.v))
    scores = (q @ k.mT / 2**0.5).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
    truth = network.o((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
    with module.differentiable_kernels():
        torch.testing.assert_close(network(x), truth, **SHARP)
