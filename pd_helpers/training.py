"""What every training loop shares: seeds, devices, schedules, progress, and noticing that a loss has blown up."""

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor, nn

STREAMS = ("target_init", "target_data", "init", "data", "evaluation")
"""Independent random streams of one seed, so that e.g. a larger C leaves the data as it was."""


def generator(seed: int, stream: str, device: str | torch.device = "cpu") -> Generator:
    """A generator for one stream of one seed."""
    return Generator(device).manual_seed(seed * len(STREAMS) + STREAMS.index(stream))


def pick_device(device: str = "auto") -> torch.device:
    """`auto` means CUDA where there is one, else the CPU.

    Raises ValueError for an unknown name or a device this machine lacks.
    """
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ValueError(f"device must be auto, cpu, cuda or mps, but is {device!r}; auto works everywhere")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no CUDA device here; cpu or auto works")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device is 'mps', but torch finds no Apple GPU here; cpu or auto works")
    if device == "mps":
        warnings.warn("results on Apple GPUs are untested; compare a short run with device='cpu'", stacklevel=2)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


@runtime_checkable
class Schedule(Protocol):
    """The fields of a configuration that say how the learning rate runs."""

    lr: float
    schedule: str
    steps: int


def learning_rate(step: int, config: Schedule, warmup_fraction: float = 0.0) -> float:
    """The learning rate at a step: linear warm-up, then constant, or a half cosine down to zero."""
    warmup = int(config.steps * warmup_fraction)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - warmup) / (config.steps - warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * done))


BLOWN_UP = 1e6
"""How many times its lowest value, or 1e-6 if that is more, the loss may be."""


@dataclass
class State:
    """All that a training loop needs to go on: parameters live in the modules, the rest is here."""

    optimizer: torch.optim.Optimizer
    generator: Generator
    step: int = 0
    first_bad_step: Tensor = field(default_factory=lambda: torch.tensor(math.inf))
    lowest_loss: Tensor = field(default_factory=lambda: torch.tensor(math.inf))

    def apply(self, loss: Tensor, lr: float) -> None:
        """Backward and one optimiser step at learning rate `lr`; a loss that blows up is remembered, see `check`."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        # Kept on the device and read only at history points: reading it here would stall a GPU every step.
        loss = loss.detach().to(torch.float32)
        self.lowest_loss = torch.minimum(self.lowest_loss.to(loss.device), loss)
        bad = torch.where(
            loss.isfinite() & (loss <= BLOWN_UP * self.lowest_loss.clamp(min=1e-6)), math.inf, float(self.step)
        )
        self.first_bad_step = torch.minimum(self.first_bad_step.to(bad.device), bad)
        self.step += 1

    def check(self) -> None:
        """Raise FloatingPointError if the loss blew up at any step so far, naming the first such step.

        That is, became non-finite or `BLOWN_UP` times its lowest value: training does not come back from either.
        """
        if (bad := self.first_bad_step.item()) < math.inf:
            lr = self.optimizer.param_groups[0]["lr"]
            raise FloatingPointError(f"the loss blew up at step {bad:.0f}; a smaller lr than {lr:g} usually helps")


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam with one fused kernel for all parameters where the device has it."""
    parameters = list(parameters)
    return torch.optim.Adam(parameters, lr=lr, fused=parameters[0].device.type in ("cpu", "cuda"))


def adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW, fused likewise."""
    parameters = list(parameters)
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Within the block torch computes on one thread if its largest operations are on fewer than 2^17 numbers.

    A step of the small toy models is dozens of operations of a few microseconds each, where waiting for a second
    thread costs more than it brings: up to 25 times more while the other core is busy.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < 2**17 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def warm_up(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], steps: int) -> None:
    """A few AdamW steps on one loss alone, at the learning rate 0.01 and weight decay 0.1 of public SPD configs."""
    parameters = list(parameters)
    optimizer = adamw(parameters, lr=0.01, weight_decay=0.1)
    with threads_for(sum(p.numel() for p in parameters)):
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            optimizer.step()


def progress(steps: Iterable, *, total: int, description: str, show: bool = True, unit: str = "step") -> Iterator:
    """A progress bar around `steps`: a widget in notebooks, one line on stderr elsewhere, gone when it is done."""
    if not show:
        return iter(steps)
    if "ipykernel" in sys.modules:
        from tqdm.auto import tqdm
    else:
        from tqdm import tqdm
    return iter(tqdm(steps, total=total, desc=description, leave=False, mininterval=0.2, unit=unit))
