"""Stochastic Parameter Decomposition (SPD): Bushnaq, Braun and Sharkey 2025 (arXiv 2506.20790), section 2.

    L = L_faithfulness + β1 L_stochastic-recon + β2 L_stochastic-recon-layerwise + β3 L_importance-minimality

    importance              g_c(x) = σ(Γ_c(V_c x)) for every subcomponent of every use, x from the target
    masks                   m_c(x) ~ U(g_c(x), 1), reparametrised, so that gradients reach g
    faithfulness            mean squared error between W and Σ_c U_c V_c
    recon                   mean squared error (or KL divergence) of the output with all layers masked
    recon_layerwise         the same with one layer masked at a time, mean over layers
    importance_minimality   Σ_l Σ_c g_c(x)^p, mean over the batch

`SPD.train` is the loop and `SPD._step` the method; `causal_importance` and `losses` hold the equations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from . import losses
from .causal_importance import MASK_SIGMOIDS, CausalImportance, hard_sigmoid, sample_masks, upper_leaky
from .config import FLATTEST, SLOWEST, Config, check_micro_batches, choice, choice_or_function, number, switch, whole
from .importance_networks import LayerMLPs, SharedNetwork, importance_network
from .method import Data, Method
from .networks.batches import Inputs
from .networks.passes import Forward
from .shortcuts.empty_rows import Batch
from .shortcuts.step_graph import replayed
from .training import adam, learning_rate, set_learning_rate


@dataclass(frozen=True)
class SPDConfig(Config):
    """Settings of one SPD run; defaults are the paper's for TMS 5-2."""

    C: int = whole(20)
    """Number of subcomponents per decomposed layer."""
    d_gate: int = whole(16)
    """Hidden width of each importance MLP, or of the one network."""
    importance_network: str = choice("subcomponent", "subcomponent", "layer", "shared")
    """What predicts importances: an MLP for each "subcomponent" that reads one number, V_c x; an MLP for each "layer"
    that reads what enters it; or one network, "shared", that reads what enters all layers (VPD)."""
    n_blocks: int = whole(2)
    """Number of blocks of the shared importance network."""
    sigmoid: str = choice("leaky", *MASK_SIGMOIDS)
    """The hard sigmoid of importances in masks: "leaky" below 0, as in the paper, where masks may be a little negative,
    or "straight_through", which gives no such masks and passes only gradients that want an importance to rise."""
    faithfulness_coeff: float = number(1.0)
    """Coefficient of the faithfulness loss."""
    recon_coeff: float = number(1.0)
    """β1."""
    recon_layerwise_coeff: float = number(1.0)
    """β2."""
    output_loss: str | Callable[[Tensor, Tensor], Tensor] = choice_or_function(  # noqa: RUF009
        "mse", *losses.OUTPUT_LOSSES
    )
    """How outputs are compared: "mse", mean squared error; "kl", Kullback-Leibler divergence for a classifier's logits;
    or a function of your own, called as output_loss(output, target_output), that gives a mean over the batch."""
    importance_coeff: float = number(3e-3)
    """β3."""
    importance_p: float = number(1.0, open=True, least=FLATTEST, high=4.0)
    """p_I, exponent of the importance loss."""
    lr: float = number(1e-3, open=True, least=SLOWEST)
    """Adam's learning rate at its highest."""
    schedule: str = choice("cosine", "constant", "cosine")
    """Course of the learning rate after its warm-up."""
    warmup_fraction: float = number(0.0, high=1.0)
    """Share of the steps over which the learning rate rises."""
    steps: int = whole(40_000)
    """Number of training steps."""
    batch_size: int = whole(4096)
    """Number of inputs per training step."""
    micro_batches: int = whole(1)
    """Number of parts in which a batch is computed, one after another. The gradients are those of the whole batch, so
    that only less memory is taken, and more time."""
    faithfulness_warmup_steps: int = whole(0, at_least=0)
    """Steps on the faithfulness loss alone before training begins (later public configurations: 200)."""
    init_std: float | None = number(None, open=True)
    """Standard deviation of the initial factors; None means 1/√C for U and 1/√d_out for V."""
    n_init: int = whole(1)
    """Number of initialisations to try; training continues from the one with the lowest total loss."""
    selection_steps: int = whole(800)
    """Steps after which the initialisations are compared."""
    autocast: bool = switch(False)
    """Whether the network and its components compute in bfloat16 where `torch.autocast` does so, which most GPUs do
    faster. U, V, importances, losses and the optimiser stay in float32, and a run is measured without it."""
    cuda_graph: bool = switch(False)
    """Whether a GPU replays one recorded training step instead of launching every operation of every step anew, which
    is many times faster for small networks. Data may be anything; what the network does must be the same for every
    batch. On other devices this changes nothing."""

    def __post_init__(self):
        super().__post_init__()
        check_micro_batches(self)

    @property
    def rank(self) -> int:
        """Subcomponents are rank-one matrices."""
        return 1


class Losses(NamedTuple):
    """The unweighted losses of one batch."""

    faithfulness: Float[Tensor, ""]
    recon: Float[Tensor, ""]
    recon_layerwise: Float[Tensor, ""]
    importance_minimality: Float[Tensor, ""]


