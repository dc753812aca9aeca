"""Forward passes of a frozen network in which some layers compute something else, and all activations are kept."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
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

    The first pass finds out whether the network writes into its activations, which later ones then keep copies of, and
    refuses weights that are used outside of their layers.

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

        Raises ValueError if a layer is not called exactly once, or gets an activation that it cannot read: of another
        width than its own, or of another type than `dtypes` says.
        """
        inputs: dict[str, Tensor] = {}
        counted = not torch.is_inference_mode_enabled()  # elsewhere torch counts what is written into a tensor
        apart = self._writes is not False or not counted or any(tensor.is_inference() for tensor in tensors(x))
        x = mapped(torch.clone, x) if apart else x
        watch = WeightWatch(self.layers) if self._writes is None else None
        versions = [(tensor, tensor._version) for tensor in tensors(x)] if counted else []

        def forward_of(path: str, layer: Layer) -> Callable[[Tensor], Tensor]:
            def forward(input: Tensor) -> Tensor:
                if path in inputs:
                    raise ValueError(f"one forward pass calls {path!r} twice; give each call a module of its own")
                first = not any(other in computes for other in inputs)
                with watch.pause() if watch else nullcontext():
                    layer.check(path, input, dtypes[path])
                    if counted:
                        versions.append((input, input._version))
                    a = inputs[path] = input.clone() if apart else input
                    return computes[path](a, first) if path in computes else type(layer.module).forward(layer.module, a)

            return forward

        forwards = {layer.module: forward_of(path, layer) for path, layer in self.layers.items()}
        with replaced_forwards(self.network, forwards), watch or nullcontext():
            output = picked(call(self.network, x), self.output)
        if missing := [path for path in self.layers if path not in inputs]:
            raise ValueError(self._never_called(missing[0]))
        if counted:
            self._note(any(tensor._version != version for tensor, version in versions))
        return Forward(output, inputs)

    def _note(self, writes: bool) -> None:
        """Remember whether the network writes into its activations."""
        if writes and self._writes is False:
            raise ValueError("the network changed an activation in place, but not in its first pass; h = h + y works")
        self._writes = writes if self._writes is None else self._writes

    def _never_called(self, path: str) -> str:
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


def picked(answer: Any, output: Callable[[Any], Tensor] | None) -> Tensor:
    """What is compared of a network's answer; TypeError unless it is a tensor."""
    compared = answer if output is None else output(answer)
    if isinstance(compared, Tensor):
        return compared
    if output is not None:
        raise TypeError(
            f"output must pick one tensor from what the network returns, but gives {shown(compared)}; "
            f"output={example_output(answer)} works"
        )
    raise TypeError(
        f"the network returns {shown(answer)}, and only one tensor can be compared; "
        f"output={example_output(answer)} works"
    )


def example_output(answer: Any) -> str:
    """A function that picks a tensor from such an answer, as one would write it."""
    if isinstance(answer, Tensor):
        return "None"
    if isinstance(answer, Mapping) or hasattr(answer, "__dict__"):
        parts = answer if isinstance(answer, Mapping) else vars(answer)
        names = [name for name, part in parts.items() if isinstance(part, Tensor) and part.is_floating_point()]
        name = next((n for n in names if n == "logits"), names[0] if names else "logits")
        return f"lambda out: out.{name}" if hasattr(answer, name) else f"lambda out: out[{name!r}]"
    if isinstance(answer, tuple | list):
        return f"lambda out: out[{next((i for i, part in enumerate(answer) if isinstance(part, Tensor)), 0)}]"
    return "lambda out: out.logits"
