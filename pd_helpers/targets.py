"""The networks that get decomposed, as plain `nn.Module`s, and their training.

Toy model of superposition (APD section 3.1, after Elhage et al. 2022):

    x̂ = ReLU(Wᵀ W x + b)            W (n_hidden, n_features), with n_hidden < n_features

and SPD's variant with a fixed identity I (n_hidden, n_hidden) in the middle: x̂ = ReLU(Wᵀ I W x + b).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pd_helpers.config import Config, number, switch, whole
from pd_helpers.data import SparseFeatures
from pd_helpers.pairs import Pairs, worthwhile
from pd_helpers.training import adamw, generator, progress, threads_for


@dataclass(frozen=True)
class TMSConfig(Config):
    """A toy model of superposition and its training; defaults are APD's TMS 5-2 (section D.1.1)."""

    n_features: int = whole(5)
    """Input features, the papers' m2."""
    n_hidden: int = whole(2)
    """Hidden dimensions, the papers' m1."""
    identity: bool = switch(False)
    """Put a fixed identity matrix between W and Wᵀ (SPD's "+ID")."""
    feature_probability: float = number(0.05, high=1.0)
    """Probability p that a feature is on."""
    target_steps: int = whole(5000)
    """Training steps."""
    target_batch_size: int = whole(1024)
    """Rows a step."""
    target_lr: float = number(5e-3, open=True)
    """AdamW's learning rate, constant."""
    target_weight_decay: float = number(0.01)
    """AdamW's weight decay."""
    target_seed: int | None = whole(None, at_least=0)
    """Seed of the target; None means the run's own seed."""

    def features(self) -> SparseFeatures:
        """The data this target is trained and decomposed on."""
        return SparseFeatures(self.n_features, self.feature_probability)


class TransposedLinear(nn.Module):
    """y = Wᵀ x + b, where W (d_out, d_in) is another layer's parameter: the second use of a tied matrix.

    A module of its own, so that a decomposition can give the second use its own masks.
    """

    def __init__(self, source: nn.Linear):
        super().__init__()
        self.weight = source.weight
        self.bias = nn.Parameter(torch.zeros(source.in_features))

    def forward(self, x: Float[Tensor, "... d_out"]) -> Float[Tensor, "... d_in"]:
        return F.linear(x, self.weight.T, self.bias)


class TMS(nn.Module):
    """Toy model of superposition: x̂ = ReLU(Wᵀ W x + b), optionally with a fixed identity layer in the middle."""

    def __init__(self, *, n_features: int, n_hidden: int, identity: bool = False):
        super().__init__()
        self.embed = nn.Linear(n_features, n_hidden, bias=False)  # W (n_hidden, n_features)
        self.identity = nn.Linear(n_hidden, n_hidden, bias=False) if identity else None
        self.unembed = TransposedLinear(self.embed)  # Wᵀ, b
        if self.identity is not None:
            nn.init.eye_(self.identity.weight).requires_grad_(False)

    def forward(self, x: Float[Tensor, "batch n_features"]) -> Float[Tensor, "batch n_features"]:
        hidden = self.embed(x)  # (batch, n_hidden)
        if self.identity is not None:
            hidden = self.identity(hidden)
        return F.relu(self.unembed(hidden))

    @property
    def layers(self) -> list[str]:
        """Paths of the matrices to decompose; `unembed` uses the matrix of `embed` once more."""
        return ["embed"] if self.identity is None else ["embed", "identity"]

    def attributions(
        self,
        x: Float[Tensor, "batch n_features"],
        directions: dict[str, Float[Tensor, "C d_out d_in"]],
        weights: dict[str, Float[Tensor, "d_out d_in"]],
    ) -> Float[Tensor, "batch C"]:
        """APD's eq. 8 in closed form.

        With M the identity layer, z = Wᵀ M W x + b is linear in x, so its derivative as W moves along P and M
        along Q is the matrix J = Pᵀ M W + Wᵀ Q W + Wᵀ M P applied to x; the output's derivative is that where
        z > 0, and zero elsewhere, so only the few outputs above zero are computed.
        """
        W = weights.get("embed", self.embed.weight)  # (n_hidden, n_features)
        if self.identity is None:
            M = torch.eye(len(W), device=W.device, dtype=W.dtype)
        else:
            M = weights.get("identity", self.identity.weight)
        J = torch.zeros(())  # (C, n_features, n_features)
        if "embed" in directions:
            P = directions["embed"]  # (C, n_hidden, n_features)
            J = J + P.mT @ (M @ W) + (W.T @ M) @ P
        if "identity" in directions:
            Q = directions["identity"]  # (C, n_hidden, n_hidden)
            J = J + W.T @ Q @ W
        on = F.linear(x, W.T @ M @ W, self.unembed.bias) > 0  # (batch, n_features)
        if worthwhile(on):
            pairs = Pairs(on)
            moves = pairs.gather(x) @ pairs.of(J.permute(1, 2, 0))  # (blocks, slots, C)
            squares = pairs.add(moves.square_())
        else:
            moves = F.linear(x, J.flatten(0, 1)).unflatten(-1, J.shape[:2])  # (batch, C, n_features), in one product
            squares = torch.einsum("bco,bo->bc", moves.square_(), on.to(x.dtype))
        return (squares / on.shape[1]).sqrt_()


def train_tms(config: TMSConfig, seed: int, device: str | torch.device = "cpu", *, show_progress: bool = True) -> TMS:
    """Train a toy model of superposition to reconstruct its input (APD section D.1)."""
    model = new_tms(config, seed, device)
    steps = tms_steps(model, config, seed)
    for _ in progress(steps, total=config.target_steps, description="target", show=show_progress):
        pass
    return model


def new_tms(config: TMSConfig, seed: int, device: str | torch.device = "cpu") -> TMS:
    """An untrained toy model: W Xavier-normal and b zero, as in public APD and SPD code."""
    model = TMS(n_features=config.n_features, n_hidden=config.n_hidden, identity=config.identity)
    nn.init.xavier_normal_(model.embed.weight, generator=generator(seed, "target_init"))
    return model.to(device)


def tms_steps(model: TMS, config: TMSConfig, seed: int) -> Iterator[int]:
    """Train in place with AdamW on the mean squared error, one step for each item taken; frozen at the end."""
    data, draw = config.features(), generator(seed, "target_data", model.embed.weight.device)
    parameters = [model.embed.weight, model.unembed.bias]
    optimizer = adamw(parameters, config.target_lr, config.target_weight_decay)
    for step in range(config.target_steps):
        with threads_for(config.target_batch_size * config.n_features):
            x = data(config.target_batch_size, draw)
            loss = F.mse_loss(model(x), x)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        yield step + 1
    model.requires_grad_(False)
