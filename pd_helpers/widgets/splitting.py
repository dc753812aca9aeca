"""A lab on the number of subcomponents that are offered: does SPD split when it is given more room?"""

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import torch

from pd_helpers import experiments, metrics, plots
from pd_helpers.runs import prepare
from pd_helpers.targets import TMS
from pd_helpers.widgets.lab import SETTLE, Lab, Progress, choice

if TYPE_CHECKING:
    from pd_helpers.runs import Run


class RoomLab(Lab):
    """Move C, the subcomponents offered to each layer of a toy model with a hidden identity; SPD is trained live.

    At the C of the lab's run that run is shown, at once. Left and middle: importances of the most important
    subcomponents for each feature alone at 0.75, in W and in the identity. Right: lengths of all subcomponents, longest
    first. Moving the slider again cancels what is being trained.

    >>> RoomLab(pdh.shipped("spd/tms_5-2_id"))
    """

    SIZES = (5, 10, 20, 40, 80)
    STEPS = 1600
    """Steps of a live training, from a single start."""
    LAYERS = ("embed", "identity")
    SHOWN = 10
    """Subcomponents whose importances are drawn."""

    def __init__(self, run: "Run"):
        if not isinstance(run.target, TMS) or run.importance is None or set(self.LAYERS) - set(run.components.layers):
            raise ValueError("run must be an SPD run on a toy model with an identity; pdh.shipped('spd/tms_5-2_id') is")
        self.published = self.run = run
        sizes = sorted({*self.SIZES, run.config.C})
        self.size = choice("subcomponents offered, C", sizes, run.config.C)
        self.progress = Progress(self.give_up)
        super().__init__([self.size, self.progress], 9.2, 3.2, 1, 3)
        self._images, n = [], run.target.n_features
        for ax in self.axes[0, :2]:
            blank = np.zeros((n, self.SHOWN))
            self._images.append(ax.imshow(blank, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest"))
            ax.set(xlabel="subcomponent, most important first", ylabel="input feature", yticks=range(n))
            ax.set_title(" ", fontsize=10, y=1)
        self.figure.colorbar(self._images[-1], ax=list(self.axes[0, :2]), label="causal importance g")
        lengths = self.axes[0, 2]
        self._lengths = [
            lengths.plot([], [], marker, ls="", ms=4, mfc="none", color=plots.color(k), label=name)[0]
            for k, (marker, name) in enumerate(zip("os", ("W", "identity"), strict=True))
        ]
        lengths.set(xlabel="subcomponent, longest first", ylim=(0, 1.6))
        lengths.set_title("lengths ‖P‖", fontsize=10, y=1)
        lengths.legend(frameon=False, fontsize=9, loc="upper right")
        self.on_move([self.size], lambda: self.replace_task(self._retrain))
        self.draw()

    def prepare(self) -> "Run":
        """SPD with the slider's C at step 0, on the target and from the seed of the lab's run."""
        run = self.published
        settings = run.config.to_dict() | {
            "C": self.size.value,
            "starts": 1,
            "steps": min(self.STEPS, run.config.steps),
        }
        return prepare(run.name, run.seed, target=run, device=run.device, **settings)

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        if self.size.value == self.published.config.C:
            self.run = self.published
            self.progress.show("trained", "success", 1, 1)
            self.draw()
            return
        self.run = self.prepare()
        await self.follow(self.run.steps(), self.run.remaining, self.draw)

    def draw(self) -> None:
        """Show the run as it is."""
        run, C, told, readout = self.run, self.run.config.C, [], []
        found = experiments.importance_matrix(run)
        for ax, image, dots, layer in zip(self.axes[0], self._images, self._lengths, self.LAYERS, strict=False):
            g, name = found[layer].cpu(), "W" if layer == "embed" else "the identity"
            alive = int(metrics.alive(g).sum())
            order = g.sum(dim=0).argsort(descending=True)[: self.SHOWN]
            shown = torch.full((len(g), self.SHOWN), torch.nan)
            shown[:, : len(order)] = g[:, order]
            image.set_data(np.asarray(shown))
            ax.title.set_text(f"{name}: {alive} of {C} alive, Σg = {g.sum():.1f}")
            lengths = run.components.layers[layer].P.detach().norm(dim=(1, 2)).sort(descending=True).values.cpu()
            dots.set_data(np.arange(1, C + 1), np.asarray(lengths))
            readout.append(f'alive in {name}: <b class="pdh-alive-{layer}">{alive}</b> of {C}')
            rest = f", the longest other one has length {lengths[alive]:.3f}" if alive < C else ""
            told.append(f"{alive} are alive in {name}{rest}; their importances add up to {g.sum():.1f}")
        P, W = run.first_layer
        of_alive = P[metrics.alive(found["embed"]).to(P.device)]
        mmcs, ml2r, ml2r_alive = metrics.mmcs(P, W), metrics.ml2r(P, W), metrics.ml2r(of_alive, W)
        self.axes[0, 2].set_xlim(0, C + 1)
        self.refresh(
            f'{" · ".join(readout)} · MMCS <span class="pdh-mmcs">{mmcs:.3f}</span> · ML2R '
            f'<span class="pdh-ml2r">{ml2r:.3f}</span>, of alive ones {ml2r_alive:.3f}',
            f"With {C} subcomponents offered to each layer: {'. '.join(told)}. Mean max cosine {mmcs:.3f}, mean length "
            f"ratio {ml2r:.3f}, of alive ones {ml2r_alive:.3f}. Left and middle: importances for each feature alone at "
            "0.75; right: lengths of all subcomponents.",
        )
