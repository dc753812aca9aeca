"""Networks changed on purpose, in order to test a decomposition or to make use of it.

output_without      the output with one subcomponent switched off
edited              a copy of the network with a matrix added to some of its weights
with_identity       a copy with an additional identity layer, whose mechanism we know
shuffled            a copy with the same weights in random order, so that it has no mechanisms to find
component_numbers   the numbers of the components that act in a use
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.core.networks.frozen import make_plain


def with_identity(network: nn.Sequential, before: str, name: str = "identity") -> nn.Sequential:
    """A copy of the network that computes the same, with an identity matrix as an additional layer before `before`.

    Raises ValueError if `before` is not the name of an `nn.Linear` of the network.
    """
    layers = dict(deepcopy(network).named_children())
    if before not in layers or not isinstance(layers[before], nn.Linear):
        linear = [path for path, layer in layers.items() if isinstance(layer, nn.Linear)]
        raise ValueError(f"before must name an nn.Linear of the network, but is {before!r}; {linear[-1]!r} works")
    weight = layers[before].weight
    identity = nn.Linear(weight.shape[1], weight.shape[1], bias=False, device=weight.device, dtype=weight.dtype)
    nn.init.eye_(identity.weight)
    copy = nn.Sequential()
    for path, layer in layers.items():
        if path == before:
            copy.add_module(name, identity)
        copy.add_module(path, layer)
    return copy


def shuffled(network: nn.Module, generator: Generator) -> nn.Module:
    """A copy whose weight matrices have the same entries in a random order."""
    copy = make_plain(deepcopy(network))
    with torch.no_grad():
        for module in copy.modules():
            if isinstance(module, nn.Linear):
                order = torch.randperm(module.weight.numel(), generator=generator, device=generator.device)
                module.weight.copy_(module.weight.flatten()[order.to(module.weight.device)].view_as(module.weight))
    return copy


@torch.no_grad()
def output_without(run: Decomposed, x: Float[Tensor, "rows d_in"], use: str, c: int) -> Float[Tensor, "rows d_output"]:
    """The output with one subcomponent of one use switched off."""
    masks = {path: x.new_ones(len(x), len(component_numbers(run, path))) for path in run.components.uses}
    masks[use][:, c] = 0
    return run.components(x, masks).output


@torch.no_grad()
def edited(network: nn.Module, changes: Mapping[str, Float[Tensor, "d_out d_in"]]) -> nn.Module:
    """A copy of the network with a matrix added to the weights of some layers; `changes` maps layer → matrix."""
    copy = make_plain(deepcopy(network))
    for path, change in changes.items():
        copy.get_submodule(path).weight.add_(change)
    return copy


def component_numbers(run: Decomposed, use: str) -> range:
    """The numbers of the components that act in this use."""
    return range(run.components.layers[run.components.uses[use].layer].C)
