"""Adversarial Parameter Decomposition (VPD): Bushnaq et al. 2026, *Interpreting Language Model Parameters*.

    L = β1 L_adversarial + β2 L_stochastic + β3 L_importance + β4 L_frequency + β5 L_faithfulness

    Δ              W - Σ_c U_c V_c of every matrix, a component more, whose importance is 0 by definition
    masks          m_c = g_c + (1 - g_c) r_c,  m_Δ = r_Δ;  W' = Σ_c m_c U_c V_c + m_Δ Δ
    adversarial    error of the output with sources r that climb it (`adversary`), all matrices masked
    stochastic     the same with r ~ U(0, 1), at every row a random k of the L matrices masked, k ~ U{1 … L}
    importance     Σ_l Σ_c g_c(x)^p, mean over rows, p falling from 2 to 0.4; or g² / (g² + γ²), γ falling
    frequency      Σ_c f_c log2(1 + a f_c), f_c the mean over rows of g_c^p
    faithfulness   mean square of Δ

SPD asks that random masks change nothing, VPD that no masks do. `VPD._step` is the method.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from . import losses
from .adversary import Adversary
from .causal_importance import MASK_SIGMOIDS, Table, upper_leaky
from .config import FLATTEST, SLOWEST, Config, choice, choice_or_function, number, switch, whole
from .machine.ranks import place
from .networks.batches import Inputs
from .networks.passes import Forward
from .shortcuts.empty_rows import Batch
from .spd import SPD


@dataclass(frozen=True)
class VPDConfig(Config):
    """Settings of one VPD run; defaults are the authors' for TMS 5-2, where these are public."""

    C: int = whole(20)
    """Number of subcomponents per decomposed layer, besides its Δ."""
    d_gate: int = whole(50)
    """Hidden width of each importance MLP, or of the one network."""
    importance_network: str = choice("layer", "subcomponent", "layer", "shared")
    """What predicts importances: an MLP for each "subcomponent", as in SPD; an MLP for each "layer" that reads what
    enters it; or one network, "shared", that reads what enters all layers."""
    n_blocks: int = whole(2)
    """Number of blocks of the shared importance network."""
    sigmoid: str = choice("straight_through", *MASK_SIGMOIDS)
    """The hard sigmoid of importances in masks; see `causal_importance`."""
    adversarial_coeff: float = number(0.5)
    """β1."""
    stochastic_coeff: float = number(0.5)
    """β2."""
    importance_coeff: float = number(8e-4)
    """β3."""
    importance_penalty: str = choice("power", "power", "smooth_l0")
    """What is summed over subcomponents: "power", g^p, or "smooth_l0", g² / (g² + γ²), as in later public code."""
    importance_p: float = number(2.0, open=True, least=FLATTEST, high=4.0)
    """p at the first step; it falls linearly."""
    importance_p_end: float = number(0.4, open=True, least=FLATTEST, high=4.0)
    """p at the last step."""
    gamma: float = number(1.0, open=True)
    """γ of the smooth L0 at the first step; it falls geometrically."""
    gamma_end: float = number(0.01, open=True)
    """γ at the last step."""
    frequency_coeff: float = number(4e-4)
    """β4."""
    frequency_a: float = number(32_768.0, open=True)
    """a in f log2(1 + a f). The paper has the number of rows of a batch there, so that its loss depends on that."""
    faithfulness_coeff: float = number(1.0)
    """β5."""
    adversary: str = choice("per input", "per input", "shared")
    """Whose masks the adversary chooses: of each place in the batch, "per input", or the same for all, "shared"."""
    adversary_steps: int = whole(2, at_least=0)
    """Steps of ascent before each training step; one more uses the gradient of the training step itself."""
    adversary_lr: float = number(0.01, open=True, least=SLOWEST)
    """Adam's learning rate of the ascent."""
    adversary_beta1: float = number(0.01, high=1.0)
    """Adam's β1 in the ascent; the paper's language model has 0.5."""
    adversary_beta2: float = number(0.99, high=1.0)
    """Adam's β2 in the ascent."""
    adversary_warmup_fraction: float = number(0.025, high=1.0)
    """Share of the training steps over which that learning rate rises."""
    output_loss: str | Callable[[Tensor, Tensor], Tensor] = choice_or_function(  # noqa: RUF009
        "mse", *losses.OUTPUT_LOSSES
    )
    """How outputs are compared: "mse", mean squared error; "kl", Kullback-Leibler divergence for a classifier's logits;
    or a function of your own, called as output_loss(output, target_output), that gives a mean over the batch."""
    lr: float = number(1e-3, open=True, least=SLOWEST)
    """Adam's learning rate at its highest."""
    schedule: str = choice("cosine", "constant", "cosine")
    """Course of the learning rate after its warm-up."""
    warmup_fraction: float = number(0.0, high=1.0)
    """Share of the steps over which the learning rate rises."""
    clip_factors: float | None = number(None, open=True)
    """Largest norm of the gradient of all U and V; a longer one is shortened. None means any (language model: 0.01)."""
    steps: int = whole(20_000)
    """Number of training steps."""
    batch_size: int = whole(4096)
    """Number of inputs per training step."""
    faithfulness_warmup_steps: int = whole(400, at_least=0)
    """Steps on the faithfulness loss alone before training begins."""
    init_std: float | None = number(None, open=True)
    """Standard deviation of the initial factors; None means 1/√C for U and 1/√d_out for V."""
    n_init: int = whole(1)
    """Number of initialisations to try; training continues from the one with the lowest total loss."""
    selection_steps: int = whole(800)
    """Steps after which the initialisations are compared."""
    autocast: bool = switch(False)
    """Whether the network and its components compute in bfloat16 where `torch.autocast` does so, which most GPUs do
    faster. U, V, importances, losses and the optimiser stay in float32, and a run is measured without it."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("adversary_beta1", "adversary_beta2"):
            if getattr(self, name) >= 1:
                raise ValueError(f"{name} must be below 1, but is {getattr(self, name):g}; 0.5 works")

    @property
    def rank(self) -> int:
        """Subcomponents are rank-one matrices."""
        return 1

    @property
    def micro_batches(self) -> int:
        """A batch is computed at once: how often a subcomponent is important is only known of all of it."""
        return 1

    @property
    def cuda_graph(self) -> bool:
        """No step is recorded: p, γ and the adversary's learning rate change from step to step."""
        return False

    def p(self, step: int) -> float:
        """p at that step."""
        return self.importance_p + (self.importance_p_end - self.importance_p) * min(1.0, step / self.steps)

    def gamma_at(self, step: int) -> float:
        """γ of the smooth L0 at that step."""
        return self.gamma * (self.gamma_end / self.gamma) ** min(1.0, step / self.steps)


