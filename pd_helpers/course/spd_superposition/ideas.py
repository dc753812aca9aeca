"""A small transcoder, the baseline of notebook 13: does it split features (Dunefsky et al. 2024)?

    z(x) = ReLU(E x + b)                    activations of n latents, x: the layer's input
    ŷ(x) = D z(x)                           columns of D have length one
    L    = |ŷ − W x|² + λ Σ z               mean over inputs; λ is `l1_coeff`

A transcoder learns a layer's output W x from the layer's input x through a sparse code; SPD decomposes W itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.core.config import Config, choice, number, whole
from pd_helpers.core.training import adam, generator, learning_rate

Inputs = Callable[[int, Generator], Float[Tensor, "rows d_in"]]
"""(batch_size, generator) → inputs of the layer."""


@dataclass(frozen=True)
class TranscoderConfig(Config):
    """Settings of a transcoder."""

    n_latents: int = whole(40)
    """Number of latents."""
    l1_coeff: float = number(0.03)
    """Coefficient λ of the sum of activations, the L1 loss."""
    start: str = choice("together", "together", "quiet")
    """How training starts: "together" means that all latents together give about the layer's output, and "quiet" that
    most latents do not fire at all."""
    steps: int = whole(2000, at_least=0)
    """Number of training steps."""
    lr: float = number(0.01, open=True)
    """Adam's learning rate at its highest."""
    schedule: str = choice("cosine", "constant", "cosine")
    """Course of the learning rate."""
    batch_size: int = whole(1024)
    """Number of inputs per training step."""


class Transcoder(NamedTuple):
    """The weights E, b and D; the columns of D are normalised to length one whenever they are used."""

    E: Float[Tensor, "n_latents d_in"]
    b: Float[Tensor, " n_latents"]
    D: Float[Tensor, "d_out n_latents"]

    def activations(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows n_latents"]:
        """z(x): how strongly each latent fires."""
        return F.relu(x @ self.E.T + self.b)

    def output(self, z: Float[Tensor, "rows n_latents"]) -> Float[Tensor, "rows d_out"]:
        """ŷ for these activations."""
        return z @ F.normalize(self.D, dim=0).T


def fit(W: Float[Tensor, "d_out d_in"], inputs: Inputs, config: TranscoderConfig, seed: int = 0) -> Transcoder:
    """Train a transcoder of the layer W; `inputs` draws inputs of the layer.

    Training starts with a random D, and with an E whose latents read the directions that D writes. With the "quiet"
    start b is −0.5, otherwise zero.

    >>> transcoder.fit(torch.eye(2), lambda n, draw: torch.randn(n, 2, generator=draw), TranscoderConfig(n_latents=8))
    """
    D = F.normalize(torch.randn(len(W), config.n_latents, generator=generator(seed, "init")), dim=0)
    scale, bias = (1.0, -0.5) if config.start == "quiet" else (2 * len(W) / config.n_latents, 0.0)
    coder = Transcoder(*map(nn.Parameter, (scale * D.T @ W, torch.full((config.n_latents,), bias), D)))
    optimizer, draw = adam(coder, config.lr), generator(seed, "data")
    for step in range(config.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, config)
        x = inputs(config.batch_size, draw)
        z = coder.activations(x)
        error = (coder.output(z) - x @ W.T).square().sum(dim=1)
        optimizer.zero_grad()
        (error + config.l1_coeff * z.sum(dim=1)).mean().backward()
        optimizer.step()
    return Transcoder(*(weight.detach() for weight in coder))


RARE = 1e-3
"""The share of inputs on which a latent must fire to count as alive."""


class Measured(NamedTuple):
    """The result of `measure`."""

    alive: int
    """Number of latents that fire on more than one input in a thousand."""
    strong: int
    """Number of latents whose activation exceeds 0.1 on some input."""
    l0: float
    """Mean number of latents that fire on an input."""
    unexplained: float
    """Squared error as a share of the squared output."""
    activity: float
    """Mean over inputs of the sum of activations Σ z."""
    loss: float
    """Mean over inputs of the loss L."""


def measure(
    coder: Transcoder, W: Float[Tensor, "d_out d_in"], x: Float[Tensor, "rows d_in"], l1_coeff: float
) -> Measured:
    """How many latents a transcoder of the layer W uses on the layer's inputs `x`, and how large its errors are."""
    error = size = activity = 0.0
    counts, strong = 0, False  # for each latent, on how many rows it fires, and whether it exceeds 0.1 on any
    for rows in x.split(4096):  # all rows by all latents at once would be the largest table of the notebook
        z, y = coder.activations(rows), rows @ W.T
        error += (coder.output(z) - y).square().sum().item()
        size += y.square().sum().item()
        activity += z.sum().item()
        counts = counts + (z > 0).sum(dim=0)
        strong = strong | (z > 0.1).any(dim=0)
    return Measured(
        alive=int((counts / len(x) > RARE).sum()),
        strong=int(strong.sum()),
        l0=counts.sum().item() / len(x),
        unexplained=error / size,
        activity=activity / len(x),
        loss=(error + l1_coeff * activity) / len(x),
    )
