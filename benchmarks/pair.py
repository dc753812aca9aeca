"""One decomposition twice: pd_helpers' core and the textbook, from the same parameters, on the same batches.

    max_abs_diff = the largest |core − textbook| over all loss terms and all gradients (U, V, importance MLPs) of one
                   step, from identical parameters, on one batch, with identical random masks

Gradients, not parameters after many steps: Adam turns a rounding error in a gradient that is nearly zero into a whole
step, so that two correct implementations drift apart.

Residual MLPs: the core decomposes the network in the dimensions in use, with basis Q (see `ResidualMLP.narrow`), the
textbook the wide one, from the core's components lifted into the wide stream: V Qᵀ for W_in, Q U for W_out. As a
function of these, the core's loss is the wide one, L(V Qᵀ, Q U), so by the chain rule its gradients are the wide ones
projected by Q: (∂L/∂V) Q and Qᵀ (∂L/∂U).
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks import textbook
from pd_helpers import apd, spd
from pd_helpers.causal_importance import CausalImportance
from pd_helpers.components import ComponentModel, decompose
from pd_helpers.presets import preset
from pd_helpers.residual_mlp import ResidualMLP, ResidualMLPConfig
from pd_helpers.targets import TMS, TargetConfig, TrainedConfig, make_target
from pd_helpers.training import State, generator, pick_device, threads_for

TARGET_STEPS = 500
"""Training steps of the target, unless set: enough for its outputs to be as sparse as the inputs."""
N_BATCHES = 16
"""Batches drawn before the clock starts, and used in turn."""


@dataclass
class Pair:
    """A preset at step 0, after the faithfulness warm-up, for the core and for the textbook."""

    config: apd.APDConfig | spd.SPDConfig
    target_config: TargetConfig
    target: nn.Module
    """The network as the textbook decomposes it."""
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
        target = copy.deepcopy(self.target).to(dtype)
        small, Q = reduced(target, self.target_config)
        layers = {path: layer.C for path, layer in self.components.layers.items()}
        components = decompose(small, layers, rank=self.config.rank)
        importance = None
        if self.importance is not None:
            importance = CausalImportance(components, d_gate=self.config.d_gate, generator=Generator())
        model = in_textbook(undecomposed(target), components, importance)
        with torch.no_grad():
            there = projected(self.textbook, None if Q is None else Q.to(self.batches[0]))
            for mine, theirs in zip(model.parameters, there.parameters, strict=True):
                mine.copy_(theirs)
        if getattr(self.config, "unit_norm", False):
            apd.normalise_(components)
        return largest_difference(model, Q, components, importance, self.batches[0].to(dtype), self.config)


def prepare(name: str, device: str = "auto", at_least_steps: int = 1, **overrides: Any) -> Pair:
    """Both implementations of a preset, `overrides` changing any of its fields, for at least so many steps.

    Raises ValueError or TypeError, before any work starts, for what cannot work.
    """
    at, experiment = pick_device(device), preset(name)
    if isinstance(experiment.target, TrainedConfig):
        experiment = experiment.replace(target_steps=TARGET_STEPS)
    experiment = experiment.replace(**overrides)
    experiment = experiment.replace(steps=max(experiment.config.steps, at_least_steps))
    target = make_target(experiment.target, 0, at, show_progress=False)
    small, Q = reduced(target, experiment.target)
    config, init, draw = experiment.config, generator(0, "init"), generator(0, "data", at)
    components = decompose(
        small, dict.fromkeys(small.layers, config.C), rank=config.rank, std=config.init_std, generator=init
    ).to(at)
    if isinstance(config, spd.SPDConfig):
        importance = CausalImportance(components, d_gate=config.d_gate, generator=init)
        state = spd.start(components, importance, config, draw)
    else:
        importance, state = None, apd.start(components, config, draw)
    batches = [experiment.target.features()(config.batch_size, draw) for _ in range(N_BATCHES)]
    model = copied(lifted(in_textbook(undecomposed(target), components, importance), Q))
    return Pair(config, experiment.target, target, components, importance, state, model, batches)


def reduced(target: nn.Module, config: TargetConfig) -> tuple[nn.Module, Tensor | None]:
    """The network that the core decomposes, and the basis Q of what it keeps of the stream; None if all is kept."""
    if isinstance(config, ResidualMLPConfig):
        return target.narrow()
    return config.reduce(target), None


def train_core(components, importance, batches, config, state) -> Iterator[apd.Losses | spd.Losses]:
    """The core's training loop of either method on the batches given."""

    def data(batch_size, generator):
        return next(batches)

    if importance is None:
        return apd.train(components, data, config, state)
    return spd.train(components, importance, data, config, state)