class Losses(NamedTuple):
    """The unweighted losses of one batch."""

    adversarial: Float[Tensor, ""]
    stochastic: Float[Tensor, ""]
    importance_minimality: Float[Tensor, ""]
    frequency_minimality: Float[Tensor, ""]
    faithfulness: Float[Tensor, ""]


class VPD(SPD):
    """One decomposition by VPD; its importance functions are those of SPD."""

    name = "vpd"
    Config = VPDConfig
    Terms = Losses
    config: VPDConfig

    def _step(self, x: Inputs) -> Float[Tensor, " terms"]:
        """One training step on a batch; gives the losses and their weighted sum, without gradients."""
        model, config, adversary = self.model, self.config, self.adversary
        batch = self.merged(x)  # .rows (rows, d_in), .counts (rows,)
        target = model.target_forward(batch.rows)  # .output (rows, d_output), .inputs: use → (*rows, d_in)
        inner = model.inner(target.inputs)  # use → V_c x (*rows, C, 1)
        gates = self.importance(inner, target.inputs)  # tables of Γ (*rows, ΣC), before any sigmoid
        rows = self._places(x, batch, inner)  # places of the batch that were not merged; None for all
        for _ in range(config.adversary_steps):
            grads = self._uphill(batch, target, inner, gates, adversary.taken(rows))
            adversary.climb(grads, self._adversary_lr(), rows)

        sources = adversary.taken(rows)  # use → r (*rows, C + 1)
        loss = self._losses(batch, target, inner, gates, sources, self.generator, self.step)
        total = (
            config.adversarial_coeff * loss.adversarial
            + config.stochastic_coeff * loss.stochastic
            + config.importance_coeff * loss.importance_minimality
            + config.frequency_coeff * loss.frequency_minimality
            + config.faithfulness_coeff * loss.faithfulness
        )

        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        if config.clip_factors is not None:
            torch.nn.utils.clip_grad_norm_(model.factors, config.clip_factors)
        self.optimizer.step()
        if config.adversarial_coeff:
            scale = batch.n_inputs / config.adversarial_coeff  # that of the error of one input
            adversary.climb({use: scale * r.grad for use, r in sources.items()}, self._adversary_lr(), rows)
        return torch.stack([*loss, total]).detach()

    def _losses(
        self,
        batch: Batch,
        target: Forward,
        inner: Mapping[str, Tensor],
        gates: list[Table],
        sources: Mapping[str, Tensor],
        generator: Generator,
        step: int,
    ) -> Losses:
        """The equations, with the adversary's sources; those of the stochastic masks are drawn from `generator`."""
        model, config, x = self.model, self.config, batch.rows
        worst, drawn = {}, {}
        faithfulness = model.faithfulness()
        importance, frequency = torch.zeros_like(faithfulness), torch.zeros_like(faithfulness)
        for table in gates:
            g = MASK_SIGMOIDS[config.sigmoid](table.values)
            worst |= {use: masks(part, sources[use]) for use, part in table.split(g).items()}
            drawn |= stochastic_masks(table, g, generator)
            g = upper_leaky(table.values)
            price = (
                (g + 1e-12).pow(config.p(step))
                if config.importance_penalty == "power"
                else losses.smooth_l0(g, config.gamma_at(step))
            )  # (*rows, ΣC)
            f = mean_over_rows(price, batch.counts, batch.n_inputs)  # (ΣC,)
            importance = importance + f.sum()
            frequency = frequency + losses.frequency_minimality(f, config.frequency_a)

        compare = losses.output_loss(config.output_loss)
        adversarial = compare(model(x, worst, inner).output, target.output, batch.divisor)
        stochastic = compare(model(x, drawn, inner).output, target.output, batch.divisor)
        return Losses(adversarial, stochastic, importance, frequency, faithfulness)

    def _uphill(
        self,
        batch: Batch,
        target: Forward,
        inner: Mapping[str, Tensor],
        gates: list[Table],
        sources: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Use → gradient of the error with respect to the sources, each input's error counting in full."""
        sigmoid = MASK_SIGMOIDS[self.config.sigmoid]
        g = {use: part for table in gates for use, part in table.split(sigmoid(table.values.detach())).items()}
        inner = {use: h.detach() for use, h in inner.items()}
        compare = losses.output_loss(self.config.output_loss)
        worst = {use: masks(g[use], r) for use, r in sources.items()}
        error = batch.n_inputs * compare(self.model(batch.rows, worst, inner).output, target.output, batch.divisor)
        return dict(zip(sources, torch.autograd.grad(error, list(sources.values())), strict=True))

    def _places(self, x: Inputs, batch: Batch, inner: Mapping[str, Tensor]) -> Tensor | None:
        """Places in the batch of the rows that are computed, where empty ones were merged; makes the first sources."""
        merged = batch.rows is not x
        rows = {use: tuple(h.shape[:-2]) for use, h in inner.items()}
        if merged:  # its rows are inputs
            rows = dict.fromkeys(rows, (batch.n_inputs,))
        self.adversary.begin(rows, self.generator, self.model.factors[0])
        return x.any(dim=-1).nonzero().squeeze(1) if merged else None

    def _adversary_lr(self) -> float:
        """The learning rate of the ascent at this step: a linear warm-up, then constant."""
        warmup = max(1.0, self.config.adversary_warmup_fraction * self.config.steps)
        return self.config.adversary_lr * min(1.0, (self.step + 1) / warmup)

    def batch_losses(self, x: Inputs, generator: Generator, step: int | None = None) -> Losses:
        """The losses of one batch, with gradients; all sources are drawn from `generator`, the adversary's too."""
        batch = self.merged(x)
        target = self.model.target_forward(batch.rows)
        inner, sources = self.model.inner(target.inputs), {}
        for use, h in inner.items():
            shape = (*h.shape[:-2], h.shape[-2] + 1)
            sources[use] = torch.rand(shape, generator=generator, device=h.device, dtype=h.dtype).requires_grad_()
        gates = self.importance(inner, target.inputs)
        return self._losses(batch, target, inner, gates, sources, generator, self.step if step is None else step)

    def build(self, init: Generator) -> None:
        """Importance functions, and the adversary.

        Raises ValueError where several processes share a batch.
        """
        super().build(init)
        if place()[1] > 1:
            raise ValueError("VPD computes a batch in one process; python in place of torchrun works")
        config = self.config
        betas = config.adversary_beta1, config.adversary_beta2
        self.adversary = Adversary(self.n_sources, shared=config.adversary == "shared", betas=betas)

    def state(self) -> dict[str, Tensor]:
        """As for other methods, and the adversary's sources and moments."""
        return super().state() | self.adversary.state()

    def load_state(self, tensors: dict[str, Tensor], step: int) -> None:
        """As for other methods; the adversary continues too."""
        super().load_state(tensors, step)
        self.adversary.load_state(tensors, step, self.model.factors[0])

    def sample_masks(
        self, importances: dict[str, Float[Tensor, "*rows _"]], generator: Generator
    ) -> dict[str, Float[Tensor, "*rows _"]]:
        """Stochastic masks (*rows, C + 1) of every matrix: m_c = g_c + (1 - g_c) r_c and, last, m_Δ = r_Δ."""
        sources = {}
        for use, g in importances.items():
            shape = (*g.shape[:-1], g.shape[-1] + 1)
            sources[use] = torch.rand(shape, generator=generator, device=g.device, dtype=g.dtype)
        return self.masks(importances, sources)

    @property
    def n_sources(self) -> dict[str, int]:
        """Use → number of its sources: one for each subcomponent, and the last for Δ."""
        return {use: C + 1 for use, C in super().n_sources.items()}

    def masks(
        self, importances: Mapping[str, Float[Tensor, "*rows C"]], sources: Mapping[str, Float[Tensor, "*_ n"]]
    ) -> dict[str, Float[Tensor, "*rows n"]]:
        """Use → masks (*rows, C + 1): m_c = g_c + (1 - g_c) r_c and, last, m_Δ = r_Δ."""
        return {use: masks(g, sources[use]) for use, g in importances.items()}


def masks(g: Float[Tensor, "*rows C"], r: Float[Tensor, "*_ C1"]) -> Float[Tensor, "*rows C1"]:
    """m_c = g_c + (1 - g_c) r_c, and after these m_Δ = r_Δ, the last column of r."""
    delta = r[..., -1:].expand(*g.shape[:-1], 1)
    return torch.cat([torch.lerp(r[..., :-1].expand_as(g), g.new_ones(()), g), delta], dim=-1)


def subsets(
    rows: tuple[int, ...], n: int, generator: Generator, device: torch.device | str = "cpu"
) -> Bool[Tensor, "*rows n"]:
    """For every row a random k of n matrices, with k drawn from 1 to n: True for those chosen."""
    rank = torch.rand(*rows, n, generator=generator, device=device).argsort(dim=-1).argsort(dim=-1)
    k = torch.randint(1, n + 1, (*rows, 1), generator=generator, device=device)
    return rank < k


def stochastic_masks(
    table: Table, g: Float[Tensor, "*rows sum_C"], generator: Generator
) -> dict[str, Float[Tensor, "*rows _"]]:
    """Use → masks (*rows, C + 1), drawn where the use is one of those chosen at a row, and 1 elsewhere, which is W.

    Among k of L matrices are meant those whose rows have the same shape.
    """
    n, rows = len(table.uses), tuple(g.shape[:-1])
    chosen = subsets(rows, n, generator, g.device)
    r = torch.rand(*rows, g.shape[-1] + n, generator=generator, device=g.device, dtype=g.dtype)
    parts = r.split([C + 1 for C in table.uses.values()], dim=-1)
    return {
        use: masks(part, r).where(chosen[..., i : i + 1], 1.0)
        for i, ((use, part), r) in enumerate(zip(table.split(g).items(), parts, strict=True))
    }


def mean_over_rows(
    values: Float[Tensor, "*rows n"], counts: Float[Tensor, " inputs"], n_inputs: int
) -> Float[Tensor, " n"]:
    """The mean of every column over inputs and their rows; `counts` says how many inputs each merged row stands for."""
    if values.shape[:-1] == counts.shape:
        return counts.to(values) @ values / n_inputs
    return values.flatten(0, -2).mean(dim=0)
