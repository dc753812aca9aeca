"""How far can a subcomponent be ablated? Causal importance functions and stochastic masks (SPD section 2).

    h_c = V_c x                           x: the layer's input in the target's own forward pass
    g_c = σ(Γ_c(h_c))  ∈ [0, 1]           Γ_c: a small MLP for each subcomponent, 1 → d_gate GELU → 1
    m_c = g_c + (1 - g_c) r,              r ~ U(0, 1)

A subcomponent with importance 1 is therefore always on, and one with importance 0 is scaled by any number in [0, 1].
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from .components import ComponentModel
from .shortcuts.gate_kernel import gates

LEAK = 0.01
"""Slope of a leaky hard sigmoid on its leaky side."""


def hard_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 below 0, x between 0 and 1, and 1 above 1."""
    return x.clamp(0, 1)


def lower_leaky(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hard sigmoid with slope 0.01 below 0, used for masks, so that an importance of zero can rise again."""
    return F.leaky_relu(x, LEAK).clamp(max=1)


def upper_leaky(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hard sigmoid with slope 0.01 above 1, used in the importance loss, so that an importance can always fall."""
    return x.clamp(0, 1) + LEAK * F.relu(x - 1)


class ImportanceMLP(nn.Module):
    """Γ_c of the C subcomponents of one use of a matrix: C separate MLPs, 1 → d_gate GELU → 1.

    Attributes: w_in, b_in, w_out (C, d_gate); b_out (C,).
    """

    def __init__(self, *, C: int, d_gate: int, generator: Generator):
        super().__init__()

        def normal(std: float) -> nn.Parameter:
            return nn.Parameter(std * torch.randn(C, d_gate, generator=generator, device=generator.device))

        # Kaiming initialisation as in public SPD code: fan-in 1 before the rectifier, d_gate before the linear output.
        self.w_in = normal(2**0.5)
        self.b_in = nn.Parameter(torch.zeros_like(self.w_in))
        self.w_out = normal(d_gate**-0.5)
        self.b_out = nn.Parameter(torch.zeros(C, device=generator.device))

    def forward(self, h: Float[Tensor, "rows C"]) -> Float[Tensor, "rows C"]:
        """Γ_c(h_c), before any sigmoid."""
        return gates(h, *self.parameters())


class CausalImportance(nn.Module):
    """The importance functions of a whole decomposition: an `ImportanceMLP` for every use of every matrix.

    They are all computed at once, as the columns of a table (rows, ΣC), which `Method.split` divides by use.

    Attributes: mlps (use → ImportanceMLP).
    """

    def __init__(self, model: ComponentModel, *, d_gate: int, generator: Generator):
        super().__init__()
        self._mlps = nn.ModuleList(
            ImportanceMLP(C=model.layers[use.layer].C, d_gate=d_gate, generator=generator)
            for use in model.uses.values()
        )
        self.mlps = dict(zip(model.uses, self._mlps, strict=True))
        self.to(model.factors[0])  # device and dtype

    def forward(self, inner: Mapping[str, Float[Tensor, "rows _ 1"]]) -> Float[Tensor, "rows sum_C"]:
        """Γ_c(h_c) of every subcomponent in every use, before any sigmoid; `inner` maps use → V_c x (rows, C, 1)."""
        h = torch.cat([inner[path].squeeze(-1) for path in self.mlps], dim=-1)
        weights = zip(*(mlp.parameters() for mlp in self._mlps), strict=True)
        return gates(h, *map(torch.cat, weights))


def sample_masks(g: Float[Tensor, "*rows C"], generator: Generator) -> Float[Tensor, "*rows C"]:
    """m = g + (1 - g) r with r ~ U(0, 1), reparametrised, so that gradients reach g through m."""
    r = torch.rand(g.shape, generator=generator, device=g.device, dtype=g.dtype)
    return torch.lerp(r, r.new_ones(()), g)  # r + (1 - r) g, the same number in one operation
