"""The same decomposition by pd_helpers' core and by the textbook, from the same parameters, on the same batches.

    max_abs_diff = the largest |core − textbook| over all loss terms and all gradients (U, V, importance MLPs) of one
                   step, from identical parameters, on one batch, with identical random masks

Gradients are compared, and not parameters after many steps, because Adam turns a rounding error in a gradient that is
nearly zero into a whole step, so that two correct implementations drift apart.

Of VPD, losses and gradients are compared at the adversary's first sources, before any ascent, for the same reason;
`tests/test_vpd.py` follows the ascent step by step.

For residual MLPs, the core decomposes the network in the dimensions in use, with basis Q (see `ResidualMLP.narrow`),
while the textbook decomposes the wide network, from the core's components lifted into the wide stream: V Qᵀ for W_in
(and for an MLP that reads the stream), and Q U for W_out. The core's loss is the wide loss of the lifted components,
L(V Qᵀ, Q U), so by the chain rule its gradients are the wide gradients projected by Q: (∂L/∂V) Q and Qᵀ (∂L/∂U).
"""

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from benchmarks import textbook
from pd_helpers.core import apd, vpd
from pd_helpers.core.causal_importance import CausalImportance
from pd_helpers.core.components import ComponentModel, decompose
from pd_helpers.core.importance_networks import LayerMLPs
from pd_helpers.core.method import Data, Method, MethodConfig, method_of
from pd_helpers.core.shortcuts.threads import threads_for
from pd_helpers.core.training import generator, pick_device
from pd_helpers.runs.presets import Settings, preset
from pd_helpers.targets.base import TargetConfig, TrainedConfig, make_target
from pd_helpers.targets.induction import InductionNetwork
from pd_helpers.targets.pingpong import PingPong
from pd_helpers.targets.residual_mlp import ResidualMLP, ResidualMLPConfig
from pd_helpers.targets.tms import TMS

TARGET_STEPS = 500
"""Training steps of the target, unless overridden: enough for its outputs to be as sparse as the inputs."""
N_BATCHES = 16
"""Number of batches that are drawn before the clock starts and then used in turn."""


@dataclass
class Pair:
    """A preset at step 0, after the faithfulness warm-up, for the core and for the textbook."""

    target_config: TargetConfig
    """How the target was made."""
    target: nn.Module
    """The network that the textbook decomposes."""
    method: Method
    """The core's decomposition."""
    textbook: textbook.Model
    """The textbook's decomposition."""
    batches: list[Tensor]
    """Batches (batch, d_in) that both use in turn."""

    @property
    def config(self) -> MethodConfig:
        """The settings of both."""
        return self.method.config

    @property
    def components(self) -> ComponentModel:
        """The core's components."""
        return self.method.model

    @property
    def device(self) -> torch.device:
        """The device of both."""
        return self.batches[0].device

    def core_steps(self) -> Iterator[NamedTuple]:
        """The core's training as a run drives it, one step for each item taken."""
        training = self.method.train(in_turn(cycle(self.batches)))
        while True:
            with threads_for(self.config.batch_size * self.components.width):
                losses = next(training)
            yield losses

    def textbook_steps(self) -> Iterator[dict[str, Tensor]]:
        """The textbook's training on the same batches."""
        return textbook.train(self.textbook, losses_of(self.textbook, self.config), cycle(self.batches), self.config)

    def max_abs_diff(self, dtype: torch.dtype) -> float:
        """The largest difference of the losses and gradients of one step, at the textbook's present parameters."""
        target = copy.deepcopy(self.target).to(dtype)
        small, Q = reduced(target, self.target_config)
        layers = {path: layer.C for path, layer in self.components.layers.items()}
        components = decompose(small, layers, rank=self.config.rank)
        method = type(self.method)(components, self.config, init=Generator(), draw=Generator())
        model = in_textbook(undecomposed(target), method)
        with torch.no_grad():
            present = projected(self.textbook, None if Q is None else Q.to(self.batches[0]))
            for parameter, value in zip(model.parameters, present.parameters, strict=True):
                parameter.copy_(value)
        if getattr(self.config, "unit_norm", False):
            apd.normalise_(components)
        x = self.batches[0]
        return largest_difference(model, Q, method, x.to(dtype) if x.is_floating_point() else x)


