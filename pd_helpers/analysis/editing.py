"""Networks changed on purpose, in order to test a decomposition or to make use of it.

output_without      the output with one subcomponent switched off
edited              a copy of the network with a matrix added to some of its weights
with_components     a copy with some components of its weights scaled, swapped or rewritten: `Run.edited`
with_identity       a copy with an additional identity layer, whose mechanism we know
shuffled            a copy with the same weights in random order, so that it has no mechanisms to find
component_numbers   the numbers of the components that act in a use
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.analysis.decomposed import Decomposed
from pd_helpers.analysis.masking import check_component, check_name, check_scales
from pd_helpers.core.components import ComponentModel, Components
from pd_helpers.core.config import shown
from pd_helpers.core.networks.batches import Inputs, checked_rows
from pd_helpers.core.networks.frozen import duplicate, make_plain
from pd_helpers.core.networks.layers import kind_of, refusal


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
    """A copy of the network with a matrix added to the weights of some layers; `changes` maps layer → matrix.

    A matrix has the shape of the W that the layer's weight stands for (`core.networks.layers`): (d_out, d_in), also
    where the weight itself is stored transposed or as filters. A weight that layers share changes in all of them.
    Raises TypeError for a layer that has no such matrix, and for a network that cannot be copied.
    """
    try:
        copy = make_plain(deepcopy(network))
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"the network must be one that copy.deepcopy copies, but that says: {error}") from error
    for path, change in changes.items():
        module = copy.get_submodule(path)
        if reason := refusal(path, module):
            raise TypeError(reason)
        module.weight.add_(kind_of(module)(module).as_weight(change))
    return copy


def with_components(
    model: ComponentModel,
    scales: Mapping[str, Mapping[int, float]] | None = None,
    swaps: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    rewrites: Mapping[str, Mapping[int, Tensor]] | None = None,
    batch: Inputs | None = None,
) -> nn.Module:
    """A plain copy of the target with the weights W + Σ_c (s_c P'_c − P_c) in some of its layers.

    Args:
        model: the target and its components.
        scales: layer → {component: s_c}; 0 erases the component, more than 1 amplifies it, less than 0 inverts it.
        swaps: layer → pairs (a, b) of rank-one components that change what they write: P'_a = k U_b V_a and
            P'_b = U_a V_b / k. The ratio k = ‖V_b‖ / ‖V_a‖ lets U_b be written at the size that b gave it; with a
            `batch` it is the ratio of what both read there, mean |V_b x| / mean |V_a x| over all rows.
        rewrites: layer → {component: what it writes from now on}, (d_out,) or (d_out, R), in place of its U.
        batch: what the network takes; inputs on which the swapped components are at work.

    The part of W that the components don't add up to stays, so that with no changes the copy computes just what the
    target does. A weight that several uses share changes in all of them. The copy has memory of its own, is in
    evaluation mode, and all of its parameters can be trained. The model and its target stay as they are.

    Raises TypeError or ValueError, before anything is copied, for layers or components that do not exist, numbers that
    are not finite, tensors of another shape, and components that are swapped or rewritten twice.
    """
    scales = _of_layers("scales", scales, model)
    swaps = _of_layers("swaps", swaps, model)
    rewrites = _of_layers("rewrites", rewrites, model)
    factors = {path: check_scales(f"scales[{path!r}]", given, model.layers[path].C) for path, given in scales.items()}
    written = {path: _rewrites(path, given, model.layers[path]) for path, given in rewrites.items()}
    pairs = {path: _pairs(path, given, model.layers[path], written.get(path, {})) for path, given in swaps.items()}
    if batch is not None and not pairs:
        raise ValueError("batch is given, but swaps is not, and only swaps need it; batch=None works")
    ratios = _ratios(model, pairs, batch)
    changes = {}
    for path in dict.fromkeys([*factors, *pairs, *written]):
        layer, new = model.layers[path], dict(written.get(path, {}))
        for (a, b), k in zip(pairs.get(path, ()), ratios.get(path, ()), strict=True):
            new |= {a: k * layer.U[b].detach(), b: layer.U[a].detach() / k}
        scale = factors.get(path, {})
        if touched := sorted({*new, *scale}):
            U = torch.stack([float(scale.get(c, 1)) * new.get(c, layer.U[c]).detach() for c in touched])
            change = (U - layer.U[touched].detach()).transpose(0, 1).flatten(1)  # (d_out, n R)
            changes[path] = change @ layer.V[touched].detach().flatten(0, 1)
    network = edited(duplicate(model.target), changes)
    for module in list(network.modules()):  # beside a weight that was computed, its sources have no use any more
        vars(module)["_modules"].pop("parametrizations", None)
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    return network


def _of_layers(argument: str, given: Any, model: ComponentModel) -> Mapping[str, Any]:
    """An argument that maps layers to something; TypeError or ValueError if it does not."""
    given = {} if given is None else given
    first = next(iter(model.layers))
    works = {"scales": "{0: 0.0}", "swaps": "[(0, 1)]", "rewrites": "{0: torch.zeros(d_out)}"}[argument]
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument} must map layers to changes, but is {shown(given)}; {{{first!r}: {works}}} works")
    for path in given:
        if path not in model.layers and path in model.uses:
            layer = model.uses[path].layer
            raise ValueError(
                f"{argument} names {path!r}, which uses the weight of {layer!r}; {layer!r} works, and changes both"
            )
        check_name(argument, path, model.layers)
    return given


def _pairs(path: str, given: Any, layer: Components, rewritten: Mapping[int, Tensor]) -> list[tuple[int, int]]:
    """Pairs of components that are swapped, each component once."""
    what = f"swaps[{path!r}]"
    if layer.rank != 1:
        raise ValueError(
            f"{what} must swap components of rank one, but those of {path!r} have rank {layer.rank}, so that which of "
            "their columns belong together is not determined; rewrites works"
        )
    if not isinstance(given, Sequence) or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in given):
        raise TypeError(f"{what} must be a list of pairs of components, but is {shown(given)}; [(0, 1)] works")
    pairs, seen = [], set(rewritten)
    for pair in given:
        a, b = (check_component(f"each component in {what}", c, layer.C) for c in pair)
        if a == b or seen & {a, b}:
            raise ValueError(
                f"{what} must name every component once, and none that is rewritten, but has {(a, b)!r} in "
                f"{shown(list(given))}; one swap for each component works"
            )
        seen |= {a, b}
        pairs.append((a, b))
    return pairs


def _rewrites(path: str, given: Any, layer: Components) -> dict[int, Float[Tensor, "d_out R"]]:
    """Component → its new U."""
    what, shape = f"rewrites[{path!r}]", (layer.d_out, layer.rank)
    works = f"torch.zeros({layer.d_out if layer.rank == 1 else shape})"
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must map components to vectors, but is {shown(given)}; {{0: {works}}} works")
    written = {}
    for c, U in given.items():
        c = check_component(f"a key of {what}", c, layer.C)
        U = torch.as_tensor(U) if isinstance(U, np.ndarray) else U
        if not isinstance(U, Tensor):
            raise TypeError(f"{what}[{c}] must be a tensor, but is {shown(U)}; {works} works")
        if U.shape != shape and not (layer.rank == 1 and U.shape == shape[:1]):
            raise ValueError(f"{what}[{c}] must have the shape of {works}, but has {tuple(U.shape)}; {works} works")
        if not U.isfinite().all():
            raise ValueError(f"{what}[{c}] must be finite, but has NaN or infinite numbers; {works} works")
        written[c] = U.detach().reshape(shape).to(layer.U)
    return written


@torch.no_grad()
def _ratios(
    model: ComponentModel, pairs: Mapping[str, list[tuple[int, int]]], batch: Inputs | None
) -> dict[str, list[float]]:
    """Layer → for each of its pairs (a, b), how much larger what b reads is than what a reads."""
    if batch is None:
        sizes = {path: model.layers[path].V.flatten(1).norm(dim=1) for path in pairs}
    else:
        sizes = {path: model.layers[path].V.new_zeros(model.layers[path].C) for path in pairs}
        for x in model.chunks(checked_rows(batch, "batch"), CHUNK):
            read = model.inner(model.entering(x))
            for path in pairs:
                sizes[path] += read[path].flatten(0, -3).abs().sum(dim=(0, -1))
    for path, of_layer in pairs.items():
        if silent := [c for pair in of_layer for c in pair if not sizes[path][c] > 0]:
            where = "" if batch is None else " in batch; inputs on which it is at work, or batch=None,"
            raise ValueError(
                f"swaps[{path!r}] has component {silent[0]}, which reads nothing{where or '; a component that does'} "
                "works"
            )
    return {path: [(sizes[path][b] / sizes[path][a]).item() for a, b in of_layer] for path, of_layer in pairs.items()}


CHUNK = 4096
"""Rows that are read at a time."""


def component_numbers(run: Decomposed, use: str) -> range:
    """The numbers of the components that act in this use."""
    return range(run.components.layers[run.components.uses[use].layer].C)
