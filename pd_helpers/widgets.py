"""Labs: sliders that retrain or replay a decomposition, for JupyterLab, Colab and Binder (core ipywidgets only).

Every lab draws on a Figure of its own, shows it through an image of fixed size so that the page never jumps, and
carries that picture as a static output too, for GitHub and for print. Work that takes long runs as an asyncio task
that gives way to the front end every few steps; a slider that moves again cancels the task instead of queueing.
"""

import asyncio
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import ipywidgets as w
import numpy as np
import torch
from IPython.display import display
from matplotlib.image import imsave
from torch import Tensor

from pd_helpers import metrics, plots
from pd_helpers.residual_mlp import ResidualMLP, labels
from pd_helpers.runs import Run, prepare
from pd_helpers.targets import TMS, TMSConfig, make_target

if TYPE_CHECKING:
    import pandas

SETTLE = 0.15
"""Seconds a slider must rest before training starts: a drag passes through many values."""
SLICE = 0.03
"""Seconds of training between two looks at what the reader does."""
REDRAW = 0.6
"""Seconds between two pictures while training."""


N_SPARSITY = 2**14
"""Inputs on which the sparsity lab measures the error."""
ROW = 32
"""Pixels that one control takes in height."""
_STYLE = {"description_width": "15em"}
_WIDE = w.Layout(width="34em", max_width="100%")


class Lab:
    """A column of controls, a picture, and a line of numbers; subclasses draw the picture and do the work.

    Attributes: figure (what is shown), alt (its description), widget (all of it, for display).
    """

    def __init__(self, controls: list[w.Widget], width: float, height: float, rows: int = 1, columns: int = 1):
        self.figure, self.axes = plots.figure(width, height, rows, columns)
        self.figure.set_facecolor("white")
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
        self.figure.canvas.draw()  # once, where savefig draws twice
        buffer = io.BytesIO()
        imsave(buffer, self.figure.canvas.buffer_rgba(), format="png", dpi=plots.DPI, pil_kwargs={"compress_level": 3})
        self._image.value = buffer.getvalue()
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

    >>> MechanismLab(pdh.make_target(pdh.TMSConfig(), seed=0))
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
        self.probability = _choice("feature probability p", self.PROBABILITIES, config.feature_probability)
        self.progress = _progress_bar()
        super().__init__([self.probability, self.progress], 8.0, 3.3, 1, 2)
        self.target = target or make_target(config, seed, show_progress=False)
        self.draw()
        self.probability.observe(lambda _: self.replace_task(self._retrain), "value")

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        config = self.config.replace(feature_probability=self.probability.value)
        self.target = config.new(self.seed)
        await self.follow(config.train(self.target, self.seed), config.target_steps, self.draw)

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


