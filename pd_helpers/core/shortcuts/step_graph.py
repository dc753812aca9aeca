"""Record a training step once as a CUDA graph, and replay it: a GPU then never waits for Python.

A step of a small network consists of hundreds of kernels that take a few microseconds each, while Python needs longer
than that to launch every one of them. A recorded step is launched by a single call. This is exact: the same kernels
read the same parameters and write the same ones, on inputs that are copied to where they were when it was recorded,
and with random numbers that the same generator goes on drawing.
"""

import warnings
from collections.abc import Callable
from typing import Any

from torch import Generator, Tensor, cuda

from ..machine.ranks import place
from ..networks.batches import Inputs, mapped, tensors

EAGER = 3
"""Steps that are taken one kernel after another before a step is recorded; libraries allocate their memory in these."""


class StepGraph:
    """A step function that is recorded at its fourth call, and replayed from then on.

    The function must do the same at every call: same shapes, no Python number that changes, no value that is read back
    from the GPU. Inputs of other shapes than those recorded, such as the last batch of a loader, are computed as usual.
    Where recording fails, one warning says why, and every step is computed as usual.

    Args:
        step: inputs of one batch → what the step gives, one tensor; it updates parameters in place.
        generator: the source of all random numbers that it draws, on a CUDA device.
    """

    def __init__(self, step: Callable[[Inputs], Tensor], generator: Generator):
        self.step, self.generator = step, generator
        self._stream = cuda.Stream(generator.device)
        self._n_eager = 0
        self._graph: cuda.CUDAGraph | None = None
        self._inputs: Inputs = None  # where the recorded step reads its inputs
        self._output: Tensor | None = None  # where it writes what it gives
        self._works = True

    def __call__(self, x: Inputs) -> Tensor:
        """One training step."""
        if not self._works:
            return self.step(x)
        if self._graph is None:
            if self._n_eager < EAGER:
                self._n_eager += 1
                return self._aside(x)
            self._record(x)
        if self._graph is None or _form(x) != _form(self._inputs):
            return self._aside(x)
        for own, tensor in zip(tensors(self._inputs), tensors(x), strict=True):
            own.copy_(tensor)
        self._graph.replay()
        return self._output.clone()

    @property
    def recorded(self) -> bool:
        """Whether a step has been recorded."""
        return self._graph is not None

    def _aside(self, x: Inputs) -> Tensor:
        """The step as usual, on the stream on which it is recorded: gradients belong to the stream that made them."""
        now = cuda.current_stream(self.generator.device)
        self._stream.wait_stream(now)
        with cuda.stream(self._stream):
            result = self.step(x)
        now.wait_stream(self._stream)
        return result

    def _record(self, x: Inputs) -> None:
        before = self.generator.get_state()
        graph, inputs = cuda.CUDAGraph(), mapped(Tensor.clone, x)
        try:
            graph.register_generator_state(self.generator)
            with cuda.graph(graph, stream=self._stream):
                output = self.step(inputs)
        except RuntimeError as error:
            self._works = False
            self.generator.set_state(before)
            warnings.warn(_refusal(str(error).splitlines()[0]), stacklevel=2)
            return
        self._graph, self._inputs, self._output = graph, inputs, output


def replayed(
    step: Callable[[Inputs], Tensor], generator: Generator, config: Any, *, static: bool = True, on: str | None = None
) -> Callable[[Inputs], Tensor]:
    """A method's step function, as a `StepGraph` where its configuration's `cuda_graph` asks for one.

    `static` False says that settings of the method change from step to step. `on` is the type of device, by default
    the generator's. Warns where a step of this training cannot be recorded because it does not do the same every time.
    """
    if not getattr(config, "cuda_graph", False) or (on or generator.device.type) != "cuda":
        return step
    reasons = {
        "its settings change from step to step": not static,
        f"micro_batches is {config.micro_batches}": config.micro_batches > 1,
        f"{place()[1]} processes share it": place()[1] > 1,
    }
    for reason, holds in reasons.items():
        if holds:
            warnings.warn(_refusal(reason), stacklevel=2)
            return step
    return StepGraph(step, generator)


def _refusal(reason: str) -> str:
    return (
        f"cuda_graph is True, but a step of this training cannot be recorded ({reason}); it is computed as usual, "
        "which takes longer"
    )


def _form(x: Inputs) -> list[tuple]:
    """What must be the same in all inputs of a recorded step."""
    return [(tensor.shape, tensor.dtype, tensor.device) for tensor in tensors(x)]
