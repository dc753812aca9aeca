"""Packed projections as layers of their own, in an equal copy of a network.

    [W_q; W_k; W_v] x = [W_q x; W_k x; W_v x]

Attention usually keeps several matrices in one. A component of that one matrix would span queries, keys and values, so
a decomposition is better made of the parts; and `nn.MultiheadAttention` calls no layer at all for them.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import is_parametrized

from ..config import shown
from .attention import Attention
from .fused import Fused, Splits, asked_splits, has_own_forward, is_projection, known_splits, sizes


def unpack(network: nn.Module, splits: Splits | None = None) -> nn.Module:
    """An equal copy of a network in which packed projections are separate `nn.Linear` layers, ready to be decomposed.

        >>> network = pdh.unpack(network)
        >>> run = pdh.fit(network, pdh.SPDConfig(C=30), data, ["layers.*.self_attn.*", "layers.*.linear?"])

    Every `nn.MultiheadAttention` becomes a module with layers q, k, v and o, which takes the same arguments and returns
    the same. PyTorch's Transformer layers that hold one call all of their layers, in evaluation mode too. (Their fast
    path, which does not, gives zeros at padded positions in some cases; the copy gives there what the layers compute.)

    A fused projection, an `nn.Linear` or a `Conv1D` of transformers, becomes a module with one layer for each part,
    whose outputs are put side by side, so whatever follows gets the same numbers. Which ones, `splits` says:

        {"blocks.*.qkv": 3}                                     three equal parts: q, k and v
        {"blocks.*.qkv": {"q": 64, "k": 16, "v": 16}}           parts of any names and numbers of outputs
        {}                                                      none

    Paths may have wildcards, and parts of another number than three are called part_0, part_1 and so on. Without
    `splits`, layers called c_attn, qkv, qkv_proj, in_proj or Wqkv are split in three if they have exactly three times
    as many outputs as inputs, and gate_up_proj in gate and up. Layers called query_key_value (GPT-NeoX, BLOOM) are not:
    their outputs alternate between queries, keys and values head by head, so that equal parts would be mixtures of the
    three. `splits` divides them all the same, and each part is then such a mixture.

    The copy has parameters of its own, in the same mode, types and devices, learned where the originals are; the
    network that is given stays as it is. Each new module is compared with the one it replaces, on random inputs in
    64-bit precision, except where parameters have no values (on the device "meta"). A module that stands in several
    places does so in the copy. Recurrent layers, quantised layers, and subclasses with a forward of their own stay as
    they are.

    Raises TypeError if the network is not an `nn.Module`, cannot be copied, or is compiled, even in part, or if
    `splits` is not such a mapping; ValueError if there is nothing to unpack, if parameters have no values yet, if
    `splits` names no layer or parts that do not add up, and if a packed layer has hooks, computed weights, or a matrix
    that another layer shares; AssertionError if a new module should not be equal, which would be a fault of this
    function.
    """
    _check_network(network)
    plan = _plan(network, splits)
    shared = _shared(network)
    for path in plan:
        _check_packed(path, network.get_submodule(path), shared)
    try:
        unpacked = copy.deepcopy(network)
    except (RuntimeError, TypeError) as error:
        raise TypeError(f"network must be one that copy.deepcopy copies, but that says: {error}") from error
    new = {}
    for path, parts in plan.items():
        packed = unpacked.get_submodule(path)
        new[packed] = Attention(packed) if parts is None else Fused(packed, parts)
        _check_equal(path, packed, new[packed])
    for module in list(unpacked.modules()):
        for name, child in module._modules.items():
            module._modules[name] = new.get(child, child)
    for module in unpacked.modules():
        if isinstance(module, nn.TransformerEncoder) and any(isinstance(part, Attention) for part in module.modules()):
            module.use_nested_tensor = False
    return new.get(unpacked, unpacked)


def _check_network(network: nn.Module) -> None:
    if not isinstance(network, nn.Module):
        raise TypeError(f"network must be an nn.Module, but is {shown(network)}; nn.MultiheadAttention(8, 2) works")
    if isinstance(network, torch.jit.ScriptModule):
        raise TypeError("network is compiled by torch.jit; the one that it was compiled from works")
    for path, module in network.named_modules():
        if "_torchdynamo_orig_callable" in vars(module):  # it would go on to call what it was made from
            what = f"layer {path!r}" if path else "network"
            raise TypeError(f"{what} is compiled by torch.compile; the one that it was compiled from works")
    if any(isinstance(p, nn.parameter.UninitializedTensorMixin) for p in network.parameters()):
        raise ValueError("network has parameters without values; call it on one batch first, as in network(x)")


def _plan(network: nn.Module, splits: Splits | None) -> dict[str, dict[str, int] | None]:
    """Path → the parts of what is unpacked there, or None for attention; a module in several places has one path."""
    attention = {p: m for p, m in network.named_modules() if isinstance(m, nn.MultiheadAttention)}
    within = {part for module in attention.values() for part in module.modules()}
    projections = {
        path: module
        for path, module in network.named_modules(remove_duplicate=False)
        if is_projection(module) and module not in within
    }
    plan: dict[str, dict[str, int] | None] = {p: None for p, m in attention.items() if not has_own_forward(m)}
    plan |= known_splits(network, projections) if splits is None else asked_splits(network, projections, splits)
    if not plan:
        raise ValueError(
            "network has nothing to unpack: it holds no nn.MultiheadAttention with PyTorch's own forward, and no fused "
            "projection that is known by its name; pdh.fit takes the network as it is, and "
            'unpack(network, splits={"blocks.*.qkv": 3}) splits the layers that you name'
        )
    return plan


def _shared(network: nn.Module) -> dict[int, list[str]]:
    """Identity of each parameter → all names it has in the network, of which a module in several places has one."""
    names: dict[int, list[str]] = {}
    for path, module in network.named_modules():
        for name, parameter in module._parameters.items():
            names.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
    return names


def _check_packed(path: str, module: nn.Module, names: Mapping[int, list[str]]) -> None:
    """Raise ValueError for packed layers that do more than multiply by parameters of their own."""
    what = f"layer {path!r}" if path else "the network"
    for part in module.modules():
        hooks = part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks
        if is_parametrized(part) or {"weight", "in_proj_weight"} & vars(part).keys():
            raise ValueError(
                f"{what} has weights that are computed, which cannot be unpacked; make them parameters first, as "
                "torch.nn.utils.parametrize.remove_parametrizations does"
            )
        if any(hooks) or any(p._backward_hooks for p in part._parameters.values() if p is not None):
            raise ValueError(
                f"{what} has hooks, which its parts could not call; remove them first, as hook.remove() does"
            )
    cut = ("in_proj_weight", "in_proj_bias") if isinstance(module, nn.MultiheadAttention) else ("weight", "bias")
    for name in cut:
        parameter = module._parameters[name]
        if parameter is not None and len(names[id(parameter)]) > 1:
            first, second = names[id(parameter)][:2]
            raise ValueError(
                f"{first!r} and {second!r} are one parameter, which could not be shared any more once {what} is "
                "unpacked; give each a parameter of its own"
            )


@torch.no_grad()
def _check_equal(path: str, packed: nn.Module, unpacked: nn.Module) -> None:
    """Raise AssertionError unless both modules compute the same from random inputs, in 64-bit precision on the CPU."""
    if not all(p.is_floating_point() and not p.is_meta for p in packed.parameters()):
        return

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")

    def outputs(module: nn.Module) -> list[Tensor]:
        values = {name: parameter.to("cpu", torch.float64) for name, parameter in module.named_parameters()}
        was_training = module.training
        result = functional_call(module.eval(), values, inputs)
        module.train(was_training)
        return list(result) if isinstance(result, tuple) else [result]

    generator = torch.Generator().manual_seed(0)
    if isinstance(packed, nn.MultiheadAttention):
        queries, keys = ((2, 4), (2, 3)) if packed.batch_first else ((4, 2), (3, 2))
        inputs = normal(*queries, packed.embed_dim), normal(*keys, packed.kdim), normal(*keys, packed.vdim)
    else:
        inputs = (normal(4, sizes(packed)[0]),)
    for expected, output in zip(outputs(packed), outputs(unpacked), strict=True):
        tolerance = 1e-6 * expected.abs().max().nan_to_num(1).item()
        if not torch.allclose(output, expected, rtol=0, atol=tolerance, equal_nan=True):
            raise AssertionError(f"unpacking layer {path!r} changed what it computes; please report this as a bug")
