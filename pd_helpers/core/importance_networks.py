"""Importance functions that read whole activations, where SPD's read one number each (VPD, and public code since).

    layer     g_l = σ(MLP_l(x_l))                 an MLP for every use of a matrix, on the activation x_l that enters it
    shared    g = σ(Γ(x_1/‖x_1‖, x_2/‖x_2‖, …))   one network for all, on all of these activations, RMS-normalised

The shared network is linear → blocks of a transformer → linear. Where an input has several rows, such as positions,
each of them reads all others.
"""

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from .causal_importance import CausalImportance, Table
from .components import ComponentModel
from .shortcuts.parts import Share

N_HEADS = 4
"""Attention heads of a transformer block, where its width can be divided by that; else it has one."""
EPS = 1e-6
"""Added to a mean square before its root is taken."""


class LayerMLPs(nn.Module):
    """An MLP d_in → d_gate GELU → C for every use of a matrix, on the activation that enters it.

    Attributes: w_in (use → (d_gate, d_in)), b_in, w_out (use → (C, d_gate)), b_out.
    """

    def __init__(self, model: ComponentModel, *, d_gate: int, generator: Generator):
        super().__init__()
        self.kinds, self.uses, sizes = model.kinds, list(model.uses), _sizes(model)
        widths = _widths(model)
        self.w_in = nn.ParameterList(_normal(d_gate, widths[use], 2.0, generator) for use in self.uses)
        self.b_in = nn.ParameterList(_zeros(d_gate, generator) for _ in self.uses)
        self.w_out = nn.ParameterList(_normal(sizes[use], d_gate, 1.0, generator) for use in self.uses)
        self.b_out = nn.ParameterList(_zeros(sizes[use], generator) for use in self.uses)
        self.to(model.factors[0])

    def named(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters, each with a name that says whose it is."""
        for name in ("w_in", "b_in", "w_out", "b_out"):
            yield from ((f"{use}.{name}", p) for use, p in zip(self.uses, getattr(self, name), strict=True))

    def forward(
        self,
        inner: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        shares: Mapping[str, Share] | None = None,
    ) -> list[Table]:
        """What the MLPs give, before any sigmoid, as `CausalImportance.forward` does."""
        by_rows: dict[tuple[tuple[int, ...], Share | None], dict[str, Tensor]] = {}
        for use, *weights in zip(self.uses, self.w_in, self.b_in, self.w_out, self.b_out, strict=True):
            w_in, b_in, w_out, b_out = weights
            h = F.gelu(self.kinds[use].read(inputs[use], w_in).to(w_in.dtype) + b_in)
            values = F.linear(h, w_out, b_out)  # (*rows, C)
            by_rows.setdefault((values.shape[:-1], (shares or {}).get(use)), {})[use] = values
        return [
            Table({use: values.shape[-1] for use, values in parts.items()}, torch.cat(list(parts.values()), -1), share)
            for (_, share), parts in by_rows.items()
        ]


class SharedNetwork(nn.Module):
    """One network that reads what enters all decomposed layers and gives all importances.

    Raises ValueError, in its first pass, where the layers do not have the same rows.
    """

    def __init__(self, model: ComponentModel, *, d_gate: int, n_blocks: int, generator: Generator):
        super().__init__()
        self.kinds, self.uses, self.sizes = model.kinds, list(model.uses), _sizes(model)
        self.widths = _widths(model)
        total = sum(self.widths.values())
        self.w_in = nn.ParameterList(
            _normal(d_gate, self.widths[use], self.widths[use] / total, generator) for use in self.uses
        )
        self.b_in = _zeros(d_gate, generator)
        self.blocks = nn.ModuleList(Block(d_gate, generator) for _ in range(n_blocks))
        self.w_out = _normal(sum(self.sizes.values()), d_gate, 1.0, generator)
        self.b_out = _zeros(sum(self.sizes.values()), generator)
        self.to(model.factors[0])

    def named(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The parameters with their names."""
        return self.named_parameters()

    def forward(
        self,
        inner: Mapping[str, Tensor],
        inputs: Mapping[str, Tensor],
        shares: Mapping[str, Share] | None = None,
    ) -> list[Table]:
        """What the network gives, before any sigmoid, as `CausalImportance.forward` does."""
        rows = {use: inner[use].shape[:-2] for use in self.uses}
        if len(set(rows.values())) > 1:
            raise ValueError(
                f"importance_network is 'shared', which needs layers that all have the same rows, but they have "
                f"{', '.join(f'{tuple(shape)} in {use}' for use, shape in rows.items())}; 'layer' works"
            )
        h = self.b_in
        for use, w in zip(self.uses, self.w_in, strict=True):
            h = h + (self.kinds[use].read(inputs[use], w) * self._scale(use, inputs[use])).to(w.dtype)
        for block in self.blocks:
            h = block(h)
        share = (shares or {}).get(self.uses[0])
        return [Table(self.sizes, F.linear(h, self.w_out, self.b_out), share)]

    def _scale(self, use: str, x: Tensor) -> Tensor | float:
        """1 over the root mean square of every row; 1 for tokens, which stand for one-hot vectors."""
        if not x.is_floating_point():
            return 1.0
        mean = x.new_full((1, self.widths[use]), 1 / self.widths[use])
        return (self.kinds[use].read(x.square(), mean) + EPS).rsqrt()


class Block(nn.Module):
    """h + attention(norm h), which looks both ways, and then h + MLP(norm h)."""

    def __init__(self, d: int, generator: Generator):
        super().__init__()
        self.n_heads = N_HEADS if d % N_HEADS == 0 else 1
        self.w_qkv = _normal(3 * d, d, 1.0, generator)
        self.w_o = _normal(d, d, 1.0, generator)
        self.w_up, self.b_up = _normal(4 * d, d, 2.0, generator), _zeros(4 * d, generator)
        self.w_down, self.b_down = _normal(d, 4 * d, 1.0, generator), _zeros(d, generator)

    def forward(self, h: Float[Tensor, "inputs *rows d"]) -> Float[Tensor, "inputs *rows d"]:
        sequence = h.reshape(len(h), -1, h.shape[-1])  # (inputs, T, d); T = 1 for vectors
        qkv = F.linear(_normed(sequence), self.w_qkv).unflatten(-1, (3, self.n_heads, -1))
        attended = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))  # (inputs, heads, T, d / heads)
        h = h + F.linear(attended.transpose(1, 2).flatten(2), self.w_o).view_as(h)
        return h + F.linear(F.gelu(F.linear(_normed(h), self.w_up, self.b_up)), self.w_down, self.b_down)


