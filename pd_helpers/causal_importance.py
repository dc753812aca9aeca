"""How far can a subcomponent be ablated? Causal importance functions and stochastic masks (SPD section 2).

    h_c(x) = V_cᵀ a(x)                         a: the target's activation entering the layer
    g_c(x) = σ(Γ_c(h_c(x)))  ∈ [0, 1]          Γ_c: a tiny MLP of its own, 1 → d_gate GELU → 1
    m_c(x) = g_c(x) + (1 - g_c(x)) r,          r ~ U(0, 1)

so a subcomponent with importance 1 is always on and one with importance 0 is scaled by anything in [0, 1].
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.components import ComponentModel

LEAK = 0.01
"""Slope of a leaky hard sigmoid on its leaky side."""


def hard_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 below 0, x up to 1, and 1 above."""
    return x.clamp(0, 1)


def lower_leaky(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hard sigmoid with slope 0.01 below 0: used for masks, so that an unimportant subcomponent can come back."""
    return F.leaky_relu(x, LEAK).clamp(max=1)


def upper_leaky(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hard sigmoid with slope 0.01 above 1: used in the importance loss, so that importance can always fall."""
    return x.clamp(0, 1) + LEAK * F.relu(x - 1)


class ImportanceMLP(nn.Module):
    """Γ_c for the C subcomponents of one use of a matrix: C separate MLPs, 1 → d_gate GELU → 1.

    Attributes: w_in, b_in, w_out (C, d_gate); b_out (C,).
    """

    def __init__(self, *, C: int, d_gate: int, generator: Generator):
        super().__init__()

        def normal(std: float) -> nn.Parameter:
            return nn.Parameter(std * torch.randn(C, d_gate, generator=generator, device=generator.device))

        # Kaiming's gains, as in public SPD code: fan-in 1 before a rectifier, d_gate before a linear output.
        self.w_in, self.w_out = normal(2**0.5), normal(d_gate**-0.5)
        self.b_in = nn.Parameter(torch.zeros_like(self.w_in))
        self.b_out = nn.Parameter(torch.zeros(C, device=generator.device))

    def forward(self, h: Float[Tensor, "rows C"]) -> Float[Tensor, "rows C"]:
        """Γ_c(h_c), before any sigmoid."""
        gate = F.gelu(h.unsqueeze(-1) * self.w_in + self.b_in)  # (rows, C, d_gate)
        return (gate * self.w_out).sum(dim=-1) + self.b_out


class CausalImportance(nn.Module):
    """The importance functions of a whole decomposition: an `ImportanceMLP` for every use of every matrix."""

    def __init__(self, model: ComponentModel, *, d_gate: int, generator: Generator):
        super().__init__()
        self._mlps = nn.ModuleList(
            ImportanceMLP(C=model.layers[use.layer].C, d_gate=d_gate, generator=generator)
            for use in model.uses.values()
        )
        self.mlps = dict(zip(model.uses, self._mlps, strict=True))
        self.to(model.factors[0])  # device and dtype

    def forward(self, model: ComponentModel, inputs: dict[str, Tensor]) -> dict[str, Float[Tensor, "rows _"]]:
        """Use → Γ_c(V_cᵀ a) (rows, C), before any sigmoid; `inputs` are the target's activations entering each use."""
        return {
            path: self.mlps[path](model.layers[use.layer].inner(inputs[path], use.transposed).squeeze(-1))
            for path, use in model.uses.items()
        }


def sample_masks(g: Float[Tensor, "rows C"], generator: Generator) -> Float[Tensor, "rows C"]:
    """m = g + (1 - g) r with r ~ U(0, 1), reparametrised: gradients reach g through m."""
    r = torch.rand(g.shape, generator=generator, device=g.device, dtype=g.dtype)
    return torch.lerp(r, torch.ones_like(r), g)  # r + (1 - r) g, the same number in one operation
