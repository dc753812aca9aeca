"""Whether batches can be shared: among several processes, or among parts that come one after another."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from pd_helpers.core.machine.ranks import agreed, check_same, place
from pd_helpers.core.method import Data, Method
from pd_helpers.core.shortcuts.parts import check_independent
from pd_helpers.core.training import generator
from pd_helpers.runs import files
from pd_helpers.runs.blueprint import target_tensors
from pd_helpers.runs.target_stage import stored_value
from pd_helpers.runs.validation import batch_fingerprint, first_inputs
from pd_helpers.targets.base import TargetConfig


@runtime_checkable
class InTraining(Protocol):
    """What is asked of a run."""

    seed: int
    data: Data
    method: Method
    target: nn.Module
    target_config: TargetConfig | None


def check_sharing(run: InTraining) -> None:
    """Raise ValueError if batches cannot be computed in parts, or if processes do not agree on what they train."""
    method, (_, n) = run.method, place()
    n_parts = getattr(method.config, "micro_batches", 1)
    at = method.model.factors[0].device
    if n > 1:
        with agreed():
            what = _description(run, at)
        check_same(what)
        if method.config.batch_size < n:
            raise ValueError(
                f"batch_size must be at least {n}, an input for each process, but is {method.config.batch_size}; "
                f"{n} works"
            )
    if n * n_parts > 1 and run.target_config is None:
        remedy = "micro_batches=1" if n == 1 else "micro_batches=1 in one process" if n_parts > 1 else "one process"
        with agreed():
            x = first_inputs(run.data, generator(run.seed, "data", at))
            check_independent(method.model, x, remedy)


def _description(run: InTraining, at: torch.device) -> dict[str, tuple[str, str]]:
    """What all processes must agree on → a checksum of it, and how they come to agree."""

    def checksum(tensors: files.Tensors) -> str:
        return files.digest(files.stored_form(tensors), "")

    config = {name: stored_value(value) for name, value in run.method.config.to_dict().items()}
    seeded = "torch.manual_seed(0) before it is made"
    return {
        "configuration": (str((run.method.name, config)), "a configuration that does not depend on the rank"),
        "network": (checksum(target_tensors(run.target)), seeded),
        "data": (
            batch_fingerprint(run.data, run.seed, at),
            "data that give every process the whole batches, without a DistributedSampler,",
        ),
        "components": (checksum({**run.method.parameters(), **run.method.state()}), "the same seed"),
    }
