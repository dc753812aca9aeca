"""A lab on the number each method has to be told: APD's top-k and SPD's β3, both wrong by the same factor."""

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from pd_helpers import metrics
from pd_helpers.runs import prepare
from pd_helpers.targets import TMS
from pd_helpers.widgets.lab import SETTLE, Lab, Progress, choice

if TYPE_CHECKING:
    from pd_helpers.runs import Run


class GuessLab(Lab):
    """Move both guesses away from the published values, by one factor; both methods are trained live, one by one.

    Each picture shows how much of each column of the target's W lies in which component, longest components first: a
    mechanism is one dark square in its column and in its row. Moving the slider again cancels what is being trained.

    >>> GuessLab(pdh.shipped("apd/tms_5-2"), pdh.shipped("spd/tms_5-2"))
    """

    FACTORS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5)
    FIELDS = ("top_k", "importance_coeff")
    """What is multiplied, in APD and in SPD."""
    SHOWN = 8
    """Components that are drawn."""

    def __init__(self, apd_run: "Run", spd_run: "Run"):
        for name, run, is_spd in (("apd_run", apd_run, False), ("spd_run", spd_run, True)):
            if not isinstance(run.target, TMS) or bool(run.importance) != is_spd:
                method = "spd" if is_spd else "apd"
                raise ValueError(
                    f"{name} must be a run of {method.upper()} on a toy model; pdh.run('{method}/tms_5-2') is"
                )
        self.published = self.runs = (apd_run, spd_run)
        self.factor = choice("times the published value", self.FACTORS, 1)
        self.progress = Progress(self.give_up)
        super().__init__([self.factor, self.progress], 9.2, 3.4, 1, 2)
        self._images = []
        for ax in self.axes[0]:
            blank = np.zeros((self.SHOWN, apd_run.target.n_features))
            self._images.append(ax.imshow(blank, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", interpolation="nearest"))
            ax.set(xlabel="feature (column of W)", ylabel="component, longest first")
            ax.set_title(" \n ", fontsize=10, y=1)
        self.figure.colorbar(self._images[-1], ax=list(self.axes[0]), label="share of the column")
        self.on_move([self.factor], lambda: self.replace_task(self._retrain))
        self.draw()

    def prepare(self, which: int) -> "Run":
        """APD (0) or SPD (1) with the slider's guess, at step 0, on the target and from the seed of the lab's run."""
        run, field = self.published[which], self.FIELDS[which]
        settings = run.config.to_dict() | {field: getattr(run.config, field) * self.factor.value}
        return prepare(run.name, run.seed, target=run, device=run.device, **settings)

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        for which in (0, 1):
            run = self.prepare(which)
            self.runs = (run, self.runs[1]) if which == 0 else (self.runs[0], run)
            await self.follow(run.steps(), run.remaining, self.draw)

    def draw(self) -> None:
        """Show both runs as they are."""
        told, readout = [], []
        for method, field, ax, image, run in zip(
            ("APD", "SPD"), ("top-k", "β₃"), self.axes[0], self._images, self.runs, strict=True
        ):
            P, W = run.first_layer
            shares, own = shown_shares(P, W, self.SHOWN), metrics.own_columns(P, W)
            value = getattr(run.config, self.FIELDS[method == "SPD"])
            image.set_data(np.asarray(shares))
            mmcs, ml2r = metrics.mmcs(P, W), metrics.ml2r(P, W)
            ax.title.set_text(f"{method}, {field} = {value:.3g}\nMMCS {mmcs:.3f}, ML2R {ml2r:.3f}")
            name = method.lower()
            readout.append(
                f'<b>{method}</b> at {field} {value:.3g}: <span class="pdh-{name}-own">{own}</span> of {W.shape[1]} '
                f'features have a component of their own, ML2R <span class="pdh-{name}-ml2r">{ml2r:.3f}</span>'
            )
            told.append(
                f"{method} with {field} {value:.3g}: {own} of {W.shape[1]} features have a component of their own, "
                f"mean max cosine {mmcs:.3f}, mean length ratio {ml2r:.3f}"
            )
        self.refresh(" · ".join(readout), f"How much of each column lies in which component. {'. '.join(told)}.")


def shown_shares(P: Tensor, W: Tensor, n: int) -> Tensor:
    """Shares (n, d_in) of W's columns in the n longest components, filled up with zeros."""
    shares = metrics.column_shares(P, W)[P.norm(dim=(1, 2)).argsort(descending=True)[:n]].cpu()
    return F.pad(shares, (0, 0, 0, n - len(shares)))