def prepare(name: str, device: str = "auto", at_least_steps: int = 1, **overrides: Any) -> Pair:
    """Both implementations of a preset, for at least `at_least_steps` steps; `overrides` can change any field of it.

    Raises ValueError or TypeError, before any work starts, for arguments that cannot work.
    """
    at, settings = pick_device(device), comparable(preset(name).settings)
    if isinstance(settings.target, TrainedConfig):
        settings = settings.replace(target_steps=TARGET_STEPS)
    settings = settings.replace(**overrides)
    settings = settings.replace(steps=max(settings.config.steps, at_least_steps))
    target = make_target(settings.target, 0, at, show_progress=False)
    small, Q = reduced(target, settings.target)
    config, init, draw = settings.config, generator(0, "init"), generator(0, "data", at)
    components = decompose(
        small, dict.fromkeys(small.layers, config.C), rank=config.rank, std=config.init_std, generator=init
    ).to(at)
    method = method_of(config)(components, config, init=init, draw=draw)
    method.warm_up()
    batches = [settings.target.features()(config.batch_size, draw) for _ in range(N_BATCHES)]
    model = copied(lifted(in_textbook(undecomposed(target), method), Q))
    return Pair(settings.target, target, method, model, batches)


def comparable(settings: Settings) -> Settings:
    """The same settings, with MLPs for importances in place of a shared network, which the textbook does not have."""
    if getattr(settings.config, "importance_network", None) != "shared":
        return settings
    return settings.replace(importance_network="subcomponent")


def reduced(target: nn.Module, config: TargetConfig) -> tuple[nn.Module, Tensor | None]:
    """The network that the core decomposes, and the basis Q of its residual stream; None if the stream is the same."""
    if isinstance(config, ResidualMLPConfig):
        return target.narrow()
    return config.reduce(target), None


def in_turn(batches: Iterator[Tensor]) -> Data:
    """A data function that returns these batches in turn and ignores its arguments."""
    return lambda batch_size, generator: next(batches)


def losses_of(model: textbook.Model, config, components: ComponentModel | None = None, draw: Generator | None = None):
    """The textbook's losses of any method, as a function of the batch that must be called once in each step.

    With the core's components and a generator, it draws the random numbers that the core draws from an equal one.
    """
    if isinstance(config, apd.APDConfig):
        steps = itertools.count()
        return lambda x: textbook.apd_losses(model, x, config, next(steps))
    if isinstance(config, vpd.VPDConfig):
        return AsTheCoreDraws(model, config, components, draw) if draw else textbook.AdversarialLosses(model, config)
    if draw is None:
        return lambda x: textbook.spd_losses(model, x, config)
    return lambda x: textbook.spd_losses(model, x, config, rand_like_core(components, x, draw))


# The core's decomposition in the form of the textbook


def in_textbook(network: textbook.Model, core: Method | ComponentModel) -> textbook.Model:
    """The network with the core's own U, V and, for SPD, importance MLPs: the same tensors, not copies."""
    components, importance = (core, None) if isinstance(core, ComponentModel) else (core.model, core.importance)
    return replace(
        network,
        U={path: layer.U for path, layer in components.layers.items()},
        V={path: layer.V for path, layer in components.layers.items()},
        gates=gates(importance) if importance else {},
    )


