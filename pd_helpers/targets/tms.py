"""Toy models of superposition (APD section 3.1, after Elhage et al. 2022).

    x̂ = ReLU(Wᵀ W x + b)            W (n_hidden, n_features), with n_hidden < n_features

and SPD's variant with a fixed identity I (n_hidden, n_hidden) in the middle: x̂ = ReLU(Wᵀ I W x + b).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pd_helpers.core.components import TransposedLinear
from pd_helpers.core.config import RAREST, number, switch, whole
from pd_helpers.core.known_network import KnownNetwork
from pd_helpers.core.machine.memory import check_sizes
from pd_helpers.core.shortcuts.active_pairs import Pairs, worthwhile
from pd_helpers.core.training import generator
from pd_helpers.targets.base import Extent, TrainedConfig
from pd_helpers.targets.features import SparseFeatures


@dataclass(frozen=True)
class TMSConfig(TrainedConfig):
    """A toy model of superposition and its training; defaults are APD's TMS 5-2 (section D.1.1)."""

    kind = "tms"
    n_features: int = whole(5)
    """Number of input features, m2 in the papers."""
    n_hidden: int = whole(2)
    """Number of hidden dimensions, m1 in the papers."""
    identity: bool = switch(False)
    """Whether there is a fixed identity matrix between W and Wᵀ ("+ID" in the SPD paper)."""
    feature_probability: float = number(0.05, high=1.0, least=RAREST)
    """Probability p that a feature is on."""

    @property
    def summary(self) -> str:
        return f"{self.n_features} features in {self.n_hidden} dimensions" + (", identity" if self.identity else "")

    @property
    def n_floats(self) -> int:
        identity = self.n_hidden**2 if self.identity else 0
        return self.n_features * (self.n_hidden + 1) + identity + 3 * self.target_batch_size * self.n_features

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        embed = (1, self.n_hidden, self.n_features)
        return [embed, (1, self.n_hidden, self.n_hidden)] if self.identity else [embed]

    @property
    def extent(self) -> Extent:
        n_parameters = 2 * self.n_hidden * self.n_features + self.identity * self.n_hidden**2
        return Extent(self.n_features, self.feature_probability, self.n_features, n_parameters)

    def features(self) -> SparseFeatures:
        return SparseFeatures(self.n_features, self.feature_probability)

    def build(self) -> "TMS":
        return TMS(n_features=self.n_features, n_hidden=self.n_hidden, identity=self.identity)

    def new(self, seed: int, device: str | torch.device = "cpu") -> "TMS":
        """An untrained toy model: Xavier-normal W and zero b, as in public APD and SPD code."""
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


class TMS(KnownNetwork):
    """Toy model of superposition: x̂ = ReLU(Wᵀ W x + b), optionally with a fixed identity layer in the middle."""

    def __init__(self, *, n_features: int, n_hidden: int, identity: bool = False):
        super().__init__()
        check_sizes(lambda n_features, n_hidden: n_features * n_hidden, n_features=n_features, n_hidden=n_hidden)
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
        """Number of inputs."""
        return self.embed.in_features

    @property
    def layers(self) -> list[str]:
        """Paths of the matrices to decompose; `unembed` is a second use of the matrix of `embed`."""
        return ["embed"] if self.identity is None else ["embed", "identity"]

    @property
    def ideal(self) -> dict[tuple[str, ...], int | None]:
        """The right decomposition by SPD: uses → None for one subcomponent per feature, or how many always matter."""
        middle = {} if self.identity is None else {("identity",): self.embed.out_features}
        return {("embed",): None, **middle, ("unembed",): None}

    def closed_form_attributions(
        self,
        x: Float[Tensor, "batch n_features"],
        factors: Mapping[str, tuple[Float[Tensor, "C d_out R"], Float[Tensor, "C R d_in"]]],
        weights: Mapping[str, Float[Tensor, "d_out d_in"]],
    ) -> Float[Tensor, "batch C"]:
        """APD's eq. 8 in closed form.

        With M the identity layer, z = Wᵀ M W x + b. As W moves along P and M along Q, the derivative of z is J x with
        J = Pᵀ M W + Wᵀ Q W + Wᵀ M P. The derivative of the output is the same where z > 0 and zero elsewhere, so only
        the few outputs above zero are computed.
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
            derivatives = pairs.gather(x) @ pairs.of(J.permute(1, 2, 0))  # (blocks, slots, C)
            squares = pairs.add(derivatives.square())
        else:
            derivatives = F.linear(x, J.flatten(0, 1)).unflatten(-1, J.shape[:2])  # (batch, C, n_features)
            squares = torch.einsum("bco,bo->bc", derivatives.square(), on.to(x.dtype))
        positive = squares > 0  # elsewhere the slope of the root is taken to be zero, not infinite
        return (torch.where(positive, squares, 1.0) / on.shape[1]).sqrt() * positive
