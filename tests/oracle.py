"""The papers' equations written out one sample, one component and one output at a time.

Slow, in float64, and sharing nothing with pd_helpers: what the core is held against. A network is a function
f(weights, x) of one matrix for each use and one input row; it gives the output row and the activation that enters
each use. `uses` says which decomposed layer's matrix a use takes: a tied matrix has several.
"""

import math

import jaxtyping
import pytest
import torch
from torch import nn
from torch.func import functional_call

SHARP = {"rtol": 1e-9, "atol": 1e-12}
"""Float64 sums in another order agree to this."""


@pytest.fixture
def as_a_user(monkeypatch):
    """Switches off the tests' own type checks, which would speak before the package's messages do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


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


def tms(bias):
    """x̂ = ReLU(Wᵀ W x + b), as a function of the matrix in each of its two uses."""

    def f(weights, x):
        hidden = weights["embed"] @ x
        return torch.relu(weights["unembed"].T @ hidden + bias), {"embed": x, "unembed": hidden}

    return f, {"embed": "embed", "unembed": "embed"}


def mlp(net):
    """`MLP` as a function of its two matrices."""

    def f(weights, x):
        hidden = torch.relu(weights["fc1"] @ x + net.fc1.bias)
        return weights["fc2"] @ hidden + net.fc2.bias, {"fc1": x, "fc2": hidden}

    return f, {"fc1": "fc1", "fc2": "fc2"}


def with_weights(net, weights, x):
    """A module's output on one row with the matrix of every use given: path → (d_out, d_in)."""
    parameters = {f"{path}.weight": W for path, W in weights.items()}
    return functional_call(net, parameters, (x.unsqueeze(0),), tie_weights=False).squeeze(0)


def component(U, V, c):
    """P_c = Σ_r of the outer products of U's column and V's row."""
    return sum(torch.outer(U[c, :, r], V[c, r]) for r in range(U.shape[2]))


def masked_sum(U, V, mask):
    """Σ_c m_c P_c for one sample."""
    return sum(mask[c] * component(U, V, c) for c in range(len(U)))


def attributions(f, weights, P, X):
    """Eq. 8 by one backward pass per output. f(weights, x): layer → matrix, one row; P: layer → C matrices."""
    C = len(next(iter(P.values())))
    A = torch.zeros(len(X), C, dtype=X.dtype)
    for i, x in enumerate(X):
        leaves = {path: W.detach().clone().requires_grad_() for path, W in weights.items()}
        output = f(leaves, x)
        for o in range(len(output)):
            grads = torch.autograd.grad(output[o], list(leaves.values()), retain_graph=True)
            for c in range(C):
                A[i, c] += sum((g * P[path][c]).sum() for path, g in zip(leaves, grads, strict=True)) ** 2
        A[i] = (A[i] / len(output)).sqrt()
    return A


def top_k(A, k):
    """The k largest pairs of the whole batch, as long as they are positive."""
    pairs = sorted(((A[i, c].item(), i, c) for i in range(A.shape[0]) for c in range(A.shape[1])), reverse=True)
    active = torch.zeros(A.shape, dtype=torch.bool)
    for value, i, c in pairs[:k]:
        active[i, c] = value > 0
    return active


def faithfulness(W, U, V):
    """Mean over all decomposed parameters of (W − Σ_c P_c)²."""
    squares = sum(((W[path] - masked_sum(U[path], V[path], [1] * len(U[path]))) ** 2).sum() for path in W)
    return squares / sum(W[path].numel() for path in W)


def squared_error(f, uses, W, U, V, X, masks):
    """Mean squared error against f(W, x); a use without masks keeps the target's matrix."""
    total = 0.0
    for i, x in enumerate(X):
        replaced = {
            use: masked_sum(U[layer], V[layer], masks[use][i]) if use in masks else W[layer]
            for use, layer in uses.items()
        }
        target = f({use: W[layer] for use, layer in uses.items()}, x)[0]
        total = total + ((f(replaced, x)[0] - target) ** 2).mean()
    return total / len(X)


def simplicity(uses, U, V, active, p):
    """Eq. 22, per parameter; a matrix counts once for each of its uses."""
    total, n_parameters = 0.0, sum(U[layer].shape[1] * V[layer].shape[2] for layer in uses.values())
    for i in range(len(active)):
        for c in range(active.shape[1]):
            for layer in uses.values() if active[i, c] else ():
                for r in range(U[layer].shape[2]):
                    total = total + ((U[layer][c, :, r] ** 2).sum() * (V[layer][c, r] ** 2).sum()) ** (p / 2)
    return total / len(active) / n_parameters


def gate(mlp, c, h):
    """Γ_c(h), with GELU(z) = z Φ(z); `mlp` holds w_in, b_in, w_out (C, d_gate) and b_out (C,)."""
    z = h * mlp["w_in"][c] + mlp["b_in"][c]
    return (mlp["w_out"][c] * z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))).sum() + mlp["b_out"][c]


def gates(f, uses, transposed, W, U, V, mlps, X):
    """Use → Γ_c(V_cᵀ a) for every row and subcomponent, from the target's activations."""
    result = {}
    for use, layer in uses.items():
        rows = []
        for x in X:
            a = f({u: W[path] for u, path in uses.items()}, x)[1][use]
            reads = U[layer][:, :, 0] if use in transposed else V[layer][:, 0]
            rows.append(torch.stack([gate(mlps[use], c, reads[c] @ a) for c in range(len(reads))]))
        result[use] = torch.stack(rows)
    return result


def lower_leaky(x):
    return 0.01 * x if x < 0 else x if x <= 1 else torch.ones_like(x)


def upper_leaky(x):
    return torch.zeros_like(x) if x < 0 else x if x <= 1 else 1 + 0.01 * (x - 1)


def each(function, table):
    """Apply a function of one number to every entry of a matrix."""
    return torch.stack([torch.stack([function(value) for value in row]) for row in table])


def importance(gates, p):
    """Mean over the batch of Σ_l Σ_c g^p, upper-leaky."""
    total = sum((upper_leaky(value) + 1e-12) ** p for table in gates.values() for row in table for value in row)
    return total / len(next(iter(gates.values())))


class Adam:
    """Kingma and Ba 2015, algorithm 1."""

    def __init__(self, parameters):
        self.parameters, self.t = parameters, 0
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]

    def step(self, loss, lr):
        self.t += 1
        grads = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for p, g, m, v in zip(self.parameters, grads, self.m, self.v, strict=True):
                m.copy_(0.9 * m + 0.1 * g)
                v.copy_(0.999 * v + 0.001 * g**2)
                p -= lr * (m / (1 - 0.9**self.t)) / ((v / (1 - 0.999**self.t)).sqrt() + 1e-8)
