"""What a network takes: a tensor, or several tensors in a tuple or a dictionary.

    network(x)                  x is a tensor, of numbers or of tokens; or anything else that the network takes
    network(*x)                 x is a tuple
    network(**x)                x is a mapping from names to values

The first dimension of every tensor counts the inputs. Whatever is not a tensor, such as `use_cache=False`, goes along.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

Inputs = Any
"""One batch, as the network takes it."""


def arguments(x: Inputs) -> tuple[tuple, dict[str, Any]]:
    """The positional and the named arguments with which a network takes a batch."""
    if isinstance(x, tuple):
        return x, {}
    return ((), dict(x)) if isinstance(x, Mapping) else ((x,), {})


def call(network: nn.Module, x: Inputs) -> Any:
    """What the network answers."""
    positional, named = arguments(x)
    return network(*positional, **named)


def tensors(x: Inputs) -> Iterator[Tensor]:
    """All tensors of a batch, in order."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, tuple | list | Mapping):
        for part in x.values() if isinstance(x, Mapping) else x:
            yield from tensors(part)


def mapped(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """The batch with each of its tensors replaced by what the function makes of it."""
    if isinstance(x, Tensor):
        return function(x)
    if isinstance(x, tuple | list):
        parts = [mapped(function, part) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return {name: mapped(function, part) for name, part in x.items()} if isinstance(x, Mapping) else x


def n_inputs(x: Inputs) -> int:
    """The number of inputs: the length of the first tensor."""
    return next((len(tensor) if tensor.ndim else 1 for tensor in tensors(x)), 0)


def select(x: Inputs, which: Any) -> Inputs:
    """Some of the inputs, by a slice or a list of numbers; tensors of another length stay whole."""
    n = n_inputs(x)
    return mapped(lambda tensor: tensor[which] if tensor.ndim and len(tensor) == n else tensor, x)


def checked_rows(x: Any, name: str = "x") -> Inputs:
    """The inputs themselves; TypeError unless there is a tensor in them, and ValueError unless it has rows."""
    first = next(tensors(x), None)
    if first is None:
        raise TypeError(
            f"{name} must be a tensor with one input per row, but is a {type(x).__name__}; torch.rand(3, 8) is one"
        )
    least = 2 if first.is_floating_point() else 1
    if first.ndim < least or not len(first):
        raise ValueError(f"{name} must have one input per row, but has shape {tuple(first.shape)}; (3, 8) works")
    return x
