"""Circuits that share what they write, one active at a time: superposition of the ping-pong kind, in small (VPD).

    y = W x,   W = Σ_g w_g (Σ_i e_gi)ᵀ        circuit (g, i) reads feature e_gi alone, and all of group g write w_g

The sum of a group's circuits is a matrix of rank one. So one subcomponent for each group, which is important whenever
any of its circuits is, costs exactly as much importance as one for each circuit: one is important for each input in
either case. Only how often a subcomponent is important tells the two apart, and that is what VPD's frequency penalty
is for.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from pd_helpers.core.config import whole
from pd_helpers.core.known_network import KnownNetwork
from pd_helpers.core.machine.memory import check_sizes
from pd_helpers.core.training import generator
from pd_helpers.targets.base import Extent, TargetConfig


@dataclass(frozen=True)
class OneCircuit:
    """The data distribution: one feature, each as likely as the others, is uniform on [0, 1]; call it to draw."""

    n_features: int

    def __call__(self, batch_size: int, generator: Generator) -> Float[Tensor, "batch n_features"]:
        on = torch.randint(self.n_features, (batch_size,), generator=generator, device=generator.device)
        size = torch.rand(batch_size, 1, generator=generator, device=generator.device)
        return size * F.one_hot(on, self.n_features)


class PingPong(KnownNetwork):
    """y = W x, whose columns are equal within a group of features and orthogonal between groups.

    Attributes: layer, which holds W (n_groups, n_features); n_groups.

    Raises ValueError for sizes that no memory holds.
    """

    layers = ("layer",)

    def __init__(self, *, n_groups: int, n_circuits: int):
        super().__init__()
        check_sizes(lambda n_groups, n_circuits: n_groups**2 * n_circuits, n_groups=n_groups, n_circuits=n_circuits)
        self.n_groups = n_groups
        self.layer = nn.Linear(n_groups * n_circuits, n_groups, bias=False)

    def forward(self, x: Float[Tensor, "batch n_features"]) -> Float[Tensor, "batch n_groups"]:
        return self.layer(x)

    @property
    def n_features(self) -> int:
        """Number of inputs, one for each circuit."""
        return self.layer.in_features

    @property
    def ideal(self) -> dict[tuple[str, ...], int | None]:
        """The right decomposition by VPD: a subcomponent for each circuit."""
        return {("layer",): None}

    @property
    def groups(self) -> Int[Tensor, " n_features"]:
        """The group of every circuit."""
        return torch.arange(self.n_features, device=self.layer.weight.device) * self.n_groups // self.n_features


@dataclass(frozen=True)
class PingPongConfig(TargetConfig):
    """A hand-written network of circuits in groups that share the direction they write."""

    kind = "pingpong"
    n_groups: int = whole(4)
    """Number of groups, and of directions that are written."""
    n_circuits: int = whole(4)
    """Number of circuits in each group."""

    @property
    def summary(self) -> str:
        return f"{self.n_groups} groups of {self.n_circuits} circuits"

    @property
    def n_floats(self) -> int:
        return self.n_groups**2 * self.n_circuits

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        return [(1, self.n_groups, self.n_groups * self.n_circuits)]

    @property
    def extent(self) -> Extent:
        n = self.n_groups * self.n_circuits
        return Extent(n, 1 / n, self.n_groups, self.n_groups * n)

    def features(self) -> OneCircuit:
        return OneCircuit(self.n_groups * self.n_circuits)

    def build(self) -> PingPong:
        return PingPong(n_groups=self.n_groups, n_circuits=self.n_circuits)

    @torch.no_grad()
    def make(self, seed: int, device: str | torch.device = "cpu", *, show_progress: bool = True) -> PingPong:
        """The network of this seed: each group writes another column of a random rotation."""
        network, n = self.build(), self.n_groups
        directions = torch.linalg.qr(torch.randn(n, n, generator=generator(seed, "target_init"))).Q  # (d_out, n_groups)
        network.layer.weight.copy_(directions[:, network.groups])
        return network.requires_grad_(False).to(device)

    @classmethod
    def sizes(cls, target: nn.Module) -> dict[str, Any] | None:
        if not isinstance(target, PingPong):
            return None
        return {"n_groups": target.n_groups, "n_circuits": target.n_features // target.n_groups}
