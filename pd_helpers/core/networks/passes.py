"""Forward passes of a frozen network in which some layers compute something else, and all activations are kept."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from ..config import shown
from .batches import Inputs, call, mapped, tensors
from .frozen import replaced_forwards
from .layers import PACKED, Layer
from .uses import WeightWatch

Compute = Callable[[Tensor, bool], Tensor]
"""(what enters a layer, whether it is the first replaced layer of the pass) → what the layer gives."""


class Forward(NamedTuple):
    """The result of a forward pass."""

    output: Tensor
    """What is compared of the network's output: (batch, d_output), or of any other shape."""
    inputs: dict[str, Tensor]
    """Use → the activation (*rows, d_in) that entered it."""


class Passes:
    """Forward passes of one network.

    The first pass finds out whether the network writes into its activations, which later ones then keep copies of. It
    refuses weights that are used outside of their layers, and layers that the backward pass would call again.

    Args:
        network: a frozen network.
        layers: path → layer, for all that may compute something else.
        output: what is compared, from what the network returns; None for a network that returns one tensor.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, Layer], output: Callable[[Any], Tensor] | None = None):
        self.network, self.layers, self.output = network, layers, output
        self._writes: bool | None = None  # whether the network writes into its activations

    def run(self, x: Inputs, computes: Mapping[str, Compute], dtypes: Mapping[str, torch.dtype]) -> Forward:
        """One pass in which the layers of `computes` compute that, and the others what they always do.

        Raises ValueError if a layer is not called exactly once, or is called where gradients are switched off, or gets
        an activation that it cannot read: of another width than its own, or of another type than `dtypes` says.
        """
        inputs: dict[str, Tensor] = {}
        learning = torch.is_grad_enabled()
        counted = not torch.is_inference_mode_enabled()  # elsewhere torch counts what is written into a tensor
        apart = self._writes is not False or not counted or any(tensor.is_inference() for tensor in tensors(x))
        x = mapped(torch.clone, x) if apart else x
        watch = WeightWatch(self.layers) if self._writes is None else None
        versions = [(tensor, tensor._version) for tensor in tensors(x)] if counted else []

        def forward_of(path: str, layer: Layer) -> Callable[[Tensor], Tensor]:
            def forward(input: Tensor) -> Tensor:
                if path in inputs:
                    raise ValueError(f"one forward pass calls {path!r} twice; give each call a module of its own")
                if (learning and not torch.is_grad_enabled()) or (counted and torch.is_inference_mode_enabled()):
                    raise ValueError(
                        f"the network calls layer {path!r} where gradients are switched off, so its components could "
                        "not be trained; leave torch.no_grad out of its forward pass"
                    )
                if watch and _is_checkpointed():
                    raise ValueError(
                        f"layer {path!r} is called through torch.utils.checkpoint, which would call it again in the "
                        "backward pass, without its components; the network without checkpoints works"
                    )
                first = not any(other in computes for other in inputs)
                with watch.pause() if watch else nullcontext():
                    layer.check(path, input, dtypes[path])
                    if counted:
                        versions.append((input, input._version))
                    a = input.clone() if apart else input
                    inputs[path] = a.to(dtypes[path]) if a.is_floating_point() else a  # the same but under autocast
                    return computes[path](a, first) if path in computes else type(layer.module).forward(layer.module, a)

            return forward

        forwards = {layer.module: forward_of(path, layer) for path, layer in self.layers.items()}
        with replaced_forwards(self.network, forwards), watch or nullcontext():
            output = picked(call(self.network, x), self.output)
        if missing := [path for path in self.layers if path not in inputs]:
            raise ValueError(self._never_called(missing[0], inputs))
        if counted:
            self._note(any(tensor._version != version for tensor, version in versions))
        return Forward(output, inputs)

    def _note(self, writes: bool) -> None:
        """Remember whether the network writes into its activations."""
        if writes and self._writes is False:
            raise ValueError("the network changed an activation in place, but not in its first pass; h = h + y works")
        self._writes = writes if self._writes is None else self._writes

    def _never_called(self, path: str, called: Mapping[str, Tensor]) -> str:
        weight = self.layers[path].module.weight
        other = next((other for other in called if self.layers[other].module.weight is weight), None)
        if other is not None:
            return (
                f"the forward pass never called {path!r}, which shares its weight with {other!r}; a network without "
                f"{path!r} works"
            )
        packed = any(
            path.startswith(f"{p}." if p else "") for p, m in self.network.named_modules() if type(m) in PACKED
        )
        remedy = (
            "pdh.unpack(network) gives one that calls all of its layers"
            if packed
            else "decompose layers that the network calls as modules"
        )
        return (
            f"the forward pass never called {path!r} as a module of the network, so it cannot be decomposed; {remedy}"
        )


def _is_checkpointed() -> bool:
    """Whether somebody in the line of callers is `torch.utils.checkpoint`."""
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != torch.utils.checkpoint.__name__:
        frame = frame.f_back
    return frame is not None


def picked(answer: Any, output: Callable[[Any], Tensor] | None) -> Tensor:
    """What is compared of a network's answer.

    Raises TypeError unless it is a tensor, and ValueError if it is a single number or holds whole numbers.
    """
    compared = answer if output is None else output(answer)
    gives = f"the network returns {shown(answer)}, and only one tensor can be compared"
    if output is not None:
        gives = f"output must pick one tensor from what the network returns, but gives {shown(compared)}"
    if not isinstance(compared, Tensor):
        raise TypeError(f"{gives}; {example_output(answer)} works")
    gives = "the network returns" if output is None else "output gives"
    if not compared.ndim:
        raise ValueError(
            f"{gives} a single number for all inputs, and only a tensor with numbers for each of them can be compared; "
            "leave the mean or the loss out"
        )
    if not compared.is_floating_point():
        raise ValueError(
            f"{gives} whole numbers, through which no gradient passes; the logits that they are made from work"
        )
    return compared


def example_output(answer: Any) -> str:
    """A setting of `output` that picks a tensor from such an answer, as one would write it."""
    if isinstance(answer, Tensor):
        return "output=None"
    places = sorted(_places(answer), key=lambda place: "logits" not in place)  # the others stay in order
    return f"output=lambda out: out{places[0]}" if places else "a network that returns one with real numbers"


def _places(answer: Any) -> Iterator[str]:
    """Where the tensors of real numbers are in an answer, as one would write it: `.logits`, `[0]`, `["scores"]`."""
    if isinstance(answer, Tensor):
        if answer.is_floating_point() and answer.ndim:
            yield ""
        return
    parts: dict[str, Any] = {}
    if isinstance(answer, Mapping):
        parts = {f".{k}" if _is_attribute(answer, k) else f"[{k!r}]": part for k, part in answer.items()}
    elif isinstance(answer, tuple | list):
        names = getattr(answer, "_fields", None)
        parts = {f".{names[i]}" if names else f"[{i}]": part for i, part in enumerate(answer)}
    elif is_dataclass(answer):
        parts = {f".{field.name}": getattr(answer, field.name) for field in fields(answer)}
    elif hasattr(answer, "__dict__") and not isinstance(answer, type):
        parts = {f".{name}": part for name, part in vars(answer).items() if name.isidentifier()}
    for place, part in parts.items():
        yield from (place + rest for rest in _places(part))


def _is_attribute(answer: Mapping, name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier() and getattr(answer, name, None) is answer[name]
