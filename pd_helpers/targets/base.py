"""What all targets, the networks that are decomposed, have in common: how they are described, made and trained.

The networks themselves are plain `nn.Module`s: toy models of superposition in `tms`, residual networks in
`residual_mlp`, and the network whose weights are written by hand in `gated_functions`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from pd_helpers.core.config import SLOWEST, Config, choice, number, shown, whole
from pd_helpers.core.machine.memory import check_memory
from pd_helpers.core.shortcuts.threads import threads_for
from pd_helpers.core.training import (
    LARGEST_SEED,
    adamw,
    checked_seed,
    generator,
    learning_rate,
    load_generator_state,
    load_optimizer_state,
    optimizer_state,
    pick_device,
    progress,
    set_learning_rate,
    undisturbed,
)


class Extent(NamedTuple):
    """How large a target is, as far as the losses of a decomposition depend on it."""

    n_mechanisms: int
    """Number of features, or of functions."""
    probability: float
    """Probability that one of them is on."""
    n_outputs: int
    """Number of outputs, over which errors are means."""
    n_parameters: int
    """Number of parameters of all uses of decomposed matrices, over which simplicity is a mean."""


@dataclass(frozen=True)
class TargetConfig(Config):
    """Base of the configurations of targets."""

    kind: ClassVar[str]
    """The name of this kind of target in stored runs."""
    target_seed: int | None = whole(None, at_least=0, at_most=LARGEST_SEED)
    """Seed of the target; None means the run's own seed."""

    @property
    def summary(self) -> str:
        """The sizes of the target in a few words."""
        raise NotImplementedError

    @property
    def n_floats(self) -> int:
        """Number of floats that making the network takes at least, found without making it."""
        return 0

    @property
    def matrices(self) -> list[tuple[int, int, int]]:
        """The matrices that are decomposed, without making them: how many of a kind there are, d_out and d_in."""
        return []

    @property
    def extent(self) -> Extent | None:
        """How large the target is, as far as the losses of a decomposition depend on it; None if it does not say."""
        return None

    def features(self) -> Callable[[int, Generator], Tensor]:
        """The data distribution on which this target is trained and decomposed."""
        raise NotImplementedError

    def build(self) -> nn.Module:
        """The network that is decomposed, with arbitrary weights, into which stored weights can be loaded."""
        raise NotImplementedError

    def build_whole(self) -> nn.Module:
        """The network that is trained, with arbitrary weights; `reduce` makes of it the one that is decomposed."""
        return self.build()

    def make(self, seed: int, device: str | torch.device = "cpu", *, show_progress: bool = True) -> nn.Module:
        """The target of this seed, frozen; see `make_target`."""
        raise NotImplementedError

    def reduce(self, target: nn.Module) -> nn.Module:
        """The network that is decomposed in place of this target: the target itself, or a smaller one equal to it."""
        return target

    @classmethod
    def sizes(cls, target: nn.Module) -> dict[str, Any] | None:
        """The fields that the shape of a network determines; None if the network is not of this kind."""
        raise NotImplementedError


def target_config_of(kind: str) -> type[TargetConfig]:
    """The class of configurations with this `kind`, as stored runs name it; ValueError if there is none."""

    def subclasses(base: type[TargetConfig]) -> Iterator[type[TargetConfig]]:
        for config in base.__subclasses__():
            yield config
            yield from subclasses(config)

    classes = {config.kind: config for config in subclasses(TargetConfig) if hasattr(config, "kind")}
    if kind not in classes:
        raise ValueError(f"target_kind is {kind!r}, which is not imported here; {', '.join(map(repr, classes))} are")
    return classes[kind]


