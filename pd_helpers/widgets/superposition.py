"""Labs on toy models of superposition: mechanisms one at a time, and sparsity."""

import asyncio

import torch

from pd_helpers import plots
from pd_helpers.superposition import represented
from pd_helpers.targets import TMS, TMSConfig, make_target
from pd_helpers.widgets.lab import SETTLE, Lab, Progress, choice, slider, whole

N_SPARSITY = 2**14
"""Inputs on which the sparsity lab measures the error."""


class MechanismLab(Lab):
    """Turn one mechanism of a trained toy model down and watch the output follow; instant.

    One feature is on. Its mechanism Z(c), column c of W and zeros elsewhere, is multiplied by a mask m between 0
    (ablated) and 1 (as trained); the sliders choose c, m, and which feature is on.

    >>> MechanismLab(pdh.make_target(pdh.TMSConfig(), seed=0))
    """

    def __init__(self, target: TMS):
        if target.embed.out_features != 2 or target.identity is not None:
            raise ValueError("target must have two hidden dimensions and no identity layer; TMSConfig()'s has")
        self.target = target
        last = target.embed.in_features - 1
        self.mask = slider("mask m of the mechanism", 1.0, 0.0, 1.0, 0.05, 2)
        self.component = whole("mechanism c", 0, last)
        self.feature = whole("feature that is on", 0, last)
        super().__init__([self.mask, self.component, self.feature], 8.0, 3.3, 1, 2)
        self.on_move((self.mask, self.component, self.feature), self.draw)
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Show the network with these masks."""
        W, b = self.target.embed.weight.cpu(), self.target.unembed.bias.cpu()
        c, feature, m = self.component.value, self.feature.value, self.mask.value
        masks = torch.ones(W.shape[1])
        masks[c] = m
        x = torch.eye(W.shape[1])[feature]
        whole, masked = (torch.relu(x @ M.T @ M + b) for M in (W, W * masks))
        arrows, bars = self.axes[0]
        for ax in self.axes[0]:
            ax.clear()
        plots.columns(arrows, W, labels=False, colors=["0.8"] * W.shape[1], width=5.0)
        plots.columns(arrows, W * masks).set_title(f"columns of W, column {c} times {m:.2f}", fontsize=10, y=1)
        plots.outputs(bars, masked, whole).set_title(f"output when only feature {feature} is on", fontsize=10, y=1)
        self.refresh(
            f'output {feature} = <span class="pdh-output">{masked[feature]:.3f}</span>, '
            f"and {whole[feature]:.3f} with every mechanism on",
            f"With mechanism {c} at mask {m:.2f} and only feature {feature} on, output {feature} is "
            f"{masked[feature]:.2f}; with every mechanism on it is {whole[feature]:.2f}.",
        )


class SparsityLab(Lab):
    """Train a toy model of superposition live at a chosen feature probability; columns of W arrange themselves."""

    PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)

    def __init__(self, config: TMSConfig, seed: int = 0, target: TMS | None = None):
        self.config, self.seed = config, seed
        self.probability = choice("feature probability p", self.PROBABILITIES, config.feature_probability)
        self.progress = Progress(self.give_up)
        super().__init__([self.probability, self.progress], 8.0, 3.3, 1, 2)
        self.target = target or make_target(config, seed, show_progress=False)
        self.draw()
        self.on_move([self.probability], lambda: self.replace_task(self._retrain))

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        config = self.config.replace(feature_probability=self.probability.value)
        self.target = config.new(self.seed)
        await self.follow(config.train(self.target, self.seed), config.target_steps, self.draw)

    @torch.no_grad()
    def draw(self) -> None:
        """Show the network as it now is."""
        W, b = self.target.embed.weight, self.target.unembed.bias
        arrows, heat = self.axes[0]
        for ax in self.axes[0]:
            ax.clear()
        p = self.probability.value
        plots.columns(arrows, W).set_title(f"columns of W, p = {p:g}", fontsize=10, y=1)
        plots.matrix(heat, W.T @ W, limit=1.5).set_title(
            "WᵀW: what output i (row) gets from feature j", fontsize=10, y=1
        )
        kept = represented(W)
        x = self.config.replace(feature_probability=p).features()(N_SPARSITY, torch.Generator().manual_seed(0))
        error = torch.nn.functional.mse_loss(self.target(x), x).item() / p
        self.refresh(
            f'features represented (column longer than 0.5): <span class="pdh-kept">{kept}</span> of {W.shape[1]} · '
            f"error / p = {error:.4f} · bias from {b.min():.2f} to {b.max():.2f}",
            f"Columns of W trained at feature probability {p:g}, and the matrix WᵀW: {kept} of {W.shape[1]} features "
            "have a column longer than 0.5.",
        )
