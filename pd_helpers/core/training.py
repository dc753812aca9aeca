"""What every training loop shares: random streams, devices, learning rates, optimisers and progress bars."""

import math
import operator
import sys
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, nn

from .config import shown

STREAMS = ("target_init", "target_data", "init", "data", "evaluation")
"""Independent random streams of one seed, so that for instance a larger C does not change the data."""


LARGEST_SEED = (2**32 - len(STREAMS)) // len(STREAMS)
"""Seeds from 0 to this one give different streams: of larger numbers, torch's CPU generator drops all but 32 bits."""


def checked_seed(seed: Any, name: str = "seed") -> int:
    """The seed as an int; ValueError unless it is a whole number from 0 to `LARGEST_SEED`."""
    try:
        whole = operator.index(seed)
    except TypeError:
        whole = -1
    if not 0 <= whole <= LARGEST_SEED or isinstance(seed, bool):
        limit = f"at most {LARGEST_SEED}" if whole > LARGEST_SEED else "at least 0"
        raise ValueError(f"{name} must be a whole number of {limit}, but is {shown(seed)}; 0 works")
    return whole


def generator(seed: int, stream: str, device: str | torch.device = "cpu") -> Generator:
    """The generator of one of the `STREAMS` of a seed; ValueError for a seed that `checked_seed` refuses."""
    return Generator(device).manual_seed(checked_seed(seed) * len(STREAMS) + STREAMS.index(stream))


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; `auto` means CUDA if torch finds it, and the CPU otherwise.

    Raises ValueError for an unknown name, or a device that this machine does not have.
    """
    if isinstance(device, str) and device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        at = torch.device(device) if isinstance(device, str | torch.device) else None
    except RuntimeError:
        at = None
    if at is None or at.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda or mps, but is {shown(device)}; auto works everywhere")
    if at.type == "cpu":
        return torch.device("cpu")
    there = torch.cuda.is_available() if at.type == "cuda" else torch.backends.mps.is_available()
    if not there or (at.index or 0) >= (torch.cuda.device_count() if at.type == "cuda" else 1):
        kind = {"cuda": "CUDA device", "mps": "Apple GPU"}[at.type]
        raise ValueError(f"device is {str(at)!r}, but torch finds no such {kind} here; cpu or auto works")
    if at.type == "mps":
        warnings.warn("results on Apple GPUs are untested; compare a short run with device='cpu'", stacklevel=2)
    return at


@runtime_checkable
class Schedule(Protocol):
    """The fields of a configuration that determine the learning rate of every step."""

    lr: float
    schedule: str
    steps: int


def learning_rate(step: int, config: Schedule, warmup_fraction: float = 0.0) -> float:
    """The learning rate at a step: a linear warm-up, then constant or half a cosine down to zero."""
    warmup = int(config.steps * warmup_fraction)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    fraction = (step - warmup) / (config.steps - warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * fraction))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate that the optimiser uses for all of its parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam, with one fused kernel for all parameters on devices that have it."""
    parameters = list(parameters)
    return torch.optim.Adam(parameters, lr=lr, fused=parameters[0].device.type in ("cpu", "cuda"))


def adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, with one fused kernel for all parameters on devices that have it."""
    parameters = list(parameters)
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def progress(steps: Iterable, *, total: int, description: str, show: bool = True, unit: str = "step") -> Iterator:
    """A progress bar around `steps`: a widget in notebooks, one line on stderr elsewhere; it vanishes at the end."""
    if not show:
        return iter(steps)
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return iter(tqdm(steps, total=total, desc=description, leave=False, mininterval=0.2, unit=unit))
