"""The network that is decomposed: a frozen copy of it, and the places where its matrices act.

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
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

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


class TransposedLinear(nn.Module):
    """y = Wᵀ x + b, where W (d_out, d_in) is another layer's parameter: the second use of a tied matrix.

    It is a module of its own, so that a decomposition can give the second use its own masks. Raises TypeError if the
    other layer's weight is computed and not a parameter.
    """

    def __init__(self, source: nn.Linear):
        super().__init__()
        if not isinstance(source.weight, nn.Parameter):
            raise TypeError(
                "source must have a parameter as its weight, but its weight is computed; nn.Linear(3, 2) works"
            )
        self.weight = source.weight
        self.bias = nn.Parameter(torch.zeros(source.in_features))

    def forward(self, x: Float[Tensor, "... d_out"]) -> Float[Tensor, "... d_in"]:
        return F.linear(x, self.weight.T, self.bias)


class Use(NamedTuple):
    """One place where a decomposed matrix acts."""

    layer: str
    """Path of the decomposed layer."""
    transposed: bool
    """Whether the layer's matrix acts transposed here."""


def check_layers(network: nn.Module, layers: Mapping[str, int]) -> None:
    """Raise ValueError or TypeError unless each of these paths of a frozen network is a linear layer with a weight."""
    if isinstance(network, torch.jit.ScriptModule):
        raise TypeError("the network is compiled by torch.jit; the one that it was compiled from works")
    paths = {path for path, _ in network.named_modules()}
    for path in layers:
        if path not in paths:
            raise ValueError(f"the model has no layer {path!r}; {an_example(network)} works")
        if not isinstance(layer := network.get_submodule(path), nn.Linear):
            raise TypeError(f"layer {path!r} is a {_kind(layer)}, not an nn.Linear; {an_example(network)} works")
        _check_forward(path, layer)
        if (weight := layer._parameters.get("weight")) is None:
            raise TypeError(
                f"the weight of layer {path!r} is no parameter, but computed anew in every pass; make it a parameter "
                "first, as torch.nn.utils.remove_weight_norm, remove_spectral_norm and prune.remove do"
            )
        if not weight.is_meta and not weight.isfinite().all():
            bad = (~weight.isfinite()).sum().item()
            raise ValueError(f"{bad} of the {weight.numel()} weights of layer {path!r} are not finite; retrain it")


def an_example(network: nn.Module) -> str:
    """The first linear layer of a network, as `decompose` takes it."""
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    return f'{{"{linear[0]}": 20}}' if linear else "a model with nn.Linear layers"


def find_uses(network: nn.Module, layers: Mapping[str, int]) -> dict[str, tuple[Use, nn.Module]]:
    """Path → use and module, for every module that uses the weight of one of these layers of a frozen network.

    They come in the order in which the network lists its modules. Raises ValueError if two of the layers share a
    weight, and TypeError if a weight is used where components cannot act.
    """
    owner: dict[int, str] = {}  # of a weight, or of a parameter from which a weight was computed
    sources: set[int] = set()
    for path in layers:
        layer = network.get_submodule(path)
        other = owner.setdefault(id(layer.weight), path)
        if other != path:
            raise ValueError(
                f"layers {other!r} and {path!r} share one weight; name {other!r} only, and both are decomposed"
            )
        if is_parametrized(layer):
            sources |= {id(parameter) for parameter in layer.parametrizations.parameters()}
            owner |= {id(parameter): path for parameter in layer.parametrizations.parameters()}
    uses = {}
    for path, module in network.named_modules():
        for name, parameter in module._parameters.items():
            if (layer := owner.get(id(parameter))) is None:
                continue
            if id(parameter) in sources:
                if not path.startswith(f"{layer}.parametrizations"):
                    raise TypeError(
                        f"the weight of layer {layer!r} is computed from a parameter that {path!r} shares; give each a "
                        "weight of its own, as torch.nn.utils.parametrize.remove_parametrizations does"
                    )
                continue
            if name != "weight" or not isinstance(module, nn.Linear | TransposedLinear):
                raise TypeError(
                    f"layer {layer!r} shares its weight with {path!r}, a {_kind(module)}, where components cannot act; "
                    "use nn.Linear or TransposedLinear there"
                )
            _check_forward(path, module)
            uses[path] = (Use(layer, isinstance(module, TransposedLinear)), module)
    return uses


def _check_forward(path: str, module: nn.Module) -> None:
    if type(module).forward not in (nn.Linear.forward, TransposedLinear.forward) or "forward" in vars(module):
        raise TypeError(
            f"layer {path!r} is a {_kind(module)} with a forward of its own, which components would leave out; "
            "merge what it adds into the weight of an nn.Linear first"
        )


def _kind(module: nn.Module) -> str:
    """The name of a module's class; with the place where it is defined, if torch has another class of that name."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__name__}" if getattr(nn, kind.__name__, kind) is not kind else kind.__name__


class WeightWatch(TorchFunctionMode):
    """Within the block, a weight of these layers that is used other than by its layer raises ValueError.

    Components would replace it in its layer only, as in `F.linear(h, self.embed.weight.T)`.
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        self.layers = {id(weight): path for path, weight in weights.items()}
        self.paused = False
        """Whether a layer itself computes at the moment."""

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        used = next((self.layers[id(a)] for a in (*args, *(kwargs or {}).values()) if id(a) in self.layers), None)
        if used is not None and isinstance(result, Tensor) and not self.paused:  # a shape or a type may be read
            raise ValueError(
                f"the weight of layer {used!r} is also used outside of it, where components cannot act; a second use "
                "of a matrix must be a module, as in self.unembed = pdh.TransposedLinear(self.embed)"
            )
        return result


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
