"""A lab on the number of subcomponents that are offered: does SPD split when it is given more room?"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import importance_matrices, metrics
from pd_helpers.course.kit.lab import (
    Description,
    LiveLab,
    Progress,
    blank_image,
    choice,
    prepare_again,
    reserve_titles,
)
from pd_helpers.runs.run import Run
from pd_helpers.targets.tms import TMS


class LayerValues(NamedTuple):
    """The subcomponents of one layer."""

    g: Float[Tensor, "n_features C"]
    """Importances for each feature alone at 0.75, the most important subcomponent first."""
    lengths: Float[Tensor, " C"]
    """‖P‖ of every subcomponent, longest first."""

    @property
    def n_alive(self) -> int:
        """Subcomponents that are important for some feature."""
        return int(metrics.alive(self.g).sum())


class RoomValues(NamedTuple):
    """The run as it is."""

    C: int
    """Subcomponents offered to each layer."""
    layers: dict[str, LayerValues]
    mmcs: float
    """Mean max cosine similarity of the first layer's subcomponents."""
    ml2r: float
    """Mean length ratio of the first layer's subcomponents."""
    ml2r_alive: float
    """Mean length ratio of those that are alive."""


class RoomLab(LiveLab):
    """Move C, the subcomponents offered to each layer of a toy model with a hidden identity; SPD is trained live.

    At the C of the lab's run that run is shown, at once. Left and middle: importances of the most important
    subcomponents for each feature alone at 0.75. Right: lengths of all subcomponents, longest first. Moving the slider
    again cancels what is being trained.

    >>> RoomLab(pdh.shipped("spd/tms_5-2_id"))
    """

    SIZES = (5, 10, 20, 40, 80)
    STEPS = 1600
    """Most steps of a live training, which tries a single initialisation."""
    LAYERS = ("embed", "identity")
    SHOWN = 10
    """Subcomponents whose importances are drawn."""

    def __init__(self, run: Run):
        if not isinstance(run.target, TMS) or run.method.name != "spd" or set(self.LAYERS) - set(run.components.layers):
            raise ValueError("run must be an SPD run on a toy model with an identity; pdh.shipped('spd/tms_5-2_id') is")
        self.published = self.run = run
        sizes = sorted({*self.SIZES, run.config.C})
        self.size = choice("subcomponents offered, C", sizes, run.config.C)
        self.progress = Progress(self.cancel)
        super().__init__([self.size, self.progress], 9.2, 3.2, 1, 3)
        *images, lengths = self.axes[0]
        n = run.target.n_features
        self._images = [blank_image(ax, n, self.SHOWN) for ax in images]
        for ax in images:
            ax.set(xlabel="subcomponent, most important first", ylabel="input feature", yticks=range(n))
        reserve_titles(images)
        self.figure.colorbar(self._images[-1], ax=images, label="causal importance g")
        self._lengths = [
            lengths.plot([], [], marker, ls="", ms=4, mfc="none", color=plots.color(k), label=name)[0]
            for k, (marker, name) in enumerate(zip("os", ("W", "identity"), strict=True))
        ]
        lengths.set(xlabel="subcomponent, longest first", ylim=(0, 1.6))
        lengths.set_title("lengths ‖P‖", fontsize=10, y=1)
        lengths.legend(frameon=False, fontsize=9, loc="upper right")
        self.on_move([self.size], self.train_anew)
        self.update()

    def prepare(self) -> Run:
        """SPD with the slider's C at step 0, on the target and from the seed of the lab's run."""
        steps = min(self.STEPS, self.published.config.steps)
        return prepare_again(self.published, C=self.size.value, n_init=1, steps=steps)

    async def retrain(self) -> None:
        """Train at the slider's C; at that of the lab's run, show that run."""
        if self.size.value == self.published.config.C:
            self.run = self.published
            self.update()
            return
        self.run = self.prepare()
        await self.follow(self.run.steps(), self.run.remaining)

    def compute(self) -> RoomValues:
        """Measure the run as it is."""
        run, layers = self.run, {}
        importances = importance_matrices.importance_matrix(run)
        for layer in self.LAYERS:
            g = importances[layer].cpu()
            lengths = run.components.layers[layer].P.detach().norm(dim=(1, 2)).sort(descending=True).values.cpu()
            layers[layer] = LayerValues(g[:, g.sum(dim=0).argsort(descending=True)], lengths)
        P, W = run.first_layer
        alive = P[metrics.alive(importances["embed"]).to(P.device)]
        return RoomValues(run.config.C, layers, metrics.mmcs(P, W), metrics.ml2r(P, W), metrics.ml2r(alive, W))

    def draw(self, values: RoomValues) -> None:
        """Show importances and lengths."""
        self.axes[0, 2].set_xlim(0, values.C + 1)
        for ax, image, dots, (name, layer) in zip(
            self.axes[0], self._images, self._lengths, values.layers.items(), strict=False
        ):
            shown = torch.full((len(layer.g), self.SHOWN), torch.nan)
            n_shown = min(self.SHOWN, values.C)
            shown[:, :n_shown] = layer.g[:, :n_shown]
            image.set_data(np.asarray(shown))
            title = "W" if name == "embed" else "the identity"
            ax.title.set_text(f"{title}: {layer.n_alive} of {values.C} alive, Σg = {layer.g.sum():.1f}")
            dots.set_data(np.arange(1, values.C + 1), np.asarray(layer.lengths))

    def describe(self, values: RoomValues) -> Description:
        """How many subcomponents are alive in each layer, and the scores of the first one."""
        C, readouts, alts = values.C, [], []
        for name, layer in values.layers.items():
            title, n_alive = "W" if name == "embed" else "the identity", layer.n_alive
            readouts.append(f'alive in {title}: <b class="pdh-alive-{name}">{n_alive}</b> of {C}')
            rest = f", the longest other one has length {layer.lengths[n_alive]:.3f}" if n_alive < C else ""
            alts.append(f"{n_alive} are alive in {title}{rest}; their importances add up to {layer.g.sum():.1f}")
        return Description(
            f'{" · ".join(readouts)} · MMCS <span class="pdh-mmcs">{values.mmcs:.3f}</span> · ML2R '
            f'<span class="pdh-ml2r">{values.ml2r:.3f}</span>, of alive ones {values.ml2r_alive:.3f}',
            f"With {C} subcomponents offered to each layer: {'. '.join(alts)}. Mean max cosine {values.mmcs:.3f}, mean "
            f"length ratio {values.ml2r:.3f}, of alive ones {values.ml2r_alive:.3f}. Left and middle: importances for "
            "each feature alone at 0.75; right: lengths of all subcomponents.",
        )