@undisturbed()
def make_target(
    config: TargetConfig, seed: int = 0, device: str | torch.device = "cpu", *, show_progress: bool = True
) -> nn.Module:
    """Train the network that a configuration describes, or write its weights; its parameters are frozen in either case.

    >>> target = pdh.make_target(pdh.TMSConfig(n_features=40, n_hidden=10), seed=0)

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work.
    """
    if not isinstance(config, TargetConfig):
        raise TypeError(f"config must be that of a target, but is {shown(config)}; pdh.TMSConfig() works")
    if not isinstance(show_progress, bool):
        raise TypeError(f"show_progress must be True or False, but is {shown(show_progress)}; True works")
    seed, at = checked_seed(seed), pick_device(device)
    check_memory([config], lambda config: config.n_floats, at)
    return config.make(seed, at, show_progress=show_progress)


@dataclass(frozen=True)
class TrainedConfig(TargetConfig):
    """A target that is trained, by AdamW with a mean squared error."""

    target_steps: int = whole(5000)
    """Training steps."""
    target_batch_size: int = whole(1024)
    """Number of inputs per training step."""
    target_lr: float = number(5e-3, open=True, least=SLOWEST)
    """AdamW's learning rate at its highest."""
    target_schedule: str = choice("constant", "constant", "cosine")
    """Course of the learning rate."""
    target_weight_decay: float = number(0.01)
    """AdamW's weight decay."""

    def __post_init__(self):
        super().__post_init__()
        if self.target_lr * self.target_weight_decay >= 1:
            raise ValueError(
                f"target_weight_decay must be below 1 / target_lr = {1 / self.target_lr:g}, since every step takes "
                f"target_lr times as much off each weight, but is {self.target_weight_decay:g}; 0.01 works"
            )

    # The fields of `training.Schedule`
    lr = property(lambda self: self.target_lr)
    schedule = property(lambda self: self.target_schedule)
    steps = property(lambda self: self.target_steps)
    target_warmup_fraction = 0.0

    def new(self, seed: int, device: str | torch.device = "cpu") -> nn.Module:
        """The network before training."""
        raise NotImplementedError

    def loss(self, model: nn.Module, x: Float[Tensor, "rows n_features"]) -> Float[Tensor, ""]:
        """The loss that training minimises."""
        raise NotImplementedError

    def train(self, model: nn.Module, seed: int) -> Iterator[int]:
        """Train in place, one step for each item taken, and freeze the parameters at the end; yields the steps done."""
        return TargetTraining(self, model, seed).steps()

    def make(self, seed: int, device: str | torch.device = "cpu", *, show_progress: bool = True) -> nn.Module:
        model = self.new(seed, device)
        for _ in progress(self.train(model, seed), total=self.target_steps, description="target", show=show_progress):
            pass
        return model


class TargetTraining:
    """A target in training, which can be stored after any step and continued from there.

    Attributes: config; model; optimizer; generator, the source of batches; step, the number of steps done.
    """

    def __init__(self, config: TrainedConfig, model: nn.Module, seed: int):
        self.config, self.model, self.step = config, model, 0
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.generator = generator(seed, "target_data", parameters[0].device)
        self.optimizer = adamw(parameters, config.target_lr, config.target_weight_decay)

    def steps(self) -> Iterator[int]:
        """Train in place, one step for each item taken, and freeze the parameters at the end; yields the steps done."""
        data = self.config.features()
        while self.step < self.config.target_steps:
            set_learning_rate(self.optimizer, learning_rate(self.step, self.config, self.config.target_warmup_fraction))
            x = data(self.config.target_batch_size, self.generator)
            with threads_for(x.numel()), torch.enable_grad():
                self.optimizer.zero_grad(set_to_none=True)
                self.config.loss(self.model, x).backward()
                self.optimizer.step()
            self.step += 1
            yield self.step
        self.model.requires_grad_(False)

    def state(self) -> dict[str, Tensor]:
        """What training needs to continue, by name, besides the network itself and the number of the step."""
        return {"generator": self.generator.get_state(), **optimizer_state(self.optimizer)}

    def load_state(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Continue from a state given by `state`, after this many steps; ValueError unless it is one of this target."""
        load_generator_state(self.generator, tensors)
        load_optimizer_state(self.optimizer, tensors, step)
        self.step = step
