"""Several processes that train one decomposition together, as `torchrun` starts them; the rank is a process's number.

Every rank draws the same batches and the same random numbers, and computes its own share of each batch. Gradients are
added up over ranks, so that all of them hold the same parameters after every step. What only one process must do, such
as to write a file, rank 0 does. A process that was not started by `torchrun` is rank 0 of one, and nothing here costs
it anything.
"""

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")
"""Environment variables that `torchrun` sets."""
KINDS = (FloatingPointError, TypeError, ValueError, OSError)
"""Kinds of errors that stay what they are when they reach the other ranks."""


def place() -> tuple[int, int]:
    """The rank of this process, and the number of ranks."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def launched() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return all(name in os.environ for name in LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1


def several() -> bool:
    """Whether this process is one of several, which may not have joined each other yet."""
    return launched() or place()[1] > 1


def is_first() -> bool:
    """Whether this is rank 0, which alone writes and speaks."""
    rank, n = place()
    return rank == 0 if n > 1 or not launched() else os.environ["RANK"] == "0"


def own_gpu() -> int | None:
    """The number of the GPU that belongs to this rank; None for a process by itself."""
    if launched():
        return int(os.environ["LOCAL_RANK"])
    rank, n = place()
    return rank % max(1, torch.cuda.device_count()) if n > 1 else None


def join() -> None:
    """Join the processes that `torchrun` started together with this one, unless the caller has done so already."""
    if place()[1] > 1 or not launched():
        return
    on_gpus = torch.cuda.is_available() and own_gpu() < torch.cuda.device_count()
    if on_gpus:
        torch.cuda.set_device(own_gpu())
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo")
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def end(code: int) -> NoReturn:
    """End this process with an exit code; one of several ends at once, when all that it has written is written.

    The destructors of the threads through which processes talk have been seen to abort a process that had finished.
    """
    if several():
        _leave()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextmanager
def _connected() -> Iterator[None]:
    """Within the block, ConnectionError is raised when another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConnectionError(f"another process of this run was lost ({reason}); what it wrote says why") from error


def add_up(tensors: list[Tensor]) -> None:
    """Replace tensors, which have the same shapes on all ranks, by their sums over ranks."""
    if place()[1] == 1:
        return
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        same = [tensor for tensor in tensors if tensor.dtype == dtype]
        flat = torch.cat([tensor.flatten() for tensor in same])
        with _connected():
            distributed.all_reduce(flat)
        for tensor, values in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
            tensor.copy_(values.view_as(tensor))


@torch.no_grad()
def broadcast(tensors: list[Tensor]) -> None:
    """Replace tensors, which have the same shapes on all ranks, by those of rank 0."""
    if place()[1] > 1:
        with _connected():
            for tensor in tensors:
                whole = tensor.contiguous()
                distributed.broadcast(whole, src=0)
                tensor.copy_(whole)


def exchange(value: Any) -> list[Any]:
    """The values of all ranks, in order; any that can be pickled."""
    values = [value] * place()[1]
    if len(values) > 1:
        with _connected():
            distributed.all_gather_object(values, value)
    return values


@contextmanager
def agreed() -> Iterator[None]:
    """A block after which either all ranks continue or all raise: an error of one of them is one of all.

    Ranks must not exchange anything else within the block.
    """
    if place()[1] == 1:
        yield
        return
    own = failure = None
    try:
        yield
    except Exception as error:
        own, failure = error, (next((kind for kind in KINDS if isinstance(error, kind)), RuntimeError), str(error))
    failures = [failure for failure in exchange(failure) if failure]
    if own is not None:
        raise own
    for kind, message in failures:
        raise kind(message)


@contextmanager
def held_by_first(hold: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """A block within which rank 0, for all of them, is in a context; where it cannot enter it, all ranks raise."""
    with ExitStack() as stack:
        with agreed():
            if is_first():
                stack.enter_context(hold())
        yield


def check_same(what: Mapping[str, tuple[Any, str]]) -> None:
    """Raise ValueError on all ranks unless they agree; `what` maps the name of a thing to a checksum and a remedy."""
    of_all = exchange({name: checksum for name, (checksum, _) in what.items()})
    for rank, theirs in enumerate(of_all):
        for name, (_, remedy) in what.items():
            if theirs[name] != of_all[0][name]:
                raise ValueError(
                    f"all {len(of_all)} processes of a run must have the same {name}, but that of rank {rank} is "
                    f"another than that of rank 0; {remedy} works"
                )
