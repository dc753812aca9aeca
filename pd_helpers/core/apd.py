"""Attribution-based Parameter Decomposition (APD): Braun et al. 2025, section 2 and appendices A.2.2 and A.2.3.

    L = λ_F L_faithfulness + λ_M L_minimality + λ_S L_simplicity  (+ λ_H L_hidden for residual MLPs)

    active         s_c(x) = 1 for the batch top-k of the attributions A_c(x), eq. 8
    faithfulness   mean squared error between θ* and Σ_c P_c
    minimality     mean squared error between f(x|θ*) and f(x|Σ_c s_c(x) P_c)
    simplicity     Σ_c s_c(x) Σ_l ‖P_{c,l}‖_p^p
    hidden         like minimality, of the activations after the ReLUs inside (section D.2)

That is the top-k formulation. With `attribution_p` set, the Lp formulation (eq. 26) takes its place: no components are
chosen, s_c(x) = |A_c(x)|^p_A everywhere, and minimality is Σ_c s_c(x), so no second forward pass is needed.

`APD.train` is the loop and `APD._step` the method; `attributions` and `losses` hold the equations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from . import losses
from .attributions import attributions, batch_top_k
from .components import ComponentModel
from .config import (
    FLATTEST,
    SLOWEST,
    Config,
    check_micro_batches,
    choice,
    choice_or_function,
    number,
    switch,
    whole,
)
from .known_network import KnownNetwork
from .method import Data, Method
from .networks.batches import Inputs, checked_rows
from .networks.batches import n_inputs as count
from .networks.passes import Forward
from .networks.rows import spread
from .shortcuts.empty_rows import Batch
from .shortcuts.parts import joined
from .shortcuts.step_graph import replayed
from .training import adam, learning_rate, set_learning_rate


@dataclass(frozen=True)
class APDConfig(Config):
    """Settings of one APD run; defaults are the paper's for TMS 5-2 (section D.1.1)."""

    C: int = whole(5)
    """Number of components; each spans all decomposed layers."""
    rank: int | None = whole(None)
    """Largest rank R of a component in a layer; None means no limit, min(d_out, d_in) + 1 as in public code."""
    top_k: float = number(0.211, open=True)
    """Active components per input, on average over the batch. The number of a whole batch is rounded to the nearest;
    public code rounds it down, which takes one component of 328 off a batch of 256 at 1.28."""
    top_k_start: float | None = number(None, open=True)
    """Active components per input at step 0. From there the number falls geometrically to `top_k` over the first half
    of training; None means `top_k` throughout."""
    attribution_p: float | None = number(None, open=True, least=FLATTEST, high=2.0)
    """p_A, exponent of the attributions in the Lp formulation; None means the top-k formulation. In the Lp formulation
    `top_k` only says how many components the metrics count as active."""
    attribute_at: str = choice("components", "target", "components")
    """Parameters at which attributions are taken: the target's (eq. 8) or the components' sum (TMS 5-2 only)."""
    faithfulness_coeff: float = number(1.0)
    """λ_F."""
    minimality_coeff: float = number(1.0)
    """λ_M (the paper's β)."""
    simplicity_coeff: float = number(0.7)
    """λ_S (the paper's α)."""
    output_loss: str | Callable[[Tensor, Tensor], Tensor] = choice_or_function(  # noqa: RUF009
        "mse", *losses.OUTPUT_LOSSES
    )
    """How outputs are compared in the minimality loss: "mse", mean squared error, as the paper does; "kl",
    Kullback-Leibler divergence for a classifier's logits; or a function of your own, called as
    output_loss(output, target_output), that gives a mean over the batch."""
    hidden_coeff: float = number(0.0)
    """λ_H, coefficient of the reconstruction of hidden activations."""
    schatten_p: float = number(1.0, open=True, least=FLATTEST, high=2.0)
    """p_S, exponent of the Schatten norm."""
    lr: float = number(0.03, open=True, least=SLOWEST)
    """Adam's learning rate at its highest."""
    schedule: str = choice("constant", "constant", "cosine")
    """Course of the learning rate after its warm-up."""
    warmup_fraction: float = number(0.05, high=1.0)
    """Share of the steps over which the learning rate rises."""
    steps: int = whole(20_000)
    """Number of training steps."""
    batch_size: int = whole(2048)
    """Number of inputs per training step."""
    micro_batches: int = whole(1)
    """Number of parts in which a batch is computed, one after another. The gradients are those of the whole batch, so
    that only less memory is taken, and more time."""
    faithfulness_warmup_steps: int = whole(0, at_least=0)
    """Steps on the faithfulness loss alone before training begins (an idea of later SPD configurations)."""
    unit_norm: bool = switch(False)
    """Whether the rows of every V, over d_in, are kept at length one (section D.2)."""
    init_std: float | None = number(None, open=True)
    """Standard deviation of the initial factors; None means 1/√C for U and 1/√d_out for V."""
    n_init: int = whole(1)
    """Number of initialisations to try; training continues from the one with the lowest minimality loss."""
    selection_steps: int = whole(400)
    """Steps after which the initialisations are compared."""
    autocast: bool = switch(False)
    """Whether the network and its components compute in bfloat16 where `torch.autocast` does so, which most GPUs do
    faster. U, V, attributions, losses and the optimiser stay in float32, and a run is measured without it."""
    cuda_graph: bool = switch(False)
    """Whether a GPU replays one recorded training step instead of launching every operation of every step anew, which
    is many times faster for small networks. Data may be anything; what the network does must be the same for every
    batch, and `top_k_start` None. On other devices this changes nothing."""

    def __post_init__(self):
        super().__post_init__()
        check_micro_batches(self)
        if self.attribution_p and self.hidden_coeff:
            raise ValueError(
                f"hidden_coeff must be 0 in the Lp formulation, which has no second forward pass, but is "
                f"{self.hidden_coeff:g}; 0 works, or attribution_p=None"
            )
        for name in ("top_k", "top_k_start"):
            value = getattr(self, name)
            if value is not None and value > self.C:
                raise ValueError(f"{name} must be at most C = {self.C}, but is {value:g}; {self.C} works")
            if value is not None and round(value * self.batch_size) < 1:
                raise ValueError(
                    f"{name} must be so large that {name} · batch_size rounds to 1 or more, or no component would "
                    f"ever be active, but is {value:g}; {1 / self.batch_size:g} works"
                )

    def n_active(self, step: int, n_inputs: int | None = None) -> int:
        """Number of active (input, component) pairs at that step, in a batch of `n_inputs` (default `batch_size`)."""
        rest = max(0.0, 1 - step / (self.steps / 2)) if self.top_k_start else 0.0
        top_k = self.top_k ** (1 - rest) * (self.top_k_start or self.top_k) ** rest
        n_active = round(top_k * self.batch_size)
        return n_active if n_inputs is None else round(n_active * n_inputs / self.batch_size)


