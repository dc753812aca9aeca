"""A few inputs of a network of one's own and what it answers, by which a stored run knows the network again.

Parameters alone do not tell a network: with another activation function between them, it computes something else.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pd_helpers.core.components import ComponentModel
from pd_helpers.core.networks.batches import Inputs, mapped, select, tensors

N_INPUTS = 2
"""Inputs of an example."""
LARGEST = 2**16
"""Numbers that an example may have; larger ones are not kept."""


class Example(NamedTuple):
    """Some inputs, on the CPU, and the output that is compared."""

    x: Inputs
    output: Tensor

    def pack(self) -> tuple[dict[str, Tensor], Any]:
        """Tensors to be stored, `example.<number>` and `example.output`, and how the inputs hold them."""
        parts = dict(enumerate(tensors(self.x)))
        return {f"example.{i}": t for i, t in parts.items()} | {"example.output": self.output}, _structure(self.x, [0])

    @classmethod
    def unpack(cls, stored: Mapping[str, Tensor], structure: Any) -> "Example":
        """The example that `pack` packed; ValueError for a structure that does not go with the tensors."""
        try:
            return cls(_filled(structure, stored), stored["example.output"])
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("example is not a structure of the tensors that are stored") from error

    def check(self, model: ComponentModel) -> None:
        """Raise ValueError if the network answers otherwise."""
        at = model.factors[0].device
        output = model.target_forward(mapped(lambda t: t.to(at), self.x)).output.cpu()
        near = 1e-2 * self.output.abs().max().item() + 1e-6
        if output.shape != self.output.shape or not torch.allclose(output, self.output, rtol=0.0, atol=near):
            raise ValueError(
                "target= answers the inputs that are stored with other outputs, so it differs in something that has no "
                "parameters, such as an activation function or output=; the network that was decomposed works"
            )


def example_of(model: ComponentModel, x: Inputs) -> Example | None:
    """An example of the first inputs of a batch; None where they are many numbers, or in what JSON has no word for."""
    x = select(x, slice(N_INPUTS))
    output = model.target_forward(x).output
    if sum(t.numel() for t in [*tensors(x), output]) > LARGEST or _structure(x, [0]) is None:
        return None
    return Example(mapped(lambda t: t.detach().cpu().clone(), x), output.cpu().clone())


def _structure(x: Inputs, count: list[int]) -> Any:
    """Inputs with the numbers of their tensors; None if something else is among them."""
    if isinstance(x, Tensor):
        count[0] += 1
        return {"tensor": count[0] - 1}
    if type(x) in (tuple, list):
        parts: Any = [_structure(part, count) for part in x]
        return None if None in parts else {type(x).__name__: parts}
    if type(x) is dict and all(isinstance(name, str) for name in x):
        parts = {name: _structure(part, count) for name, part in x.items()}
        return None if None in parts.values() else {"dict": parts}
    return {"value": x} if x is None or type(x) in (bool, int, float, str) else None


def _filled(structure: Any, stored: Mapping[str, Tensor]) -> Inputs:
    ((kind, content),) = structure.items()
    if kind == "tensor":
        return stored[f"example.{content}"]
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(_filled(part, stored) for part in content)
    return {name: _filled(part, stored) for name, part in content.items()} if kind == "dict" else content
