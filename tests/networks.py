"""Small networks, random numbers and batches for the tests, and those networks as `benchmarks.textbook` writes them."""

import torch
from torch import Generator, nn

from benchmarks import pair, textbook
from pd_helpers.core.components import ComponentModel
from pd_helpers.core.method import method_of
from pd_helpers.targets.residual_mlp import ResidualMLP
from pd_helpers.targets.tms import TMS

SHARP = {"rtol": 1e-9, "atol": 1e-12}
"""Float64 sums in another order agree to this."""


class MLP(nn.Module):
    """fc2(ReLU(fc1(x))), with biases."""

    def __init__(self, d_in=3, d_hidden=4, d_out=2):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_in, d_hidden), nn.Linear(d_hidden, d_out)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, d, d_mlp):
        super().__init__()
        self.up, self.down = nn.Linear(d, d_mlp), nn.Linear(d_mlp, d, bias=False)

    def forward(self, x):
        return x + self.down(torch.tanh(self.up(x)))


class Residual(nn.Module):
    """Two residual blocks and a head that is not decomposed: a network with dotted paths."""

    layers = ("blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down")

    def __init__(self, d=3, d_mlp=4, d_out=2):
        super().__init__()
        self.blocks = nn.ModuleList([Block(d, d_mlp), Block(d, d_mlp)])
        self.head = nn.Linear(d, d_out)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def draw(*shape, seed=0):
    """Normal float64 numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomize(module, seed=0):
    """The module in float64, all of its parameters normal."""
    module.double()
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter.copy_(0.7 * draw(*parameter.shape, seed=1000 * seed + i))
    return module


def residual_mlp(n_layers=2, bias=False, tied=True, n_features=4, n_outputs=None, d_resid=40, d_mlp=3, seed=0):
    """A residual MLP in float64, all random; `tied` makes W_U the transpose of W_E."""
    model = ResidualMLP(
        n_features=n_features, n_outputs=n_outputs, d_resid=d_resid, d_mlp=d_mlp, n_layers=n_layers, bias=bias
    )
    randomize(model, seed)
    model.W_E.copy_(0.3 * draw(*model.W_E.shape, seed=seed + 500))
    model.W_U.copy_(model.W_E.T if tied else 0.3 * draw(*model.W_U.shape, seed=seed + 501))
    return model.requires_grad_(False)


def tms_batch(seed, n_features=4):
    """Ten rows, about half of them all zero, with one to four features on in the others."""
    x = draw(10, n_features, seed=seed).abs()
    return x * (draw(10, n_features, seed=seed + 1000) > 0) * (draw(10, 1, seed=seed + 2000) > 0)


def dense_batch(seed):
    return draw(10, 3, seed=seed)


def replay(batch):
    """A data distribution that ignores its generator: batch(0), batch(1), ..."""
    seeds = iter(range(1000))
    return lambda batch_size, generator: batch(next(seeds))


def begun(model, config, seed=0):
    """The method that the configuration belongs to at step 0, warmed up, with batches and masks drawn from `seed`."""
    method = method_of(config)(model, config, init=Generator(), draw=Generator().manual_seed(seed))
    method.warm_up()
    return method


def textbook_of(net):
    """The network as a textbook.Model, not decomposed; of a decomposition, with its own U and V."""
    if isinstance(net, ComponentModel):
        return pair.in_textbook(textbook_of(net.target), net)
    if isinstance(net, TMS | ResidualMLP):
        return pair.undecomposed(net)
    write, paths = {MLP: (mlp, ["fc1", "fc2"]), Residual: (residual, Residual.layers)}[type(net)]
    uses = {path: (path, False) for path in paths}
    return textbook.Model(write(net), uses, {path: net.get_submodule(path).weight.detach() for path in paths})


def mlp(net):
    def f(linear, x):
        hidden = torch.relu(linear("fc1", x) + net.fc1.bias)
        return linear("fc2", hidden) + net.fc2.bias

    return f


def residual(net):
    def f(linear, x):
        for i, block in enumerate(net.blocks):
            hidden = torch.tanh(linear(f"blocks.{i}.up", x) + block.up.bias)
            x = x + linear(f"blocks.{i}.down", hidden)
        return net.head(x)

    return f
