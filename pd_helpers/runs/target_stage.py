"""The first stage of a preset's run: its target is trained, with checkpoints on the way that a run continues from."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pd_helpers.core.config import Config
from pd_helpers.core.machine.ranks import broadcast, is_first
from pd_helpers.core.training import progress
from pd_helpers.runs.blueprint import FUNCTION, default_dtype, stored_dtype, target_tensors
from pd_helpers.runs.checkpoints import with_checkpoints
from pd_helpers.runs.circumstances import circumstances
from pd_helpers.runs.facts import Facts
from pd_helpers.runs.files import Tensors, stored_form
from pd_helpers.runs.folders import how_to_resume
from pd_helpers.targets.base import TargetConfig, TargetTraining, TrainedConfig


class TargetStage:
    """The training of a run's target.

    Args:
        facts: what the run is, see `run_facts`.
        config: how the target is made.
        seed: seed of the target.
        at: the device.
        stored: tensors and facts of a checkpoint to continue from.
    """

    def __init__(
        self,
        facts: Facts,
        config: TargetConfig,
        seed: int,
        at: torch.device,
        stored: tuple[Tensors, Facts] | None = None,
    ):
        self.facts, self.config, self.seed, self.at = facts, config, seed, at
        self.stored = stored
        self._begun: TargetTraining | None = None

    def train(self, folder: Path | None, *, show_progress: bool) -> tuple[nn.Module, float]:
        """Train to the end, with checkpoints in the folder; gives the target and the seconds that it took.

        Of several processes, each trains the whole target, and rank 0 writes.
        """
        began = time.perf_counter()
        if not isinstance(self.config, TrainedConfig):  # written by hand, or made in a way of its own
            target = self.config.make(self.seed, self.at, show_progress=show_progress)
            return self._shared(target), time.perf_counter() - began
        training = self.begin()
        if self.stored is not None:
            began -= self.stored[1]["target_seconds"]

        def pack() -> tuple[Tensors, Facts]:
            tensors = {**target_tensors(training.model), **training.state()}
            progress_so_far = {"target_seconds": time.perf_counter() - began, "target_step": training.step}
            return stored_form(tensors), {**self.facts, **progress_so_far, "discarded_seconds": 0.0, "candidates": []}

        how = how_to_resume(folder or "")
        folder = folder if is_first() else None  # each process trains by itself
        steps = with_checkpoints(training.steps(), folder, pack, of=" of the target", how_to_go_on=how)
        total = self.config.target_steps - training.step
        for _ in progress(steps, total=total, description="target", show=show_progress):
            pass
        return self._shared(training.model), time.perf_counter() - began

    def _shared(self, target: nn.Module) -> nn.Module:
        """The target as rank 0 has it: GPUs do not always add up in the same order."""
        broadcast(list(target_tensors(target).values()))
        return target

    def begin(self) -> TargetTraining:
        """The training where it stands; ValueError, which names the tensor, if what was stored cannot be continued."""
        if self._begun is None:
            self._begun = self._training()
        return self._begun

    def _training(self) -> TargetTraining:
        if self.stored is None:
            return TargetTraining(self.config, self.config.new(self.seed, self.at), self.seed)
        tensors, facts = self.stored
        with default_dtype(stored_dtype({name: tensor.dtype for name, tensor in tensors.items()})):
            model = self.config.build_whole()
        with torch.no_grad():
            for name, tensor in target_tensors(model).items():
                tensor.copy_(tensors[name])
        training = TargetTraining(self.config, model.to(self.at), self.seed)
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith("target.")}
        training.load_state(state, facts["target_step"])
        return training


def target_seed(config: TargetConfig, seed: int) -> int:
    """Seed of the target of a run with this seed."""
    return seed if config.target_seed is None else config.target_seed


def stored_value(value: Any) -> Any:
    """The value of a field, as it is stored: of a function, its name."""
    return f"{FUNCTION}{getattr(value, '__name__', type(value).__name__)}" if callable(value) else value


def run_facts(
    name: str | None, method: str, seed: int, config: Config, target_config: TargetConfig | None, device: str
) -> dict[str, Any]:
    """What a run is before it has components: the facts that it and all of its checkpoints share."""
    return {
        "experiment": name,
        "method": method,
        "seed": seed,
        "config": {name: stored_value(value) for name, value in config.to_dict().items()},
        "target_kind": target_config.kind if target_config else None,
        "target_config": target_config.to_dict() if target_config else None,
        "layers": {},
        **circumstances(device),
    }
