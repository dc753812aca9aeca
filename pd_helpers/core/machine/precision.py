"""Mixed precision: what a network and its components compute is in bfloat16 where `torch.autocast` says so.

    in bfloat16    matrix products of a forward pass, W x, V_c x and Σ_c m_c U_c (V_c x), and their gradients
    in float32     U, V, importances, masks, losses, attributions, the optimiser, and everything that is measured

So only passes run under autocast, each by itself, and what they give is in the type of the factors again.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from ..networks.batches import mapped


@runtime_checkable
class Mixed(Protocol):
    """A model whose passes may run under autocast; `ComponentModel` is one."""

    autocast: bool

    @property
    def factors(self) -> list[nn.Parameter]:
        """U and V of all layers."""


def under_autocast(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a model that runs under autocast where `model.autocast` is True, and gives the factors' type."""

    @wraps(compute)
    def computed(model: Mixed, *arguments: Any, **named: Any) -> Any:
        if not model.autocast:
            return compute(model, *arguments, **named)
        at = model.factors[0]
        with torch.autocast(at.device.type, torch.bfloat16, cache_enabled=False):
            result = compute(model, *arguments, **named)
        return mapped(lambda tensor: tensor.to(at.dtype) if tensor.dtype == torch.bfloat16 else tensor, result)

    return computed


@contextmanager
def autocast(model: Mixed, enabled: bool) -> Iterator[None]:
    """Within the block the passes of a model run under autocast, or do not."""
    before, model.autocast = model.autocast, enabled
    try:
        yield
    finally:
        model.autocast = before


@contextmanager
def without_autocast() -> Iterator[None]:
    """Within the block an autocast that the caller has entered is off."""
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
