"""Labs: sliders that retrain or replay a decomposition, for JupyterLab, Colab and Binder (core ipywidgets only).

Every lab draws on a Figure of its own, shows it through an image of fixed size so that the page never jumps, and
carries that picture as a static output too, for GitHub and for print. Work that takes long runs as an asyncio task
that gives way to the front end every few steps; a slider that moves again cancels the task instead of queueing.
"""

import asyncio
import time
from collections.abc import Callable, Iterator

import ipywidgets as w
import torch
from IPython.display import display
from torch import Tensor

from pd_helpers import metrics, plots
from pd_helpers.runs import Run, prepare
from pd_helpers.targets import TMS, TMSConfig, new_tms, tms_steps, train_tms

SETTLE = 0.15
"""Seconds a slider must rest before training starts: a drag passes through many values."""
SLICE = 0.03
"""Seconds of training between two looks at what the reader does."""
REDRAW = 0.6
"""Seconds between two pictures while training."""


N_SPARSITY = 2**14
"""Inputs on which the sparsity lab measures the error."""
_STYLE = {"description_width": "15em"}
_WIDE = w.Layout(width="34em", max_width="100%")


class Lab:
    """A column of controls, a picture, and a line of numbers; subclasses draw the picture and do the work.

    Attributes: figure (what is shown), alt (its description), widget (all of it, for display).
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
        self.figure.set_layout_engine("none")  # from the first picture on nothing moves, and drawing is quicker
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

    async def follow(self, steps: Iterator[int], total: int, draw: Callable[[], None]) -> None:
        """Take all of `steps` under the progress bar, drawing now and then, and giving way to the front end."""
        self.progress.description, self.progress.bar_style = "training", "info"
        self.progress.max, self.progress.value = total, 0
        looked = drawn = time.perf_counter()
        for done, _ in enumerate(steps):
            if time.perf_counter() - looked < SLICE:
                continue
            self.progress.value = done
            if time.perf_counter() - drawn > REDRAW:
                draw()
                drawn = time.perf_counter()
            await asyncio.sleep(0.001)
            looked = time.perf_counter()
        self.progress.description, self.progress.bar_style = "trained", "success"
        self.progress.value = total
        draw()

    def _ipython_display_(self) -> None:
        data, metadata = plots.bundle(self.figure, self.alt)
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display({"application/vnd.jupyter.widget-view+json": view, **data}, raw=True, metadata=metadata)


class MechanismLab(Lab):
    """Turn one mechanism of a trained toy model down and watch the output follow; instant.

    One feature is on. Its mechanism Z(c), column c of W and zeros elsewhere, is multiplied by a mask m between 0
    (ablated) and 1 (as trained); the sliders choose c, m, and which feature is on.

    >>> MechanismLab(pdh.train_tms(pdh.TMSConfig(), seed=0))
    """

    def __init__(self, target: TMS):
        if target.embed.out_features != 2 or target.identity is not None:
            raise ValueError("target must have two hidden dimensions and no identity layer; TMSConfig()'s has")
        self.target = target
        last = target.embed.in_features - 1
        self.mask = _slider("mask m of the mechanism", 1.0, 0.0, 1.0, 0.05, 2)
        self.component = _whole("mechanism c", 0, last)
        self.feature = _whole("feature that is on", 0, last)
        super().__init__([self.mask, self.component, self.feature], 8.0, 3.3, 1, 2)
        for control in (self.mask, self.component, self.feature):
            control.observe(lambda _: self.draw(), "value")
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
        plots.columns(arrows, W * masks).set_title(f"columns of W, column {c} times {m:.2f}", fontsize=10)
        plots.outputs(bars, masked, whole).set_title(f"output when only feature {feature} is on", fontsize=10)
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
        self.probability = w.SelectionSlider(
            description="feature probability p",
            options=self.PROBABILITIES,
            value=config.feature_probability,
            style=_STYLE,
            layout=_WIDE,
        )
        self.progress = _progress_bar()
        super().__init__([self.probability, self.progress], 8.0, 3.3, 1, 2)
        self.target = target or train_tms(config, seed, show_progress=False)
        self.draw()
        self.probability.observe(lambda _: self.replace_task(self._retrain), "value")

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        config = self.config.replace(feature_probability=self.probability.value)
        self.target = new_tms(config, self.seed)
        await self.follow(tms_steps(self.target, config, self.seed), config.target_steps, self.draw)

    @torch.no_grad()
    def draw(self) -> None:
        """Show the network as it now is."""
        W, b = self.target.embed.weight, self.target.unembed.bias
        arrows, heat = self.axes[0]
        for ax in self.axes[0]:
            ax.clear()
        p = self.probability.value
        plots.columns(arrows, W).set_title(f"columns of W, p = {p:g}", fontsize=10)
        plots.matrix(heat, W.T @ W, limit=1.5).set_title("WᵀW: what output i (row) gets from feature j", fontsize=10)
        kept = int((W.norm(dim=0) > 0.5).sum())
        x = self.config.replace(feature_probability=p).features()(N_SPARSITY, torch.Generator().manual_seed(0))
        error = torch.nn.functional.mse_loss(self.target(x), x).item() / p
        self.refresh(
            f'features represented (column longer than 0.5): <span class="pdh-kept">{kept}</span> of {W.shape[1]} · '
            f"error / p = {error:.4f} · bias from {b.min():.2f} to {b.max():.2f}",
            f"Columns of W trained at feature probability {p:g}, and the matrix WᵀW: {kept} of {W.shape[1]} features "
            "have a column longer than 0.5.",
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
        self.simplicity_coeff = _slider("simplicity λ_S", config.simplicity_coeff, 0.0, 2.0, 0.1, 1)
        self.schatten_p = _slider("Schatten exponent p_S", config.schatten_p, 0.5, 1.5, 0.1, 1)
        self.top_k = _slider("top-k per input", config.top_k, 0.061, 0.461, 0.05, 3)
        self.step = w.SelectionSlider(
            description="training step",
            options=[s.step for s in run.snapshots],
            value=run.snapshots[-1].step,
            style=_STYLE,
            layout=_WIDE,
        )
        self.progress = _progress_bar()
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
        run = self._prepare()
        total = run.config.steps + len(run.alternatives) * run.config.start_steps
        await self.follow(run.steps(), total, lambda: self._picture(*_first_layer(run), run.state.step))
        self._show_all_of(run)

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
        steps = [s.step for s in self.run.snapshots]
        if tuple(self.step.options) != tuple(steps):
            self.step.options = steps
        self.step.value = steps[-1]
        self.draw()

    def _picture(self, P: Tensor, W: Tensor, step: int) -> None:
        target, parts, total = self.axes[0]
        for ax in (parts, total):
            ax.clear()
        if not target.lines:
            plots.columns(target, W).set_title("target: columns of W", fontsize=10)
        plots.columns(parts, W, labels=False, colors=["0.8"] * W.shape[1], width=5.0)
        for c in range(len(P)):
            plots.columns(parts, P[c], labels=False, colors=[plots.color(c)] * W.shape[1])
        parts.set_title("components, one colour each", fontsize=10)
        plots.columns(total, W, labels=False, colors=["0.8"] * W.shape[1], width=5.0)
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


def _slider(description: str, value: float, low: float, high: float, step: float, digits: int) -> w.FloatSlider:
    return w.FloatSlider(
        description=description,
        value=value,
        min=low,
        max=high,
        step=step,
        readout_format=f".{digits}f",
        style=_STYLE,
        layout=_WIDE,
    )


def _whole(description: str, value: int, high: int) -> w.IntSlider:
    return w.IntSlider(description=description, value=value, min=0, max=high, style=_STYLE, layout=_WIDE)


def _progress_bar() -> w.IntProgress:
    bar = w.IntProgress(description="trained", value=1, max=1, bar_style="success", style=_STYLE, layout=_WIDE)
    bar.add_class("pdh-progress")
    return bar


def _first_layer(run: Run) -> tuple[Tensor, Tensor]:
    P, W = run.first_layer
    return P.cpu(), W.cpu()