class Losses(NamedTuple):
    """The unweighted losses of one batch."""

    faithfulness: Float[Tensor, ""]
    minimality: Float[Tensor, ""]
    simplicity: Float[Tensor, ""]
    hidden: Float[Tensor, ""]


class APD(Method):
    """One decomposition by APD; only U and V are trained."""

    name = "apd"
    Config = APDConfig
    spans_layers = True
    config: APDConfig

    def train(self, data: Data) -> Iterator[Losses]:
        """Train the components in place, one step for each item taken; yields the step's losses without gradients."""
        config = self.config
        step = replayed(self._step, self.generator, config, static=config.top_k_start is None)
        while self.step < config.steps:
            x = data(config.batch_size, self.generator)  # (batch, d_in), or whatever the network takes
            set_learning_rate(self.optimizer, learning_rate(self.step, config, config.warmup_fraction))
            *terms, total = step(x)
            self.step, self.total_loss = self.step + 1, total
            yield Losses(*terms)

    def _step(self, x: Inputs) -> Float[Tensor, " terms"]:
        """One training step on a batch; gives the losses and their weighted sum, without gradients."""
        model, config = self.model, self.config
        batch = self.merged(x)  # .rows (rows, d_in)
        parts = list(self.parts(batch))  # the batch itself, unless it is computed in parts
        active = self._active(batch, parts, self.step)  # (rows, C), Boolean; None in the Lp formulation
        self.optimizer.zero_grad(set_to_none=True)
        values = []
        for part in parts:
            target = model.target_forward(part.rows)  # .output (rows, d_output), .inputs: use → (*rows, d_in)

            loss = self._losses(part, target, active)
            total = (
                config.faithfulness_coeff * loss.faithfulness
                + config.minimality_coeff * loss.minimality
                + config.simplicity_coeff * loss.simplicity
                + config.hidden_coeff * loss.hidden
            )

            (part.weight * total).backward()
            values.append(part.weight * torch.stack([*loss, total]).detach())
        values = self.added_up(values)
        self.optimizer.step()
        if config.unit_norm:
            normalise_(model)
        return values

    def merged(self, x: Inputs) -> Batch:
        """The inputs of a batch that must be computed.

        Top-k of attributions at the target's weights leaves every component off on a silent row, which then counts for
        exactly what a row of zeros does. On GPUs no rows are merged, and looking for silent ones would make them wait.
        """
        at_target = self.config.attribute_at == "target" and not self.config.attribution_p
        if at_target and isinstance(self.model.target, KnownNetwork) and x.device.type == "cpu":
            silent = self.model.target.silent_rows(x)
            x = x if silent is None else x.masked_fill(silent.unsqueeze(-1), 0)
        return super().merged(x)

    @torch.no_grad()
    def _active(self, batch: Batch, parts: list[Batch], step: int) -> Bool[Tensor, "rows C"] | None:
        """s_c(x) of the whole batch; None in the Lp formulation, where no components are chosen."""
        if self.config.attribution_p:
            return None
        A = [self.attributions(part.rows) for part in parts]
        return batch_top_k(joined(parts, A), self.config.n_active(step, batch.n_inputs))

    def _losses(self, batch: Batch, target: Forward, active: Bool[Tensor, "_ C"] | None) -> Losses:
        """The equations, on a batch or a part of one; `active` is that of the whole batch."""
        model, config, x, n_inputs = self.model, self.config, batch.rows, batch.n_inputs
        compare = losses.output_loss(config.output_loss)
        norms, n_parameters = schatten_norms(model, config.schatten_p)  # (C,)
        faithfulness = model.faithfulness()
        hidden = faithfulness.new_zeros(())
        if active is None:
            active = losses.powers(component_attributions(model, x, config), config.attribution_p)  # (rows, C)
            minimality = active.sum() / n_inputs
        else:
            active = active[batch.start : batch.start + len(batch.counts)]  # (rows, C)
            sparse = model(x, model.masks_of_inputs(active, x))
            if sparse.output.shape != target.output.shape:
                raise ValueError(
                    f"the network gives an output of shape {tuple(target.output.shape)}, but one of "
                    f"{tuple(sparse.output.shape)} where each input has a mask of its own; layers that do not read the "
                    "same rows for all inputs work, and so does SPD"
                )
            minimality = compare(sparse.output, target.output, batch.divisor)
            if config.hidden_coeff:
                hidden = losses.hidden_recon(sparse.inputs, target.inputs, model.hidden, batch.divisor)
        return Losses(faithfulness, minimality, losses.simplicity(active, norms, n_parameters, n_inputs), hidden)

    def batch_losses(self, x: Inputs, generator: Generator | None = None, step: int | None = None) -> Losses:
        """The losses of one batch, with gradients; APD draws no masks, so `generator` is not used."""
        batch = self.merged(x)
        target = self.model.target_forward(batch.rows)
        return self._losses(batch, target, self._active(batch, [batch], self.step if step is None else step))

    def build(self, init: Generator) -> None:
        """Nothing besides U and V.

        Raises ValueError where layers have different numbers of components, or where there are no hidden activations
        to reconstruct.
        """
        super().build(init)
        sizes = {path: layer.C for path, layer in self.model.layers.items()}
        if len(set(sizes.values())) > 1:
            C = max(sizes.values())
            raise ValueError(
                f"a component of APD spans all layers, so C must be one number for all, but is {sizes}; {C} works"
            )
        if self.config.hidden_coeff and not self.model.hidden:
            target = self.model.target
            named = "no activation enters a decomposed layer; 0 works, or layers that read no tokens"
            if isinstance(target, KnownNetwork):
                named = (
                    f"no activation that {type(target).__name__} names as hidden enters a decomposed layer; 0 works, "
                    f"or layers that read {', '.join(target.hidden_layers)}"
                )
            raise ValueError(f"hidden_coeff is {self.config.hidden_coeff:g}, but {named}")

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Adam on U and V."""
        return adam(self.model.factors, self.config.lr, self.config.cuda_graph)

    def warm_up(self) -> None:
        """The faithfulness warm-up; with `unit_norm`, V's rows have length one afterwards."""
        super().warm_up()
        if self.config.unit_norm:
            normalise_(self.model)

    def score(self, losses: Losses) -> Float[Tensor, ""]:
        """The minimality loss.

        An initialisation that goes wrong leaves two components on one feature and one component with two. The total
        loss hardly notices, since what that costs in minimality it saves in simplicity; the minimality loss does.
        """
        return losses.minimality

    @torch.no_grad()
    def attributions(self, x: Inputs) -> Float[Tensor, "inputs C"]:
        """A_c(x) at the parameters that the configuration says."""
        return component_attributions(self.model, x, self.config)

    @torch.no_grad()
    def importances(self, x: Inputs, n_inputs: int | None = None) -> dict[str, Float[Tensor, "*rows _"]]:
        """Use → 1 for the components that the batch top-k over these inputs keeps active, 0 for the others.

        A component spans layers, so it is active on an input or not; it then is at every row that the input has.
        """
        n_inputs = n_inputs or count(checked_rows(x))
        active = active_components(self.model, x, self.config, round(self.config.top_k * n_inputs))
        active = active.to(self.model.factors[0].dtype)  # (inputs, C)
        masks = self.model.masks_of_inputs(active, x)
        if isinstance(self.model.target, KnownNetwork):  # whose rows are the inputs
            return masks
        rows = self.model.rows(x)
        masks = {use: spread(mask, rows[use]) for use, mask in masks.items()}
        return {use: mask.expand(torch.broadcast_shapes(mask.shape, (*rows[use], 1))) for use, mask in masks.items()}

    def sample_masks(
        self, importances: dict[str, Float[Tensor, "*rows _"]], generator: Generator
    ) -> dict[str, Float[Tensor, "*rows _"]]:
        """The active components themselves: nothing is random."""
        return importances


