"""A lab on toy models of superposition: how rare features must be to share dimensions."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.core.training import checked_seed
from pd_helpers.course.kit.lab import Description, LiveLab, Progress, choice, wipe
from pd_helpers.course.superposition.ideas import represented
from pd_helpers.targets.base import make_target
from pd_helpers.targets.tms import TMS, TMSConfig

N_INPUTS = 2**14
"""Inputs on which the error is measured."""


class SparsityValues(NamedTuple):
    """The network as it is, at the slider's feature probability."""

    feature_probability: float
    W: Float[Tensor, "n_hidden n_features"]
    bias: Float[Tensor, " n_features"]
    n_represented: int
    """Columns of W longer than 0.5."""
    error: float
    """Mean squared error, divided by the feature probability."""


class SparsityLab(LiveLab):
    """Train a toy model of superposition live at a chosen feature probability; columns of W arrange themselves.

    >>> SparsityLab(pdh.TMSConfig(target_steps=2000), seed=0)

    Args:
        config: the toy model; the slider sets its feature probability.
        seed: seed of every training.
        target: the network that is shown first; None means that one is trained with `config`.
    """

    PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)

    def __init__(self, config: TMSConfig, seed: int = 0, target: TMS | None = None):
        self.config, self.seed = config, checked_seed(seed)
        if config.n_hidden != 2 or config.identity:
            raise ValueError("config must have two hidden dimensions and no identity layer; pdh.TMSConfig() has")
        if target is not None and config.replace(**config.sizes(target)) != config:
            raise ValueError(f"target must have the sizes of config, {config.summary}; target=None works")
        self.probability = choice("feature probability p", self.PROBABILITIES, config.feature_probability)
        self.progress = Progress(self.cancel)
        self.target = target or make_target(config, seed, show_progress=False)
        super().__init__([self.probability, self.progress], 8.0, 3.3, 1, 2)
        self.on_move([self.probability], self.train_anew)
        self.update()

    async def retrain(self) -> None:
        """Train a network from the beginning at the slider's feature probability."""
        config = self.config.replace(feature_probability=self.probability.value)
        self.target = config.new(self.seed)
        await self.follow(config.train(self.target, self.seed), config.target_steps)

    @torch.no_grad()
    def compute(self) -> SparsityValues:
        """Measure the network as it is."""
        p, W = self.probability.value, self.target.embed.weight
        x = self.config.replace(feature_probability=p).features()(N_INPUTS, torch.Generator().manual_seed(0))
        error = torch.nn.functional.mse_loss(self.target(x), x).item() / p
        W, bias = W.detach().clone(), self.target.unembed.bias.detach().clone()  # training changes them in place
        return SparsityValues(p, W, bias, represented(W), error)

    def draw(self, values: SparsityValues) -> None:
        """Draw the columns of W and the matrix WᵀW."""
        arrows, heat = self.axes[0]
        for ax in self.axes[0]:
            wipe(ax)
        W = values.W
        plots.columns(arrows, W).set_title(f"columns of W, p = {values.feature_probability:g}", fontsize=10, y=1)
        plots.matrix(heat, W.T @ W, limit=1.5)
        heat.set_title("WᵀW: what output i (row) gets from feature j", fontsize=10, y=1)

    def describe(self, values: SparsityValues) -> Description:
        """How many features are represented, the error, and the biases."""
        n_represented, n_features = values.n_represented, values.W.shape[1]
        return Description(
            f'features represented (column longer than 0.5): <span class="pdh-kept">{n_represented}</span> of '
            f"{n_features} · error / p = {values.error:.4f} · bias from {values.bias.min():.2f} to "
            f"{values.bias.max():.2f}",
            f"Columns of W trained at feature probability {values.feature_probability:g}, and the matrix WᵀW: "
            f"{n_represented} of {n_features} features have a column longer than 0.5.",
        )
