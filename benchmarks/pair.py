"""One decomposition twice: pd_helpers' core and the textbook, from the same parameters, on the same batches.

    max_abs_diff = the largest |core − textbook| over all loss terms and all gradients (U, V, importance MLPs) of one
                   step, from identical parameters, on one batch, with identical random masks

Gradients, not parameters after many steps: Adam turns a rounding error in a gradient that is nearly zero into a whole
step, so that two correct implementations drift apart.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks import textbook
from pd_helpers import apd, spd
from pd_helpers.causal_importance import CausalImportance
from pd_helpers.components import ComponentModel, decompose
from pd_helpers.presets import preset
from pd_helpers.targets import TMS, make_target
from pd_helpers.training import State, generator, pick_device, threads_for

TARGET_STEPS = 500
"""Training steps of the target, unless set: enough for its outputs to be as sparse as the inputs."""
N_BATCHES = 16
"""Batches drawn before the clock starts, and used in turn."""


@dataclass
class Pair:
    """A preset at step 0, after the faithfulness warm-up, for the core and for the textbook."""

    config: apd.APDConfig | spd.SPDConfig
    components: ComponentModel
    importance: CausalImportance | None
    state: State
    textbook: textbook.Model
    batches: list[Tensor]

    @property
    def device(self) -> torch.device:
        """Where both compute."""
        return self.batches[0].device

    def core_steps(self) -> Iterator[apd.Losses | spd.Losses]:
        """The core's training as `Run` drives it, one step for each item taken."""
        method = train_core(self.components, self.importance, cycle(self.batches), self.config, self.state)
        while True:
            with threads_for(self.config.batch_size * self.components.width):
                losses = next(method)
            yield losses

    def textbook_steps(self) -> Iterator[dict[str, Tensor]]:
        """The textbook's training on the same batches."""
        return textbook.train(self.textbook, losses_of(self.textbook, self.config), cycle(self.batches), self.config)

    def max_abs_diff(self, dtype: torch.dtype) -> float:
        """The largest difference of one step's losses and gradients, from the textbook's present parameters."""
        target = copy.deepcopy(self.components.target).to(dtype)
        layers = {path: layer.C for path, layer in self.components.layers.items()}
        components = decompose(target, layers, rank=self.config.rank)
        importance = None
        if self.importance is not None:
            importance = CausalImportance(components, d_gate=self.config.d_gate, generator=Generator())
        with torch.no_grad():
            model = in_textbook(toy_model(target), components, importance)
            for mine, theirs in zip(model.parameters, self.textbook.parameters, strict=True):
                mine.copy_(theirs)
        return largest_difference(model, components, importance, self.batches[0].to(dtype), self.config)


def prepare(name: str, device: str = "auto", at_least_steps: int = 1, **overrides: Any) -> Pair:
    """Both implementations of a preset, `overrides` changing any of its fields, for at least so many steps.

    Raises ValueError or TypeError, before any work starts, for what cannot work.
    """
    at = pick_device(device)
    experiment = preset(name).replace(**{"target_steps": TARGET_STEPS, **overrides})
    experiment = experiment.replace(steps=max(experiment.config.steps, at_least_steps))
    target = make_target(experiment.target, 0, at, show_progress=False)
    config, init, draw = experiment.config, generator(0, "init"), generator(0, "data", at)
    components = decompose(
        target, dict.fromkeys(target.layers, config.C), rank=config.rank, std=config.init_std, generator=init
    ).to(at)
    if isinstance(config, spd.SPDConfig):
        importance = CausalImportance(components, d_gate=config.d_gate, generator=init)
        state = spd.start(components, importance, config, draw)
    else:
        importance, state = None, apd.start(components, config, draw)
    batches = [experiment.target.features()(config.batch_size, draw) for _ in range(N_BATCHES)]
    model = copied(in_textbook(toy_model(target), components, importance))
    return Pair(config, components, importance, state, model, batches)


def train_core(components, importance, batches, config, state) -> Iterator[apd.Losses | spd.Losses]:
    """The core's training loop of either method on the batches given."""

    def data(batch_size, generator):
        return next(batches)

    if importance is None:
        return apd.train(components, data, config, state)
    return spd.train(components, importance, data, config, state)


def losses_of(model: textbook.Model, config, rand_like=torch.rand_like):
    """The textbook's losses of either method, as a function of the batch."""
    if isinstance(config, apd.APDConfig):
        return lambda x: textbook.apd_losses(model, x, config)
    return lambda x: textbook.spd_losses(model, x, config, rand_like)


# The core's decomposition in the textbook's hands


def in_textbook(
    network: textbook.Model, components: ComponentModel, importance: CausalImportance | None = None
) -> textbook.Model:
    """The network with the core's own U, V and importance MLPs: the same tensors, no copies."""
    return replace(
        network,
        U={path: layer.U for path, layer in components.layers.items()},
        V={path: layer.V for path, layer in components.layers.items()},
        gates={
            use: textbook.Gate(*(getattr(mlp, name) for name in textbook.Gate._fields))
            for use, mlp in (importance.mlps.items() if importance else ())
        },
    )


def copied(model: textbook.Model) -> textbook.Model:
    """The same with parameters of its own."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().requires_grad_()

    return replace(
        model,
        U={path: copy(U) for path, U in model.U.items()},
        V={path: copy(V) for path, V in model.V.items()},
        gates={use: textbook.Gate(*map(copy, gate)) for use, gate in model.gates.items()},
    )


def toy_model(target: TMS) -> textbook.Model:
    """A toy model as the textbook writes it, undecomposed."""
    identity = None if target.identity is None else target.identity.weight
    return textbook.toy_model(target.embed.weight, target.unembed.bias, identity)


def rand_like_core(components: ComponentModel, x: Tensor, draw: Generator):
    """The r that the core draws for batch x: for all masks at once, and for all-zero rows, where any will do, once.

    The table (2, rows, ΣC) holds those of the reconstruction with all layers masked, then those of one at a time.
    """
    rows, _ = components.merge_empty_rows(x)
    sizes = [components.layers[use.layer].C for use in components.uses.values()]
    shape = (2, len(rows), sum(sizes))
    r = torch.rand(shape, generator=draw, device=x.device, dtype=x.dtype)
    if len(rows) < len(x):
        zero = ~x.any(dim=1)
        spread = r.new_empty(2, len(x), sum(sizes))
        spread[:, ~zero], spread[:, zero] = r[:, :-1], r[:, -1:]
        r = spread
    tables = itertools.chain(*(table.split(sizes, dim=1) for table in r))
    return lambda g: next(tables)


def largest_difference(
    model: textbook.Model, components: ComponentModel, importance: CausalImportance | None, x: Tensor, config
) -> float:
    """`max_abs_diff` on batch x; `model` shares the core's parameters, which one step of the core's loop will move."""
    config = config.replace(steps=1)
    draw, same = (Generator(x.device).manual_seed(0) for _ in range(2))
    own = copied(model)
    (their_losses,) = textbook.train(own, losses_of(own, config, rand_like_core(components, x, same)), [x], config)
    state = State(torch.optim.SGD(model.parameters, lr=0.0), draw)
    (losses,) = train_core(components, importance, iter([x]), config, state)
    pairs = [(losses._asdict()[name], their_losses[name]) for name in their_losses]
    pairs += [(mine.grad, theirs.grad) for mine, theirs in zip(model.parameters, own.parameters, strict=True)]
    return torch.stack([(mine - theirs).abs().max() for mine, theirs in pairs]).max().item()  # a NaN stays a NaN
