"""A lab on the number that each method must be given: APD's top-k and SPD's β3, both wrong by the same factor."""

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pd_helpers.analysis import metrics
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


class MethodValues(NamedTuple):
    """One method's run as it is."""

    guess: float
    """The number that the method was given: APD's top-k, SPD's β3."""
    shares: Float[Tensor, "shown n_features"]
    """Share of each column of W in each of the longest components, filled up with zeros."""
    n_own: int
    """Columns with a component of their own."""
    mmcs: float
    ml2r: float


class GuessValues(NamedTuple):
    """Both methods' runs as they are."""

    apd: MethodValues
    spd: MethodValues


class GuessLab(LiveLab):
    """Move both guesses away from the published values, by one factor; both methods are trained live, one by one.

    Each picture shows how much of each column of the target's W lies in which component, longest components first: a
    mechanism is one dark square in its column and in its row. Moving the slider again cancels what is being trained.

    >>> GuessLab(pdh.shipped("apd/tms_5-2"), pdh.shipped("spd/tms_5-2"))
    """

    FACTORS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5)
    FIELDS = ("top_k", "importance_coeff")
    """The setting that is multiplied, in APD and in SPD."""
    SYMBOLS = ("top-k", "β₃")
    """What the lab calls these settings."""
    SHOWN = 8
    """Components that are drawn."""

    def __init__(self, apd_run: Run, spd_run: Run):
        for method, run in (("apd", apd_run), ("spd", spd_run)):
            if not isinstance(run.target, TMS) or run.method.name != method:
                raise ValueError(
                    f"{method}_run must be a run of {method.upper()} on a toy model; pdh.run('{method}/tms_5-2') is"
                )
        self.published = self.runs = (apd_run, spd_run)
        self.factor = choice("times the published value", self.FACTORS, 1)
        self.progress = Progress(self.cancel)
        super().__init__([self.factor, self.progress], 9.2, 3.4, 1, 2)
        n = apd_run.target.n_features
        self._images = [blank_image(ax, self.SHOWN, n, cmap="RdBu", low=-1) for ax in self.axes[0]]
        for ax in self.axes[0]:
            ax.set(xlabel="feature (column of W)", ylabel="component, longest first")
        reserve_titles(self.axes[0], lines=2)
        self.figure.colorbar(self._images[-1], ax=list(self.axes[0]), label="share of the column")
        self.on_move([self.factor], self.train_anew)
        self.update()

    def prepare(self, which: int) -> Run:
        """APD (0) or SPD (1) with the slider's guess, at step 0, on the target and from the seed of the lab's run."""
        run, field = self.published[which], self.FIELDS[which]
        return prepare_again(run, **{field: getattr(run.config, field) * self.factor.value})

    async def retrain(self) -> None:
        """Train APD and then SPD with the slider's guesses."""
        for which in (0, 1):
            run = self.prepare(which)
            self.runs = (run, self.runs[1]) if which == 0 else (self.runs[0], run)
            await self.follow(run.steps(), run.remaining)

    def compute(self) -> GuessValues:
        """Measure both runs as they are."""
        values = []
        for run, field in zip(self.runs, self.FIELDS, strict=True):
            P, W = run.first_layer
            scores = metrics.own_columns(P, W), metrics.mmcs(P, W), metrics.ml2r(P, W)
            values.append(MethodValues(getattr(run.config, field), shown_shares(P, W, self.SHOWN), *scores))
        return GuessValues(*values)

    def draw(self, values: GuessValues) -> None:
        """Show the shares and scores of both methods."""
        for ax, image, method, symbol, one in zip(
            self.axes[0], self._images, ("APD", "SPD"), self.SYMBOLS, values, strict=True
        ):
            image.set_data(np.asarray(one.shares))
            ax.title.set_text(f"{method}, {symbol} = {one.guess:.3g}\nMMCS {one.mmcs:.3f}, ML2R {one.ml2r:.3f}")

    def describe(self, values: GuessValues) -> Description:
        """How many features have a component of their own by each method."""
        readouts, alts = [], []
        for method, symbol, one in zip(("APD", "SPD"), self.SYMBOLS, values, strict=True):
            name, n_features = method.lower(), one.shares.shape[1]
            readouts.append(
                f'<b>{method}</b> at {symbol} {one.guess:.3g}: <span class="pdh-{name}-own">{one.n_own}</span> of '
                f'{n_features} features have a component of their own, ML2R <span class="pdh-{name}-ml2r">'
                f"{one.ml2r:.3f}</span>"
            )
            alts.append(
                f"{method} with {symbol} {one.guess:.3g}: {one.n_own} of {n_features} features have a component of "
                f"their own, mean max cosine {one.mmcs:.3f}, mean length ratio {one.ml2r:.3f}"
            )
        return Description(" · ".join(readouts), f"How much of each column lies in which component. {'. '.join(alts)}.")


def shown_shares(P: Float[Tensor, "C d_out d_in"], W: Float[Tensor, "d_out d_in"], n: int) -> Float[Tensor, "n d_in"]:
    """Shares of W's columns in the n longest components, filled up with zeros where there are fewer."""
    shares = metrics.column_shares(P, W)[P.norm(dim=(1, 2)).argsort(descending=True)[:n]].detach().cpu()
    return F.pad(shares, (0, 0, 0, n - len(shares)))
