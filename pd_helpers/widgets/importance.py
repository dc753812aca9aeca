"""A lab on the price of importance: one slider over runs that were trained beforehand."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pd_helpers import experiments, metrics, plots
from pd_helpers.residual_mlp import ResidualMLP
from pd_helpers.widgets.lab import Lab, choice

if TYPE_CHECKING:
    from pd_helpers.runs import Run


class PriceLab(Lab):
    """Move β3 over runs on one residual MLP: importance matrices, alive counts and the error follow; instant.

    Left and middle: importances in W_in and W_out for each feature alone at 0.75, subcomponents in the order that shows
    most. Right: alive subcomponents and the error under random masks, at every β3.

    >>> PriceLab({1e-6: pdh.shipped("spd/resid_mlp_1", "beta1e-06"), 1e-5: pdh.shipped("spd/resid_mlp_1")})
    """

    def __init__(self, runs: "Mapping[float, Run]", value: float | None = None):
        for run in runs.values():
            if not isinstance(run.target, ResidualMLP) or len(run.target.mlps) != 1 or run.importance is None:
                raise ValueError(
                    "runs must be SPD runs on a residual MLP of one layer; pdh.shipped('spd/resid_mlp_1') is"
                )
        self.runs = dict(sorted(runs.items()))
        prices = list(self.runs)
        self.price = choice("price of importance β₃", prices, value or prices[0])
        self.matrices, self.alive, self.recon = {}, {}, {}
        for b, run in self.runs.items():
            found = experiments.importance_matrix(run)
            self.matrices[b] = {use: g[:, plots.readable_order(g)] for use, g in found.items()}
            self.alive[b] = {use: int(metrics.alive(g).sum()) for use, g in found.items()}
            self.recon[b] = run.metrics["recon"]
        self.uses = list(self.matrices[prices[0]])
        super().__init__([self.price], 9.2, 3.3, 1, 3)
        names = [use.split(".")[-1] for use in self.uses]
        self._images = []
        for ax in self.axes[0, :2]:
            blank = np.zeros_like(np.asarray(self.matrices[prices[0]][self.uses[0]]))
            self._images.append(ax.imshow(blank, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"))
            ax.set(xlabel="subcomponent", ylabel="input feature")
        counts = self.axes[0, 2]
        errors = counts.twinx()
        for k, (use, name) in enumerate(zip(self.uses, names, strict=True)):
            look = {"color": plots.color(k), "marker": "os"[k], "ls": ["-", "--"][k]}
            counts.plot(prices, [self.alive[b][use] for b in prices], label=f"alive in {name}", **look)
        errors.plot(prices, list(self.recon.values()), ":", marker="^", color="0.3", label="error")
        counts.set(xscale="log", xlabel="β₃", ylabel="alive subcomponents", ylim=(0, 150))
        errors.set(yscale="log", ylabel="error under random masks", ylim=(min(self.recon.values()) / 2, None))
        self._here = counts.axvline(prices[0], color="0.75", lw=6, zorder=0)
        lines = [*counts.get_lines()[:2], *errors.get_lines()]
        counts.legend(lines, [line.get_label() for line in lines], frameon=False, fontsize=8, loc="upper left")
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10, y=1)
        self.on_move([self.price], self.draw)
        self.draw()

    def draw(self) -> None:
        """Show the run at this price."""
        b = self.price.value
        told = []
        for ax, image, use in zip(self.axes[0, :2], self._images, self.uses, strict=False):
            g, name = self.matrices[b][use], use.split(".")[-1]
            image.set_data(np.asarray(g))
            per_feature = metrics.l0(g)
            ax.title.set_text(f"{name}: {self.alive[b][use]} alive, {per_feature:.1f} per feature")
            told.append(f"in {name} {self.alive[b][use]} subcomponents are alive, {per_feature:.1f} for each feature")
        self._here.set_xdata([b, b])
        alive = " · ".join(
            f'alive in {use.split(".")[-1]}: <span class="pdh-{use.split(".")[-1]}">{self.alive[b][use]}</span>'
            for use in self.uses
        )
        self.refresh(
            f'{alive} · error under random masks <span class="pdh-recon">{self.recon[b]:.1e}</span>',
            f"At β₃ = {b:g}, {' and '.join(told)}; the error under random masks is {self.recon[b]:.1e}.",
        )
