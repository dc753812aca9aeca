"""The shrinkage lab: APD's coefficients under sliders, retrained live or read from a shipped sweep."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import ipywidgets as w
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pd_helpers import plots
from pd_helpers.analysis import metrics
from pd_helpers.course.kit.lab import ROW, Description, LiveLab, Progress, buttons, choice, prepare_again, slider
from pd_helpers.runs.run import Run
from pd_helpers.targets.tms import TMS

if TYPE_CHECKING:
    import pandas


class ShrinkageValues(NamedTuple):
    """One decomposition, and the scores of its neighbours."""

    P: Float[Tensor, "C 2 n_features"]
    """The components."""
    W: Float[Tensor, "2 n_features"]
    """The target's weights."""
    settings: dict[str, float]
    """`simplicity_coeff`, `schatten_p` and `top_k`."""
    curve: "pandas.DataFrame"
    """Columns `mmcs` and `ml2r`, by training step or, for a row of a sweep, by simplicity coefficient."""
    steps: tuple[int, int] | None
    """The training step that is shown, and the number of all steps; None for a row of a sweep."""

    @property
    def mmcs(self) -> float:
        """Mean max cosine similarity."""
        return metrics.mmcs(self.P, self.W)

    @property
    def ml2r(self) -> float:
        """Mean length ratio; below 1 is shrinkage."""
        return metrics.ml2r(self.P, self.W)

    @property
    def faithfulness(self) -> float:
        """Mean squared error between W and the sum of the components."""
        return torch.nn.functional.mse_loss(self.P.sum(dim=0), self.W).item()


