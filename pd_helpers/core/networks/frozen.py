"""The network that is decomposed: a frozen copy of the one that was given.

A decomposition runs a network thousands of times while some of its layers compute something else. It does so on a copy,
so that nothing reaches the network that was handed in: its training mode, running statistics, gradients and device stay
as they are, also after an error, and two threads can decompose it at the same time.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import RLock
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

_copies: WeakSet[nn.Module] = WeakSet()
"""Every copy that `frozen` made."""
_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()
"""Network → its lock, which is kept here because a network with a lock in it could not be copied."""


def frozen(network: nn.Module, device: str | torch.device | None = None) -> nn.Module:
    """A copy of the network in evaluation mode, on that device, whose parameters get no gradients.

    The numbers of parameters are shared, where the device is the same, and all other tensors are copied. A weight that
    `torch.nn.utils.parametrize` computes from others becomes a plain parameter beside them. A frozen network that was
    made here, and is on that device, is returned itself.

    Raises TypeError for anything but an `nn.Module`, and ValueError if a parameter has no values yet.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"the network must be an nn.Module, but is a {type(network).__name__}; nn.Linear(3, 2) works")
    if network in _copies and _is_frozen(network) and (device is None or _is_on(network, torch.device(device))):
        return network
    frozen_copy = _copied(network, {})
    for module in frozen_copy.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # without this, evaluation mode would pass its layers by
    make_plain(frozen_copy)
    frozen_copy.eval()  # for networks that do more than `training` says
    _copies.add(frozen_copy)
    return frozen_copy if device is None else frozen_copy.to(device)


def duplicate(network: nn.Module) -> nn.Module:
    """A copy of a network, or of any module, with modules of its own.

    The numbers of parameters are shared, get no gradients, and all other tensors are copied, as in `frozen`.
    """
    return _copied(network, {})


def _is_frozen(network: nn.Module) -> bool:
    learning = any(module.training for module in network.modules())
    return not learning and not any(p.requires_grad for p in network.parameters())


def _is_on(network: nn.Module, device: torch.device) -> bool:
    tensors = [*network.parameters(), *network.buffers()]
    return all(t.device.type == device.type and device.index in (None, t.device.index) for t in tensors)


def _copied(value: Any, known: dict[int, Any]) -> Any:
    """A copy of the modules and tensors in a value, each once; all else is shared, as `nn.DataParallel` does."""
    if id(value) in known:
        return known[id(value)]
    if isinstance(value, torch.jit.ScriptModule):
        with torch.no_grad():
            known[id(value)] = script = copy.deepcopy(value).eval()
        for parameter in script.parameters():
            parameter.detach_()
    elif isinstance(value, nn.Module):
        known[id(value)] = module = object.__new__(type(value))
        vars(module).update((name, _copied(part, known)) for name, part in vars(value).items())
        vars(module)["training"] = False
        if "_compiled_call_impl" in vars(module):
            vars(module)["_compiled_call_impl"] = None  # compiling would begin anew for every mask
        if "_torchdynamo_orig_callable" in vars(module):  # the wrapper that torch.compile puts around a network
            vars(module)["forward"] = module._modules["_orig_mod"]
    elif isinstance(value, nn.parameter.UninitializedTensorMixin):
        raise ValueError("the network has parameters without values; call it on one batch first, as in network(x)")
    elif isinstance(value, nn.Parameter):
        numbers = value.clone() if value.is_inference() else value.detach()
        known[id(value)] = nn.Parameter(numbers, requires_grad=False)
    elif isinstance(value, Tensor):
        known[id(value)] = value.detach().clone()
    elif type(value) is list:
        known[id(value)] = parts = []
        parts.extend(_copied(part, known) for part in value)
    elif type(value) in (dict, OrderedDict):
        known[id(value)] = parts = type(value)()
        parts.update((_copied(key, known), _copied(part, known)) for key, part in value.items())
    elif type(value) in (tuple, set):
        return type(value)(_copied(part, known) for part in value)
    elif isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
        return MethodType(value.__func__, _copied(value.__self__, known))
    elif type(value) is partial:
        return partial(_copied(value.func, known), *_copied(value.args, known), **_copied(value.keywords, known))
    return known.get(id(value), value)


@torch.no_grad()
def make_plain(network: nn.Module) -> nn.Module:
    """The network itself, its computed weights (`torch.nn.utils.parametrize`) made parameters beside their sources."""
    for module in list(network.modules()):
        computed = module.parametrizations if is_parametrized(module) else ()
        weights = {name: getattr(module, name).clone() for name in computed if name not in module._parameters}
        if weights:
            module.__class__ = type(module).__bases__[0]  # the class that it had before it was parametrized
        for name, weight in weights.items():
            module.register_parameter(name, nn.Parameter(weight, requires_grad=False))
    return network


def lock_of(network: nn.Module) -> RLock:
    """What a thread holds while it changes what the network computes for a moment."""
    return _locks.get(network) or _locks.setdefault(network, RLock())


@contextmanager
def replaced_forwards(network: nn.Module, forwards: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Within the block these modules of a frozen network compute these functions; other threads wait for its end."""
    with lock_of(network):
        try:
            for module, forward in forwards.items():
                module.forward = forward
            yield
        finally:
            for module in forwards:
                vars(module).pop("forward", None)