def gates(importance: nn.Module) -> dict[str, textbook.Gate | textbook.LayerGate]:
    """Use → its importance MLPs; raises TypeError for an importance network that the textbook does not have."""
    if isinstance(importance, LayerMLPs):
        weights = zip(importance.w_in, importance.b_in, importance.w_out, importance.b_out, strict=True)
        return dict(zip(importance.uses, itertools.starmap(textbook.LayerGate, weights), strict=True))
    if not isinstance(importance, CausalImportance):
        raise TypeError(f"the textbook has no {type(importance).__name__}")
    fields = textbook.Gate._fields
    return {use: textbook.Gate(*(getattr(mlp, name) for name in fields)) for use, mlp in importance.mlps.items()}


def with_each(model: textbook.Model, change: Callable[[Tensor], Tensor]) -> textbook.Model:
    """The same model with `change` applied to every parameter."""
    return replace(
        model,
        U={path: change(U) for path, U in model.U.items()},
        V={path: change(V) for path, V in model.V.items()},
        gates={use: type(gate)(*map(change, gate)) for use, gate in model.gates.items()},
    )


def copied(model: textbook.Model) -> textbook.Model:
    """The same model with copies of the parameters."""
    return with_each(model, lambda tensor: tensor.detach().clone().requires_grad_())


def lifted(model: textbook.Model, Q: Tensor | None) -> textbook.Model:
    """Components of the narrow stream, lifted into the wide one: V Qᵀ reads it, and Q U writes to it."""
    if Q is None:
        return model

    def lifted_gate(use, gate):
        wide = isinstance(gate, textbook.LayerGate) and use.endswith("W_in")
        return gate._replace(w_in=gate.w_in @ Q.T) if wide else gate

    return replace(
        model,
        gates={use: lifted_gate(use, gate) for use, gate in model.gates.items()},
        U={path: Q @ U if path.endswith("W_out") else U for path, U in model.U.items()},
        V={path: V @ Q.T if path.endswith("W_in") else V for path, V in model.V.items()},
    )


def projected(model: textbook.Model, Q: Tensor | None) -> textbook.Model:
    """Components, or gradients, of the wide stream, projected to the narrow one: V Q and Qᵀ U."""
    return lifted(model, None if Q is None else Q.T)


def undecomposed(target: nn.Module) -> textbook.Model:
    """A target in the form of the textbook; raises TypeError for a network that the textbook does not have."""
    if isinstance(target, TMS):
        identity = None if target.identity is None else target.identity.weight
        return textbook.toy_model(target.embed.weight, target.unembed.bias, identity)
    if isinstance(target, ResidualMLP):
        mlps = target.mlps
        biases = [0.0 if mlp.W_in.bias is None else mlp.W_in.bias for mlp in mlps]
        W_in, W_out = [mlp.W_in.weight for mlp in mlps], [mlp.W_out.weight for mlp in mlps]
        return textbook.residual_mlp(target.W_E, target.W_U, W_in, W_out, biases)
    if isinstance(target, PingPong):
        return textbook.linear_map(target.layer.weight)
    if isinstance(target, InductionNetwork):
        blocks = [{name: getattr(block, name).weight for name in "qkvo"} for block in target.blocks]
        n_heads = target.blocks[0].n_heads
        return textbook.induction(target.embed.weight, target.positions, blocks, target.unembed.weight, n_heads)
    raise TypeError(f"the textbook has no {type(target).__name__}")


def rand_like_core(components: ComponentModel, x: Tensor, draw: Generator):
    """The random numbers r that the core draws for batch x, as a function that the textbook can call for each mask.

    The core draws one table (2, rows, ΣC): first for the reconstruction with all layers masked, then for one layer at a
    time. All all-zero inputs share one row, since their masks have no effect.
    """
    rows = merged_rows(components, x)
    sizes = [components.layers[use.layer].C for use in components.uses.values()]
    r = torch.rand(2, *rows, sum(sizes), generator=draw, device=x.device, dtype=components.factors[0].dtype)
    if rows[0] < len(x):
        empty = ~x.any(dim=1)
        all_rows = r.new_empty(2, len(x), sum(sizes))
        all_rows[:, ~empty], all_rows[:, empty] = r[:, :-1], r[:, -1:]
        r = all_rows
    tables = itertools.chain(*(table.split(sizes, dim=-1) for table in r))
    return lambda g: next(tables)


