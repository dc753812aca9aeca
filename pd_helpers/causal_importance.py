"""How far can a subcomponent be ablated? Causal importance functions and stochastic masks (SPD section 2).

    h_c(x) = V_cᵀ a(x)                         a: the target's activation entering the layer
    g_c(x) = σ(Γ_c(h_c(x)))  ∈ [0, 1]          Γ_c: a tiny MLP of its own, 1 → d_gate GELU → 1
    m_c(x) = g_c(x) + (1 - g_c(x)) r,          r ~ U(0, 1)

so a subcomponent with importance 1 is always on and one with importance 0 is scaled by anything in [0, 1].
"""

from collections.abc import Iterator, Mapping

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
        self.w_in = normal(2**0.5)
        self.b_in = nn.Parameter(torch.zeros_like(self.w_in))
        self.w_out = normal(d_gate**-0.5)
        self.b_out = nn.Parameter(torch.zeros(C, device=generator.device))

    def forward(self, h: Float[Tensor, "rows C"]) -> Float[Tensor, "rows C"]:
        """Γ_c(h_c), before any sigmoid."""
        return gates(h, *self.parameters())


class CausalImportance(nn.Module):
    """The importance functions of a whole decomposition: an `ImportanceMLP` for every use of every matrix.

    They are computed together, side by side in tables (rows, ΣC) that `split` takes apart.

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
        """Γ_c(h_c) of every subcomponent in every use, before any sigmoid; `inner`: use → h = V_cᵀ a (rows, C, 1)."""
        h = torch.cat([inner[path].squeeze(-1) for path in self.mlps], dim=-1)
        weights = zip(*(mlp.parameters() for mlp in self._mlps), strict=True)
        return gates(h, *map(torch.cat, weights))

    def split(self, table: Float[Tensor, "*rows sum_C"]) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → its columns (..., C)."""
        sizes = [len(mlp.b_out) for mlp in self._mlps]
        return dict(zip(self.mlps, table.split(sizes, dim=-1), strict=True))


def gates(
    h: Float[Tensor, "rows C"],
    w_in: Float[Tensor, "C d_gate"],
    b_in: Float[Tensor, "C d_gate"],
    w_out: Float[Tensor, "C d_gate"],
    b_out: Float[Tensor, " C"],
) -> Float[Tensor, "rows C"]:
    """Γ_c(h_c) = Σ_d w_out GELU(h w_in + b_in) + b_out."""
    return _Gates.apply(h.T, w_in, b_in, w_out).T + b_out


class _Gates(torch.autograd.Function):
    """Σ_d w_out GELU(h w_in + b_in), h (C, rows) → (C, rows), with its gradient written by hand.

    Left to autograd, most of a step would go by here in a dozen passes over (rows, C, d_gate) fresh numbers. But all
    sums, over d_gate forward and over rows backward, are matrix products with GELU(z) or GELU'(z) once rows come
    last; and a few subcomponents at a time, made again for the gradient rather than stored, these stay in the cache.
    It is the chain rule; nothing is approximated.
    """

    @staticmethod
    def forward(ctx, h: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor) -> Tensor:
        h = h.contiguous()
        ctx.save_for_backward(h, w_in, b_in, w_out)
        out = torch.empty_like(h).unsqueeze(1)  # (C, 1, rows)
        for block, _, gelu, _ in _blocks(h, w_in, b_in):
            torch.bmm(w_out[block].unsqueeze(1), gelu, out=out[block])
        return out.squeeze(1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, ...]:
        h, w_in, b_in, w_out = ctx.saved_tensors
        grads = torch.stack([grad * h, grad], dim=1)  # (C, 2, rows)
        along_h = torch.empty_like(h).unsqueeze(1)
        into_z, into_gelu = (h.new_empty(len(h), 2, w_in.shape[1]) for _ in range(2))
        for block, z, gelu, spare in _blocks(h, w_in, b_in):
            torch.bmm(grads[block], gelu.mT, out=into_gelu[block])
            slope = torch.ops.aten.gelu_backward.grad_input(gelu.fill_(1), z, grad_input=spare)  # GELU'(z)
            torch.bmm(grads[block], slope.mT, out=into_z[block])
            torch.bmm((w_in * w_out)[block].unsqueeze(1), slope, out=along_h[block])
        grad_in, grad_bias = (into_z * w_out.unsqueeze(1)).unbind(1)
        return grad * along_h.squeeze(1), grad_in, grad_bias, into_gelu[:, 1]


BLOCK = 2**19
"""Numbers in each of the three arrays that `_Gates` works on at a time: 2 MB in single precision."""


def _blocks(
    h: Float[Tensor, "C rows"], w_in: Float[Tensor, "C d_gate"], b_in: Float[Tensor, "C d_gate"]
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """A few subcomponents at a time: which, their z = h w_in + b_in, GELU(z) and a third array of that shape.

    The arrays (n, d_gate, rows) are the same memory each time.
    """
    (C, rows), d_gate = h.shape, w_in.shape[1]
    n = min(C, max(1, BLOCK // (rows * d_gate))) if h.device.type == "cpu" else C
    arrays = h.new_empty(3, n, d_gate, rows)
    for start in range(0, C, n):
        block = slice(start, min(start + n, C))
        z, gelu, spare = arrays[:, : block.stop - start]
        torch.mul(h[block].unsqueeze(1), w_in[block].unsqueeze(-1), out=z).add_(b_in[block].unsqueeze(-1))
        torch.ops.aten.gelu.out(z, out=gelu)
        yield block, z, gelu, spare


def sample_masks(g: Float[Tensor, "*rows C"], generator: Generator) -> Float[Tensor, "*rows C"]:
    """m = g + (1 - g) r with r ~ U(0, 1), reparametrised: gradients reach g through m."""
    r = torch.rand(g.shape, generator=generator, device=g.device, dtype=g.dtype)
    return torch.lerp(r, r.new_ones(()), g)  # r + (1 - r) g, the same number in one operation