class SPD(Method):
    """One decomposition by SPD: subcomponents U, V and the causal importance functions Γ are trained together."""

    name = "spd"
    Config = SPDConfig
    Terms: ClassVar[type[NamedTuple]] = Losses
    """What a step yields."""
    spans_layers = False
    config: SPDConfig
    importance: CausalImportance | LayerMLPs | SharedNetwork

    def train(self, data: Data) -> Iterator[Losses]:
        """Train in place, one step for each item taken; yields the step's losses without gradients."""
        config = self.config
        step = replayed(self._step, self.generator, config)
        while self.step < config.steps:
            x = data(config.batch_size, self.generator)  # (batch, d_in), or whatever the network takes
            set_learning_rate(self.optimizer, learning_rate(self.step, config, config.warmup_fraction))
            *terms, total = step(x)
            self.step, self.total_loss = self.step + 1, total
            yield self.Terms(*terms)

    def _step(self, x: Inputs) -> Float[Tensor, " terms"]:
        """One training step on a batch; gives the losses and their weighted sum, without gradients."""
        model, config = self.model, self.config
        batch = self.merged(x)  # .rows (rows, d_in), .counts (rows,)
        self.optimizer.zero_grad(set_to_none=True)
        values = []
        for part in self.parts(batch):  # the batch itself, unless it is computed in parts
            target = model.target_forward(part.rows)  # .output (rows, d_output), .inputs: use → (*rows, d_in)

            loss = self._losses(part, target, self.generator)
            total = (
                config.faithfulness_coeff * loss.faithfulness
                + config.recon_coeff * loss.recon
                + config.recon_layerwise_coeff * loss.recon_layerwise
                + config.importance_coeff * loss.importance_minimality
            )

            (part.weight * total).backward()
            values.append(part.weight * torch.stack([*loss, total]).detach())
        values = self.added_up(values)
        self.optimizer.step()
        return values

    def _losses(self, batch: Batch, target: Forward, generator: Generator) -> Losses:
        """The equations, with masks drawn from `generator`."""
        model, config, x = self.model, self.config, batch.rows
        inner = model.inner(target.inputs)  # use → V_c x (*rows, C, 1)
        gates = self.importance(inner, target.inputs, self.shares(batch))  # tables of Γ (*rows, ΣC), before any sigmoid
        masks, layerwise_masks = {}, {}
        for table in gates:
            g = MASK_SIGMOIDS[config.sigmoid](table.values)
            both = sample_masks(g.expand(2, *g.shape), generator, table.share)
            masks, layerwise_masks = masks | table.split(both[0]), layerwise_masks | table.split(both[1])

        compare = losses.output_loss(config.output_loss)
        faithfulness = model.faithfulness()
        recon = compare(model(x, masks, inner).output, target.output, batch.divisor)
        recon_layerwise = losses.layerwise(
            [
                compare(model(x, {use: mask}, inner).output, target.output, batch.divisor)
                for use, mask in layerwise_masks.items()
            ]
        )
        minimality = sum(
            losses.importance_minimality(upper_leaky(table.values), config.importance_p, batch.counts, batch.n_inputs)
            for table in gates
        )
        return Losses(faithfulness, recon, recon_layerwise, minimality)

    def batch_losses(self, x: Inputs, generator: Generator, step: int | None = None) -> Losses:
        """The losses of one batch, with gradients and with masks drawn from `generator`; the same at every step."""
        batch = self.merged(x)
        return self._losses(batch, self.model.target_forward(batch.rows), generator)

    def build(self, init: Generator) -> None:
        """The importance functions, by default one MLP for every subcomponent in every use."""
        config = self.config
        self.importance = importance_network(
            self.model, config.importance_network, d_gate=config.d_gate, n_blocks=config.n_blocks, generator=init
        )

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam on U, V and the importance functions."""
        return adam([*self.model.factors, *self.importance.parameters()], self.config.lr, self.config.cuda_graph)

    def parameters(self) -> dict[str, nn.Parameter]:
        """U and V, and `importance.<use>.<name>` of the importance functions."""
        return super().parameters() | {f"importance.{name}": p for name, p in self.importance.named()}

    @torch.no_grad()
    def importances(self, x: Inputs, n_inputs: int | None = None) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → causal importances g (*rows, C) in [0, 1]."""
        chunks = self.model.chunks(x, CHUNK)
        return self.model.joined([self._importances(chunk) for chunk in chunks], chunks)

    def _importances(self, x: Inputs) -> dict[str, Float[Tensor, "*rows _"]]:
        inputs = self.model.target_forward(x).inputs
        tables = self.importance(self.model.inner(inputs), inputs)
        found = {use: g for table in tables for use, g in table.split(hard_sigmoid(table.values)).items()}
        return {use: found[use] for use in self.model.uses}

    def sample_masks(
        self, importances: dict[str, Float[Tensor, "*rows _"]], generator: Generator
    ) -> dict[str, Float[Tensor, "*rows _"]]:
        """Stochastic masks: m = g + (1 - g) r."""
        return {use: sample_masks(g, generator) for use, g in importances.items()}


CHUNK = 4096
"""Rows whose importances are computed at a time: what is computed on the way takes several times the memory of g."""
