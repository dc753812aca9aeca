"""Networks of every kind for the tests, components that are a network's own singular vectors, and patches by hand."""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from networks import draw, randomize
from torch import nn

from pd_helpers.core.components import ComponentModel, TransposedLinear, decompose


class Attention(nn.Module):
    """softmax(q kᵀ) v with projections q, k, v and o, two heads, by torch's own kernel."""

    def __init__(self, d):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(d, d, bias=i % 2 == 0) for i in range(4))

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (2, -1)).transpose(-2, -3) for layer in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(-2, -3).flatten(-2))


class Transformer(nn.Module):
    """Tokens and positions, attention, an MLP, and a head that may share the weight of the tokens."""

    layers = ("tokens", "positions", "attention.q", "attention.k", "attention.v", "attention.o", "up", "down")

    def __init__(self, tied=True, n_tokens=7, d=4, length=5):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(n_tokens, d), nn.Embedding(length, d)
        self.norm, self.attention = nn.LayerNorm(d), Attention(d)
        self.up, self.down = nn.Linear(d, 6), nn.Linear(6, d, bias=False)
        self.head = nn.Linear(d, n_tokens, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, tokens):
        h = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[-1]))
        h = h + self.attention(self.norm(h))
        h = h + self.down(F.gelu(self.up(h)))
        return self.head(h)


class Vision(nn.Module):
    """Patches by a convolution, a class token, attention, and the class token's logits."""

    layers = ("patches", "attention.q", "attention.v", "attention.o", "head")

    def __init__(self, d=4):
        super().__init__()
        self.patches, self.first = nn.Conv2d(2, d, 3, stride=3), nn.Parameter(torch.zeros(1, 1, d))
        self.attention, self.head = Attention(d), nn.Linear(d, 3)

    def forward(self, images):
        h = self.patches(images).flatten(2).transpose(1, 2)
        h = torch.cat([self.first.expand(len(h), -1, -1), h], dim=1)
        return self.head(h + self.attention(h))[:, 0]


class ResidualConvolutions(nn.Module):
    """x + conv(ReLU(norm(conv(x)))), with running statistics, and a head on the mean over places."""

    layers = ("first", "second", "head")

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Conv2d(3, 2, 3, padding="same")
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(2, 3)

    def forward(self, images):
        h = images + self.second(F.relu(self.norm(self.first(images))))
        return self.head(h.mean(dim=(-2, -1)))


class SharedInDepth(nn.Module):
    """Three layers of one weight, each a module of its own, and a transposed use of it."""

    layers = ("steps.0",)

    def __init__(self, d=3):
        super().__init__()
        self.steps = nn.ModuleList([nn.Linear(d, d) for _ in range(3)])
        for step in self.steps[1:]:
            step.weight = self.steps[0].weight
        self.back = TransposedLinear(self.steps[0])

    def forward(self, x):
        for step in self.steps:
            x = torch.tanh(step(x))
        return self.back(x)


def sequential(*sizes, between=nn.Tanh):
    """Linear layers of these sizes with functions between them."""
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(*[part for layer in layers for part in (layer, between())][:-1])


def tokens(*shape, n=7, seed=0):
    return torch.randint(n, shape, generator=torch.Generator().manual_seed(seed))


def with_statistics(network):
    """The network with running statistics that are not those of a new one."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.3 * draw(*module.running_mean.shape, seed=9))
            module.running_var.copy_(1 + draw(*module.running_var.shape, seed=8).square())
    return network


NETWORKS = {
    "linear, 2-D": (lambda: sequential(3, 4, 2), ("0", "2"), lambda: draw(6, 3)),
    "linear, 3-D": (lambda: sequential(3, 4, 2), ("0", "2"), lambda: draw(6, 5, 3)),
    "linear, 4-D": (lambda: sequential(3, 4, 2), ("0", "2"), lambda: draw(6, 2, 5, 3)),
    "shared in depth": (SharedInDepth, SharedInDepth.layers, lambda: draw(6, 5, 3)),
    "transformer": (lambda: Transformer(tied=False), (*Transformer.layers, "head"), lambda: tokens(6, 5)),
    "transformer, tied": (Transformer, Transformer.layers, lambda: tokens(6, 5)),
    "vision": (Vision, Vision.layers, lambda: draw(6, 2, 6, 9)),
    "residual convolutions": (ResidualConvolutions, ResidualConvolutions.layers, lambda: draw(6, 2, 5, 4)),
}
"""Name → network, layers, and a batch of six inputs."""


def make(name):
    """One of these networks in float64, all random, in evaluation mode; its layers; and a batch."""
    build, layers, batch = NETWORKS[name]
    return with_statistics(randomize(build()).eval()), layers, batch()


def matrix_of(module):
    """W (d_out, d_in) of a layer's weight, in its memory."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.weight.data.flatten(1)
    return module.weight.data.T


def by_singular_vectors(network, layers, output=None) -> ComponentModel:
    """The network with the singular vectors of each matrix as its components, which add up to it."""
    sizes = {path: min(matrix_of(network.get_submodule(path)).shape) for path in layers}
    model = decompose(network, sizes, rank=1, output=output)
    for path, layer in model.layers.items():
        U, S, V = torch.linalg.svd(matrix_of(network.get_submodule(path)).double(), full_matrices=False)
        layer.U.data.copy_((U * S).T.unsqueeze(2))
        layer.V.data.copy_(V.unsqueeze(1))
    return model


def with_weights(network, model, masks):
    """The network with weights Σ_c m_c P_c, for masks (C,) of the layers."""
    changed = copy.deepcopy(network)
    for path, layer in model.layers.items():
        matrix_of(changed.get_submodule(path)).copy_(torch.einsum("c,cor,cri->oi", masks[path], layer.U, layer.V))
    return changed


def patches(convolution, x):
    """What the kernel sees at each place, (n, *places, channels · kernel), cut out of the padded input."""
    n, pad = len(convolution.kernel_size), []
    for i in reversed(range(n)):
        reach = convolution.dilation[i] * (convolution.kernel_size[i] - 1)
        if isinstance(convolution.padding, str):
            reach = reach if convolution.padding == "same" else 0
            pad += [reach // 2, reach - reach // 2]
        else:
            pad += [convolution.padding[i]] * 2
    mode = "constant" if convolution.padding_mode == "zeros" else convolution.padding_mode
    x = F.pad(x, pad, mode=mode)
    for i in range(n):
        reach = convolution.dilation[i] * (convolution.kernel_size[i] - 1) + 1
        x = x.unfold(2 + i, reach, convolution.stride[i])[..., :: convolution.dilation[i]]
    return x.movedim(1, 1 + n).flatten(1 + n)
