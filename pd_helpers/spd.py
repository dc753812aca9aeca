"""Stochastic Parameter Decomposition (SPD): Bushnaq, Braun and Sharkey 2025 (arXiv 2506.20790), section 2.

    L = L_faithfulness + β1 L_stochastic-recon + β2 L_stochastic-recon-layerwise + β3 L_importance-minimality

    importance     g_c(x) = σ(Γ_c(V_cᵀ a)) for every subcomponent of every layer, a from the target
    masks          m_c(x) ~ U(g_c(x), 1), reparametrised, so that gradients reach g
    faithfulness   mean squared error between W and Σ_c U_c V_cᵀ
    recon          mean squared error (or KL divergence) of the output with all layers masked
    layerwise      the same with one layer masked at a time, mean over layers
    importance     Σ_l Σ_c g_c(x)^p, mean over the batch

`batch_losses` below reads in that order; `causal_importance` and `losses` hold the equations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Generator, Tensor

from pd_helpers import losses
from pd_helpers.causal_importance import CausalImportance, lower_leaky, sample_masks, upper_leaky
from pd_helpers.components import ComponentModel
from pd_helpers.config import Config, choice, number, whole
from pd_helpers.training import State, adam, learning_rate, warm_up


@dataclass(frozen=True)
class SPDConfig(Config):
    """Settings of one SPD run; defaults are the paper's for TMS 5-2."""

    C: int = whole(20)
    """Subcomponents per decomposed layer."""
    d_gate: int = whole(16)
    """Hidden width of each importance MLP."""
    faithfulness_coeff: float = number(1.0)
    """Weight of the faithfulness loss."""
    recon_coeff: float = number(1.0)
    """β1."""
    recon_layerwise_coeff: float = number(1.0)
    """β2."""
    output_loss: str = choice("mse", *losses.OUTPUT_LOSSES)
    """How outputs are compared: mean squared error, or Kullback-Leibler divergence, for a classifier's logits."""
    importance_coeff: float = number(3e-3)
    """β3."""
    importance_p: float = number(1.0, open=True, high=4.0)
    """p_I, exponent of the importance loss."""
    lr: float = number(1e-3, open=True)
    """Adam's learning rate at its highest."""
    schedule: str = choice("cosine", "constant", "cosine")
    """What the learning rate does."""
    warmup_fraction: float = number(0.0, high=1.0)
    """Share of the steps over which the learning rate rises."""
    steps: int = whole(40_000)
    """Training steps."""
    batch_size: int = whole(4096)
    """Inputs per step."""
    faithfulness_warmup_steps: int = whole(0, at_least=0)
    """Steps on the faithfulness loss alone, before the others (later public configs: 200)."""
    init_std: float | None = number(None, open=True)
    """Standard deviation of the initial factors; None means 1/√C for U and 1/√d_out for V."""
    starts: int = whole(1)
    """Initialisations tried; the one with the lowest loss after `start_steps` steps goes on."""
    start_steps: int = whole(800)
    """Steps after which they are compared."""

    @property
    def rank(self) -> int:
        """Subcomponents are rank-one matrices."""
        return 1


class Losses(NamedTuple):
    """The unweighted losses of one batch; those that `train` gives are without gradients."""

    faithfulness: Tensor
    recon: Tensor
    recon_layerwise: Tensor
    importance: Tensor

    def total(self, config: SPDConfig) -> Tensor:
        """The loss that is trained."""
        return (
            config.faithfulness_coeff * self.faithfulness
            + config.recon_coeff * self.recon
            + config.recon_layerwise_coeff * self.recon_layerwise
            + config.importance_coeff * self.importance
        )

    def promise(self, config: SPDConfig) -> Tensor:
        """By which initialisations are compared, lower being better: the loss itself.

        A start that goes wrong ends with fewer subcomponents, each active for several features: cheap to
        reconstruct, but with more importance in all.
        """
        return self.total(config)


def start(model: ComponentModel, importance: CausalImportance, config: SPDConfig, generator: Generator) -> State:
    """The state before step 0, after the faithfulness warm-up; `generator` will draw data and masks."""
    warm_up(
        model.factors,
        lambda: losses.faithfulness(model.targets, model.sums, model.n_all_parameters),
        config.faithfulness_warmup_steps,
    )
    return State(adam([*model.factors, *importance.parameters()], config.lr), generator)


def train(
    model: ComponentModel,
    importance: CausalImportance,
    data: Callable[[int, Generator], Tensor],
    config: SPDConfig,
    state: State,
) -> Iterator[Losses]:
    """Train subcomponents and importance functions in place, one step for each item taken from this iterator.

    `data(batch_size, generator)` draws a batch (batch, d_in). Stop whenever you like: `state` says where training
    stands, and a new iterator goes on from there.
    """
    while state.step < config.steps:
        found = batch_losses(model, importance, data(config.batch_size, state.generator), config, state.generator)
        state.apply(found.total(config), learning_rate(state.step, config, config.warmup_fraction))
        yield Losses(*(loss.detach() for loss in found))


def batch_losses(
    model: ComponentModel,
    importance: CausalImportance,
    x: Float[Tensor, "batch d_in"],
    config: SPDConfig,
    generator: Generator,
) -> Losses:
    """The losses of one batch, with masks drawn from `generator`."""
    n_rows = len(x)
    x, weights = model.merge_empty_rows(x)  # (rows, d_in), (rows,)
    target = model.target_forward(x)
    inner = model.inner(target.inputs)  # use → V_cᵀ a (rows, C, 1)
    gates = importance(inner)  # (rows, ΣC), before any sigmoid
    g = lower_leaky(gates)
    masks, layerwise_masks = map(importance.split, sample_masks(g.expand(2, -1, -1), generator))

    compare = losses.OUTPUT_LOSSES[config.output_loss]
    faithfulness = losses.faithfulness(model.targets, model.sums, model.n_all_parameters)
    recon = compare(model(x, masks, inner).output, target.output, n_rows)
    recon_layerwise = losses.layerwise(
        [compare(model(x, {path: mask}, inner).output, target.output, n_rows) for path, mask in layerwise_masks.items()]
    )
    minimality = losses.importance_minimality(upper_leaky(gates), config.importance_p, weights, n_rows)
    return Losses(faithfulness, recon, recon_layerwise, minimality)