class ShrinkageLab(LiveLab):
    """APD on a toy model with two hidden dimensions: watch components shrink as λ_S grows.

    Grey arrows are the target's columns; coloured ones are those of the components, black ones those of their sum.

    - **Instant**, with a `sweep` over λ_S, p_S and top-k that was trained beforehand: sliders move over its values, and
      a move only looks up a row. The curve is the sweep's along λ_S. The target is the sweep's own.
    - **Live**, and the only mode without a sweep: any values. Moving λ_S, p_S or top-k trains anew from the same seed,
      on the run's target; moving again cancels it. The step slider replays the training just seen, and the curve is
      that training's.

    >>> run = pdh.run("apd/tms_5-2")
    >>> ShrinkageLab(run, pdh.shipped_sweep("apd/tms_5-2"))

    A sweep of your own must keep the end states:

    >>> grid = {"simplicity_coeff": [0.2, 0.7, 1.4], "schatten_p": [1.0], "top_k": [0.211, 0.261]}
    >>> ShrinkageLab(run, pdh.sweep("apd/tms_5-2", grid, target=run, keep=pdh.end_state))
    """

    FIELDS: ClassVar = {
        "simplicity_coeff": "simplicity λ_S",
        "schatten_p": "Schatten exponent p_S",
        "top_k": "top-k per input",
    }
    """What the sliders set, and their labels."""

    def __init__(self, run: Run, sweep: "pandas.DataFrame | None" = None):
        if not isinstance(run.target, TMS) or run.target.embed.out_features != 2 or run.method.name != "apd":
            raise ValueError(
                "run must be an APD run on a toy model with two hidden dimensions; pdh.run('apd/tms_5-2') is"
            )
        if not run.snapshots:
            raise ValueError("run must be trained, but has no snapshots yet; pdh.shipped('apd/tms_5-2') works")
        self.run, config, labels = run, run.config, self.FIELDS
        self.training: Run | None = None
        """The run that is being trained, which takes the place of `run` when it is finished."""
        self._path = next(iter(run.components.layers))
        self.simplicity_coeff = slider(labels["simplicity_coeff"], config.simplicity_coeff, 0.0, 2.0, 0.1, 1)
        self.schatten_p = slider(labels["schatten_p"], config.schatten_p, 0.5, 1.5, 0.1, 1)
        self.top_k = slider(labels["top_k"], config.top_k, 0.061, 0.461, 0.05, 3)
        steps = [s.step for s in run.snapshots]
        self.step = choice("training step", steps, steps[-1])
        self.progress = Progress(self.cancel)
        live = [self.simplicity_coeff, self.schatten_p, self.top_k, self.step, self.progress]
        controls, self.mode, self.grid = live, None, {}
        if sweep is not None:
            self._table = _by_setting(sweep, list(labels), self._path, run.first_layer[0].shape)
            for level in self._table.index.levels:
                nearest = min(level, key=lambda value: abs(value - getattr(config, level.name)))
                self.grid[level.name] = choice(labels[level.name], list(level), nearest)
            self.mode = buttons([("instant: look up a run", "instant"), ("live: train one", "live")])
            note = w.HTML(f"{len(sweep)} runs, trained beforehand; moving a slider looks one up.")
            self._sliders = {"instant": [*self.grid.values(), note], "live": live}
            # as tall as the taller of the two, so that the page does not jump
            self.controls = w.VBox(self._sliders["instant"], layout=w.Layout(min_height=f"{ROW * len(live)}px"))
            controls = [self.mode, self.controls]
        super().__init__(controls, 9.0, 3.3, 1, 3)
        self._panels = _ShrinkagePanels(self.axes[0], config.C, run.target.embed.in_features)
        self.on_move((self.simplicity_coeff, self.schatten_p, self.top_k), self.train_anew)
        self.on_move((self.step, *self.grid.values()), self.update)
        if self.mode is not None:
            self.on_move([self.mode], self._switch)
        self.update()

    @property
    def is_live(self) -> bool:
        """Whether the sliders train; otherwise they look up a row of the sweep."""
        return self.mode is None or self.mode.value == "live"

    def prepare(self, **overrides: float) -> Run:
        """The lab's run with the settings of live mode's sliders and these overrides, at step 0."""
        settings = {field: getattr(self, field).value for field in self.FIELDS}
        return prepare_again(self.run, **settings | overrides)

    async def retrain(self) -> None:
        """Train with the settings of live mode's sliders; the run before stays until the training is finished."""
        self.training = self.prepare()
        try:
            await self.follow(self.training.steps(), self.training.remaining)
            finished = self.training
        finally:
            self.training = None
        self._replay(finished)

    def train(self, **overrides: float) -> Run:
        """What a slider does in live mode, without a front end: train with these settings and show the result."""
        run = self.prepare(**overrides)
        for _ in run.steps():
            pass
        self._replay(run)
        return run

    def _replay(self, run: Run) -> None:
        """Let the step slider replay this run, and show its end."""
        self.run = run
        steps = [s.step for s in self.run.snapshots]
        if tuple(self.step.options) != tuple(steps):
            self.step.options = steps
        self.step.value = steps[-1]
        self.update()

    def _switch(self) -> None:
        """Go over to the other mode; a training is cancelled, and begun again on return."""
        self.cancel()
        self.controls.children = self._sliders[self.mode.value]
        if self.is_live and any(getattr(self, field).value != getattr(self.run.config, field) for field in self.FIELDS):
            self.train_anew()
        else:
            self.update()

    def compute(self) -> ShrinkageValues:
        """A row of the sweep or, in live mode, a training as it is, or a step of the last one."""
        if not self.is_live:
            settings = {field: control.value for field, control in self.grid.items()}
            matrices = self._table.at[tuple(settings.values()), "kept"]
            curve = self._table.xs((settings["schatten_p"], settings["top_k"]), level=["schatten_p", "top_k"])
            P, W = matrices[f"P.{self._path}"], matrices[f"W.{self._path}"]
            return ShrinkageValues(P, W, settings, curve[["mmcs", "ml2r"]], steps=None)
        if self.training is not None:
            run, step = self.training, self.training.step
            P = run.first_layer[0].detach().cpu()
        else:
            run, step = self.run, self.step.value
            P = next(snapshot for snapshot in run.snapshots if snapshot.step == step).P(self._path)
        settings = {field: getattr(run.config, field) for field in self.FIELDS}
        curve = run.history.reindex(columns=["step", "mmcs", "ml2r"]).set_index("step")
        W = run.components.targets[self._path].cpu()
        return ShrinkageValues(P, W, settings, curve, steps=(step, run.config.steps))

    def draw(self, values: ShrinkageValues) -> None:
        """Move everything in the three panels."""
        self._panels.move(values)

    def describe(self, values: ShrinkageValues) -> Description:
        """Both scores and the faithfulness."""
        settings, ml2r, mmcs = values.settings, values.ml2r, values.mmcs
        named = (
            f"λ_S = {settings['simplicity_coeff']:g}, p_S = {settings['schatten_p']:g}, top-k = {settings['top_k']:g}"
        )
        step, when, against = "", "", "λ_S"
        if values.steps:
            step, when = f" · step {values.steps[0]}", f" after {values.steps[0]} steps"
            against = "the training step"
        return Description(
            f'<b>ML2R = <span class="pdh-ml2r">{ml2r:.3f}</span></b> (length; paper 0.893 at λ_S = 0.7) · '
            f'<b>MMCS = <span class="pdh-mmcs">{mmcs:.3f}</span></b> (direction; paper 0.998) · '
            f"faithfulness {values.faithfulness:.1e}{step}",
            f"With {named}{when}: the columns of each component, and of the sum of all components, over those of W in "
            f"grey; and both scores against {against}. Mean length ratio (ML2R) {ml2r:.3f}, mean max cosine (MMCS) "
            f"{mmcs:.3f}.",
        )


