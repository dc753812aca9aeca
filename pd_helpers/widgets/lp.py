"""A lab on APD's Lp formulation: its exponent and coefficients under sliders, retrained live."""

import asyncio
from typing import ClassVar

import torch

from pd_helpers import metrics, plots
from pd_helpers.runs import Run, prepare
from pd_helpers.targets import TMS
from pd_helpers.widgets.lab import SETTLE, Lab, Progress, choice


class LpLab(Lab):
    """APD with a penalty |A_c|^p_A on a toy model with two hidden dimensions: which component holds which column?

    Moving a slider trains anew from the same seed on the run's target; moving again cancels it. Left: the columns of
    the components over those of the target, in grey. Right: the share of each column in each component.

    >>> LpLab(pdh.prepare("apd/tms_5-2_lp"))
    """

    FIELDS: ClassVar = {
        "attribution_p": ("exponent p_A", [0.3, 0.5, 0.7, 0.9, 1.0]),
        "minimality_coeff": ("minimality λ_M", [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]),
        "simplicity_coeff": ("simplicity λ_S", [0.0, 0.1, 0.3, 1.0, 3.0]),
    }
    """What the sliders set: their labels and values."""

    def __init__(self, run: Run):
        if not isinstance(run.target, TMS) or run.target.embed.out_features != 2 or run.importance is not None:
            raise ValueError("run must be an APD run on a toy model with two hidden dimensions; apd/tms_5-2_lp is")
        if run.config.attribution_p is None:
            raise ValueError("run must be of the Lp formulation, but its attribution_p is None; 0.9 works")
        self.run = run
        self.sliders = {
            field: choice(label, values, min(values, key=lambda v: abs(v - getattr(run.config, field))))
            for field, (label, values) in self.FIELDS.items()
        }
        self.progress = Progress(self.give_up)
        super().__init__([*self.sliders.values(), self.progress], 9.0, 3.6, 1, 2)
        arrows, self._matrix = self.axes[0]
        plots.columns(arrows, torch.zeros(2, 0)).set_title("components, one colour each", fontsize=10, y=1)
        self._target = plots.Arrows(arrows, "0.8", width=5.0)
        self._parts = [plots.Arrows(arrows, plots.color(c)) for c in range(run.config.C)]
        self.draw()
        self.on_move(self.sliders.values(), lambda: self.replace_task(self._retrain))

    def train(self, **overrides: float) -> Run:
        """What a slider does, without a front end: train with these settings and show the result."""
        self.run = self._prepare(**overrides)
        for _ in self.run.steps():
            pass
        self.draw()
        return self.run

    def draw(self) -> None:
        """Show the components as they now are."""
        P, W = (M.detach().cpu() for M in self.run.first_layer)
        self._target.move(W)
        for arrows, part in zip(self._parts, P, strict=True):
            arrows.move(part)
        self._matrix.clear()
        shares = metrics.column_shares(P, W)  # (C, n_features)
        plots.matrix(self._matrix, shares.round(decimals=2) + 0.0, limit=1)  # + 0.0 makes -0.0 zero
        self._matrix.set_title("share of each column in each component", fontsize=10, y=1)
        self._matrix.set(xlabel="column of W (feature)", ylabel="component")
        own, config, n = metrics.own_columns(P, W), self.run.config, W.shape[1]
        mmcs, ml2r = metrics.mmcs(P, W), metrics.ml2r(P, W)
        settings = (
            f"p_A = {config.attribution_p:g}, λ_M = {config.minimality_coeff:g}, λ_S = {config.simplicity_coeff:g}"
        )
        self.refresh(
            f'<b>columns with a component of their own: <span class="pdh-own">{own}</span> of {n}</b> · MMCS '
            f'<span class="pdh-mmcs">{mmcs:.3f}</span> · ML2R <span class="pdh-ml2r">{ml2r:.3f}</span> · step '
            f"{self.run.state.step}",
            f"With {settings}, after {self.run.state.step} steps: columns of components over those of W in grey, and "
            f"the share of each column in each component as a heat map with numbers. {own} of {n} columns have a "
            f"component of their own; the largest shares are {', '.join(f'{s:.2f}' for s in shares.amax(dim=0))}.",
        )

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        self.run = self._prepare()
        await self.follow(self.run.steps(), self.run.remaining, self.draw)

    def _prepare(self, **overrides: float) -> Run:
        settings = {field: control.value for field, control in self.sliders.items()} | overrides
        rest = {key: value for key, value in self.run.config.to_dict().items() if key not in settings}
        return prepare(self.run.name, self.run.seed, target=self.run, device=self.run.device, **rest, **settings)
