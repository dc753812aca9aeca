"""Attribution-based Parameter Decomposition (APD): Braun et al. 2025, section 2 and appendices A.2.2 and A.2.3.

    L = λ_F L_faithfulness + λ_M L_minimality + λ_S L_simplicity  (+ λ_H L_hidden for residual MLPs)

    active         s_c(x) = 1 for the batch top-k of the attributions A_c(x), eq. 8
    faithfulness   mean squared error between θ* and Σ_c P_c
    minimality     mean squared error between f(x|θ*) and f(x|Σ_c s_c(x) P_c)
    simplicity     Σ_c s_c(x) Σ_l ‖P_{c,l}‖_p^p
    hidden         as minimality, of the activations after the ReLUs inside (section D.2)

That is the top-k formulation. With `attribution_p` set, the Lp formulation (eq. 26) takes its place: nothing is chosen,
s_c(x) = |A_c(x)|^p_A everywhere, and minimality is Σ_c s_c(x), so no second forward pass is needed.

`batch_losses` below reads in that order; `attributions` and `losses` hold the equations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from pd_helpers import losses
from pd_helpers.attributions import attributions, batch_top_k
from pd_helpers.components import ComponentModel
from pd_helpers.config import Config, choice, number, switch, whole
from pd_helpers.training import State, adam, learning_rate, warm_up


@dataclass(frozen=True)
class APDConfig(Config):
    """Settings of one APD run; defaults are the paper's for TMS 5-2 (section D.1.1)."""

    C: int = whole(5)
    """Components; each spans all decomposed layers."""
    rank: int | None = whole(None)
    """Largest rank R of a component in a layer; None means no limit, min(d_out, d_in) + 1 as in public code."""
    top_k: float = number(0.211, open=True)
    """Active components per input, on average over the batch."""
    top_k_start: float | None = number(None, open=True)
    """Active components per input at first, from where they fall to `top_k` over the first half of training, each by
    the same factor as the last; None means `top_k` all along."""
    attribution_p: float | None = number(None, open=True, high=2.0)
    """p_A, exponent of the attributions in the Lp formulation; None means top-k. `top_k` then only says how many
    components the metrics count as active."""
    attribute_at: str = choice("components", "target", "components")
    """Parameters at which attributions are taken: the target's (eq. 8) or the components' sum (TMS 5-2 only)."""
    faithfulness_coeff: float = number(1.0)
    """λ_F."""
    minimality_coeff: float = number(1.0)
    """λ_M (the paper's β)."""
    simplicity_coeff: float = number(0.7)
    """λ_S (the paper's α)."""
    hidden_coeff: float = number(0.0)
    """Weight of the reconstruction of hidden activations."""
    schatten_p: float = number(1.0, open=True, high=2.0)
    """p_S, exponent of the Schatten norm."""
    lr: float = number(0.03, open=True)
    """Adam's learning rate at its highest."""
    schedule: str = choice("constant", "constant", "cosine")
    """What the learning rate does after its warm-up."""
    warmup_fraction: float = number(0.05, high=1.0)
    """Share of the steps over which the learning rate rises."""
    steps: int = whole(20_000)
    """Training steps."""
    batch_size: int = whole(2048)
    """Inputs per step."""
    faithfulness_warmup_steps: int = whole(0, at_least=0)
    """Steps on the faithfulness loss alone, before the others (an idea of later SPD configs)."""
    unit_norm: bool = switch(False)
    """Keep the rows of every V at length one, over d_in (section D.2)."""
    init_std: float | None = number(None, open=True)
    """Standard deviation of the initial factors; None means 1/√C for U and 1/√d_out for V."""
    starts: int = whole(1)
    """Initialisations tried; the one with the lowest minimality loss after `start_steps` steps goes on."""
    start_steps: int = whole(400)
    """Steps after which they are compared."""

    def __post_init__(self):
        super().__post_init__()
        if self.attribution_p and self.hidden_coeff:
            raise ValueError(
                f"hidden_coeff must be 0 in the Lp formulation, which has no second forward pass, but is "
                f"{self.hidden_coeff:g}; 0 works, or attribution_p=None"
            )

    @property
    def output_loss(self) -> str:
        """Outputs are compared by their mean squared error."""
        return "mse"

    def n_active(self, step: int) -> int:
        """Active (input, component) pairs in one batch at that step."""
        left = max(0.0, 1 - step / (self.steps / 2)) if self.top_k_start else 0.0
        return round(self.top_k ** (1 - left) * (self.top_k_start or self.top_k) ** left * self.batch_size)