class _ShrinkagePanels:
    """The shrinkage lab's picture: its parts are drawn once and then moved, which is what makes it quick."""

    PAPER: ClassVar = {"simplicity_coeff": 0.7, "schatten_p": 1.0, "top_k": 0.211, "ml2r": 0.893}

    def __init__(self, axes: np.ndarray, C: int, n_features: int):
        components, total, scores = axes
        for ax, title in ((components, "components, one colour each"), (total, "sum of the components")):
            plots.columns(ax, torch.zeros(2, 0)).set_title(title, fontsize=10, y=1)
        self.target = [plots.Arrows(ax, "0.8", width=5.0) for ax in (components, total)]
        self.components = [plots.Arrows(components, plots.color(c)) for c in range(C)]
        self.total = plots.Arrows(total, "0.2")
        self.numbers = [total.text(0, 0, str(j), ha="center", va="center", fontsize=9) for j in range(n_features)]
        self.scores, paper = scores, (self.PAPER["simplicity_coeff"], self.PAPER["ml2r"])
        self.lines = {
            "mmcs": scores.plot([], [], color=plots.color(2), ms=4, label="MMCS (direction)")[0],
            "ml2r": scores.plot([], [], "--", color=plots.color(1), ms=4, label="ML2R (length)")[0],
        }
        self.ring = scores.plot([], [], "o", ms=10, mfc="none", mec="0.1", mew=1.5)[0]
        offset = {"xytext": (7, 2), "textcoords": "offset points", "fontsize": 8}
        self.paper = [*scores.plot(*paper, "k*", ms=7), scores.annotate("paper", paper, **offset)]
        scores.set_title("scores", fontsize=10, y=1)
        scores.set(xlabel="here", ylim=(0, 1.15))
        scores.tick_params(labelsize=8, length=2)
        scores.spines[["top", "right"]].set_visible(False)
        scores.legend(fontsize=8, frameon=False, loc="lower right")

    def move(self, values: ShrinkageValues) -> None:
        """Show these values."""
        P, W, settings, curve, steps = values
        for arrows in self.target:
            arrows.move(W)
        for arrows, component in zip(self.components, P, strict=True):
            arrows.move(component)
        self.total.move(P.sum(dim=0))
        for number, column in zip(self.numbers, W.T, strict=True):
            number.set_position(((1 + 0.2 / column.norm().clamp(min=0.2)) * column).tolist())
        for name, line in self.lines.items():
            line.set_data(curve.index, curve[name])
            line.set_marker("" if steps else "o")
        at, end = steps or (settings["simplicity_coeff"], curve.index.max())
        self.ring.set_data([at], [values.ml2r])
        self.scores.set(xlim=(-0.05 * end, 1.05 * end), xlabel="training step" if steps else "simplicity λ_S")
        others = {field: settings[field] for field in ("schatten_p", "top_k")}
        for artist in self.paper:
            artist.set_visible(not steps and others.items() <= self.PAPER.items())
        title = "scores during training" if steps else f"at p_S = {others['schatten_p']:g}, top-k = {others['top_k']:g}"
        self.scores.title.set_text(title)


def _by_setting(
    sweep: "pandas.DataFrame", fields: Sequence[str], layer: str, shape: Sequence[int]
) -> "pandas.DataFrame":
    """A sweep's table by its settings; ValueError where the shrinkage lab cannot show it."""
    works = "pdh.shipped_sweep('apd/tms_5-2') works"
    lacks = [
        column for column in (*fields, "mmcs", "ml2r", "error", "kept") if column not in getattr(sweep, "columns", ())
    ]
    if lacks:
        raise ValueError(
            f"sweep must be a table of pdh.sweep over {', '.join(fields)} that keeps the end states "
            f"(keep=pdh.end_state), but lacks {', '.join(lacks)}; {works}"
        )
    table = sweep.set_index(list(fields)).sort_index()
    if len(table) != math.prod(map(len, table.index.levels)) or table.index.has_duplicates:
        raise ValueError(
            f"sweep must have exactly one run for every combination of its {', '.join(fields)}; of several seeds "
            f"take one, as in sweep.query('seed == 0')"
        )
    for setting, error, matrices in zip(table.index, table["error"], table["kept"], strict=True):
        P = matrices.get(f"P.{layer}") if isinstance(matrices, Mapping) else None
        if P is None or P.shape != shape or f"W.{layer}" not in matrices:
            instead = error or (
                f"P.{layer} of shape {tuple(P.shape)}" if P is not None else f"no P.{layer} and W.{layer}"
            )
            raise ValueError(
                f"sweep must have kept P.{layer} of the run's shape {tuple(shape)} and W.{layer} of every run, but at "
                f"{setting} there is {instead}; {works}"
            )
    return table
