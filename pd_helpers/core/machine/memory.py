"""Memory: sizes that this machine cannot hold are refused before any work, with one that fits."""

import copy
import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence

import psutil
import torch

from ..config import Config, shown

FLOAT = 4
"""Bytes of a 32-bit float."""


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def check_memory(configs: Sequence[Config], floats: Callable[..., int], device: torch.device) -> None:
    """Raise ValueError unless `floats(*configs)`, at least so many numbers, are room for on the device.

    The message names the field that takes most, the memory that it takes, and a size that fits.
    """
    free = free_memory(device)
    needed, smaller = FLOAT * floats(*configs), list(configs)
    if needed <= free:
        return
    changed: dict[str, tuple[int, int]] = {}
    while FLOAT * floats(*smaller) > free // 2:  # the other half is for what a lower bound leaves out
        i, field, value = min(_sizes(smaller), key=lambda size: floats(*_with(smaller, *size[:2], 1)))
        if value == 1:
            raise ValueError(
                f"target must fit into memory, of which {_in_words(free)} are free, but takes at least "
                f"{_in_words(needed)} with its components; a smaller network works"
            )
        smaller = _with(smaller, i, field, value // 2)
        changed[field] = getattr(configs[i], field), value // 2
    now = ", ".join(f"{name}={before}" for name, (before, _) in changed.items())
    then = ", ".join(f"{name}={_round(size)}" for name, (_, size) in changed.items())
    raise ValueError(
        f"{' and '.join(changed)} must fit into memory, of which {_in_words(free)} are free, but {now} takes at least "
        f"{_in_words(needed)}; {then} works"
    )


def check_sizes(floats: Callable[..., int], **sizes: int) -> None:
    """The same for a network that is made from plain numbers, of at least 1, on the CPU; TypeError for other things."""
    for name, size in sizes.items():
        is_whole = isinstance(size, numbers.Integral) and not isinstance(size, bool)
        if not is_whole or size < 1:
            error = ValueError if is_whole else TypeError
            raise error(f"{name} must be a whole number of at least 1, but is {shown(size)}; 2 works")
    needed, free = FLOAT * floats(**sizes), free_memory(torch.device("cpu"))
    if needed > free:
        largest = max(sizes, key=sizes.get)
        raise ValueError(
            f"{largest} must fit into memory, of which {_in_words(free)} are free, but is {shown(sizes[largest])}, "
            f"which takes at least {_in_words(needed)}; 2 works"
        )


def _sizes(configs: Sequence[Config]) -> list[tuple[int, str, int]]:
    """Number of the configuration, name and value of all fields that are whole numbers."""
    return [
        (i, field.name, value)
        for i, config in enumerate(configs)
        for field in dataclasses.fields(config)
        if type(value := getattr(config, field.name)) is int
    ]


def _with(configs: Sequence[Config], i: int, field: str, value: int) -> list[Config]:
    """Configurations of which one has another size, whatever its own rules for that are."""
    changed = copy.copy(configs[i])
    object.__setattr__(changed, field, value)
    return [*configs[:i], changed, *configs[i + 1 :]]


def _round(size: int) -> int:
    """The size rounded down to one digit."""
    unit = 10 ** int(math.log10(size))
    return size // unit * unit


def _in_words(n: int) -> str:
    return f"{n / 1e9:,.0f} GB" if n >= 1e10 else f"{n / 1e6:,.0f} MB"
