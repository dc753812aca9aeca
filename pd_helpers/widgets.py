"""Labs: sliders that retrain or replay a decomposition, for JupyterLab, Colab and Binder (core ipywidgets only).

Every lab draws on a Figure of its own, shows it through an image of fixed size so that the page never jumps, and
carries that picture as a static output too, for GitHub and for print. Work that takes long runs as an asyncio task
that gives way to the front end every few steps; a slider that moves again cancels the task instead of queueing.
"""

import asyncio
import time
from collections.abc import Callable

import ipywidgets as w
import torch
from IPython.display import display
from torch import Tensor

from pd_helpers import metrics, plots
from pd_helpers.runs import Run, prepare
from pd_helpers.targets import TMS

SETTLE = 0.15
"""Seconds a slider must rest before training starts: a drag passes through many values."""
SLICE = 0.03
"""Seconds of training between two looks at what the reader does."""
REDRAW = 0.6
"""Seconds between two pictures while training."""


class Lab:
    """A column of controls, a picture, and a line of numbers; subclasses draw the picture and do the work.

    Attributes: figure (what is shown), alt (its description), readout (HTML shown below it).
    """

    def __init__(self, controls: list[w.Widget], width: float, height: float, rows: int = 1, columns: int = 1):
        self.figure, self.axes = plots.figure(width, height, rows, columns)
        self.alt = ""
        self._image = w.Image(
            format="png",
            layout=w.Layout(width=f"{width * plots.DPI:.0f}px", max_width="100%", height="auto", object_fit="contain"),
        )
        self._image.add_class("pdh-picture")
        self._numbers = w.HTML(layout=w.Layout(min_height="2.2em"))
        self._numbers.add_class("pdh-readout")
        self._caption = w.HTML()
        self._task: asyncio.Task | None = None
        self.widget = w.VBox([*controls, self._numbers, self._image, self._caption])

    def refresh(self, readout: str, alt: str) -> None:
        """Show the figure as it now is, with its numbers and its description."""
        self.alt = alt
        self._image.value = plots.png(self.figure)
        self._numbers.value = readout
        self._caption.value = plots.caption(alt)

    def replace_task(self, work: Callable) -> None:
        """Cancel what is running and start `work()`, a coroutine; where no event loop runs, work to the end now."""
        if self._task is not None:
            self._task.cancel()
        try:
            self._task = asyncio.get_running_loop().create_task(work())
        except RuntimeError:
            asyncio.run(work())

    def _ipython_display_(self) -> None:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display(
            {
                "application/vnd.jupyter.widget-view+json": view,
                "image/png": self._image.value,
                "text/plain": self.alt,
            },
            raw=True,
            metadata={"image/png": {"alt": self.alt, "width": round(self.figure.get_figwidth() * plots.DPI)}},
        )


