"""A stand-in for CUDA graphs that records on the CPU, so that a recorded training can be compared with a plain one.

As on a GPU, recording computes nothing: what the block changed is as before afterwards. A replay runs the recorded
operations on the same tensors, in the memory that they had. Python does not run again, so a number that it computed
stays what it was, and a tensor that was read in the meantime is written over.
"""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Recorder(TorchDispatchMode):
    """Runs every operation and notes it, with what it wrote into as that was before."""

    def __init__(self):
        super().__init__()
        self.operations: list[tuple[Any, tuple, dict, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # memory → a tensor written into, and a copy of it

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        arguments = operation._schema.arguments
        written = [
            value
            for position, argument in enumerate(arguments)
            if argument.is_write
            for value in [args[position] if position < len(args) else kwargs.get(argument.name)]
        ]
        for tensor in tree_leaves(written):
            if isinstance(tensor, Tensor):
                self.before.setdefault(tensor.data_ptr(), (tensor, tensor.clone()))
        if operation is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a value is read back")
        result = operation(*args, **kwargs)
        self.operations.append((operation, args, kwargs, result))
        return result


class Graph:
    """A recorded block."""

    def __init__(self):
        self.generators: list[Generator] = []
        self.recorder = Recorder()

    def register_generator_state(self, generator: Generator) -> None:
        """Note a source of random numbers, whose state recording leaves as it is."""
        self.generators.append(generator)

    def replay(self) -> None:
        """Run the operations again."""
        with torch.no_grad():
            for operation, args, kwargs, result in self.recorder.operations:
                again = operation(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@contextmanager
def recording(graph: Graph, stream: object = None):
    """Record the block into a graph; what it changed is as before afterwards."""
    states = [(generator, generator.get_state()) for generator in graph.generators]
    with graph.recorder:
        yield
    with torch.no_grad():
        for tensor, value in graph.recorder.before.values():
            tensor.copy_(value)
    for generator, state in states:
        generator.set_state(state)


class Stream:
    """A queue of work that is done at once."""

    def __init__(self, device: object = None):
        self.device = device

    def wait_stream(self, other: "Stream") -> None:
        """There is nothing to wait for."""


CUDA = SimpleNamespace(
    Stream=Stream,
    CUDAGraph=Graph,
    graph=recording,
    stream=lambda stream: nullcontext(),
    current_stream=lambda device: Stream(),
)
"""What `step_graph` uses of `torch.cuda`."""
