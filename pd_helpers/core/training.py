"""What every training loop shares: random streams, devices, learning rates, optimisers and progress bars."""

import math
import operator
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

from .config import shown
from .machine.precision import without_autocast
from .machine.ranks import is_first, own_gpu

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

    Of several processes on one machine, each has a GPU of its own (see `machine.ranks`).
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
    if at == torch.device("cuda") and own_gpu() is not None:
        at = torch.device("cuda", own_gpu())
    there = torch.cuda.is_available() if at.type == "cuda" else torch.backends.mps.is_available()
    if not there or (at.index or 0) >= (torch.cuda.device_count() if at.type == "cuda" else 1):
        kind = {"cuda": "CUDA device", "mps": "Apple GPU"}[at.type]
        works = "cpu or auto" if own_gpu() is None else "cpu, or as many processes as there are GPUs,"
        raise ValueError(f"device is {str(at)!r}, but torch finds no such {kind} here; {works} works")
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
        if isinstance(group["lr"], Tensor):  # a recorded step reads it there
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def adam(parameters: Iterable[nn.Parameter], lr: float, recorded: bool = False) -> torch.optim.Adam:
    """Adam, with one fused kernel for all parameters on devices that have it.

    `recorded` says whether its steps may be part of a CUDA graph, on a device that has these: its learning rate is then
    a tensor, which `set_learning_rate` fills.
    """
    parameters = list(parameters)
    at = parameters[0].device
    fused = at.type in ("cpu", "cuda")
    if recorded and at.type == "cuda":
        return torch.optim.Adam(parameters, lr=torch.tensor(lr, device=at), fused=fused, capturable=True)
    return torch.optim.Adam(parameters, lr=lr, fused=fused)


def adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, with one fused kernel for all parameters on devices that have it."""
    parameters = list(parameters)
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser remembers, such as Adam's moments, as `optimizer.<number of the parameter>.<name>`."""
    return {
        f"optimizer.{i}.{name}": torch.as_tensor(value)
        for i, memory in optimizer.state_dict()["state"].items()
        for name, value in memory.items()
    }


def load_generator_state(generator: Generator, tensors: Mapping[str, Tensor]) -> None:
    """Set a random stream to the stored state `generator`; ValueError unless it is one of such a stream."""
    expected, stored = generator.get_state(), tensors.get("generator")
    if stored is None or (stored.shape, stored.dtype) != (expected.shape, expected.dtype):
        raise ValueError(f"generator must be the {len(expected)} bytes of a random stream's state")
    try:
        generator.set_state(stored)
    except RuntimeError as error:
        raise ValueError("generator is not the state of a random stream") from error


@torch.no_grad()
def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], step: int) -> None:
    """Continue from what `optimizer_state` gave after so many steps.

    The optimiser first takes one step on gradients of zero, so that it makes every tensor that it remembers; the stored
    ones are then compared with these in name, shape and type. A fused kernel that is given tensors of other shapes
    writes outside of their memory. The parameters are afterwards as they were before.

    Raises ValueError, which names the tensor, unless the stored ones are exactly those of such an optimiser.
    """
    stored = {name: tensor for name, tensor in tensors.items() if name.startswith("optimizer.")}
    if step == 0 and not stored:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    before = [parameter.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, value in zip(parameters, before, strict=True):
        parameter.copy_(value)
        parameter.grad = None
    compare_stored(optimizer_state(optimizer), stored)
    for name, tensor in stored.items():
        if name.endswith(".step") and tensor.numel() == 1 and (not tensor.isfinite() or tensor.item() % step):
            raise ValueError(f"{name} is {tensor.item():g}, but {step} steps have been taken")
    memories: dict[int, dict[str, Tensor]] = {}
    for name, tensor in stored.items():
        _, i, key = name.split(".", 2)
        memories.setdefault(int(i), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": memories})


def compare_stored(tensors: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    """Raise ValueError, which names the tensor, unless stored ones have the same names, shapes and types as these."""
    for name, tensor in tensors.items():
        if name not in stored:
            raise ValueError(f"{name} is missing, and must have shape {tuple(tensor.shape)}")
        if (stored[name].shape, stored[name].dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(
                f"{name} is {stored[name].dtype} {tuple(stored[name].shape)}, but must be {tensor.dtype} "
                f"{tuple(tensor.shape)}"
            )
    if more := sorted(set(stored) - set(tensors)):
        raise ValueError(f"{more[0]!r} belongs to no parameter")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block, or the function that this decorates, torch records gradients and computes in the precision of
    its tensors, whatever the caller's modes are.

    Afterwards torch's global random state is as before: building an `nn.Linear` draws from it.
    """
    state = torch.random.get_rng_state()
    try:
        with torch.inference_mode(False), torch.enable_grad(), without_autocast():
            yield
    finally:
        torch.random.set_rng_state(state)


def progress(steps: Iterable, *, total: int, description: str, show: bool = True, unit: str = "step") -> Iterator:
    """A progress bar around `steps`: a widget in notebooks, one line on stderr elsewhere; it vanishes at the end.

    Of several processes, rank 0 alone shows it.
    """
    if not show or not is_first():
        return iter(steps)
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return iter(tqdm(steps, total=total, desc=description, leave=False, mininterval=0.2, unit=unit))