class ResponseLab(Lab):
    """Give one feature of a residual MLP a value; see all outputs, and what each neuron adds to its own; instant.

    >>> ResponseLab(pdh.make_target(pdh.ResidualMLPConfig(), seed=0))
    """

    def __init__(self, target: ResidualMLP, feature: int = 0):
        if not isinstance(target, ResidualMLP) or len(target.W_U) != target.n_features:
            raise ValueError("target must be a ResidualMLP with as many outputs as inputs; ResidualMLPConfig()'s is")
        self.target = target.narrow()[0].cpu()
        self.feature = _whole("feature that is on", 0, target.n_features - 1)
        self.feature.value = feature
        self.value = _slider("its value", 1.0, -1.0, 1.0, 0.05, 2)
        super().__init__([self.feature, self.value], 9.0, 3.3, 1, 2)
        largest = max(
            ((self.target.W_U @ mlp.W_out.weight) * (mlp.W_in.weight @ self.target.W_E).T).max().item()
            for mlp in self.target.mlps
        )
        places, neurons = np.arange(target.n_features), np.arange(target.n_neurons)
        outputs, bars = self.axes[0]
        [self._others] = outputs.plot(places, np.zeros(len(places)), "o", color=plots.color(0), ms=4, label="output")
        [self._labels] = outputs.plot([], [], "x", color=plots.color(3), ms=4, mew=1, label="label")
        [self._own] = outputs.plot([], [], "o", ms=12, mfc="none", mec="0.1", mew=1.5, label="its own")
        outputs.set(xlabel="output", ylabel="value", xlim=(-2, len(places) + 1), ylim=(-1.25, 2.15))
        outputs.legend(frameon=False, fontsize=8, ncols=3, loc="lower center")
        marks = {"marker": "_", "ms": 7, "mew": 1.6, "color": "0.25", "ls": "none"}
        [self._contributions] = bars.plot(neurons, np.zeros(len(neurons)), label="contribution", **marks)
        self._added = bars.vlines(neurons, 0, 1, color=plots.color(1), lw=4, label="added at this value")
        for boundary in np.cumsum([mlp.W_in.out_features for mlp in target.mlps])[:-1]:
            bars.axvline(boundary - 0.5, color="0.4", ls=":", lw=1)
        bars.set(xlabel="neuron", ylabel="what it adds to that output", ylim=(-0.3 * largest, 1.25 * largest))
        bars.axhline(0, color="0.2", lw=0.8)
        bars.legend(frameon=False, fontsize=8, loc="upper right")
        for ax in self.axes[0]:
            ax.set_title(" ", fontsize=10)
            ax.spines[["top", "right"]].set_visible(False)
        for control in (self.feature, self.value):
            control.observe(lambda _: self.draw(), "value")
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """Show the network at this input."""
        net, i, value = self.target, self.feature.value, self.value.value
        x = value * torch.eye(net.n_features)[[i]]
        s, added, contributions = x @ net.W_E.T, [], []
        for mlp in net.mlps:
            h, write = torch.relu(mlp.W_in(s))[0], net.W_U[i] @ mlp.W_out.weight
            added.append(write * h)
            contributions.append(write * (mlp.W_in.weight @ net.W_E[:, i]))
            s = s + mlp(s)
        y, wanted, added, contributions = (s @ net.W_U.T)[0], labels(x)[0], torch.cat(added), torch.cat(contributions)
        self._others.set_ydata(y)
        self._labels.set_data(range(len(y)), wanted)
        self._own.set_data([i], [y[i]])
        self._contributions.set_ydata(contributions)
        self._added.set_segments([[(n, 0.0), (n, height)] for n, height in enumerate(added.tolist())])
        outputs, bars = self.axes[0]
        outputs.title.set_text(f"feature {i} is {value:.2f}, the others 0")
        bars.title.set_text(f"neurons and output {i}")
        others = torch.cat([y[:i], y[i + 1 :]])
        top = ", ".join(str(n) for n in added.abs().topk(3).indices.tolist() if added[n] != 0) or "none"
        self.refresh(
            f'output {i} = <span class="pdh-output">{y[i]:.3f}</span>, label {wanted[i]:.3f} · all neurons together '
            f"add {added.sum():.3f} · the largest: {top}",
            f"With feature {i} at {value:.2f} and the others at 0, output {i} is {y[i]:.2f} where the label is "
            f"{wanted[i]:.2f}, and the other outputs lie between {others.min():.2f} and {others.max():.2f}. All "
            f"neurons together add {added.sum():.2f} to output {i}.",
        )