def importance_network(
    model: ComponentModel, which: str, *, d_gate: int, n_blocks: int, generator: Generator
) -> CausalImportance | LayerMLPs | SharedNetwork:
    """The importance functions that a configuration's `importance_network` names."""
    if which == "shared":
        return SharedNetwork(model, d_gate=d_gate, n_blocks=n_blocks, generator=generator)
    kind = LayerMLPs if which == "layer" else CausalImportance
    return kind(model, d_gate=d_gate, generator=generator)


def _sizes(model: ComponentModel) -> dict[str, int]:
    """Use → number of its subcomponents."""
    return {use: model.layers[layer].C for use, (layer, _) in model.uses.items()}


def _widths(model: ComponentModel) -> dict[str, int]:
    """Use → width of the rows that enter it."""
    return {use: model.targets[layer].shape[0 if transposed else 1] for use, (layer, transposed) in model.uses.items()}


def _normal(n: int, fan_in: int, gain: float, generator: Generator) -> nn.Parameter:
    """A matrix (n, fan_in) of normal numbers with variance gain / fan_in."""
    draw = torch.randn(n, fan_in, generator=generator, device=generator.device)
    return nn.Parameter(math.sqrt(gain / fan_in) * draw)


def _zeros(n: int, generator: Generator) -> nn.Parameter:
    return nn.Parameter(torch.zeros(n, device=generator.device))


def _normed(h: Tensor) -> Tensor:
    return h * (h.square().mean(dim=-1, keepdim=True) + EPS).rsqrt()
