"""The networks that get decomposed, as plain `nn.Module`s: what all have in common, and the toy model of superposition.

Toy model of superposition (APD section 3.1, after Elhage et al. 2022):

    x̂ = ReLU(Wᵀ W x + b)            W (n_hidden, n_features), with n_hidden < n_features

and SPD's variant with a fixed identity I (n_hidden, n_hidden) in the middle: x̂ = ReLU(Wᵀ I W x + b). The residual
networks are in `residual_mlp`, the one whose weights are written by hand in `gated`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.config import Config, choice, number, switch, whole
from pd_helpers.data import SparseFeatures
from pd_helpers.pairs import Pairs, worthwhile
from pd_helpers.training import adamw, generator, learning_rate, progress, threads_for


@dataclass(frozen=True)
class TargetConfig(Config):
    """What the configuration of every target says and does."""

    kind: ClassVar[str]
    """How stored runs name this kind of target."""
    target_seed: int | None = whole(None, at_least=0)
    """Seed of the target; None means the run's own seed."""

    @property
    def summary(self) -> str:
        """Its sizes, in a few words."""
        raise NotImplementedError

    def features(self) -> Callable[[int, Generator], Tensor]:
        """The data this target is trained and decomposed on."""
        raise NotImplementedError

    def build(self) -> nn.Module:
        """The network that is decomposed, with any weights: for stored ones to be put in."""
        raise NotImplementedError

    def make(self, seed: int, device: str | torch.device = "cpu", *, show_progress: bool = True) -> nn.Module:
        """The target of that seed, frozen; see `make_target`."""
        raise NotImplementedError

    def reduce(self, target: nn.Module) -> nn.Module:
        """The network that is decomposed in this target's place: the target itself, or one that equals it."""
        return target

    @classmethod
    def sizes(cls, target: nn.Module) -> dict[str, Any] | None:
        """The fields that a network's own shape decides; None if the network is not of this kind."""
        raise NotImplementedError


def make_target(
    config: TargetConfig, seed: int = 0, device: str | torch.device = "cpu", *, show_progress: bool = True
) -> nn.Module:
    """Train the network that a configuration describes, or write its weights; frozen in either case.

    >>> target = pdh.make_target(pdh.TMSConfig(n_features=40, n_hidden=10), seed=0)
    """
    return config.make(seed, device, show_progress=show_progress)


@dataclass(frozen=True)
class TrainedConfig(TargetConfig):
    """A target that is trained, by AdamW on the mean squared error."""

    target_steps: int = whole(5000)
    """Training steps."""
    target_batch_size: int = whole(1024)
    """Rows a step."""
    target_lr: float = number(5e-3, open=True)
    """AdamW's learning rate at its highest."""
    target_schedule: str = choice("constant", "constant", "cosine")
    """What the learning rate does."""
    target_weight_decay: float = number(0.01)
    """AdamW's weight decay."""

    # The fields of `training.Schedule`
    lr = property(lambda self: self.target_lr)
    schedule = property(lambda self: self.target_schedule)
    steps = property(lambda self: self.target_steps)

    def new(self, seed: int, device: str | torch.device = "cpu") -> nn.Module:
        """The network before training."""
        raise NotImplementedError

    def loss(self, model: nn.Module, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, ""]:
        """What training minimises."""
        raise NotImplementedError

    def train(self, model: nn.Module, seed: int) -> Iterator[int]:
        """Train in place, one step for each item taken; frozen at the end."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        data, draw = self.features(), generator(seed, "target_data", parameters[0].device)
        optimizer = adamw(parameters, self.target_lr, self.target_weight_decay)
        for step in range(self.target_steps):
            optimizer.param_groups[0]["lr"] = learning_rate(step, self)
            x = data(self.target_batch_size, draw)
            with threads_for(x.numel()):
                optimizer.zero_grad(set_to_none=True)
                self.loss(model, x).backward()
                optimizer.step()
            yield step + 1
        model.requires_grad_(False)

    def make(self, seed: int, device: str | torch.device = "cpu", *, show_progress: bool = True) -> nn.Module:
        model = self.new(seed, device)
        for _ in progress(self.train(model, seed), total=self.target_steps, description="target", show=show_progress):
            pass
        return model


@dataclass(frozen=True)
class TMSConfig(TrainedConfig):
    """A toy model of superposition and its training; defaults are APD's TMS 5-2 (section D.1.1)."""

    kind = "tms"
    n_features: int = whole(5)
    """Input features, the papers' m2."""
    n_hidden: int = whole(2)
    """Hidden dimensions, the papers' m1."""
    identity: bool = switch(False)
    """Put a fixed identity matrix between W and Wᵀ (SPD's "+ID")."""
    feature_probability: float = number(0.05, high=1.0)
    """Probability p that a feature is on."""

    @property
    def summary(self) -> str:
        return f"{self.n_features} features in {self.n_hidden} dimensions" + (", identity" if self.identity else "")

    def features(self) -> SparseFeatures:
        return SparseFeatures(self.n_features, self.feature_probability)

    def build(self) -> "TMS":
        return TMS(n_features=self.n_features, n_hidden=self.n_hidden, identity=self.identity)

    def new(self, seed: int, device: str | torch.device = "cpu") -> "TMS":
        """An untrained toy model: W Xavier-normal and b zero, as in public APD and SPD code."""
        model = self.build()
        nn.init.xavier_normal_(model.embed.weight, generator=generator(seed, "target_init"))
        return model.to(device)

    def loss(self, model: nn.Module, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, ""]:
        """Mean squared error against the input itself (APD section D.1)."""
        return F.mse_loss(model(x), x)

    @classmethod
    def sizes(cls, target: nn.Module) -> dict[str, Any] | None:
        if not isinstance(target, TMS):
            return None
        return {
            "n_features": target.embed.in_features,
            "n_hidden": target.embed.out_features,
            "identity": target.identity is not None,
        }


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
    def n_features(self) -> int:
        """Inputs."""
        return self.embed.in_features

    @property
    def layers(self) -> list[str]:
        """Paths of the matrices to decompose; `unembed` uses the matrix of `embed` once more."""
        return ["embed"] if self.identity is None else ["embed", "identity"]

    @property
    def ideal(self) -> dict[tuple[str, ...], int | None]:
        """What SPD should find: uses → None for a subcomponent of each feature, or how many that always matter."""
        middle = {} if self.identity is None else {("identity",): self.embed.out_features}
        return {("embed",): None, **middle, ("unembed",): None}

    def attributions(
        self,
        x: Float[Tensor, "batch n_features"],
        factors: Mapping[str, tuple[Float[Tensor, "C d_out R"], Float[Tensor, "C R d_in"]]],
        weights: Mapping[str, Float[Tensor, "d_out d_in"]],
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
        directions = {path: U @ V for path, (U, V) in factors.items()}
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
            squares = pairs.add(moves.square())
        else:
            moves = F.linear(x, J.flatten(0, 1)).unflatten(-1, J.shape[:2])  # (batch, C, n_features), in one product
            squares = torch.einsum("bco,bo->bc", moves.square(), on.to(x.dtype))
        positive = squares > 0  # where it is zero, the root's slope is taken to be zero, not infinite
        return (torch.where(positive, squares, 1.0) / on.shape[1]).sqrt() * positive
