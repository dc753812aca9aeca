"""A lab on APD's Lp formulation: its exponent and coefficients under sliders, retrained live."""

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import metrics
from pd_helpers.core.apd import APDConfig
from pd_helpers.course.kit.lab import Description, LiveLab, Progress, choice, prepare_again, wipe
from pd_helpers.runs.run import Run
from pd_helpers.targets.tms import TMS


class LpValues(NamedTuple):
    """The run as it is."""

    config: APDConfig
    step: int
    """Training steps taken so far."""
    P: Float[Tensor, "C 2 n_features"]
    """The components."""
    W: Float[Tensor, "2 n_features"]
    """The target's weights."""
    shares: Float[Tensor, "C n_features"]
    """Share of each column of W in each component."""
    n_own: int
    """Columns with a component of their own."""
    mmcs: float
    ml2r: float


class LpLab(LiveLab):
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
        if not isinstance(run.target, TMS) or run.target.embed.out_features != 2 or run.method.name != "apd":
            raise ValueError(
                "run must be an APD run on a toy model with two hidden dimensions; pdh.prepare('apd/tms_5-2_lp') is"
            )
        if run.config.attribution_p is None:
            raise ValueError("run must be of the Lp formulation, but its attribution_p is None; 0.9 works")
        self.run = run
        self.sliders = {
            field: choice(label, values, min(values, key=lambda v: abs(v - getattr(run.config, field))))
            for field, (label, values) in self.FIELDS.items()
        }
        self.progress = Progress(self.cancel)
        super().__init__([*self.sliders.values(), self.progress], 9.0, 3.6, 1, 2)
        arrows, heat = self.axes[0]
        plots.columns(arrows, torch.zeros(2, 0)).set_title("components, one colour each", fontsize=10, y=1)
        self._target = plots.Arrows(arrows, "0.8", width=5.0)
        self._components = [plots.Arrows(arrows, plots.color(c)) for c in range(run.config.C)]
        heat.set_title("share of each column in each component", fontsize=10, y=1)
        self.on_move(self.sliders.values(), self.train_anew)
        self.update()

    def prepare(self, **overrides: float) -> Run:
        """The lab's run with the settings of the sliders and these overrides, at step 0."""
        settings = {field: control.value for field, control in self.sliders.items()}
        return prepare_again(self.run, **settings | overrides)

    async def retrain(self) -> None:
        """Train with the settings of the sliders."""
        self.run = self.prepare()
        await self.follow(self.run.steps(), self.run.remaining)

    def train(self, **overrides: float) -> Run:
        """What a slider does, without a front end: train with these settings and show the result."""
        self.run = self.prepare(**overrides)
        for _ in self.run.steps():
            pass
        self.update()
        return self.run

    def compute(self) -> LpValues:
        """Measure the components as they are."""
        P, W = (M.detach().cpu() for M in self.run.first_layer)
        scores = metrics.own_columns(P, W), metrics.mmcs(P, W), metrics.ml2r(P, W)
        return LpValues(self.run.config, self.run.step, P, W, metrics.column_shares(P, W), *scores)

    def draw(self, values: LpValues) -> None:
        """Move the arrows and draw the table of shares."""
        self._target.move(values.W)
        for arrows, component in zip(self._components, values.P, strict=True):
            arrows.move(component)
        heat = self.axes[0, 1]
        wipe(heat)
        plots.matrix(heat, values.shares.round(decimals=2) + 0.0, limit=1)  # + 0.0 makes -0.0 zero
        heat.set(xlabel="column of W (feature)", ylabel="component")

    def describe(self, values: LpValues) -> Description:
        """How many columns have a component of their own, and both scores."""
        config, n_features = values.config, values.W.shape[1]
        settings = (
            f"p_A = {config.attribution_p:g}, λ_M = {config.minimality_coeff:g}, λ_S = {config.simplicity_coeff:g}"
        )
        largest = ", ".join(f"{share:.2f}" for share in values.shares.amax(dim=0))
        return Description(
            f'<b>columns with a component of their own: <span class="pdh-own">{values.n_own}</span> of {n_features}'
            f'</b> · MMCS <span class="pdh-mmcs">{values.mmcs:.3f}</span> · ML2R <span class="pdh-ml2r">'
            f"{values.ml2r:.3f}</span> · step {values.step}",
            f"With {settings}, after {values.step} steps: columns of components over those of W in grey, and the share "
            f"of each column in each component as a heat map with numbers. {values.n_own} of {n_features} columns have "
            f"a component of their own; the largest shares are {largest}.",
        )
