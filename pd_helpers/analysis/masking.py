"""The network under masks, in any forward pass that one likes: W acts as Σ_c m_c P_c, its other layers as they are.

    with masked(run.components, {"fc1": {3: 0.0}}) as network:
        network(x)

A training pass (`ComponentModel.forward`) calls every layer once and keeps all activations. Here nothing is kept, and a
layer may be called as often as the network likes, as a language model does that writes one token after the other.
"""

import math
import numbers
import operator
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

from torch import Tensor, nn

from pd_helpers.core.components import ComponentModel, Components
from pd_helpers.core.config import shown
from pd_helpers.core.networks.frozen import duplicate
from pd_helpers.core.networks.layers import Layer

Masks = Mapping[str, Tensor | Mapping[int, float]] | Tensor
"""Use → mask (C,), (inputs, C) or (*rows, C), or {component: number} where the others are one; or one mask for all."""


def masked(model: ComponentModel, masks: Masks) -> AbstractContextManager[nn.Module]:
    """Within the block, a network that returns what the target returns, with masked components in some of its uses.

    Args:
        model: the target and its components.
        masks: use → mask; uses that are not named keep the target's own weights. A mask is a tensor (C,), the same for
            every row; (inputs, C), the same for all rows of an input; or (*rows, C); or {component: number}, where all
            other components keep the mask 1. One tensor instead of a mapping is the mask of every use.

    Under a mask a matrix is Σ_c m_c P_c and nothing else: what the components don't add up to is left out.

    The network is a copy in evaluation mode that shares its parameters with the target, which stays as it is, so blocks
    may stand inside one another, and each network has its own masks. Gradients reach masks and inputs, but not U, V
    and the target's parameters. After the block the network refuses to compute.

    Raises TypeError or ValueError, before the block begins, for masks that name no use or have another shape or
    component; a mask whose rows are not those that enter its use raises ValueError in the forward pass.
    """
    if isinstance(masks, Tensor):
        masks = dict.fromkeys(model.uses, masks)
    first, (layer, _) = next(iter(model.uses.items()))
    if not isinstance(masks, Mapping):
        works = f"{{{first!r}: torch.ones({model.layers[layer].C})}}"
        raise TypeError(f"masks must map layers to masks, but is {shown(masks)}; {works} works")
    given = {}
    for path, mask in masks.items():
        check_name("masks", path, model.uses)
        given[path] = _checked(path, mask, model.layers[model.uses[path].layer])
    return _masked(model, given)


@contextmanager
def _masked(model: ComponentModel, masks: Mapping[str, Tensor]) -> Iterator[nn.Module]:
    network = duplicate(model.target)
    modules = {path: network.get_submodule(path) for path in masks}
    for path, module in modules.items():
        layer, transposed = model.uses[path]
        kind = type(model.kinds[path])(module)
        module.forward = MaskedLayer(path, kind, duplicate(model.layers[layer]), transposed, masks[path])
    try:
        yield network
    finally:
        for module in modules.values():
            module.forward = _over


def _over(*_: Any, **__: Any) -> NoReturn:
    raise ValueError("the masks of this network held within their with block only; call it there")


class MaskedLayer:
    """The forward of one layer under a mask: write(Σ_c m_c U_c read(x, V_c)).

    Args:
        path: where the layer stands.
        kind: how it reads and writes.
        components: the components of its matrix, without gradients.
        transposed: whether the matrix acts transposed.
        mask: (C,), (inputs, C) or (*rows, C).
    """

    def __init__(self, path: str, kind: Layer, components: Components, transposed: bool, mask: Tensor):
        self.path, self.kind, self.components, self.transposed, self.mask = path, kind, components, transposed, mask

    def __call__(self, input: Tensor) -> Tensor:
        read, layer, mask = self.kind.read, self.components, self.mask
        self.kind.check(self.path, input, layer.U.dtype)
        inner = layer.inner(input, self.transposed, read)  # (*rows, C, R)
        if mask.ndim == 1:
            mask = mask.expand(inner.shape[:-1])
        return self.kind.write(layer(input, mask, self.transposed, inner, read))


def _checked(path: str, mask: Any, layer: Components) -> Tensor:
    """A mask as numbers of the components' type on their device."""
    if isinstance(mask, Mapping):
        scales = check_scales(f"masks[{path!r}]", mask, layer.C)
        mask = layer.U.new_ones(layer.C)
        for c, scale in scales.items():
            mask[c] = scale
    if not isinstance(mask, Tensor):
        raise TypeError(
            f"masks[{path!r}] must be a tensor or a mapping from components to numbers, but is {shown(mask)}; "
            f"torch.ones({layer.C}) works"
        )
    if mask.ndim == 0 or mask.shape[-1] != layer.C:
        raise ValueError(
            f"masks[{path!r}] must have one number for each of {layer.C} components, but has shape "
            f"{tuple(mask.shape)}; torch.ones({layer.C}) works"
        )
    return mask.to(layer.U)


def check_name(argument: str, path: Any, known: Mapping[str, Any]) -> None:
    """Raise ValueError unless this is one of the names that an argument may have."""
    if not isinstance(path, str) or path not in known:
        raise ValueError(f"{argument} names {shown(path)}, which is not decomposed; {', '.join(map(repr, known))} work")


def check_component(what: str, c: Any, C: int) -> int:
    """A component's number as an int; TypeError unless it is whole, and ValueError unless there is such a component."""
    try:
        number = None if isinstance(c, bool) else operator.index(c)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{what} must be the number of a component, but is {shown(c)}; 0 works")
    if not 0 <= number < C:
        raise ValueError(f"{what} must be a component from 0 to {C - 1}, but is {number}; {C - 1} works")
    return number


def check_scales(what: str, given: Any, C: int) -> dict[int, float | Tensor]:
    """Component → finite number, as it was given; TypeError or ValueError for anything else."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must map components to numbers, but is {shown(given)}; {{0: 0.0}} works")
    scales = {}
    for c, scale in given.items():
        c = check_component(f"a key of {what}", c, C)
        is_number = isinstance(scale, numbers.Real) or (isinstance(scale, Tensor) and scale.ndim == 0)
        if isinstance(scale, bool) or not is_number:
            raise TypeError(f"{what}[{c}] must be a number, but is {shown(scale)}; 0.0 works")
        value = float(scale.detach() if isinstance(scale, Tensor) else scale)
        if not math.isfinite(value):
            raise ValueError(f"{what}[{c}] must be a finite number, but is {value}; 0.0 works")
        scales[c] = scale
    return scales