def merged_rows(components: ComponentModel, x: Tensor) -> tuple[int, ...]:
    """The rows for which the core draws: those of the batch with all-zero ones merged, or all positions of tokens."""
    return (len(components.merge_empty_rows(x).rows),) if x.is_floating_point() else tuple(x.shape)


class AsTheCoreDraws(textbook.AdversarialLosses):
    """The textbook's losses of VPD, with the random numbers that the core draws from an equal generator.

    The core draws first the adversary's sources, for every input or for all; and then in each step, for its rows, a
    random order of the uses, how many of these are masked, and sources of all subcomponents and Δs.
    """

    def __init__(self, model: textbook.Model, config, components: ComponentModel, generator: Generator):
        super().__init__(model, config, self._drawn)
        self.components, self.generator = components, generator

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        if not self.r:
            rows = () if self.config.adversary == "shared" else x.shape[: 1 if x.is_floating_point() else 2]
            self.begin({use: self._rand(x, *rows, n) for use, n in self._sizes.items()})
        return super().__call__(x)

    @property
    def _sizes(self) -> dict[str, int]:
        return {use: self.components.layers[path.layer].C + 1 for use, path in self.components.uses.items()}

    def _rand(self, x: Tensor, *shape: int) -> Tensor:
        dtype = self.components.factors[0].dtype
        return torch.rand(*shape, generator=self.generator, device=x.device, dtype=dtype)

    def _drawn(self, model: textbook.Model, x: Tensor) -> textbook.Drawn:
        sizes, rows, draw = self._sizes, merged_rows(self.components, x), self.generator
        order = torch.rand(*rows, len(sizes), generator=draw, device=x.device).argsort(dim=-1)
        k = torch.randint(1, len(sizes) + 1, (*rows, 1), generator=draw, device=x.device)
        r = self._rand(x, *rows, sum(sizes.values()))
        row = torch.arange(len(x), device=x.device)
        if rows[0] < len(x):  # all-zero inputs share the last row
            full = x.any(dim=1)
            row = torch.where(full, full.cumsum(dim=0) - 1, rows[0] - 1)
        place = order.argsort(dim=-1)  # of every use in the random order
        chosen = {use: (place[..., i] < k.squeeze(-1))[row] for i, use in enumerate(sizes)}
        return {use: part[row] for use, part in zip(sizes, r.split([*sizes.values()], dim=-1), strict=True)}, chosen


def largest_difference(model: textbook.Model, Q: Tensor | None, method: Method, x: Tensor) -> float:
    """`max_abs_diff` on batch x; `model` holds the core's parameters, which take one step at learning rate zero."""
    config = method.config.replace(steps=1)
    if isinstance(config, vpd.VPDConfig):
        config = config.replace(adversary_steps=0)
    draw, same = (Generator(x.device).manual_seed(0) for _ in range(2))
    reference = copied(lifted(model, Q))
    reference_loss = losses_of(reference, config, method.model, same)
    (reference_losses,) = textbook.train(reference, reference_loss, [x], config)
    method.config, method.generator, method.optimizer = config, draw, torch.optim.SGD(model.parameters, lr=0.0)
    (losses,) = method.train(in_turn(iter([x])))
    pairs = [(losses._asdict()[name], reference_losses[name]) for name in reference_losses]
    gradients = projected(with_each(reference, lambda parameter: parameter.grad), Q).parameters
    pairs += [(parameter.grad, grad) for parameter, grad in zip(model.parameters, gradients, strict=True)]
    return torch.stack([(value - true).abs().max() for value, true in pairs]).max().item()  # a NaN stays a NaN
