"""Training steps on a pretended GPU: `python tests/pretended_gpu.py` prints what each gives, as a JSON object.

Tensors have shapes, types and a device, and no numbers. A tensor on another device than the others raises, and so does
all that would make Python wait for a GPU: reading a value back, and shapes that depend on values. This says what a step
does on any GPU, also where none can be had; `tests/test_gpu.py` says the rest where there is one.

The pretended device is registered with torch for the whole process, which is why the tests have a process for it.
"""

import json

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import backend_registration

import pd_helpers as pdh
from benchmarks.timing import steady
from pd_helpers.core.method import Method
from pd_helpers.core.networks.batches import mapped
from pd_helpers.runs.presets import PRESETS
from pd_helpers.targets.base import TrainedConfig

GPU = "pretended"
QUIET = {"device": "cpu", "show_progress": False}
NETWORKS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), lambda: torch.rand(64, 6)),
    "convolution": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.GELU()), lambda: torch.rand(64, 2, 6)),
    "tokens": (lambda: nn.Sequential(nn.Embedding(11, 8), nn.Linear(8, 11)), lambda: torch.randint(11, (64, 5))),
}
CONFIGS = {
    "spd": pdh.SPDConfig(C=6, steps=9, batch_size=16),
    "apd": pdh.APDConfig(C=6, steps=9, batch_size=16, top_k=2.0),
    "vpd": pdh.VPDConfig(C=6, steps=9, batch_size=16),
    "apd_lp": pdh.APDConfig(C=6, steps=9, batch_size=16, top_k=2.0, attribution_p=0.7),
}


def pretended(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and type on the pretended GPU."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)


def move(module: nn.Module, moved: dict[int, Tensor]) -> None:
    """Put all tensors of a module on the pretended GPU; shared ones stay shared."""

    def place(tensor: Tensor) -> Tensor:
        if id(tensor) not in moved:
            new = pretended(tensor)
            is_parameter = isinstance(tensor, nn.Parameter)
            moved[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if is_parameter else new
        return moved[id(tensor)]

    for part in module.modules():
        for held in (part._parameters, part._buffers, part.__dict__):
            held.update({name: place(value) for name, value in held.items() if isinstance(value, Tensor)})


def training(method: Method, x: object) -> str:
    """Three steps of a method that stands at step 0 on the CPU, with a batch like this one."""
    with FakeTensorMode():
        moved: dict[int, Tensor] = {}
        for module in (method.model, method.importance):
            if module is not None:
                move(module, moved)
        method.optimizer = method.build_optimizer()
        if hasattr(method, "adversary"):
            method.adversary.sources = {}  # which are drawn anew, on the pretended GPU
        batch = mapped(pretended, x)
        steps = method.train(lambda n, draw: batch)
        for _ in range(3):
            losses = next(steps)
        return str(losses[0].device)


def trained(kind: str, method: str) -> str:
    """Three steps on a network of one's own."""
    make, draw = NETWORKS[kind]
    run = pdh.fit(make(), CONFIGS[method].replace(steps=1), draw(), **QUIET)
    run.method.step, run.method.config = 0, CONFIGS[method]
    return training(run.method, draw()[:16])


def of_preset(name: str) -> str:
    """Three steps of a preset."""
    quick = {"target_steps": 1} if isinstance(PRESETS[name].target, TrainedConfig) else {}
    run = pdh.prepare(name, batch_size=64, n_init=1, warm_up=False, **quick, **steady(name), **QUIET)
    return training(run.method, run.data(64, torch.Generator()))


def tried(function, *arguments: str) -> str:
    """What the function gives, or its error."""
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Try everything, and print what it gives by name."""
    backend_registration._setup_privateuseone_for_python_backend(GPU)
    found = {name: tried(of_preset, name) for name in PRESETS}
    found |= {f"{method} of {kind}": tried(trained, kind, method) for kind in NETWORKS for method in CONFIGS}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