def losses_of(model: textbook.Model, config, rand_like=torch.rand_like):
    """The textbook's losses of either method, as a function of the batch, to be called once a step."""
    if isinstance(config, apd.APDConfig):
        steps = itertools.count()
        return lambda x: textbook.apd_losses(model, x, config, next(steps))
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


def with_each(model: textbook.Model, change: Callable[[Tensor], Tensor]) -> textbook.Model:
    """The same with every parameter changed."""
    return replace(
        model,
        U={path: change(U) for path, U in model.U.items()},
        V={path: change(V) for path, V in model.V.items()},
        gates={use: textbook.Gate(*map(change, gate)) for use, gate in model.gates.items()},
    )


def copied(model: textbook.Model) -> textbook.Model:
    """The same with parameters of its own."""
    return with_each(model, lambda tensor: tensor.detach().clone().requires_grad_())


def lifted(model: textbook.Model, Q: Tensor | None) -> textbook.Model:
    """Components of a narrow stream in the wide one: V Qᵀ reads it, Q U writes to it."""
    if Q is None:
        return model
    return replace(
        model,
        U={path: Q @ U if path.endswith("W_out") else U for path, U in model.U.items()},
        V={path: V @ Q.T if path.endswith("W_in") else V for path, V in model.V.items()},
    )


def projected(model: textbook.Model, Q: Tensor | None) -> textbook.Model:
    """Components, or gradients, of the wide stream in the narrow one: V Q and Qᵀ U."""
    return lifted(model, None if Q is None else Q.T)


def undecomposed(target: nn.Module) -> textbook.Model:
    """A target as the textbook writes it."""
    if isinstance(target, TMS):
        identity = None if target.identity is None else target.identity.weight
        return textbook.toy_model(target.embed.weight, target.unembed.bias, identity)
    if isinstance(target, ResidualMLP):
        mlps = target.mlps
        biases = [0.0 if mlp.W_in.bias is None else mlp.W_in.bias for mlp in mlps]
        W_in, W_out = [mlp.W_in.weight for mlp in mlps], [mlp.W_out.weight for mlp in mlps]
        return textbook.residual_mlp(target.W_E, target.W_U, W_in, W_out, biases)
    raise TypeError(f"the textbook has no {type(target).__name__}")


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
    model: textbook.Model,
    Q: Tensor | None,
    components: ComponentModel,
    importance: CausalImportance | None,
    x: Tensor,
    config: apd.APDConfig | spd.SPDConfig,
) -> float:
    """`max_abs_diff` on batch x; `model` holds the core's parameters, which one step of the core's loop will move."""
    config = config.replace(steps=1)
    draw, same = (Generator(x.device).manual_seed(0) for _ in range(2))
    own = copied(lifted(model, Q))
    (their_losses,) = textbook.train(own, losses_of(own, config, rand_like_core(components, x, same)), [x], config)
    state = State(torch.optim.SGD(model.parameters, lr=0.0), draw)
    (losses,) = train_core(components, importance, iter([x]), config, state)
    pairs = [(losses._asdict()[name], their_losses[name]) for name in their_losses]
    theirs = projected(with_each(own, lambda parameter: parameter.grad), Q)
    pairs += [(mine.grad, grad) for mine, grad in zip(model.parameters, theirs.parameters, strict=True)]
    return torch.stack([(mine - theirs).abs().max() for mine, theirs in pairs]).max().item()  # a NaN stays a NaN
