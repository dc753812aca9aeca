"""Where the matrices of a network act: the layers that can be decomposed, and every module that uses their weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from torch import Tensor, jit, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from .layers import EmbeddingLayer, Layer, class_of, kind_of, refusal, with_article


class Use(NamedTuple):
    """One place where a decomposed matrix acts."""

    layer: str
    """Path of the decomposed layer."""
    transposed: bool
    """Whether the layer's matrix acts transposed here."""


def check_layers(network: nn.Module, layers: Mapping[str, int]) -> None:
    """Raise ValueError or TypeError unless each of these paths is a layer that can be decomposed."""
    if isinstance(network, jit.ScriptModule):
        raise TypeError("the network is compiled by torch.jit; the one that it was compiled from works")
    paths = {path for path, _ in network.named_modules()}
    uncalled = never_called(network)
    for path in layers:
        if path not in paths:
            raise ValueError(f"the model has no layer {path!r}; {an_example(network)} works")
        layer = network.get_submodule(path)
        if refusal(path, layer):
            raise TypeError(refusal(path, layer, an_example(network, path)))
        if path in uncalled:
            raise TypeError(
                f"layer {path!r} is part of an nn.MultiheadAttention, which uses its weight without calling it; "
                "pdh.unpack(network) gives a network of separate layers"
            )
        weight = layer.weight
        if not weight.is_meta and not weight.isfinite().all():
            bad = (~weight.isfinite()).sum().item()
            raise ValueError(f"{bad} of the {weight.numel()} weights of layer {path!r} are not finite; retrain it")


def decomposable(network: nn.Module) -> list[str]:
    """Paths of all layers of a frozen network that can be decomposed, but for embeddings and what shares their weights.

    Of layers that share one weight, only the first is among them: both are decomposed with it.
    """
    modules = dict(network.named_modules())
    refused = {path for path, module in modules.items() if refusal(path, module)} | never_called(network)
    taken: set[int] = set()  # weights that are in use where they cannot be decomposed, or are decomposed already
    for path, module in modules.items():
        for name, parameter in module._parameters.items():
            if path in refused or name != "weight" or kind_of(module) is EmbeddingLayer:
                taken.add(id(parameter))
    paths = []
    for path, module in modules.items():
        if path not in refused and id(module.weight) not in taken:
            taken.add(id(module.weight))
            paths.append(path)
    return paths


def never_called(network: nn.Module) -> set[str]:
    """Paths of layers whose weight `nn.MultiheadAttention` uses without calling them."""
    return {
        f"{path}.out_proj" if path else "out_proj"
        for path, module in network.named_modules()
        if getattr(type(module), "forward", None) is nn.MultiheadAttention.forward
    }


def named_by(network: nn.Module, pattern: str) -> list[str]:
    """Paths of the layers that a pattern such as `blocks.*.mlp` names: those that can be decomposed, at it or below it.

    Embeddings, and what shares their weights, are among them where the pattern is the very path of one. Raises
    ValueError where nothing is found.
    """
    found = [p for p in decomposable(network) if fnmatchcase(p, pattern) or fnmatchcase(p, f"{pattern}.*")]
    modules = dict(network.named_modules())
    if not found and pattern in modules and refusal(pattern, modules[pattern]) is None:
        return [pattern]
    if not found:
        raise ValueError(f"layers has {pattern!r}, which no layer of the network matches; {an_example(network)} works")
    return found


def an_example(network: nn.Module, below: str = "") -> str:
    """A layer of a network, as `decompose` takes it: the first one, of those below a path if there are any."""
    paths = decomposable(network)
    path = next((p for p in paths if p.startswith(f"{below}.")), paths[0] if paths else None)
    return "a model with nn.Linear layers" if path is None else f'{{"{path}": 20}}'


def find_uses(network: nn.Module, layers: Mapping[str, int]) -> dict[str, tuple[Use, Layer]]:
    """Path → use and layer, for every module that uses the weight of one of these layers of a frozen network.

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
                if not path.startswith(f"{layer}.parametrizations".lstrip(".")):
                    raise TypeError(
                        f"the weight of layer {layer!r} is computed from a parameter that {path!r} shares; give each a "
                        "weight of its own, as torch.nn.utils.parametrize.remove_parametrizations does"
                    )
                continue
            if name != "weight" or refusal(path, module):
                raise TypeError(
                    f"layer {layer!r} shares its weight with {path!r}, {with_article(class_of(module))}, where "
                    "components cannot act; use nn.Linear or TransposedLinear there"
                )
            kind, own = kind_of(module), kind_of(network.get_submodule(layer))
            uses[path] = (Use(layer, kind.flipped != own.flipped), kind(module))
    return uses


class WeightWatch(TorchFunctionMode):
    """Within the block, a weight of these layers that is used other than by its layer raises ValueError.

    Components would replace it in its layer only, as in `F.linear(h, self.embed.weight.T)`.
    """

    def __init__(self, layers: Mapping[str, Layer]):
        super().__init__()
        self.layers = {id(layer.module.weight): (path, layer.module) for path, layer in reversed(layers.items())}
        self._paused = False

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Within the block, the weights may be used: a layer itself computes."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        used = next((self.layers[id(a)] for a in (*args, *(kwargs or {}).values()) if id(a) in self.layers), None)
        if used is not None and isinstance(result, Tensor) and not self._paused:  # a shape or a type may be read
            path, module = used
            name = f"self.{path.rpartition('.')[2]}"
            module_of_its_own = f"self.again = pdh.TransposedLinear({name})"
            if not isinstance(module, nn.Linear):
                kind = class_of(module) if module.weight.ndim > 2 else "Linear"
                module_of_its_own = f"an nn.{kind} self.again without a bias and with self.again.weight = {name}.weight"
            raise ValueError(
                f"the weight of layer {path!r} is also used outside of it, where components cannot act; a second use "
                f"of a matrix must be a module, as in {module_of_its_own}"
            )
        return result