class Losses(NamedTuple):
    """The unweighted losses of one batch; those that `train` gives are without gradients."""

    faithfulness: Tensor
    minimality: Tensor
    simplicity: Tensor
    hidden: Tensor

    def total(self, config: APDConfig) -> Tensor:
        """The loss that is trained."""
        return (
            config.faithfulness_coeff * self.faithfulness
            + config.minimality_coeff * self.minimality
            + config.simplicity_coeff * self.simplicity
            + config.hidden_coeff * self.hidden
        )

    def promise(self, config: APDConfig) -> Tensor:
        """By which initialisations are compared, lower being better: the minimality loss.

        A start that goes wrong leaves two components on one feature and one component with two. The whole loss hardly
        notices, since what that costs in minimality it saves in simplicity; the minimality loss does.
        """
        return self.minimality


def start(model: ComponentModel, config: APDConfig, generator: Generator) -> State:
    """The state before step 0, after the faithfulness warm-up; `generator` will draw the data."""
    warm_up(
        model.factors,
        lambda: losses.faithfulness(model.targets, model.sums, model.n_all_parameters),
        config.faithfulness_warmup_steps,
    )
    if config.unit_norm:
        normalise_(model)
    return State(adam(model.factors, config.lr), generator)


def train(
    model: ComponentModel, data: Callable[[int, Generator], Tensor], config: APDConfig, state: State
) -> Iterator[Losses]:
    """Train the components in place, one step for each item taken from this iterator.

    `data(batch_size, generator)` draws a batch (batch, d_in). Stop whenever you like: `state` says where training
    stands, and a new iterator goes on from there.
    """
    while state.step < config.steps:
        x = data(config.batch_size, state.generator)
        found = batch_losses(model, x, config, config.n_active(state.step))
        state.apply(found.total(config), learning_rate(state.step, config, config.warmup_fraction))
        if config.unit_norm:
            normalise_(model)
        yield Losses(*(loss.detach() for loss in found))


def batch_losses(model: ComponentModel, x: Float[Tensor, "batch d_in"], config: APDConfig, n_active: int) -> Losses:
    """The losses of one batch; `n_active` (input, component) pairs are active."""
    n_rows = len(x)
    x, _ = model.merge_empty_rows(x)  # (rows, d_in)
    norms, n_counted = schatten_norms(model, config.schatten_p)
    faithfulness = losses.faithfulness(model.targets, model.sums, model.n_all_parameters)
    hidden = faithfulness.new_zeros(())
    if config.attribution_p:
        active = losses.powers(component_attributions(model, x, config), config.attribution_p)  # (rows, C)
        minimality = active.sum() / n_rows
    else:
        active = active_components(model, x, config, n_active)  # (rows, C)
        sparse, target = model(x, active), model.target_forward(x)
        minimality = losses.reconstruction(sparse.output, target.output, n_rows)
        if config.hidden_coeff:
            hidden = losses.hidden_reconstruction(sparse.inputs, target.inputs, model.hidden, n_rows)
    return Losses(faithfulness, minimality, losses.simplicity(active, norms, n_counted, n_rows), hidden)


@torch.no_grad()
def normalise_(model: ComponentModel) -> None:
    """Give every row of every V length one."""
    for layer in model.layers.values():
        layer.V.div_(layer.V.norm(dim=-1, keepdim=True))


@torch.no_grad()
def active_components(
    model: ComponentModel, x: Float[Tensor, "rows d_in"], config: APDConfig, n_active: int
) -> Bool[Tensor, "rows C"]:
    """s_c(x): which components the batch top-k keeps; `n_active` (row, component) pairs in all."""
    return batch_top_k(component_attributions(model, x, config), n_active)


def component_attributions(
    model: ComponentModel, x: Float[Tensor, "rows d_in"], config: APDConfig
) -> Float[Tensor, "rows C"]:
    """A_c(x), at the parameters that the configuration says; these are held fixed when it is differentiated."""
    factors = {path: (layer.U, layer.V) for path, layer in model.layers.items()}
    weights = model.sums if config.attribute_at == "components" else model.targets
    return attributions(model.target, x, factors, {path: W.detach() for path, W in weights.items()})


def schatten_norms(model: ComponentModel, p: float) -> tuple[Float[Tensor, " C"], int]:
    """Each component's Schatten norm summed over all uses of all layers, and the number of parameters so counted.

    A tied matrix counts once for each use, in both, as in public code.
    """
    layers = [use.layer for use in model.uses.values()]
    norms = sum(losses.schatten(model.layers[path].U, model.layers[path].V, p) for path in layers)
    return norms, sum(model.n_parameters[path] for path in layers)
