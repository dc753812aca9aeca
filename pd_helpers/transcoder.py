"""A small transcoder: the baseline that notebook 13 asks whether it splits features (Dunefsky and others 2024).

    z(a) = ReLU(E a + b)      activations of n latents
    ŷ(a) = D z(a)             columns of D of length one
    L    = |ŷ − y|² + price · Σ z, mean over inputs

It learns a layer's output y = W a from its input a, by a sparse code. SPD takes W itself apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.config import Config, choice, number, whole
from pd_helpers.training import adam, generator, learning_rate

Inputs = Callable[[int, Generator], Float[Tensor, "rows d_in"]]


@dataclass(frozen=True)
class TranscoderConfig(Config):
    """Settings of a transcoder."""

    n_latents: int = whole(40)
    """Size of the dictionary."""
    price: float = number(0.03)
    """Of a unit of activation (L1)."""
    start: str = choice("together", "together", "quiet")
    """Where training starts: all latents together give about the layer's output, or most do not fire at all."""
    steps: int = whole(2000, at_least=0)
    lr: float = number(0.01, open=True)
    schedule: str = choice("cosine", "constant", "cosine")
    batch_size: int = whole(1024)


class Transcoder(NamedTuple):
    """E, b and D; the columns of D count as if they had length one."""

    E: Float[Tensor, "n_latents d_in"]
    b: Float[Tensor, " n_latents"]
    D: Float[Tensor, "d_out n_latents"]

    def activations(self, a: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows n_latents"]:
        """z: how strongly each latent fires."""
        return F.relu(a @ self.E.T + self.b)

    def output(self, z: Float[Tensor, "rows n_latents"]) -> Float[Tensor, "rows d_out"]:
        """ŷ for these activations."""
        return z @ F.normalize(self.D, dim=0).T


def fit(W: Float[Tensor, "d_out d_in"], inputs: Inputs, config: TranscoderConfig, seed: int = 0) -> Transcoder:
    """Train a transcoder of the layer W; `inputs` draws what enters it.

    It starts with random D, with E reading what D writes, and, of the quiet kind, with b at −0.5.

    >>> transcoder.fit(torch.eye(2), lambda n, draw: torch.randn(n, 2, generator=draw), TranscoderConfig(n_latents=8))
    """
    D = F.normalize(torch.randn(len(W), config.n_latents, generator=generator(seed, "init")), dim=0)
    scale, bias = (1.0, -0.5) if config.start == "quiet" else (2 * len(W) / config.n_latents, 0.0)
    coder = Transcoder(*map(nn.Parameter, (scale * D.T @ W, torch.full((config.n_latents,), bias), D)))
    optimizer, draw = adam(coder, config.lr), generator(seed, "data")
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, config)
        a = inputs(config.batch_size, draw)
        z = coder.activations(a)
        error = (coder.output(z) - a @ W.T).square().sum(dim=1)
        optimizer.zero_grad()
        (error + config.price * z.sum(dim=1)).mean().backward()
        optimizer.step()
    return Transcoder(*(weight.detach() for weight in coder))


RARE = 1e-3
"""The share of inputs on which a latent must fire to count as alive."""


class Measured(NamedTuple):
    """What `measure` finds."""

    alive: int
    """Latents that fire on more than one input in a thousand."""
    strong: int
    """Latents whose activation exceeds 0.1 on some input."""
    l0: float
    """Latents that fire on an input, mean."""
    unexplained: float
    """Squared error, as a share of the outputs' squares."""
    activity: float
    """Sum of activations, mean: what the price is paid for."""
    loss: float
    """Squared error and price, mean."""


def measure(coder: Transcoder, W: Float[Tensor, "d_out d_in"], a: Float[Tensor, "rows d_in"], price: float) -> Measured:
    """How many latents a transcoder of the layer W uses on the inputs `a`, and how good it is there."""
    error = size = activity = 0.0
    fires, strong = 0, False  # of each latent: on how many rows, and whether above 0.1 on any
    for rows in a.split(4096):  # a table of all rows by all latents would be the largest of its notebook
        z, y = coder.activations(rows), rows @ W.T
        error += (coder.output(z) - y).square().sum().item()
        size += y.square().sum().item()
        activity += z.sum().item()
        fires = fires + (z > 0).sum(dim=0)
        strong = strong | (z > 0.1).any(dim=0)
    return Measured(
        alive=int((fires / len(a) > RARE).sum()),
        strong=int(strong.sum()),
        l0=fires.sum().item() / len(a),
        unexplained=error / size,
        activity=activity / len(a),
        loss=(error + price * activity) / len(a),
    )