@torch.no_grad()
def normalise_(model: ComponentModel) -> None:
    """Give every row of every V length one."""
    for layer in model.layers.values():
        layer.V.div_(layer.V.norm(dim=-1, keepdim=True))


@torch.no_grad()
def active_components(model: ComponentModel, x: Inputs, config: APDConfig, n_active: int) -> Bool[Tensor, "inputs C"]:
    """s_c(x): which components the batch top-k keeps active; `n_active` (input, component) pairs in all."""
    return batch_top_k(component_attributions(model, x, config), n_active)


def component_attributions(model: ComponentModel, x: Inputs, config: APDConfig) -> Float[Tensor, "inputs C"]:
    """A_c(x) at the parameters that the configuration says, which are held fixed when it is differentiated."""
    factors = {path: (layer.U, layer.V) for path, layer in model.layers.items()}
    weights = model.sums if config.attribute_at == "components" else model.targets
    return attributions(model.target, x, factors, {path: W.detach() for path, W in weights.items()}, model.output)


def schatten_norms(model: ComponentModel, p: float) -> tuple[Float[Tensor, " C"], int]:
    """Each component's Schatten norm summed over all uses of all layers, and the number of parameters so counted.

    A tied matrix counts once for each use, in both numbers, as in public code.
    """
    layers = [use.layer for use in model.uses.values()]
    norms = sum(losses.schatten(model.layers[path].U, model.layers[path].V, p) for path in layers)
    return norms, sum(model.n_parameters[path] for path in layers)
