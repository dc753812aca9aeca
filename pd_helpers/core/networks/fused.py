"""Fused projections: which linear layers hold several matrices, what the parts are, and the layers side by side.

y = W x,  W (d_out, d_in)   =   [W_q; W_k; W_v] x   =   [W_q x; W_k x; W_v x]
"""

import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config import shown
from .attention import linear, pieces

THREE = ("c_attn", "qkv", "qkv_proj", "in_proj", "Wqkv")
"""Names that mean queries, keys and values one after the other, if there are three times as many outputs as inputs."""
OTHERWISE = (
    "CodeGenAttention", "DisentangledSelfAttention", "GPTBigCodeAttention", "Lfm2MoeShortConv", "Lfm2ShortConv",
    "Lfm3ShortConv", "Lfm3VlVisionShortConv", "MiniMaxLightningAttention", "Phi4MultimodalAudioMLP",
)  # fmt: skip
"""Classes of transformers that mean something else by these names: other parts, another order, or heads interleaved."""

Splits = Mapping[str, int | Mapping[str, int]]
"""Path or wildcard → number of equal parts, or name of each part → its number of outputs."""


class Fused(nn.Module):
    """Linear layers that read the same input and whose outputs, side by side, are those of the one layer they were.

    The layers have the names of the parts, in the order of their outputs. Weight and bias of the whole can be read, for
    code that looks at them.
    """

    transposed = False
    """Whether the weight of the whole is (d_in, d_out), as that of a Conv1D is."""

    def __init__(self, packed: nn.Module, parts: Mapping[str, int]):
        super().__init__()
        self.transposed = not isinstance(packed, nn.Linear)
        widths = list(parts.values())
        weight = packed.weight.T if self.transposed else packed.weight
        weights = pieces(weight, widths, packed.weight.requires_grad)
        biases = pieces(packed.bias, widths, packed.bias is not None and packed.bias.requires_grad)
        for name, part, bias in zip(parts, weights, biases, strict=True):
            self.add_module(name, linear(part, bias))
        self.train(packed.training)

    def forward(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        return torch.cat([part(x) for part in self.children()], dim=-1)

    @property
    def weight(self) -> Tensor:
        whole = torch.cat([part.weight for part in self.children()])
        return whole.T if self.transposed else whole

    @property
    def bias(self) -> Tensor | None:
        biases = [part.bias for part in self.children()]
        return None if biases[0] is None else torch.cat(biases)


def is_projection(module: nn.Module) -> bool:
    """Whether this is a linear layer of torch or of transformers, which exists only once transformers is imported."""
    transformers = sys.modules.get("transformers.pytorch_utils")
    return isinstance(module, (nn.Linear, transformers.Conv1D) if transformers else nn.Linear)


def has_own_forward(module: nn.Module) -> bool:
    """Whether a subclass, or somebody after it was made, gave a packed layer another forward pass."""
    known = [kind for kind in (nn.MultiheadAttention, nn.Linear) if isinstance(module, kind)]
    forward = known[0].forward if known else sys.modules["transformers.pytorch_utils"].Conv1D.forward
    return type(module).forward is not forward or "forward" in vars(module)


def sizes(module: nn.Module) -> tuple[int, int]:
    """Numbers of inputs and outputs of a projection."""
    d_out, d_in = module.weight.shape if isinstance(module, nn.Linear) else module.weight.T.shape
    return d_in, d_out


def known_splits(network: nn.Module, projections: Mapping[str, nn.Module]) -> dict[str, dict[str, int]]:
    """Path → parts, for the projections that can be told by their names."""
    found: dict[nn.Module, tuple[str, dict[str, int]]] = {}
    for path, module in projections.items():
        before, _, name = path.rpartition(".")
        if name not in (*THREE, "gate_up_proj") or has_own_forward(module):
            continue
        d_in, d_out = sizes(module)
        if type(network.get_submodule(before)).__name__ in OTHERWISE:
            continue
        if name in THREE and d_out == 3 * d_in:
            found.setdefault(module, (path, dict.fromkeys("qkv", d_in)))
        elif name == "gate_up_proj" and d_out % 2 == 0:
            found.setdefault(module, (path, dict.fromkeys(("gate", "up"), d_out // 2)))
    return dict(found.values())


def asked_splits(network: nn.Module, projections: Mapping[str, nn.Module], splits: Splits) -> dict[str, dict[str, int]]:
    """Path → parts, for the projections that `splits` names."""
    if not isinstance(splits, Mapping) or not all(isinstance(pattern, str) for pattern in splits):
        raise TypeError(f'splits must map paths to parts, but is {shown(splits)}; {{"blocks.*.qkv": 3}} works')
    found: dict[nn.Module, tuple[str, dict[str, int]]] = {}
    by: dict[nn.Module, str] = {}
    for pattern, parts in splits.items():
        _check_parts(pattern, parts)
        matched = {path: module for path, module in projections.items() if fnmatchcase(path, pattern)}
        if not matched:
            raise ValueError(_no_match(network, projections, pattern))
        for path, module in matched.items():
            if has_own_forward(module):
                raise ValueError(
                    f"splits[{pattern!r}] names {path!r}, a {type(module).__name__} with a forward of its own, which "
                    "the parts would leave out; an nn.Linear works"
                )
            if by.setdefault(module, pattern) != pattern:
                raise ValueError(
                    f"splits[{by[module]!r}] and splits[{pattern!r}] both name {path!r}; one of them works"
                )
            found.setdefault(module, (path, _parts(path, module, pattern, parts)))
    return dict(found.values())


def _no_match(network: nn.Module, projections: Mapping[str, nn.Module], pattern: str) -> str:
    others = {path: module for path, module in network.named_modules() if path and fnmatchcase(path, pattern)}
    what = next((f"only {path!r}, a {type(module).__name__}" for path, module in others.items()), "no module")
    works = f'{{"{next(iter(projections))}": 2}} names one' if projections else "this network has none"
    return f"splits[{pattern!r}] must name an nn.Linear or a Conv1D, but names {what}; {works}"


def _check_parts(pattern: str, parts: Any) -> None:
    """Raise TypeError or ValueError unless this says how to divide a layer, of whatever size."""

    def is_count(value: Any, least: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    good = is_count(parts, 2)
    if isinstance(parts, Mapping):
        good = len(parts) > 1 and all(is_count(width, 1) for width in parts.values())
        taken = dir(Fused) + list(vars(nn.Module()))
        for name in parts:
            if not isinstance(name, str) or not name.isidentifier() or name in taken:
                raise ValueError(
                    f"splits[{pattern!r}] must name parts by words that can be attributes of a module, but has "
                    f"{shown(name)}; 'q' works"
                )
    elif not isinstance(parts, int):
        raise TypeError(f"splits[{pattern!r}] must be a number of parts or their sizes, but is {shown(parts)}; 3 works")
    if not good:
        raise ValueError(
            f"splits[{pattern!r}] must be a number of parts from 2 on, or the outputs of two parts or more, but is "
            f'{shown(parts)}; 3 and {{"q": 64, "k": 16, "v": 16}} work'
        )


def _parts(path: str, module: nn.Module, pattern: str, parts: int | Mapping[str, int]) -> dict[str, int]:
    """Name of each part → its number of outputs."""
    d_out = sizes(module)[1]
    if isinstance(parts, Mapping):
        if sum(parts.values()) != d_out:
            raise ValueError(
                f"splits[{pattern!r}] must add up to the {d_out} outputs of {path!r}, but adds up to "
                f"{sum(parts.values())}"
            )
        return dict(parts)
    if d_out % parts:
        works = next((n for n in range(parts - 1, 1, -1) if d_out % n == 0), None)
        instead = f"{works} works" if works else f'{{"a": 1, "b": {d_out - 1}}} works'
        raise ValueError(f"splits[{pattern!r}] must divide the {d_out} outputs of {path!r}, but is {parts}; {instead}")
    return dict.fromkeys("qkv" if parts == 3 else (f"part_{i}" for i in range(parts)), d_out // parts)
