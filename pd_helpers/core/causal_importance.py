"""How far can a subcomponent be ablated? Causal importance functions and stochastic masks (SPD section 2).

    h_c = V_c x                           x: the layer's input in the target's own forward pass
    g_c = σ(Γ_c(h_c))  ∈ [0, 1]           Γ_c: a small MLP for each subcomponent, 1 → d_gate GELU → 1
    m_c = g_c + (1 - g_c) r,              r ~ U(0, 1)

A subcomponent with importance 1 is therefore always on, and one with importance 0 is scaled by any number in [0, 1].
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from .components import ComponentModel
from .shortcuts.gate_kernel import gates
from .shortcuts.parts import Share

LEAK = 0.01
"""Slope of a leaky hard sigmoid on its leaky side."""


def hard_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 below 0, x between 0 and 1, and 1 above 1."""
    return x.clamp(0, 1)


def lower_leaky(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hard sigmoid with slope 0.01 below 0, used for masks, so that an importance of zero can rise again."""
    return F.leaky_relu(x, LEAK).clamp(max=1)


class _StraightThrough(torch.autograd.Function):
    """0 below 0, x between 0 and 1, and 1 above 1; below 0 a gradient passes as if the slope were 0.01 there, but only
    one that wants x to rise."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, torch.where(x > 1, 0.0, grad), LEAK * grad.clamp(max=0))


def straight_through(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Hard sigmoid whose slope below 0 is 0.01 for gradients that want x to rise, and 0 for others (VPD).

    Like `lower_leaky`, it lets an importance of zero rise again; unlike that, it never gives a negative mask.
    """
    return _StraightThrough.apply(x)


MASK_SIGMOIDS = {"leaky": lower_leaky, "straight_through": straight_through}
"""Name in a configuration → the hard sigmoid of the importances from which masks are made."""


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


class Table(NamedTuple):
    """Numbers of every row and every subcomponent, for uses whose rows have the same shape."""

    uses: dict[str, int]
    """Use → its number of columns C, in order."""
    values: Float[Tensor, "*rows sum_C"]
    share: Share | None = None
    """Which rows these are, of a batch that is computed in parts; None for those of all inputs."""

    def split(self, values: Float[Tensor, "*rows sum_C"] | None = None) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → its columns, of the table's values or of others of the same shape."""
        values = self.values if values is None else values
        return dict(zip(self.uses, values.split(list(self.uses.values()), dim=-1), strict=True))


class CausalImportance(nn.Module):
    """The importance functions of a whole decomposition: an `ImportanceMLP` for every use of every matrix.

    Those of uses whose rows have the same shape are computed at once, as the columns of one table.

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

    def named(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters, each with a name that says whose it is."""
        for use, mlp in self.mlps.items():
            yield from ((f"{use}.{name}", parameter) for name, parameter in mlp.named_parameters())

    def forward(
        self,
        inner: Mapping[str, Float[Tensor, "*_ C 1"]],
        inputs: Mapping[str, Tensor] | None = None,
        shares: Mapping[str, Share] | None = None,
    ) -> list[Table]:
        """Γ_c(h_c) of every subcomponent in every use, before any sigmoid; `inner` maps use → V_c x (*rows, C, 1).

        `inputs`, use → x, is what other importance functions read. `shares` says of a part of a batch which rows of
        the uses belong to it.
        """
        by_rows: dict[tuple[tuple[int, ...], Share | None], dict[str, Tensor]] = {}
        for path in self.mlps:
            h = inner[path].squeeze(-1)  # (*rows, C)
            by_rows.setdefault((h.shape[:-1], (shares or {}).get(path)), {})[path] = h
        tables = []
        for (rows, share), parts in by_rows.items():
            h = torch.cat(list(parts.values()), dim=-1)  # (*rows, ΣC)
            weights = zip(*(self.mlps[path].parameters() for path in parts), strict=True)
            values = gates(h.flatten(0, -2), *map(torch.cat, weights)).reshape(*rows, -1)
            tables.append(Table({path: part.shape[-1] for path, part in parts.items()}, values, share))
        return tables


def sample_masks(
    g: Float[Tensor, "*rows C"], generator: Generator, share: Share | None = None
) -> Float[Tensor, "*rows C"]:
    """m = g + (1 - g) r with r ~ U(0, 1), reparametrised, so that gradients reach g through m.

    Where g belongs to a part of a batch, `share` says to which: r is drawn for all of the batch.
    """
    if share is None:
        r = torch.rand(g.shape, generator=generator, device=g.device, dtype=g.dtype)
    else:
        r = share.rand(g, generator)
    return torch.lerp(r, r.new_ones(()), g)  # r + (1 - r) g, the same number in one operation