class ShrinkageLab(Lab):
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
    >>> ShrinkageLab(run, pdh.sweep("apd/tms_5-2", grid, target=run, keep=pd_helpers.shipping.end_state))
    """

    FIELDS: ClassVar = {
        "simplicity_coeff": "simplicity λ_S",
        "schatten_p": "Schatten exponent p_S",
        "top_k": "top-k per input",
    }
    """What the sliders set, and their labels."""

    def __init__(self, run: Run, sweep: "pandas.DataFrame | None" = None):
        if not isinstance(run.target, TMS) or run.target.embed.out_features != 2 or run.importance is not None:
            raise ValueError(
                "run must be an APD run on a toy model with two hidden dimensions; pdh.run('apd/tms_5-2') is"
            )
        self.run, config, labels = run, run.config, self.FIELDS
        self._path = next(iter(run.components.layers))
        self.simplicity_coeff = _slider(labels["simplicity_coeff"], config.simplicity_coeff, 0.0, 2.0, 0.1, 1)
        self.schatten_p = _slider(labels["schatten_p"], config.schatten_p, 0.5, 1.5, 0.1, 1)
        self.top_k = _slider(labels["top_k"], config.top_k, 0.061, 0.461, 0.05, 3)
        steps = [s.step for s in run.snapshots]
        self.step = _choice("training step", steps, steps[-1])
        self.progress = _progress_bar()
        live = [self.simplicity_coeff, self.schatten_p, self.top_k, self.step, self.progress]
        controls, self.mode, self.grid = live, None, {}
        if sweep is not None:
            self._table = _by_setting(sweep, list(labels), self._path, run.first_layer[0].shape)
            for level in self._table.index.levels:
                nearest = min(level, key=lambda value: abs(value - getattr(config, level.name)))
                self.grid[level.name] = _choice(labels[level.name], list(level), nearest)
            self.mode = w.ToggleButtons(
                options=[("instant: look up a run", "instant"), ("live: train one", "live")],
                style={"button_width": "auto"},
            )
            note = w.HTML(f"{len(sweep)} runs, trained beforehand; moving a slider looks one up.")
            self._sliders = {"instant": [*self.grid.values(), note], "live": live}
            # as tall as the taller of the two, so that the page does not jump
            self._stack = w.VBox(self._sliders["instant"], layout=w.Layout(min_height=f"{ROW * len(live)}px"))
            controls = [self.mode, self._stack]
        super().__init__(controls, 9.0, 3.3, 1, 3)
        self._panels = _ShrinkagePanels(self.axes[0], config.C, run.target.embed.in_features)
        self.draw()
        for control in (self.simplicity_coeff, self.schatten_p, self.top_k):
            control.observe(lambda _: self.replace_task(self._retrain), "value")
        for control in (self.step, *self.grid.values()):
            control.observe(lambda _: self.draw(), "value")
        if self.mode is not None:
            self.mode.observe(lambda _: self._switch(), "value")

    @property
    def is_live(self) -> bool:
        """Whether the sliders train; otherwise they look up a row of the sweep."""
        return self.mode is None or self.mode.value == "live"

    def train(self, **overrides: float) -> Run:
        """What a slider does in live mode, without a front end: train with these settings and show the result."""
        run = self._prepare(**overrides)
        for _ in run.steps():
            pass
        self._show_all_of(run)
        return run

    def draw(self) -> None:
        """Show what the sliders are at: a row of the sweep or, in live mode, a training step."""
        if self.is_live:
            snapshot = next(s for s in self.run.snapshots if s.step == self.step.value)
            self._draw_step(self.run, snapshot.P(self._path), snapshot.step)
            return
        settings = {field: slider.value for field, slider in self.grid.items()}
        kept = self._table.at[tuple(settings.values()), "kept"]
        curve = self._table.xs((settings["schatten_p"], settings["top_k"]), level=["schatten_p", "top_k"])
        self._picture(kept[f"P.{self._path}"], kept[f"W.{self._path}"], settings, curve[["mmcs", "ml2r"]])

    def _draw_step(self, run: Run, P: Tensor, step: int) -> None:
        settings = {field: getattr(run.config, field) for field in self.FIELDS}
        W = run.components.targets[self._path].cpu()
        curve = run.history.reindex(columns=["step", "mmcs", "ml2r"]).set_index("step")
        self._picture(P, W, settings, curve, (step, run.config.steps))

    async def _retrain(self) -> None:
        await asyncio.sleep(SETTLE)
        run = self._prepare()
        await self.follow(
            run.steps(), run.remaining, lambda: self._draw_step(run, _first_layer(run)[0], run.state.step)
        )
        self._show_all_of(run)

    def _prepare(self, **overrides: float) -> Run:
        """A run with the settings that the sliders of live mode show, at step 0."""
        settings = {**{field: getattr(self, field).value for field in self.FIELDS}, **overrides}
        rest = {key: value for key, value in self.run.config.to_dict().items() if key not in settings}
        return prepare(self.run.name, self.run.seed, target=self.run, device=self.run.device, **rest, **settings)

    def _show_all_of(self, run: Run) -> None:
        self.run = run
        steps = [s.step for s in self.run.snapshots]
        if tuple(self.step.options) != tuple(steps):
            self.step.options = steps
        self.step.value = steps[-1]
        self.draw()

    def _switch(self) -> None:
        """Go over to the other mode; what was being trained is given up, and begun again on return."""
        if self._task is not None:
            self._task.cancel()
        self._stack.children = self._sliders[self.mode.value]
        if self.is_live and any(getattr(self, field).value != getattr(self.run.config, field) for field in self.FIELDS):
            self.replace_task(self._retrain)
        else:
            self.draw()

    def _picture(
        self,
        P: Tensor,
        W: Tensor,
        settings: Mapping[str, float],
        curve: "pandas.DataFrame",
        steps: tuple[int, int] | None = None,
    ) -> None:
        """Show components P of W and the curve of the scores; `steps` are the one shown and all there are."""
        self._panels.draw(P, W, settings, curve, steps)
        mmcs, ml2r = metrics.mmcs(P, W), metrics.ml2r(P, W)
        faithfulness = torch.nn.functional.mse_loss(P.sum(dim=0), W).item()
        told = (
            f"λ_S = {settings['simplicity_coeff']:g}, p_S = {settings['schatten_p']:g}, top-k = {settings['top_k']:g}"
        )
        when, against = (f" after {steps[0]} steps", "the training step") if steps else ("", "λ_S")
        self.refresh(
            f'<b>ML2R = <span class="pdh-ml2r">{ml2r:.3f}</span></b> (length; paper 0.893 at λ_S = 0.7) · '
            f'<b>MMCS = <span class="pdh-mmcs">{mmcs:.3f}</span></b> (direction; paper 0.998) · '
            f"faithfulness {faithfulness:.1e}{f' · step {steps[0]}' if steps else ''}",
            f"With {told}{when}: the columns of each component, and of the sum of all components, over those of W in "
            f"grey; and both scores against {against}. Mean length ratio (ML2R) {ml2r:.3f}, mean max cosine (MMCS) "
            f"{mmcs:.3f}.",
        )


class _ShrinkagePanels:
    """The shrinkage lab's picture: its parts are drawn once and then moved, which is what makes it quick."""

    PAPER: ClassVar = {"simplicity_coeff": 0.7, "schatten_p": 1.0, "top_k": 0.211, "ml2r": 0.893}

    def __init__(self, axes: np.ndarray, C: int, n_features: int):
        parts, total, scores = axes
        for ax, title in ((parts, "components, one colour each"), (total, "sum of the components")):
            plots.columns(ax, torch.zeros(2, 0)).set_title(title, fontsize=10)
        self.target = [plots.Arrows(ax, "0.8", width=5.0) for ax in (parts, total)]
        self.parts = [plots.Arrows(parts, plots.color(c)) for c in range(C)]
        self.total = plots.Arrows(total, "0.2")
        self.numbers = [total.text(0, 0, str(j), ha="center", va="center", fontsize=9) for j in range(n_features)]
        self.scores, paper = scores, (self.PAPER["simplicity_coeff"], self.PAPER["ml2r"])
        self.lines = {
            "mmcs": scores.plot([], [], color=plots.color(2), ms=4, label="MMCS (direction)")[0],
            "ml2r": scores.plot([], [], "--", color=plots.color(1), ms=4, label="ML2R (length)")[0],
        }
        self.here = scores.plot([], [], "o", ms=10, mfc="none", mec="0.1", mew=1.5)[0]
        offset = {"xytext": (7, 2), "textcoords": "offset points", "fontsize": 8}
        self.paper = [*scores.plot(*paper, "k*", ms=7), scores.annotate("paper", paper, **offset)]
        scores.set_title("scores", fontsize=10)
        scores.set(xlabel="here", ylim=(0, 1.15))
        scores.tick_params(labelsize=8, length=2)
        scores.spines[["top", "right"]].set_visible(False)
        scores.legend(fontsize=8, frameon=False, loc="lower right")

    def draw(
        self,
        P: Tensor,
        W: Tensor,
        settings: Mapping[str, float],
        curve: "pandas.DataFrame",
        steps: tuple[int, int] | None,
    ) -> None:
        """Move everything. `curve` has the scores by λ_S or, where `steps` are (the one shown, all), by step."""
        for arrows in self.target:
            arrows.move(W)
        for arrows, component in zip(self.parts, P, strict=True):
            arrows.move(component)
        self.total.move(P.sum(dim=0))
        for number, column in zip(self.numbers, W.T, strict=True):
            number.set_position(((1 + 0.2 / column.norm().clamp(min=0.2)) * column).tolist())
        for name, line in self.lines.items():
            line.set_data(curve.index, curve[name])
            line.set_marker("" if steps else "o")
        at, end = steps or (settings["simplicity_coeff"], curve.index.max())
        self.here.set_data([at], [metrics.ml2r(P, W)])
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
            f"(keep=pd_helpers.shipping.end_state), but lacks {', '.join(lacks)}; {works}"
        )
    table = sweep.set_index(list(fields)).sort_index()
    if len(table) != math.prod(map(len, table.index.levels)) or table.index.has_duplicates:
        raise ValueError(
            f"sweep must have exactly one run for every combination of its {', '.join(fields)}; of several seeds "
            f"take one, as in sweep.query('seed == 0')"
        )
    for setting, error, kept in zip(table.index, table["error"], table["kept"], strict=True):
        found = kept.get(f"P.{layer}") if isinstance(kept, Mapping) else None
        if found is None or found.shape != shape or f"W.{layer}" not in kept:
            what = error or (
                f"P.{layer} of shape {tuple(found.shape)}" if found is not None else f"no P.{layer} and W.{layer}"
            )
            raise ValueError(
                f"sweep must have kept P.{layer} of the run's shape {tuple(shape)} and W.{layer} of every run, but at "
                f"{setting} there is {what}; {works}"
            )
    return table


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


def _choice(description: str, options: Sequence[float], value: float) -> w.SelectionSlider:
    return w.SelectionSlider(description=description, options=options, value=value, style=_STYLE, layout=_WIDE)


def _whole(description: str, value: int, high: int) -> w.IntSlider:
    return w.IntSlider(description=description, value=value, min=0, max=high, style=_STYLE, layout=_WIDE)


def _progress_bar() -> w.IntProgress:
    bar = w.IntProgress(description="trained", value=1, max=1, bar_style="success", style=_STYLE, layout=_WIDE)
    bar.add_class("pdh-progress")
    return bar


def _first_layer(run: Run) -> tuple[Tensor, Tensor]:
    P, W = run.first_layer
    return P.cpu(), W.cpu()