class ShrinkageLab(Lab):
    """APD on a toy model with two hidden dimensions: watch components shrink as λ_S grows, training live.

    Moving λ_S, p_S or top-k trains anew from the same seed, on the same target; the step slider replays the
    training just seen. Grey arrows are the target's columns, coloured ones those of the components.

    >>> ShrinkageLab(pdh.run("apd/tms_5-2"))
    """

    def __init__(self, run: Run):
        if not isinstance(run.target, TMS) or run.target.embed.out_features != 2 or run.importance is not None:
            raise ValueError(
                "run must be an APD run on a toy model with two hidden dimensions; pdh.run('apd/tms_5-2') is"
            )
        self.run = run
        config = run.config
        style = {"description_width": "15em"}
        wide = w.Layout(width="34em", max_width="100%")

        def slider(description: str, value: float, low: float, high: float, step: float, digits: int) -> w.FloatSlider:
            return w.FloatSlider(
                description=description,
                value=value,
                min=low,
                max=high,
                step=step,
                readout_format=f".{digits}f",
                style=style,
                layout=wide,
            )

        self.simplicity_coeff = slider("simplicity λ_S", config.simplicity_coeff, 0.0, 2.0, 0.1, 1)
        self.schatten_p = slider("Schatten exponent p_S", config.schatten_p, 0.5, 1.5, 0.1, 1)
        self.top_k = slider("top-k per input", config.top_k, 0.061, 0.461, 0.05, 3)
        self.step = w.SelectionSlider(
            description="training step",
            options=[s.step for s in run.snapshots],
            value=run.snapshots[-1].step,
            style=style,
            layout=wide,
            continuous_update=True,
        )
        self.progress = w.IntProgress(description="trained", value=1, max=1, style=style, layout=wide)
        self.progress.add_class("pdh-progress")
        super().__init__([self.simplicity_coeff, self.schatten_p, self.top_k, self.step, self.progress], 9.0, 3.3, 1, 3)
        self.draw()
        for control in (self.simplicity_coeff, self.schatten_p, self.top_k):
            control.observe(lambda _: self.replace_task(self._retrain), "value")
        self.step.observe(lambda _: self.draw(), "value")

    def train(self, **overrides: float) -> Run:
        """What moving a slider does, without a front end: train with these settings and show the result."""
        run = self._prepare(**overrides)
        for _ in run.steps():
            pass
        self._show_all_of(run)
        return run

    def draw(self) -> None:
        """Show the step that the step slider is at."""
        snapshot = next(s for s in self.run.snapshots if s.step == self.step.value)
        path, W = next(iter(self.run.components.targets.items()))
        self._picture(snapshot.P(path), W.cpu(), snapshot.step)

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        self.progress.description, self.progress.bar_style = "training", "info"
        started = self._prepare()
        config, extra = started.config, len(started.alternatives) * started.config.start_steps
        self.progress.max, self.progress.value = config.steps + extra, 0
        looked = drawn = time.perf_counter()
        for done, step in enumerate(started.steps()):
            now = time.perf_counter()
            if now - looked < SLICE:
                continue
            self.progress.value = done
            if now - drawn > REDRAW:
                P, W = started.first_layer
                self._picture(P.cpu(), W.cpu(), step)
                drawn = time.perf_counter()
            await asyncio.sleep(0.001)
            looked = time.perf_counter()
        self._show_all_of(started)

    def _prepare(self, **overrides: float) -> Run:
        """A run with the settings that the sliders show, at step 0."""
        settings = {
            "simplicity_coeff": self.simplicity_coeff.value,
            "schatten_p": self.schatten_p.value,
            "top_k": self.top_k.value,
            **overrides,
        }
        rest = {key: value for key, value in self.run.config.to_dict().items() if key not in settings}
        return prepare(self.run.name, self.run.seed, target=self.run, device=self.run.device, **rest, **settings)

    def _show_all_of(self, run: Run) -> None:
        self.run = run
        self.progress.description, self.progress.bar_style = "trained", "success"
        self.progress.value = self.progress.max
        steps = [s.step for s in self.run.snapshots]
        if tuple(self.step.options) != tuple(steps):
            self.step.options = steps
        self.step.value = steps[-1]
        self.draw()

    def _picture(self, P: Tensor, W: Tensor, step: int) -> None:
        target, parts, total = self.axes[0]
        for ax in self.axes[0]:
            ax.clear()
        plots.columns(target, W).set_title("target: columns of W", fontsize=10)
        plots.columns(parts, W, labels=False, colors=["0.8"] * W.shape[1], width=5)
        for c in range(len(P)):
            plots.columns(parts, P[c], labels=False, colors=[plots.color(c)] * W.shape[1])
        parts.set_title("components, one colour each", fontsize=10)
        plots.columns(total, W, labels=False, colors=["0.8"] * W.shape[1], width=5)
        plots.columns(total, P.sum(dim=0)).set_title("sum of the components", fontsize=10)
        mmcs, ml2r = metrics.mmcs(P, W), metrics.ml2r(P, W)
        faithfulness = torch.nn.functional.mse_loss(P.sum(dim=0), W).item()
        settings = (
            f"λ_S = {self.simplicity_coeff.value:.1f}, p_S = {self.schatten_p.value:.1f}, "
            f"top-k = {self.top_k.value:.3f}"
        )
        self.refresh(
            f'<b>ML2R = <span class="pdh-ml2r">{ml2r:.3f}</span></b> (length; paper 0.893 at λ_S = 0.7) · '
            f'<b>MMCS = <span class="pdh-mmcs">{mmcs:.3f}</span></b> (direction; paper 0.998) · '
            f"faithfulness {faithfulness:.1e} · step {step}",
            f"After {step} steps with {settings}: the five columns of W; the columns of each component, over those of "
            f"W in grey; and the sum of all components. Mean length ratio (ML2R) {ml2r:.3f}, mean max cosine (MMCS) "
            f"{mmcs:.3f}.",
        )
